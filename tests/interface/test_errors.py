"""Every wrong argument is answered with its name, what was expected and what came."""

import re
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

import twolayer as tl
from twolayer import network
from twolayer.checking import cases
from twolayer.machine.hardware import cpu_count

NAN, INF = float("nan"), float("inf")
n, d, M, K = SHAPE = tl.Shape(7, 3, 4, 2)
SQUARED = tl.Network("tanh", "squared")
LOGISTIC = tl.Network("tanh", "logistic")
SOFTMAX = tl.Network("tanh", "softmax")


def plan(variant="numpy", net=SQUARED, threads=None, **changed):
    """A plan of a good problem, less what is changed: X, Y, V, W or theta."""
    _, _, X, Y, theta = cases.problem(net, SHAPE, "float32")
    given = {"X": X, "Y": Y, "V": theta.V, "W": theta.W} | changed
    theta = given.get("theta", tl.Parameters(given["V"], given["W"]))
    return tl.variants.get(variant).plan(net, given["X"], given["Y"], theta, threads)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def with_value(shape, value, at, dtype="float32"):
    array = ones(*shape, dtype=dtype)
    array[at] = value
    return array


WRONG = [
    # X
    ({"X": ones(7)}, ValueError, "X: expected shape (n, d), got 1 axes (7,)"),
    ({"X": ones(7, 3, 1)}, ValueError, "X: expected shape (n, d), got 3 axes (7, 3, 1)"),
    ({"X": csr_array(ones(7, 3))}, TypeError, "X: expected a dense array, got csr_array: its toar"),
    ({"Y": csr_array(ones(7, 2))}, TypeError, "Y: expected a dense array, got csr_array: its toar"),
    ({"X": 1.0}, ValueError, "X: expected shape (n, d), got 0 axes ()"),
    ({"X": None}, ValueError, "X: expected shape (n, d), got 0 axes ()"),
    ({"X": [[1.0, 2.0], [1.0]]}, ValueError, "X: expected an array, got what is none: "),
    ({"X": ones(0, 3)}, ValueError, "X: expected n >= 1, got shape (0, 3)"),
    ({"X": ones(7, 0)}, ValueError, "X: expected d >= 1, got shape (7, 0)"),
    (
        {"X": ones(7, 3, dtype="int64")},
        TypeError,
        "X: expected dtype float32 or float64, got int64",
    ),
    ({"X": ones(7, 3, dtype="float16")}, TypeError, "X: expected dtype float32 or float64, got"),
    ({"X": ones(7, 3, dtype=">f4")}, TypeError, "X: expected dtype float32 or float64, got >f4"),
    ({"X": ones(7, 3, dtype=complex)}, TypeError, "X: expected dtype float32 or float64, got"),
    (
        {"X": with_value((7, 3), NAN, (4, 1))},
        ValueError,
        "X: expected finite numbers, got nan at [4, 1]",
    ),
    (
        {"X": with_value((7, 3), -INF, (0, 2))},
        ValueError,
        "X: expected finite numbers, got -inf at [0, 2]",
    ),
    # θ
    ({"theta": None}, TypeError, "theta: expected Parameters(V, W), got NoneType"),
    ({"theta": [ones(4, 3), ones(2, 4)]}, TypeError, "theta: expected Parameters(V, W), got list"),
    ({"theta": (ones(4, 3),)}, TypeError, "theta: expected Parameters(V, W), got tuple"),
    ({"V": ones(12)}, ValueError, "theta.V: expected shape (M, d), got 1 axes (12,)"),
    ({"W": ones(4)}, ValueError, "theta.W: expected shape (K, M), got 1 axes (4,)"),
    ({"V": ones(0, 3)}, ValueError, "theta.V: expected M >= 1, got shape (0, 3)"),
    ({"W": ones(0, 4)}, ValueError, "theta.W: expected K >= 1, got shape (0, 4)"),
    ({"V": ones(4, 5)}, ValueError, "theta.V: expected shape (M, 3) to fit X (7, 3), got (4, 5)"),
    (
        {"W": ones(2, 5)},
        ValueError,
        "theta.W: expected shape (K, 4) to fit theta.V (4, 3), got (2, 5)",
    ),
    (
        {"V": ones(4, 3, dtype=int)},
        TypeError,
        "theta.V: expected dtype float32 or float64, got int64",
    ),
    (
        {"W": ones(2, 4, dtype="float64")},
        TypeError,
        "theta.W: expected float32, the dtype of theta.V, got float64",
    ),
    (
        {"V": ones(4, 3, dtype="float64"), "W": ones(2, 4, dtype="float64")},
        TypeError,
        "theta.V: expected float32, the dtype of X, got float64",
    ),
    (
        {"V": with_value((4, 3), NAN, (3, 0))},
        ValueError,
        "theta.V: expected finite numbers, got nan at [3, 0]",
    ),
    (
        {"W": with_value((2, 4), INF, (1, 2))},
        ValueError,
        "theta.W: expected finite numbers, got inf at [1, 2]",
    ),
    (
        {"net": LOGISTIC, "W": ones(2, 4)},
        ValueError,
        "theta.W: the logistic loss has one output, expected shape (1, M), got (2,",
    ),
    # Y
    ({"Y": ones(6, 2)}, ValueError, "Y: expected one target a sample, 7 rows as in X, got (6, 2)"),
    ({"Y": 1.0}, ValueError, "Y: expected one target a sample, 7 rows as in X, got ()"),
    ({"Y": ones(7, 3)}, ValueError, "Y: expected shape (7, 2), got (7, 3)"),
    ({"Y": ones(7)}, ValueError, "Y: expected shape (7, 2), got (7,)"),
    ({"Y": [[1.0]] * 6 + [[1.0, 2.0]]}, ValueError, "Y: expected an array, got what is none: "),
    ({"Y": None}, TypeError, "Y: expected a real or integer dtype, got object"),
    (
        {"Y": ones(7, 2, dtype=complex)},
        TypeError,
        "Y: expected a real or integer dtype, got complex128",
    ),
    ({"Y": [["a", "b"]] * 7}, TypeError, "Y: expected a real or integer dtype, got <U1"),
    (
        {"Y": with_value((7, 2), NAN, (5, 1))},
        ValueError,
        "Y: expected finite numbers, got nan at [5, 1]",
    ),
    (
        {"Y": with_value((7, 2), 1e300, (5, 1), "float64")},
        ValueError,
        "Y: expected values that float32 can hold, got inf at [5, 1]",
    ),
    (
        {"net": SOFTMAX, "Y": ones(7, 3)},
        ValueError,
        "Y: expected shape (7, 2), or (7,) integer labels, got (7, 3)",
    ),
    (
        {"net": SOFTMAX, "Y": ones(7)},
        TypeError,
        "Y: expected integer class labels for shape (n,), got float32",
    ),
    (
        {"net": SOFTMAX, "Y": [0, 1, 0, 1, 0, 2, 0]},
        ValueError,
        "Y: expected class labels 0 to 1, got 2 at [5]",
    ),
    (
        {"net": SOFTMAX, "Y": [0, 1, 0, -1, 0, 0, 0]},
        ValueError,
        "Y: expected class labels 0 to 1, got -1 at [3]",
    ),
    (
        {"net": SOFTMAX, "Y": ones(7, 2)},
        ValueError,
        "Y: expected rows that sum to 1, got 2.0 at [0]",
    ),
    (
        {"net": SOFTMAX, "Y": [[0.5, 0.5]] * 6 + [[0.5, 0.501]]},
        ValueError,
        "Y: expected rows that sum to 1, got 1.001 at [6]",
    ),
    (
        {"net": SOFTMAX, "Y": [[0.5, 0.5]] * 6 + [[-1.0, 2.0]]},
        ValueError,
        "Y: expected rows of non-negative numbers that sum to 1, got -1.0 at [6, 0]",
    ),
    (
        {"net": LOGISTIC, "Y": [1, 1, 0, -1, 1, 1, 1]},
        ValueError,
        "Y: expected labels of +1 or -1, got 0 at [2, 0]",
    ),
    ({"net": LOGISTIC, "Y": ones(7, 2)}, ValueError, "Y: expected shape (7, 1), got (7, 2)"),
    # the rest
    ({"threads": 0}, ValueError, "threads: expected a positive integer, got 0"),
    ({"threads": 1.5}, TypeError, "threads: expected a positive integer, got 1.5"),
    ({"threads": True}, TypeError, "threads: expected a positive integer, got True"),
    ({"threads": cpu_count() + 1}, ValueError, f"threads: expected 1 to {cpu_count()}, the CPUs"),
]


@pytest.mark.parametrize(("changed", "kind", "message"), WRONG)
def test_plan_refuses(changed, kind, message):
    with pytest.raises(kind, match=r"^" + re.escape(message)):
        plan(**changed)


def test_plan_wants_a_network():
    _, _, X, Y, theta = cases.problem(SQUARED, SHAPE, "float32")
    with pytest.raises(TypeError, match=r"^net: expected a Network, got str$"):
        tl.variants.get("numpy").plan("squared", X, Y, theta)


def test_unknown_names_list_the_known():
    with pytest.raises(
        ValueError, match=r"^activation: expected one of identity, .*, got 'swish'$"
    ):
        tl.Network(activation="swish")
    with pytest.raises(ValueError, match=r"^loss: expected one of squared, .*, got 'hinge'$"):
        tl.Network(loss="hinge")
    with pytest.raises(
        ValueError, match=r"^variant: expected one of python-loops, .*, got 'fortran'$"
    ):
        tl.variants.get("fortran")
    _, net, X, Y, theta = cases.problem(SQUARED, SHAPE, "float32")
    with pytest.raises(ValueError, match=r"^variant: expected one of .*, got 'fortran'$"):
        tl.loss_and_gradient(net, theta, X, Y, variant="fortran")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((0, 4, 2), ValueError, "d: expected a positive integer, got 0"),
        ((3, -1, 2), ValueError, "M: expected a positive integer, got -1"),
        ((3, 4, 2.0), TypeError, "K: expected a positive integer, got 2.0"),
        ((3, 4, True), TypeError, "K: expected a positive integer, got True"),
        ((3, 4, 2, "int32"), TypeError, "dtype: expected dtype float32 or float64, got int32"),
        ((3, 4, 2, "real"), TypeError, "dtype: expected dtype float32 or float64, got real"),
        ((10**9, 10**9, 2), MemoryError, "parameters with d=1000000000, M=1000000000, K=2: needs"),
    ],
)
def test_init_refuses(arguments, kind, message):
    with pytest.raises(kind, match=r"^" + re.escape(message)):
        SQUARED.init(*arguments)


def test_init_of_the_logistic_loss_has_one_output():
    with pytest.raises(ValueError, match=r"^K: the logistic loss has one output, K = 1, got 2$"):
        LOGISTIC.init(3, 4, 2)


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (slice(0, 8), ValueError, "rows: expected 0 <= start < stop <= 7, got slice(0, 8)"),
        (slice(-2, 7), ValueError, "rows: expected 0 <= start < stop <= 7, got slice(-2, 7)"),
        (slice(3, 3), ValueError, "rows: expected 0 <= start < stop <= 7, got slice(3, 3)"),
        (slice(7, None), ValueError, "rows: expected 0 <= start < stop <= 7, got slice(7, 7)"),
        (slice(0, 6, 2), ValueError, "rows: expected a slice without a step, got step 2"),
        (slice(0.5, 3), TypeError, "rows: expected integers as bounds, got slice(0.5, 3, None)"),
        (slice("a", None), TypeError, "rows: expected integers as bounds, got slice('a', None"),
        (3, TypeError, "rows: expected None or a slice, got int"),
        ([0, 1], TypeError, "rows: expected None or a slice, got list"),
    ],
)
def test_gradient_refuses(rows, kind, message):
    with pytest.raises(kind, match=r"^" + re.escape(message)):
        plan().gradient(rows)


@pytest.mark.parametrize(
    ("mu", "kind", "message"),
    [
        (NAN, ValueError, "mu: expected a finite number that float32 can hold, got nan"),
        (INF, ValueError, "mu: expected a finite number that float32 can hold, got inf"),
        (1e39, ValueError, "mu: expected a finite number that float32 can hold, got 1e+39"),
        (10**400, ValueError, "mu: expected a finite number that float32 can hold, got inf"),
        (None, TypeError, "mu: expected a finite number, got None"),
        ("0.1", TypeError, "mu: expected a finite number, got '0.1'"),
        (1j, TypeError, "mu: expected a finite number, got 1j"),
        (np.ones(1), TypeError, "mu: expected a finite number, got array([1.])"),
    ],
)
def test_step_refuses_and_changes_nothing(variant, mu, kind, message):
    made = plan(variant.name)
    before = made.theta
    with pytest.raises(kind, match=r"^" + re.escape(message)):
        made.step(mu)
    for array, old in zip(made.theta, before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("mu", [0, 1, -0.5, np.float32(0.1), np.int64(2)])
def test_step_takes_any_real_number(mu):
    plan().step(mu)


@pytest.mark.parametrize(
    ("X", "kind", "message"),
    [
        (ones(5, 4), ValueError, "X_new: expected shape (n, 3), got (5, 4)"),
        (ones(3), ValueError, "X_new: expected shape (n, d), got 1 axes (3,)"),
        (ones(0, 3), ValueError, "X_new: expected n >= 1, got shape (0, 3)"),
        (
            ones(5, 3, dtype="float64"),
            TypeError,
            "X_new: expected float32, the dtype of X, got float64",
        ),
        (
            with_value((5, 3), NAN, (1, 1)),
            ValueError,
            "X_new: expected finite numbers, got nan at [1, 1]",
        ),
    ],
)
def test_predict_refuses(X, kind, message):
    with pytest.raises(kind, match=r"^" + re.escape(message)):
        plan().predict(X)


@pytest.mark.parametrize(
    ("theta", "kind", "message"),
    [
        ((ones(5, 3), ones(2, 5)), ValueError, "theta.V: expected shape (4, 3), got (5, 3)"),
        ((ones(4, 3), ones(1, 4)), ValueError, "theta.W: expected shape (2, 4), got (1, 4)"),
        (
            (ones(4, 3, dtype="float64"), ones(2, 4, dtype="float64")),
            TypeError,
            "theta.V: expected float32, the dtype of X, got float64",
        ),
        (
            (with_value((4, 3), NAN, (0, 0)), ones(2, 4)),
            ValueError,
            "theta.V: expected finite numbers, got nan at [0, 0]",
        ),
        (np.ones(3), TypeError, "theta: expected Parameters(V, W), got ndarray"),
    ],
)
def test_assigning_theta_refuses_and_changes_nothing(variant, theta, kind, message):
    made = plan(variant.name)
    before = made.theta
    with pytest.raises(kind, match=r"^" + re.escape(message)):
        made.theta = theta
    for array, old in zip(made.theta, before, strict=True):
        np.testing.assert_array_equal(array, old)


def _name(variant):
    """Who refuses; for `auto` that is whoever was chosen."""
    return r"[\w-]+" if variant.device == "any" else variant.name


def test_more_memory_than_there_is_is_refused_before_any_is_taken(variant, monkeypatch):
    X, Y = ones(20_000, 50)[:, ::-1], ones(20_000, 2, dtype="int8")  # both must be copied
    monkeypatch.setattr(network, "available_memory", lambda: 1 << 20)
    with pytest.raises(MemoryError):  # compiles what a choice among variants runs
        variant.plan(SQUARED, X, Y, tl.Parameters(ones(4, 50), ones(2, 4)))
    tracemalloc.start()
    try:
        expected = (
            rf"^variant {_name(variant)} with n=20000 d=50 M=4 K=2: needs [\d.]+ GiB of memory, "
        )
        with pytest.raises(MemoryError, match=expected + r"0\.00 GiB are free$"):
            variant.plan(SQUARED, X, Y, tl.Parameters(ones(4, 50), ones(2, 4)))
        # A choice makes answers for data of its own, as few as it can, whatever X is.
        most = 16 << 20 if variant.device == "any" else X.nbytes / 10
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "Y", [np.zeros(10**6, "int32"), np.zeros((10**6, 8), "int32"), np.zeros((8, 10**6), "f4").T]
)
def test_targets_that_must_be_converted_count(Y, monkeypatch):
    net = SOFTMAX if Y.ndim == 1 else SQUARED
    monkeypatch.setattr(network, "available_memory", lambda: 10**6 * 8 * 4 - 1)
    with pytest.raises(MemoryError, match=r"needs 0\.03 GiB"):
        tl.variants.get("numba-loops").plan(
            net, ones(10**6, 1), Y, tl.Parameters(ones(1, 1), ones(8, 1))
        )


def test_a_problem_beyond_any_machine_is_refused(variant):
    X = np.broadcast_to(np.float32(1), (10**12, 3))
    Y = np.broadcast_to(np.float32(1), (10**12, 2))
    with pytest.raises(MemoryError, match=f"^variant {_name(variant)} with n=1000000000000 d=3 "):
        variant.plan(SQUARED, X, Y, tl.Parameters(ones(4, 3), ones(2, 4)))
