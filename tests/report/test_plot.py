import sys
import xml.etree.ElementTree as ET

import pytest

import twolayer as tl
from twolayer.measuring.race import Entry, Result, Workload
from twolayer.measuring.roofline import Roofline
from twolayer.showing import plot as plots
from twolayer.showing.plot import style

pytest.importorskip("matplotlib")


def result(seconds, n=100, dataset="", **changes):
    """A result with one figure for each variant by name; None is a skipped one."""
    workload = Workload(tl.Network(), tl.Shape(n, 4, 8, 2), dataset=dataset)
    made = Result(workload, 2, Roofline(1e11, 1e10))
    for name, value in seconds.items():
        entry = Entry(tl.Variant(name, "cpu", "", None))
        if value is None:
            entry.skipped = "slow"
        else:
            entry.blocks = [0.9 * value, value, 1.2 * value]
        made.entries.append(entry)
    return made


MANY = {f"variant-{i}": 1e-5 * 3**i for i in range(11)}
GROUPS = {
    "data": [
        result(MANY, 20, "linnerud"),
        result(MANY | {"variant-3": None}, 442, "breast_cancer"),
    ],
    "n": [result(MANY, 100), result({name: 9 * t for name, t in MANY.items()}, 1000)],
}


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_results_make_the_same_file(tmp_path, suffix):
    paths = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for path in paths:
        plots.plot(plots.figure, GROUPS, path, "a machine")
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    if suffix == ".svg":
        assert ET.fromstring(first).tag.endswith("svg")
        assert b"<dc:date>" not in first
    else:
        assert first.startswith(b"\x89PNG")


def test_all_figures_and_the_roofline_are_within_the_axes():
    panels = plots.figure(GROUPS).axes
    for panel, results in zip(panels, GROUPS.values(), strict=False):
        bottom, top = panel.get_ylim()
        assert bottom < min(r.least_seconds for r in results)
        for entry in (entry for r in results for entry in r.ranking):
            assert bottom < entry.seconds.low
            assert entry.seconds.high < top


def test_the_legend_has_each_variant_once_the_fastest_first():
    legend = plots.figure(GROUPS).axes[len(GROUPS)].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [*MANY, "ruled out by the roofline"]


def test_no_two_variants_look_the_same():
    lines = plots.figure({"n": GROUPS["n"]}).axes[1].get_legend().get_lines()
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(MANY)


def test_a_line_has_a_point_for_each_size_at_which_it_was_timed():
    groups = {"n": [result({"a": 1e-3, "b": 1e-2}, 10), result({"a": 1e-2, "b": None}, 100)]}
    panel = plots.figure(groups).axes[0]
    drawn = sorted(tuple(line.get_xdata()) for line in panel.get_lines())
    assert drawn == [(10,), (10, 100), (10, 100)]  # b, a and the roofline


@pytest.mark.parametrize("name", ["figure.pdf", "figure"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"plot: expected a file ending in \.svg or \.png"):
        plots.plot(plots.figure, GROUPS, tmp_path / name)


def test_nothing_timed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one was timed"):
        plots.plot(plots.figure, {"n": [result({"a": None})]}, tmp_path / "figure.svg")


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeError, match=r"pip install --editable '\.\[bench\]'"):
        plots.plot(plots.figure, GROUPS, tmp_path / "figure.svg")


def peers(**times):
    """A result of the reference and others, and one in which it was skipped."""
    return [result({"numba-fused": 1e-3, **times}), result({"numba-fused": None, **times}, 200)]


def test_peers_stand_at_their_time_over_the_references():
    panel = plots.peers_figure({"shapes": peers(jax=4e-3, torch=8e-3)}, "").axes[0]
    lines = panel.get_lines()
    places = sorted(float(line.get_xdata()[0]) for line in lines if line.get_marker() != "None")
    assert places == pytest.approx([1, 4, 8])
    assert [text.get_text() for text in panel.get_yticklabels()] == [
        "n=100 d=4 M=8 K=2\ntanh, squared"
    ]
    low, high = panel.get_xlim()
    assert low < 1
    assert high > 8 * 1.2 / 1
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert names == ["numba-fused", "jax", "torch", "out of reach"]


def test_peers_without_the_reference_are_refused():
    with pytest.raises(ValueError, match="numba-fused was timed in at least one"):
        plots.peers_figure({"shapes": peers(jax=1.0)[1:]}, "")


def test_points_of_the_roofline_are_flops_over_bytes_and_seconds():
    made = result({"numba-fused": 1e-3, "jax": 2e-3})
    panel = plots.roofline_figure({"shapes": [made]}, "").axes[0]
    points = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in panel.get_lines()
        if line.get_marker() != "None"
    }
    flops, nbytes = made.workload.shape.flops(), made.workload.shape.bytes("float32")
    rate = flops / 1e-3 / 1e9
    assert sorted(points) == [
        pytest.approx((flops / nbytes, rate / 2)),
        pytest.approx((flops / nbytes, rate)),
    ]
    roof = next(line for line in panel.get_lines() if len(line.get_xdata()) == 3)
    assert roof.get_xdata()[1] == pytest.approx(1e11 / 1e10)
    assert list(roof.get_ydata()[1:]) == pytest.approx([100, 100])
    assert roof.get_ydata()[0] == pytest.approx(10 * roof.get_xdata()[0])


def test_problems_of_one_intensity_do_not_cover_each_other():
    made = [result({"numba-fused": 1e-3}, n) for n in (10, 100, 1000)]
    lines = plots.roofline_figure({"shapes": made}, "").axes[0].get_lines()
    places = {float(line.get_xdata()[0]) for line in lines if line.get_marker() != "None"}
    assert len(places) == 3


@pytest.mark.parametrize("figure", [plots.peers_figure, plots.roofline_figure])
def test_the_other_figures_are_the_same_each_time(tmp_path, figure):
    paths = [tmp_path / f"{i}.svg" for i in range(2)]
    for path in paths:
        plots.plot(figure, {"shapes": peers(jax=4e-3)}, path, "a machine")
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_variant_looks_the_same_in_every_picture_and_unlike_all_others():
    names = [name for name in tl.variants.names() if name != "auto"]
    whole = style.styles([result({name: 1e-5 * 2**i for i, name in enumerate(names)})])
    few = style.styles([result({name: 1e-5 for name in names[3:6]})])
    parts = ("color", "marker", "linestyle", "markerfacecolor")
    for name, look in few.items():
        assert [look[part] for part in parts] == [whole[name][part] for part in parts]
    assert len({tuple(look[part] for part in parts) for look in whole.values()}) == len(names)
