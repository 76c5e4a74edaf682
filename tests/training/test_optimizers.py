"""Optimizers against PyTorch's, against the textbook in mpmath, and inside every variant's plan."""

import tracemalloc
from itertools import pairwise

import mpmath
import numpy as np
import pytest

import twolayer as tl
from twolayer.checking import cases
from twolayer.kernels.formulas.updates import UPDATES
from twolayer.network import DTYPES
from twolayer.training import optimizers
from twolayer.training.optimizers import RULES, advance

NET = tl.Network("tanh", "squared")
SHAPE = tl.Shape(50, 3, 8, 2)
STEPS = 100

# Twolayer's arguments, PyTorch's optimizer and its arguments.
PYTORCH = {
    "gd": ({"step": 0.05}, "SGD", {"lr": 0.05}),
    "nesterov": (
        {"step": 0.02, "momentum": 0.9},
        "SGD",
        {"lr": 0.02, "momentum": 0.9, "nesterov": True},
    ),
    "sgd": ({}, "SGD", {"lr": 0.01, "momentum": 0.9}),
    "adagrad": ({}, "Adagrad", {}),
    "rmsprop": ({}, "RMSprop", {}),
    "adam": ({}, "Adam", {}),
    "adamw": ({}, "AdamW", {}),
}


def problem(dtype="float64", net=NET, shape=SHAPE):
    _, net, X, Y, theta = cases.problem(net, shape, dtype)
    return net, X, Y, theta


def make_plan(variant="numpy", dtype="float64", net=NET):
    return tl.variants.get(variant).plan(*problem(dtype, net), threads=1)


def run(optimizer, plan, steps=STEPS, rows=None):
    plan.slots = optimizer.init(plan.theta).slots
    return [advance(optimizer, plan, k, rows) for k in range(1, steps + 1)]


def distance(theta, other):
    return max(float(abs(a - b).max()) for a, b in zip(theta, other, strict=True))


def growth(optimizer, dtype):
    """How far θ ends from where it does, if it starts elsewhere by one rounding of each weight."""
    ends = []
    for away in (0, np.finfo(dtype).eps):
        plan = make_plan(dtype=dtype)
        moved = (a * (1 + a.dtype.type(away) * np.sign(np.sin(a * 1e3))) for a in plan.theta)
        plan.theta = tl.Parameters(*moved)
        run(optimizer, plan)
        ends.append(plan.theta)
    eps = float(np.finfo(dtype).eps) * max(float(abs(a).max()) for a in ends[0])
    return max(distance(*ends), eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", optimizers.names())
def test_agrees_with_pytorch(name, dtype):
    torch = pytest.importorskip("torch")
    arguments, theirs, options = PYTORCH[name]
    ours = optimizers.get(name)(**arguments)
    plan = make_plan(dtype=dtype)
    losses = run(ours, plan)

    other = make_plan(dtype=dtype)
    start = other.theta
    weights = [torch.tensor(array) for array in start]
    theirs = getattr(torch.optim, theirs)(weights, **options)
    for loss in losses:
        other.theta = tl.Parameters(*(array.numpy() for array in weights))
        value, gradient = other.gradient()
        assert value == pytest.approx(loss, rel=1e4 * float(np.finfo(dtype).eps))
        for array, slope in zip(weights, gradient, strict=True):
            array.grad = torch.from_numpy(slope)
        theirs.step()
    # Each step rounds θ anew, a few times, and each error grows as one of the start does.
    bound = 4 * STEPS * growth(ours, dtype)
    assert distance(plan.theta, [array.numpy() for array in weights]) <= bound
    assert distance(plan.theta, start) > 1e3 * bound


# The algorithms as the papers state them: g₁, g₂, … ↦ w, in exact arithmetic.


def paper_gd(w, slopes, mu=0.1):
    for g in slopes:
        w -= mu * g
    return w


def paper_nesterov(w, slopes, mu=0.1):
    x = w
    for k, g in enumerate(slopes, 1):
        x, before = w - mu * g, x
        w = x + mpmath.mpf(k) / (k + 3) * (x - before)
    return w


def paper_sgd(w, slopes, mu=0.01, beta=0.9):
    past = []
    for g in slopes:
        past.append(g)
        w -= mu * sum(beta ** (len(past) - 1 - i) * old for i, old in enumerate(past))
    return w


def paper_adagrad(w, slopes, mu=0.01):
    for k in range(1, len(slopes) + 1):
        w -= mu * slopes[k - 1] / (mpmath.sqrt(sum(g**2 for g in slopes[:k])) + 1e-10)
    return w


def average(values, rho):
    return (1 - rho) * sum(rho ** (len(values) - 1 - i) * v for i, v in enumerate(values))


def paper_rmsprop(w, slopes, mu=0.01, rho=0.99):
    for k in range(1, len(slopes) + 1):
        w -= mu * slopes[k - 1] / (mpmath.sqrt(average([g**2 for g in slopes[:k]], rho)) + 1e-8)
    return w


def paper_adam(w, slopes, mu=0.001, decay=0):
    beta1, beta2 = mpmath.mpf(0.9), mpmath.mpf(0.999)
    for k in range(1, len(slopes) + 1):
        m = average(slopes[:k], beta1) / (1 - beta1**k)
        v = average([g**2 for g in slopes[:k]], beta2) / (1 - beta2**k)
        w = w - mu * decay * w - mu * m / (mpmath.sqrt(v) + 1e-8)
    return w


def paper_adamw(w, slopes):
    return paper_adam(w, slopes, decay=0.01)


PAPER = {
    "gd": paper_gd,
    "nesterov": paper_nesterov,
    "sgd": paper_sgd,
    "adagrad": paper_adagrad,
    "rmsprop": paper_rmsprop,
    "adam": paper_adam,
    "adamw": paper_adamw,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", optimizers.names())
def test_agrees_with_the_paper(name, dtype):
    random = np.random.default_rng(0)
    scales = np.array([1e-3, 1, 1, 30], dtype)
    slopes = (random.standard_normal((STEPS, 4)) + 0.3).astype(dtype) * scales
    theta = tl.Parameters(*random.standard_normal((2, 1, 2)).astype(dtype))
    start = np.concatenate(theta, axis=None)
    optimizer = optimizers.get(name)()
    state = optimizer.init(theta)
    path = [start]
    for g in slopes:
        gradient = tl.Parameters(g[None, :2], g[None, 2:])
        theta, state = optimizer.update(gradient, state, theta)
        path.append(np.concatenate(theta, axis=None))
    assert state.k == STEPS
    assert path[-1].dtype == dtype
    with mpmath.workdps(40):
        exact = [
            PAPER[name](mpmath.mpf(float(w)), [mpmath.mpf(float(g)) for g in column])
            for w, column in zip(start, slopes.T, strict=True)
        ]
        error = [abs(float(mpmath.mpf(float(w)) - e)) for w, e in zip(path[-1], exact, strict=True)]
    # Each step rounds w and what it moves by, which eight operations form. For Nesterov a rounding
    # of the velocity goes on moving w, for as many steps as there are.
    moves = np.abs(np.diff(path, axis=0)).max(axis=0)
    rounded = np.abs(path).max(axis=0) + 8 * moves * (STEPS if name == "nesterov" else 10)
    assert (error <= STEPS * np.finfo(dtype).eps * rounded).all()


@pytest.mark.parametrize("name", optimizers.names())
def test_an_update_inside_a_plan_is_the_pure_one(variant, name):
    optimizer = optimizers.get(name)()
    plan = make_plan(variant.name)
    state, theta = optimizer.init(plan.theta), plan.theta
    plan.slots = state.slots
    other = make_plan(variant.name)
    for k in range(1, 6):
        rows = slice(10 * k - 10, 10 * k)
        other.theta = theta
        loss, gradient = other.gradient(rows)
        theta, state = optimizer.update(gradient, state, theta)
        assert advance(optimizer, plan, k, rows) == pytest.approx(loss, rel=1e-12)
    # rmsprop and adam divide by what a rounding may change as much as the slope itself
    assert distance(plan.theta, theta) < 1e-12
    for slot, same in zip(plan.slots, state.slots, strict=True):
        assert distance(slot, same) < 1e-12


@pytest.mark.parametrize("name", optimizers.names())
def test_slots_and_theta_are_all_there_is_to_go_on_from(name):
    optimizer = optimizers.get(name)()
    whole, first, second = make_plan(), make_plan(), make_plan()
    losses = run(optimizer, whole, 10)
    assert losses[:4] == run(optimizer, first, 4)
    second.theta, second.slots = first.theta, first.slots
    assert losses[4:] == [advance(optimizer, second, k) for k in range(5, 11)]
    assert distance(second.theta, whole.theta) == 0


def test_a_plan_keeps_slots_of_its_own():
    plan = make_plan()
    zeros = tl.Parameters(*map(np.zeros_like, plan.theta))
    plan.slots = [zeros]
    plan.update(UPDATES["adagrad"], (0.1, 1e-8))
    assert not zeros.V.any()
    plan.slots[0].V[...] = 7
    assert not (plan.slots[0].V == 7).any()


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule):
    made = optimizers.get("gd")(0.5, rule)
    expected = {"1/k": 0.5 / 16, "1/sqrtk": 0.5 / 4}.get(rule, 0.5)
    assert made.scalars(16) == (expected,)
    losses = run(made, make_plan(), 40)
    assert losses[-1] < losses[0]


def test_backtracking_takes_the_first_step_that_decreases_enough():
    losses = run(optimizers.get("gd")(1e6, "backtracking"), make_plan(), 40)
    assert all(later < earlier for earlier, later in pairwise(losses))
    plan, by_hand = make_plan(), make_plan()
    run(optimizers.get("gd")(64.0, "backtracking"), plan, 1)
    loss, gradient = by_hand.gradient()
    start, mu = by_hand.theta, 64.0
    while True:
        moved = (w - mu * g for w, g in zip(start, gradient, strict=True))
        by_hand.theta = tl.Parameters(*moved)
        if by_hand.gradient()[0] <= loss - 1e-4 * mu * sum((g**2).sum() for g in gradient):
            break
        mu /= 2
    assert mu < 64
    assert distance(plan.theta, by_hand.theta) == 0


def test_backtracking_where_nothing_decreases_stays():
    net, X, Y, theta = problem()
    plan = tl.variants.get("numpy").plan(net, X, 0 * Y, tl.Parameters(theta.V, 0 * theta.W))
    run(optimizers.get("gd")(rule="backtracking"), plan, 2)
    assert distance(plan.theta, (theta.V, 0 * theta.W)) == 0


def test_backtracking_from_where_theta_overflows():
    plan = make_plan(net=tl.Network("relu", "squared"), dtype="float32")
    losses = run(optimizers.get("gd")(3e38, "backtracking"), plan, 3)
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", ["numpy", "numba-loops"])
def test_backtracking_ends_where_the_gradient_is_not_finite(name):
    X = np.full((4, 2), 1e20, np.float32)
    theta = tl.Parameters(np.ones((3, 2), np.float32), np.ones((1, 3), np.float32))
    net = tl.Network("relu", "squared")
    plan = tl.variants.get(name).plan(net, X, np.zeros((4, 1), np.float32), theta)
    assert np.isnan(advance(optimizers.get("gd").make(rule="backtracking"), plan, 1))
    for before, after in zip(theta, plan.theta, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_step_of_0_ends_backtracking():
    gradient = tl.Parameters(np.full((1, 1), np.inf), np.zeros((1, 1)))
    theta = tl.Parameters(np.ones((1, 1)), np.ones((1, 1)))
    assert optimizers._backtrack(1.0, theta, gradient, 1.0, lambda trial: np.inf) == 0.0


def test_batches_need_no_copy_of_their_rows():
    net, X, Y, theta = problem(shape=tl.Shape(100_000, 40, 2, 1))
    plan = tl.variants.get("numba-loops").plan(net, X, Y, theta)
    optimizer = optimizers.get("adam")()
    run(optimizer, plan, 1, slice(0, 50_000))
    tracemalloc.start()
    try:
        run(optimizer, plan, 3, slice(50_000, 100_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 100


def test_formulas_without_a_compiler(run_python):
    code = """
import numpy as np
from twolayer.kernels.formulas.updates import UPDATES, loop

for name, update in UPDATES.items():
    count = 2 + update.slots
    scalars = tuple(0.1 * i for i in range(1, update.formula.__code__.co_argcount - count + 1))
    for dtype in ("float32", "float64"):
        random = np.random.default_rng(0)
        arrays = [abs(random.standard_normal(5)).astype(dtype) for _ in range(count)]
        expected = update.formula(*arrays, *scalars)
        loop(update)(*arrays, scalars)
        for got, want in zip([arrays[0], *arrays[2:]], expected, strict=True):
            assert np.allclose(got, want, rtol=8 * np.finfo(dtype).eps), (name, got, want)
print(len(UPDATES))
"""
    for off in "01":
        assert int(run_python(code, NUMBA_DISABLE_JIT=off)) > 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizers.get("adan"), "optimizer: expected one of gd, nesterov, sgd, adagrad"),
        (
            lambda: optimizers.get("gd")(rule="1/n"),
            "rule: expected one of constant, 1/k, 1/sqrtk, b",
        ),
        (
            lambda: optimizers.get("adam")(rule="backtracking"),
            "rule: expected one of constant, 1/k, 1",
        ),
        (lambda: optimizers.get("gd")(0.0), "step: expected a positive number, got 0.0"),
        (lambda: optimizers.get("gd")(float("nan")), "step: expected a positive number, got nan"),
        (
            lambda: optimizers.get("sgd")(momentum=1),
            "momentum: expected a number from 0 to below 1",
        ),
        (lambda: optimizers.get("nesterov")(momentum=-1), "momentum: expected a number from 0 to"),
        (lambda: optimizers.get("rmsprop")(rho=1.5), "rho: expected a number from 0 to below 1"),
        (lambda: optimizers.get("adam")(beta1=1.0), "beta1: expected a number from 0 to below 1"),
        (lambda: optimizers.get("adam")(beta2=2), "beta2: expected a number from 0 to below 1"),
        (
            lambda: optimizers.get("adagrad")(epsilon=0),
            "epsilon: expected a positive number, got 0",
        ),
        (
            lambda: optimizers.get("adamw")(decay=-1),
            "decay: expected a number of at least 0, got -1",
        ),
        (
            lambda: optimizers.get("gd")(rule="backtracking").update(
                *[make_plan().theta, optimizers.State(0, ()), make_plan().theta]
            ),
            "value: expected the function L for backtracking, got None",
        ),
        (
            lambda: make_plan().update(UPDATES["descend"], ()),
            "scalars: expected 1 for descend, got 0",
        ),
        (
            lambda: make_plan().update(UPDATES["adam"], (1.0,) * 6),
            "scalars: expected 7 for adam, got 6",
        ),
        (
            lambda: make_plan().update(UPDATES["adam"], (1.0,) * 7),
            "slots: expected 2 for adam, got 0",
        ),
        (
            lambda: make_plan().update(UPDATES["descend"], (1.0,), slice(0, 51)),
            "rows: expected 0 <= start < stop <= 50",
        ),
        (
            lambda: advance(optimizers.get("gd")(1e300), make_plan(dtype="float32"), 1),
            "mu: expected a finite number that float32 can hold",
        ),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_slots_of_another_shape():
    plan = make_plan()
    with pytest.raises(ValueError, match=r"^theta\.V: expected shape \(8, 3\), got \(9, 3\)"):
        plan.slots = [tl.Parameters(np.zeros((9, 3)), np.zeros((2, 9)))]
