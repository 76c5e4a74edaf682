import dataclasses
import json
import math

import pytest
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking import verify
from twolayer.cli import app
from twolayer.machine import hardware
from twolayer.machine.calm import Calm, Watch
from twolayer.machine.store import Store
from twolayer.measuring import race, roofline, startup
from twolayer.measuring.race import Entry, Result, Workload
from twolayer.measuring.roofline import Roofline
from twolayer.measuring.startup import Start
from twolayer.report import figures, gather, page, study

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

NAMES = ("numpy", "numba-loops", "numba-fused")
# Seconds of an epoch: a call's own, and per multiply-add.
COSTS = {"numpy": (4e-5, 2e-10), "numba-loops": (2e-6, 7e-11), "numba-fused": (5e-6, 5e-11)}
BUSY = Calm(9.0, others=0.5)
STARTS = {"numpy": Start(0.5, 0.4), "numba-loops": Start(9.0, 1.2), "numba-fused": Start(20.0, 1.0)}


def seconds(name, shape):
    call, work = COSTS[name]
    return call + work * shape.flops()


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Stand-ins for all that measures; what they were asked for."""
    asked = []

    def raced(result, field, **options):
        asked.append(("race", result.workload.shape, [variant.name for variant in field]))
        for variant in field:
            entry = Entry(variant)
            if variant.name == "numpy" and result.workload.shape.d == 300:
                entry.skipped = "would take 3 s an epoch, the limit is 0.1 s"
            else:
                middle = seconds(variant.name, result.workload.shape)
                entry.blocks = [0.99 * middle, middle, 1.01 * middle]
            result.entries.append(entry)

    def started(variant, *arguments):
        asked.append(("start", variant.name))
        return STARTS[variant.name]

    def checked(variant, net, dtype, threads):
        asked.append(("check", variant.name, dtype))
        yield verify.Agreement(variant.name, net, "a case", tl.Shape(2, 3, 4, 1), dtype, 0.25, "L")

    monkeypatch.setattr(race, "race", raced)
    monkeypatch.setattr(roofline, "probe", lambda *_, **__: Roofline(1e11, 1e10))
    monkeypatch.setattr(startup, "start", started)
    monkeypatch.setattr(verify, "verify", checked)
    monkeypatch.setenv("TWOLAYER_STORE", str(tmp_path / "store.sqlite"))
    return asked


def gathered(names=NAMES, net=None, **options):
    field = [tl.variants.get(name) for name in names]
    with Store() as store:
        return gather.Gathering(net or tl.Network(), "float32", 1, field, store, **options).run()


def made(**costs):
    """A result with those seconds by variant."""
    result = Result(Workload(tl.Network(), study.BASE), 1, Roofline(1e11, 1e10))
    for name, blocks in costs.items():
        variant = tl.Variant(name, "cpu", "", None)
        result.entries.append(
            Entry(variant, blocks=[blocks] * 6 if isinstance(blocks, float) else blocks)
        )
    return result


def test_the_lead_is_the_seconds_time_over_the_fastests():
    assert figures.lead(made(a=2.0, b=1.0)) == ("b", "2.00")
    assert figures.lead(made(a=20.0, b=1.0)) == ("b", "20")
    tie = made(a=[1.1] * 5 + [0.9], b=1.0)
    assert figures.lead(tie) == ("b", "≈1.10")
    tie.calm = BUSY
    assert figures.lead(tie) == ("b", "≈1.10 †")
    assert figures.lead(made(a=1.0)) == ("a", "–")
    assert figures.lead(made()) == ("", "–")


def test_contenders_came_close_once():
    results = [made(a=1.0, b=5.0, c=1.4), made(a=3.0, b=2.9, c=99.0, d=6.0)]
    assert [variant.name for variant in study.contenders(results)] == ["a", "c", "b"]


def test_every_problem_is_raced_once_and_a_map_by_contenders(measured):
    found = gathered()
    races = [one for one in measured if one[0] == "race"]
    shapes = [shape for _, shape, _ in races]
    assert len(shapes) == len(set(shapes))
    assert len(races) == len(found.results)
    assert {"numba-loops", "numba-fused"} == set(races[-1][2])
    assert sum(one[0] == "start" for one in measured) == len(NAMES)
    assert sum(one[0] == "check" for one in measured) == 2 * len(NAMES)
    assert {result.workload.shape for result in found.swept} >= {study.BASE}
    assert len(found.roofed) == len(study.ROOFED)


def test_what_was_measured_is_taken_from_the_store(measured):
    first = gathered()
    asked = len(measured)
    second = gathered()
    assert len(measured) == asked
    assert page.render(second, "m", "d", "c") == page.render(first, "m", "d", "c")
    gathered(NAMES[1:])  # fewer variants have been raced, too
    assert len(measured) == asked


def test_what_something_disturbed_is_marked_kept_and_measured_again_where_asked(
    measured, monkeypatch
):
    raced, met, waited = race.race, [BUSY], []

    def race_beside_others(result, field, **options):
        raced(result, field, **options)
        result.calm = met[0] if result.workload.shape.n == 300 else Calm()

    monkeypatch.setattr(race, "race", race_beside_others)
    monkeypatch.setattr(Watch, "calm", lambda watch: met[0])
    gathered()
    asked = len(measured)
    found = gathered()  # from the store
    assert len(measured) == asked
    sentence = next(iter(page.summary(found)))
    count = len(found.results)
    assert sentence.startswith(
        f"† measured while other programs kept 0.5 CPUs busy: 1 of {count} problems. "
    )
    assert "numpy †" in page.render(found, "m", "d", "c")  # the start of a process
    met[0] = Calm()
    found = gathered(calm=lambda: waited.append(1), again=True)
    again = [one[:2] for one in measured[asked:]]
    assert again[0][1].n == 300
    assert again[1:] == [("start", name) for name in NAMES]
    assert len(waited) == len(again)
    assert "†" not in page.render(found, "m", "d", "c")


def test_an_interrupted_run_goes_on(measured, monkeypatch):
    raced = race.race

    def interrupted(result, field, **options):
        if len(measured) == 7:
            raise KeyboardInterrupt
        raced(result, field, **options)

    monkeypatch.setattr(race, "race", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gathered()
    monkeypatch.setattr(race, "race", raced)
    gathered()
    shapes = [one[1] for one in measured if one[0] == "race"]
    assert len(shapes) == len(set(shapes))


@pytest.mark.parametrize("what", ["sources", "threads", "variants", "files", "dtype"])
def test_what_is_stale_is_measured_anew(measured, monkeypatch, tmp_path, what):
    names, options = NAMES[1:], {}
    gathered(names)
    asked = len(measured)
    if what == "sources":
        changed = hardware.signature() | {"sources": "changed"}
        monkeypatch.setattr(hardware, "signature", lambda: changed)
    elif what == "variants":
        names = NAMES
    elif what == "files":
        options["files"] = [tmp_path / "mine.py"]
        options["files"][0].write_text("changed")
    field = [tl.variants.get(name) for name in names]
    dtype, threads = "float64" if what == "dtype" else "float32", 2 if what == "threads" else 1
    with Store() as store:
        found = gather.Gathering(tl.Network(), dtype, threads, field, store, **options).run()
    assert sum(one[0] == "race" for one in measured[asked:]) >= len(found.swept)


@pytest.mark.parametrize("kind", ["race", "start", "check"])
def test_a_failure_that_may_pass_is_tried_again(measured, monkeypatch, kind):
    raced, passing = race.race, [True]

    def race_that_fails(result, field, **options):
        raced(result, field, **options)
        if passing and kind == "race":
            result.entries[-1].fail(MemoryError("another job ran"))

    def check_that_fails(variant, net, dtype, threads):
        measured.append(("check", variant.name, dtype))
        failure = "MemoryError: for a moment" if passing and kind == "check" else ""
        yield verify.Agreement(variant.name, net, "c", study.BASE, dtype, 0.0, failure=failure)

    def start_that_fails(variant, *arguments):
        measured.append(("start", variant.name))
        return Start(failure="killed") if passing and kind == "start" else STARTS[variant.name]

    monkeypatch.setattr(race, "race", race_that_fails)
    monkeypatch.setattr(startup, "start", start_that_fails)
    monkeypatch.setattr(verify, "verify", check_that_fails)
    gathered(NAMES[1:])
    for passed in (False, True):
        asked = len(measured)
        gathered(NAMES[1:])
        again = {what for what, *_ in measured[asked:]}
        assert again == ({kind} if not passed else set())
        passing.clear()
        gathered(NAMES[1:])


def test_the_higher_roof_holds_for_all(measured, monkeypatch):
    gathered()
    monkeypatch.setattr(roofline, "probe", lambda *_, **__: Roofline(5e10, 3e10))
    found = gathered()
    assert found.roof == Roofline(1e11, 3e10)
    assert {result.roof for result in found.results} == {found.roof}


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_every_loss_has_a_report(measured, loss):
    found = gathered(net=tl.Network(loss=loss))
    assert ("K" in found.sweeps) == (loss != "logistic")
    assert "scaling-n" in page.render(found, "m", "d", "c")


def test_the_page_says_what_was_found(measured):
    found = gathered(
        (*NAMES, "cuda-samples") if tl.variants.get("cuda-samples").unavailable() else NAMES
    )
    text = page.render(found, "a machine", "2030-01-02T03:04", "twolayer report <x>")
    assert "a machine" in text
    assert "twolayer report &lt;x&gt;" in text
    reign = found.reigns(cached=True)
    assert [one.variant for one in reign] == ["numpy", "numba-fused"]
    slow, fast = (COSTS[one.variant] for one in reign)
    flops = study.BASE.flops()
    gain = slow[0] - fast[0] + (slow[1] - fast[1]) * flops
    assert reign[1].epochs == 2 + math.floor((1.0 - 0.4) / gain)
    assert f"numba-fused from {reign[1].epochs} epochs on" in text
    assert "largest error is 0.25 of its bound" in text
    assert "numpy: too slow (" in text
    for named in figures.figures(found):
        assert f'<figure id="{named.name}"><svg role="img" aria-label="{named.label}"' in text


def test_a_wrong_variant_is_called_wrong(measured, monkeypatch):
    def checked(variant, net, dtype, threads):
        yield verify.Agreement(variant.name, net, "c", study.BASE, dtype, math.inf, failure="broke")

    monkeypatch.setattr(verify, "verify", checked)
    found = gathered(NAMES[:1])
    assert "Wrong: numpy." in page.render(found, "m", "d", "c")


def test_a_start_counts_from_the_start_of_python():
    workload = Workload(tl.Network(), tl.Shape(20, 3, 4, 2))
    found = startup.start(tl.variants.get("numpy"), workload, 1)
    assert found.failure == ""
    assert min(found.cold, found.cached) > 0.01  # an import of NumPy alone takes longer
    unknown = dataclasses.replace(tl.variants.get("numpy"), name="numpi")
    assert "expected one of" in startup.start(unknown, workload, 1).failure


def test_a_start_knows_variants_of_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import twolayer as tl\n"
        "VARIANT = tl.Variant('mine', 'cpu', '', tl.variants.get('numpy').make)\n"
    )
    mine = dataclasses.replace(tl.variants.get("numpy"), name="mine")
    assert startup.start(mine, Workload(tl.Network(), tl.Shape(9, 2, 3, 1)), 1, [file]).cached


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_the_command_writes_all_that_was_asked_for(measured, tmp_path):
    html, figures_json, readme = (tmp_path / name for name in ("r.html", "r.json", "README.md"))
    readme.write_text("before\n<!-- report:start -->\nold\n<!-- report:end -->\nafter\n")
    plots = tmp_path / "plots"
    plots.mkdir()
    shown = run(
        html, "--variants", ",".join(NAMES), "--threads", 1, "--json", figures_json,
        "--plots", plots, "--readme", readme,
    ).stdout  # fmt: skip
    assert html.read_text().startswith("<!doctype html>")
    names = {path.name for path in plots.iterdir()}
    assert names == {
        *(f"scaling-{axis}.svg" for axis in "ndMK"), "winners-n-M.svg", "winners-d-M.svg",
        "roofline.svg", "total-cached.svg", "total-cold.svg", "accuracy.svg",
    }  # fmt: skip
    text = readme.read_text()
    assert text.startswith("before\n<!-- report:start -->\n")
    assert text.endswith("<!-- report:end -->\nafter\n")
    assert "](plots/winners-n-M.svg)" in text
    assert text.count(".svg)") == 2
    found = json.loads(figures_json.read_text())
    assert found["exponents"]["n"]["numba-fused"]["exponent"] == pytest.approx(1, abs=0.1)
    start = {"cold": 0.5, "cached": 0.4, "failure": "", "calm": Calm(1.0).report()}
    assert found["starts"]["numpy"] == start
    assert found["least_in_all"]["cached"][0] == {"variant": "numpy", "epochs": 1}
    assert len(found["winners"]) == sum(len(x) * len(y) for x, y in study.MAPS.values())
    assert {one["ratio"] for one in found["accuracy"]} == {0.25}
    assert len(found["workloads"]) == len(
        {(w["n"], w["d"], w["M"], w["K"]) for w in found["workloads"]}
    )
    assert "numba-fused from" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["r.txt"], "FILE: expected a file ending in .html or .htm, got 'r.txt'"),
        (["no folder/r.html"], "FILE: expected a file in an existing folder"),
        (["r.html", "--plots", "no/folder"], "plots: expected a folder, got 'no/folder': No such"),
        (
            ["r.html", "--readme", "README.md"],
            "readme: expected --plots, the folder of the figures",
        ),
        (["r.html", "--variants", "numpi"], "variant: expected one of python-loops"),
        (["r.html", "--dtype", "float16"], "dtype: expected dtype float32 or float64"),
        (["r.html", "--json", "no folder/x"], "json: expected a file in an existing folder"),
    ],
)
def test_an_error_is_one_sentence_before_anything_is_measured(measured, arguments, sentence):
    result = run(*arguments, code=2)
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1
    assert measured == []


def test_ctrl_c_says_how_to_go_on(measured, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(race, "race", interrupted)
    result = run(tmp_path / "r.html", code=130)
    assert "the same command goes on from here" in result.stderr
    assert not (tmp_path / "r.html").exists()


def test_nothing_timed_writes_nothing(measured, monkeypatch, tmp_path):
    def skipped(result, field, **options):
        result.entries[:] = [Entry(variant, "slow") for variant in field]

    monkeypatch.setattr(race, "race", skipped)
    assert "nothing was timed" in run(tmp_path / "r.html", "--variants", "numpy", code=3).stderr
    assert not (tmp_path / "r.html").exists()
