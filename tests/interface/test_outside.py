"""Activations, losses and optimizers from outside: the documents' file, in every CPU variant."""

import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numba.extending import register_jitable
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking import bounds, cases, promises, verify
from twolayer.checking.answers import Answers
from twolayer.cli import app
from twolayer.kernels.compiler.contents import contents
from twolayer.kernels.formulas import losses as formulas
from twolayer.kernels.formulas.activations import softplus
from twolayer.kernels.formulas.elementary import like, logistic
from twolayer.kernels.formulas.updates import Update
from twolayer.network import DTYPES
from twolayer.targets import Targets, first_bad
from twolayer.training.optimizers import Algorithm, advance

PAGE = (Path(__file__).parents[2] / "docs" / "own.md").read_text(encoding="utf-8")
(TEXT,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "huber" in code)
NAMES = [v.name for v in tl.variants.REGISTRY if v.device == "cpu" and not v.by_name]
TERMS = ("identity_link", "huber", "huber_slope")
LISTS = (tl.activations, tl.losses, tl.optimizers, tl.variants)


@pytest.fixture
def file(tmp_path):
    """The documents' file."""
    path = tmp_path / "formulas.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def net(file):
    """The network of the file's σ and ℓ."""
    tl.variants.add_file(file)
    return tl.Network("sine", "huber")


def test_names_are_looked_up_and_objects_taken_as_they_are(file):
    sine, huber, signum = tl.variants.add_file(file)
    net = tl.Network("sine", "huber")
    assert net == tl.Network(sine, huber) != tl.Network("tanh", "huber")
    assert (net.activation, net.loss) == ("sine", "huber")
    assert net.sigma is tl.activations.get("sine") is sine
    assert net.objective is tl.losses.get("huber") is huber
    assert tl.optimizers.get("signum") is signum
    for module, entry in zip(LISTS, (sine, huber, signum), strict=False):
        assert module.names()[-1] == entry.name
        with pytest.raises(ValueError, match=f"^{module.REGISTRY.what}: the name .* is taken$"):
            module.add(entry)
        with pytest.raises(ValueError, match=f"^{module.REGISTRY.what}: expected one of .*, got 7"):
            module.get(7)
    with pytest.raises(TypeError, match=r"^loss: expected a twolayer\.Loss, got Activation$"):
        tl.losses.add(sine)
    other = sine._replace(slope=sine.value)
    assert tl.Network(other, huber) != net


def test_a_file_adds_all_or_nothing(file):
    file.write_text(TEXT + '\nother = tl.Activation("tanh", sine, cosine, (4, 4))\n')
    with pytest.raises(ValueError, match=r"^activation: the name 'tanh' is taken$"):
        tl.variants.add_file(file)
    assert "sine" not in tl.activations.names()
    assert "huber" not in tl.losses.names()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_variant_agrees(net, name, dtype):
    for case in (
        cases.adversarial(net, dtype) if name == "numpy" else [*cases.shaped(net, dtype)][2:5]
    ):
        result = verify.agreement(tl.variants.get(name), case)
        assert result.agrees, result


@pytest.mark.parametrize("name", ["numpy", "numba-fused"])
def test_every_promise_is_kept(net, name):
    for result in promises.promises(
        tl.variants.get(name), net, "float32", None, promises.SHAPES[:1]
    ):
        assert result.agrees, result


def test_a_plan_is_held_to_the_answers(net):
    anonymous = tl.Network(net.sigma._replace(name="another"), net.objective)
    for one in (net, anonymous):
        answers = Answers.drawn(one, tl.Shape(900, 5, 7, 2), "float32")
        assert 0 < answers.hold(tl.variants.get("numpy").plan(*answers.problem)) < 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", ["link", "loss", "delta", "slope"])
def test_the_derived_bound_finds_mistakes(net, mistake, dtype):
    """Of 200 roundings, or of a kink, where a variant has another loss of the same name."""
    own = vars(sys.modules[net.sigma.value.__module__])
    h, ell, slope = (own[name] for name in TERMS)
    more = 1 + 200 * float(np.finfo(dtype).eps)
    terms = {
        "link": (lambda u: h(u) * more, ell, slope),
        "loss": (h, lambda u, y: ell(u, y) * more, slope),
        "delta": (h, ell, lambda u, y: slope(u, y) * more),
        "slope": (h, ell, formulas.squared_delta),
    }[mistake]
    variant = tl.variants.get("numpy")

    def make(problem):
        other = tl.Network(net.sigma, tl.Loss.of_terms("huber", *terms))
        return variant.make(problem._replace(net=other))

    case = cases.problem(net, tl.Shape(33, 2, 3, 2), dtype)
    assert verify.agreement(variant, case).agrees
    assert not verify.agreement(replace(variant, name="wrong", make=make), case).agrees


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("squared", (formulas.identity_link, formulas.squared_loss, formulas.squared_delta)),
        ("logistic", (formulas.logistic, formulas.logistic_loss, formulas.logistic_delta)),
    ],
)
def test_the_derived_bound_is_close_to_the_one_by_hand(name, terms):
    loss = tl.losses.get(name)
    derived = tl.Network("tanh", tl.Loss.of_terms(name, *terms, loss.targets))
    case = cases.problem(derived, tl.Shape(61, 7, 31, 3), "float32")
    ours, by_hand = (
        bounds.evaluate(net, case.theta, case.X, case.Y, "float32")
        for net in (derived, tl.Network("tanh", name))
    )
    assert ours.loss == pytest.approx(by_hand.loss, rel=1e-14)
    for one, other in (
        (ours.loss_bound, by_hand.loss_bound),
        (ours.gradient_bound.W.max(), by_hand.gradient_bound.W.max()),
        (ours.F_bound.max(), by_hand.F_bound.max()),
    ):
        assert other / 4 < one < 8 * other


# Targets of one's own


@register_jitable(forceinline=True)
def binary_entropy(u, y):
    """ℓ = −y log f − (1 − y) log(1 − f), f = h(u) the logistic function of u."""
    return softplus(u) - y * u


@register_jitable(forceinline=True)
def binary_delta(u, y):
    return logistic(u) - y


class Shares(Targets):
    """Numbers from 0 to 1."""

    name = "share"
    wrong = -1.0

    def check(self, Y, dtype):
        first_bad("Y", (Y < 0) | (Y > 1), Y, "numbers from 0 to 1")

    def draw(self, random, n, K, dtype):
        return random.random((n, K), dtype)


BINARY = tl.Network(
    "tanh", tl.Loss.of_terms("binary", logistic, binary_entropy, binary_delta, targets=Shares())
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["numpy", "numba-loops", "numba-fused"])
def test_targets_of_ones_own(name, dtype):
    variant = tl.variants.get(name)
    for case in cases.adversarial(BINARY, dtype):
        result = verify.agreement(variant, case)
        assert result.agrees, result
    with pytest.raises(
        ValueError, match=r"^Y: expected numbers from 0 to 1, got -1\.0 at \[0, 0\]$"
    ):
        variant.plan(BINARY, case.X, case.Y - 1 - case.Y[0, 0], case.theta)
    for result in promises.promises(variant, BINARY, dtype, None, promises.SHAPES[:1]):
        assert result.agrees, result


# Optimizers


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_runs_in_every_plan(net, name):
    algorithm = tl.optimizers.get("signum")(0.01, momentum=0.5)
    _, _, X, Y, theta = cases.problem(net, tl.Shape(50, 3, 8, 2), "float64")
    plan, other = (tl.variants.get(name).plan(net, X, Y, theta) for _ in range(2))
    state = algorithm.init(theta)
    plan.slots = state.slots
    losses = []
    for k in range(1, 9):
        other.theta = theta
        loss, gradient = other.gradient()
        theta, state = algorithm.update(gradient, state, theta)
        losses.append(advance(algorithm, plan, k))
        assert losses[-1] == pytest.approx(loss, rel=1e-12)
    assert losses[-1] < losses[0]
    for mine, pure in zip((*plan.theta, *plan.slots[0]), (*theta, *state.slots[0]), strict=True):
        np.testing.assert_allclose(mine, pure, rtol=1e-12, atol=1e-14)


@register_jitable
def of_three(w, g, a, b, c, mu):
    return w - like(w, mu) * (a + b + c), g, a, b


def test_an_update_of_three_slots(run_python):
    """The mean of the last three slopes, in a plan and without a compiler."""
    algorithm = Algorithm(Update("of_three", of_three, 3), lambda k: (0.1,))
    case = cases.problem(tl.Network(), tl.Shape(9, 3, 4, 2), "float64")
    plan = tl.variants.get("numba-fused").plan(*case[1:])
    plan.slots = algorithm.init(case.theta).slots
    slopes = []
    for k in range(1, 5):
        slopes.append(plan.gradient()[1])
        advance(algorithm, plan, k)
    moved = sum(0.1 * min(3, 3 - i) * slopes[i].W for i in range(3))
    np.testing.assert_allclose(case.theta.W - plan.theta.W, moved, rtol=1e-12)


# Other processes

AGAIN = """
import gc, sys
import twolayer as tl
from twolayer.checking import cases, verify
from twolayer.training.optimizers import advance
from numba.core.dispatcher import Dispatcher

tl.variants.add_file(sys.argv[1])
case = cases.problem(tl.Network("sine", "huber"), tl.Shape(9, 5, 6, 3), "float32")
for name in sys.argv[2:]:
    plan = tl.variants.get(name).plan(*case[1:])
    print(plan.step(0.1), plan.predict(case.X)[0])
    algorithm = tl.optimizers.get("signum")()
    plan.slots = algorithm.init(plan.theta).slots
    advance(algorithm, plan, 1)
    assert verify.agreement(tl.variants.get(name), case).agrees
found = [k for k in gc.get_objects() if isinstance(k, Dispatcher)]
found = [k for k in found if k.py_func.__module__.startswith("twolayer.") and k.signatures]
print(sorted({k.py_func.__qualname__ for k in found if k.stats.cache_misses}))
"""


@pytest.mark.slow
@pytest.mark.compiled
def test_the_next_process_finds_the_code_on_disk(file, run_python, tmp_path):
    def run():
        *results, missed = run_python(
            AGAIN, file, "numba-loops", NUMBA_CACHE_DIR=str(tmp_path)
        ).splitlines()
        return results, missed

    first, missed = run()
    assert "loop_over_rows" in missed
    assert run() == (first, "[]")
    text = file.read_text()
    old, new = "return like(r, 2.0) * r\n", "return like(r, 3.0) * r\n"
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    edited, missed = run()
    assert "loop_over_rows" in missed
    assert edited != first
    file.write_text(text)
    assert run() == (first, "[]")


def test_compiled_code_depends_on_all_that_a_formula_refers_to():
    def found(text, **names):
        names = {"__name__": "mine", **names}
        exec(text, names)
        return contents(names["f"])

    text = "def f(x): return x + g(1.0)"
    assert found(text, g=abs) == found(text, g=abs)
    assert found(text, g=abs) != found("def f(x): return x + g(2.0)", g=abs)
    assert found(text, g=abs) != found(text, g=lambda x: x)
    assert found(text, g=lambda x: x) != found(text, g=lambda x: x * x)
    for text in ("def f(x): return x * c", "def f(x): return (lambda z: c * z)(x)"):
        assert found(text, c=2.0) != found(text, c=3.0)
    module = ModuleType("helpers")
    text = "def f(x): return helpers.g(x)"
    seen = set()
    for module.g in (lambda x: x, lambda x: x * x):
        seen.add(found(text, helpers=module))
    assert len(seen) == 2
    for text in ("def f(x, c=C): return c * x", "def f(x, *, c=C): return c * x"):
        assert found(text, C=2.0) == found(text, C=2.0)
        assert found(text, C=2.0) != found(text, C=3.0)
    inner = ModuleType("helpers.inner")
    module.inner = inner
    seen = set()
    for inner.c in (2.0, 3.0):
        seen.add(found("def f(x): return helpers.inner.c * x", helpers=module))
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["numba-loops", "numba-fused"])
def test_without_a_compiler(file, name, run_python):
    assert run_python(AGAIN, file, name, NUMBA_DISABLE_JIT="1").splitlines()[-1] == "[]"


def test_networks_of_this_project_travel_by_name():
    net = tl.Network("gelu", "logistic")
    assert pickle.loads(pickle.dumps(net)) == net
    assert len(pickle.dumps(net)) < 200


# What knows formulas by their names only


@pytest.mark.parametrize("name", [v.name for v in tl.variants.REGISTRY if v.by_name])
def test_other_libraries_refuse(net, name):
    shape, dtype = tl.Shape(9, 3, 4, 2), np.dtype("float32")
    for variant in (tl.variants.get(name), *tl.variants.get(name).elsewhere):
        for one, what in ((net, "activation sine"), (tl.Network(loss="huber"), "loss huber")):
            assert variant.refusal(one, shape, dtype) == f"knows no {what}: take another variant"
        assert variant.refusal(tl.Network(), shape, dtype) is None


# The command line

runner = CliRunner()


def run(*arguments):
    return runner.invoke(app, list(map(str, arguments)))


def test_verify(file):
    result = run(
        "verify", "--variant-file", file, "--activation", "sine", "--loss", "huber",
        "--variants", "numpy,dask", "--shape", "9,3,4,2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "skipped" in result.output
    shown = " ".join(result.output.split())
    assert "sine, huber" in shown


def test_train_and_predict(file, tmp_path):
    model, outputs = tmp_path / "model.npz", tmp_path / "F.npy"
    names = ["--activation", "sine", "--loss", "huber", "--optimizer", "signum"]
    result = run(
        "train", "linnerud", *names, "--variant-file", file, "--epochs", 5, "--save", model
    )
    assert result.exit_code == 0, result.output
    assert "sine, huber, signum: loss" in result.output
    for module in LISTS:  # as in another process
        module.REGISTRY._entries = {
            name: entry
            for name, entry in module.REGISTRY._entries.items()
            if name not in ("sine", "huber", "signum")
        }
    result = run("predict", model, "linnerud", "--save", outputs)
    assert "expected one of identity, " in " ".join(result.output.split())
    result = run("predict", model, "linnerud", "--save", outputs, "--variant-file", file)
    assert result.exit_code == 0, result.output
    assert np.load(outputs).shape == (20, 3)
