"""Loops over mini-batches as users of NumPy, PyTorch and JAX write them.

A loop takes batches of neighbouring rows in turn; rows at the end that fill no batch are left out.
What a library asks for once is done when a loop is made. None of its work is shared with the
project's own kernels, except for σ and ℓ, which the variants of these libraries have already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np

from ..machine.threads import blas_threads
from ..network import Network, Parameters, one_of


class Loop(NamedTuple):
    """Updates over the batches of an epoch, and of the next one.

    run(count) makes the next updates and returns when they are done; theta() is θ after them, on
    the host. Both are called inside settings(), which holds for all of the process.
    """

    run: Callable[[int], None]
    theta: Callable[[], Parameters]
    settings: Callable[[], AbstractContextManager[None]]


class Task(NamedTuple):
    """What a loop is made for: data, θ to start from, rows of a batch, optimizer and its settings.

    settings has all arguments of the optimizer by name, but the rule, which is constant.
    """

    net: Network
    X: np.ndarray
    Y: np.ndarray
    theta: Parameters
    batch: int
    optimizer: str
    settings: Mapping[str, Any]
    threads: int

    def batches(self) -> Iterator[slice]:
        """The rows of one update after the other, without an end."""
        whole = len(self.X) - len(self.X) % self.batch
        starts = range(0, whole, self.batch)
        return cycle([slice(start, start + self.batch) for start in starts])


class Peer(NamedTuple):
    """A library: how it is called in tables, the variant that says whether it is here, its loop.

    make raises ValueError for an optimizer that it has not.
    """

    name: str
    variant: str
    make: Callable[[Task], Loop]


def numpy_loop(task: Task) -> Loop:
    """Products over a batch, the update in place."""
    net, X, Y = task.net, task.X, task.Y
    V, W = theta = Parameters(*(weights.copy() for weights in task.theta))
    rule, count = _rule(task.optimizer)
    slots = [[np.zeros_like(weights) for _ in range(count)] for weights in theta]
    sigma = _NUMPY.get(net.activation, lambda A: (net.sigma.value(A), net.sigma.slope(A)))
    batches, k = task.batches(), 0

    def run(updates: int) -> None:
        nonlocal k
        for _ in range(updates):
            k += 1
            rows = next(batches)
            Z, slopes = sigma(X[rows] @ V.T)
            Delta = Z @ W.T  # U, until the loss overwrites it
            net.objective.loss_batch(Delta, Y[rows])
            Delta /= task.batch
            G = (Delta @ W) * slopes
            gradient = G.T @ X[rows], Delta.T @ Z
            for weights, slope, kept in zip(theta, gradient, slots, strict=True):
                rule(weights, slope, *kept, k=k, **task.settings)

    return Loop(run, lambda: Parameters(V.copy(), W.copy()), partial(blas_threads, task.threads))


def torch_loop(task: Task, compiled: bool = False) -> Loop:
    """Parameters, autograd and one of `torch.optim`; compiled: the loss and the update are."""
    import torch

    from ..variants.torch import functions, settings

    if task.optimizer not in _TORCH or task.settings.get("momentum", 0.0) is None:
        raise ValueError(f"PyTorch has no {task.optimizer} with these settings")
    outputs, _, losses = functions(task.net)
    V, W = (torch.nn.Parameter(torch.tensor(weights)) for weights in task.theta)
    optimizer = _TORCH[task.optimizer](torch.optim, [V, W], **task.settings)
    X, Y = torch.from_numpy(task.X), torch.from_numpy(_labels(task.net, task.Y))

    def mean_loss(x: Any, y: Any) -> Any:
        return losses(outputs(V, W, x), y).mean()

    def step() -> None:
        optimizer.step()

    if compiled:
        torch._dynamo.reset()  # it counts what it compiles, and the ninth loop would be refused
        mean_loss, step = torch.compile(mean_loss, dynamic=False), torch.compile(step)
    batches = task.batches()

    def run(updates: int) -> None:
        for _ in range(updates):
            rows = next(batches)
            optimizer.zero_grad()
            mean_loss(X[rows], Y[rows]).backward()
            step()

    def theta() -> Parameters:
        return Parameters(*(weights.detach().numpy().copy() for weights in (V, W)))

    return Loop(run, theta, partial(settings, task.threads))


def jax_loop(task: Task, together: bool = False) -> Loop:
    """Gradient and update in one compiled function, to which θ and the slots are donated.

    It is called for each update with slices of NumPy's arrays: those of JAX's own would be copied.
    together: `lax.scan` over the updates of a call takes them from arrays of JAX's own.
    """
    import jax

    from ..variants.jax import float64, functions, place

    _, differentiate, _ = functions(task.net)
    rule, count = _rule(task.optimizer)

    def update(state: Any, x: Any, y: Any) -> Any:
        k, theta, slots = state
        k = k + 1
        _, gradient = differentiate(theta, x, y)
        new = [
            rule(weights, slope, *kept, k=k, **task.settings)
            for weights, slope, kept in zip(theta, gradient, slots, strict=True)
        ]
        return k, Parameters(*(values[0] for values in new)), [values[1:] for values in new]

    def updates(state: Any, X: Any, Y: Any, starts: Any) -> Any:
        def one(state: Any, start: Any) -> Any:
            x, y = (jax.lax.dynamic_slice_in_dim(array, start, task.batch) for array in (X, Y))
            return update(state, x, y), None

        return jax.lax.scan(one, state, starts)[0]

    slots = [(np.zeros_like(weights),) * count for weights in task.theta]
    begin = np.zeros((), task.X.dtype), task.theta, slots
    where = place("cpu", task.threads)
    with float64():
        state = jax.device_put(begin, where, may_alias=False)
        X, Y = jax.device_put((task.X, task.Y), where) if together else (task.X, task.Y)
    compiled = jax.jit(updates if together else update, donate_argnums=0)
    batches = task.batches()

    def run(updates: int) -> None:
        nonlocal state
        several = list(islice(batches, updates))
        if together:
            state = compiled(state, X, Y, np.array([rows.start for rows in several]))
        else:
            for rows in several:
                state = compiled(state, X[rows], Y[rows])
        jax.block_until_ready(state)

    return Loop(run, lambda: Parameters(*map(np.array, state[1])), float64)


PEERS = (
    Peer("NumPy", "numpy", numpy_loop),
    Peer("PyTorch", "torch", torch_loop),
    Peer("torch.compile", "torch-compile", partial(torch_loop, compiled=True)),
    Peer("JAX", "jax", jax_loop),
    Peer("JAX, scan", "jax", partial(jax_loop, together=True)),
)

# σ(A) and σ′(A) as one writes them; others are the project's own.
_NUMPY: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "identity": lambda A: (A, np.ones_like(A)),
    "tanh": lambda A: (Z := np.tanh(A, out=A), 1 - Z * Z),
    "relu": lambda A: (np.maximum(A, 0), A > 0),
}


# Updates of a weight: in place where arrays can be written to, so for JAX the results count.


def _descend(w, g, v=None, *, k, step, momentum=0.0):  # type: ignore[no-untyped-def]
    if v is None:
        w -= step * g
        return (w,)
    v *= momentum
    v += g
    w -= step * v
    return w, v


def _accelerate(w, g, v, *, k, step, momentum):  # type: ignore[no-untyped-def]
    now, then = (momentum, momentum) if momentum is not None else ((k - 1) / (k + 2), k / (k + 3))
    g *= step
    v *= now
    v -= g
    w -= g
    w += then * v
    return w, v


def _adagrad(w, g, s, *, k, step, epsilon):  # type: ignore[no-untyped-def]
    s += g * g
    w -= step * g / (s**0.5 + epsilon)
    return w, s


def _rmsprop(w, g, s, *, k, step, rho, epsilon):  # type: ignore[no-untyped-def]
    s *= rho
    s += (1 - rho) * (g * g)
    w -= step * g / (s**0.5 + epsilon)
    return w, s


def _adam(w, g, m, s, *, k, step, beta1, beta2, epsilon, decay=0.0):  # type: ignore[no-untyped-def]
    if decay:
        w *= 1 - step * decay
    m *= beta1
    m += (1 - beta1) * g
    s *= beta2
    s += (1 - beta2) * (g * g)
    w -= step / (1 - beta1**k) * m / ((s / (1 - beta2**k)) ** 0.5 + epsilon)
    return w, m, s


_RULES: dict[str, tuple[Callable[..., Any], int]] = {  # with the number of slots
    "gd": (_descend, 0),
    "nesterov": (_accelerate, 1),
    "sgd": (_descend, 1),
    "adagrad": (_adagrad, 1),
    "rmsprop": (_rmsprop, 1),
    "adam": (_adam, 2),
    "adamw": (_adam, 2),
}

_TORCH: dict[str, Callable[..., Any]] = {
    "gd": lambda optim, weights, step: optim.SGD(weights, step),
    "nesterov": lambda optim, weights, step, momentum: optim.SGD(
        weights, step, momentum, nesterov=True
    ),
    "sgd": lambda optim, weights, step, momentum: optim.SGD(weights, step, momentum),
    "adagrad": lambda optim, weights, step, epsilon: optim.Adagrad(weights, step, eps=epsilon),
    "rmsprop": lambda optim, weights, step, rho, epsilon: optim.RMSprop(
        weights, step, alpha=rho, eps=epsilon
    ),
    "adam": lambda optim, weights, step, beta1, beta2, epsilon: optim.Adam(
        weights, step, (beta1, beta2), epsilon
    ),
    "adamw": lambda optim, weights, step, beta1, beta2, epsilon, decay: optim.AdamW(
        weights, step, (beta1, beta2), epsilon, decay
    ),
}


def _rule(optimizer: str) -> tuple[Callable[..., Any], int]:
    """The update and its slots. Raises ValueError for an optimizer from outside the project."""
    one_of("optimizer", optimizer, _RULES)
    return _RULES[optimizer]


def _labels(net: Network, Y: np.ndarray) -> np.ndarray:
    """Classes (n,) where the loss is softmax and each row of Y has a single 1, else Y."""
    if net.loss == "softmax" and ((Y == 0) | (Y == 1)).all():
        return Y.argmax(1)
    return Y
