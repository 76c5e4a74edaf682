"""One revision in a process: its package, its plans on a problem, and whether they are right."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __package__:
    from .loading import NAME, add, load, meaning
else:  # the worker was run by its path
    from loading import NAME, add, load, meaning  # type: ignore[import-not-found,no-redef]

SIDES = ("base", "head")
MU = 1e-6  # so small that thousands of epochs do not move θ
LIMIT = 0.08  # seconds an epoch of the base; a slower benchmark is left out
SURELY = 25  # times the limit: what few rows say is not tried on all of them
FAR = 2.0  # times that limit an epoch of the head may take; beyond it is slower without a race
FARTHEST = 1000  # times the base's epoch; beyond it too
_DISTINCT = 256  # rows of a problem that differ


class Absent(Exception):
    """Why a benchmark is left out."""


class Side:
    """One revision's package, and what it does on a problem.

    files: of variants, by their paths in the revision; those that it lacks are passed over.
    """

    def __init__(
        self, name: str, folder: Path, threads: int | None, files: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.threads = threads
        self.alias = f"{NAME}_{name}"
        self.package = load(folder / "src" / NAME, self.alias)
        found = [folder / file for file in files]
        self.added = add(self.alias, [file for file in found if file.is_file()])
        self.variants = self.package.variants

    def plan(self, benchmark: dict[str, Any], rows: int | None = None) -> Any:
        """A plan that made its first step. Raises Absent where the variant cannot run."""
        package, name = self.package, benchmark["variant"]
        if name not in self.variants.names():
            raise Absent(f"{self.name} has no such variant")
        variant = self.variants.get(name)
        device = benchmark.get("device")
        if device is not None:
            if device not in getattr(variant, "devices", (variant.device,)):
                raise Absent(f"does not run on {device}")
            if device != variant.device:
                variant = variant.on(device)
        if reason := variant.unavailable():
            raise Absent(reason)
        X, Y, V, W = problem(benchmark)
        refuses = getattr(variant, "refuses", None)  # early revisions have none
        if refuses and (reason := refuses(package.Shape(*benchmark["shape"]), X.dtype)):
            raise Absent(reason)
        net = package.Network(benchmark["activation"], benchmark["loss"])
        theta = package.Parameters(V.copy(), W.copy())
        with meaning(self.alias):  # for what a variant of others imports only now
            plan = variant.plan(net, X[:rows], Y[:rows], theta, self.threads)
            plan.step(MU)
        return plan

    def step(self, benchmark: dict[str, Any], rows: int | None = None) -> Callable[[], Any]:
        """A step of such a plan, again and again."""
        return partial(self.plan(benchmark, rows).step, MU)


def problem(benchmark: dict[str, Any]) -> Any:
    """X (n, d), Y (n, K), V (M, d), W (K, M), the same for both sides."""
    import numpy as np

    n, d, M, K = benchmark["shape"]
    dtype = benchmark["dtype"]
    loss = benchmark["loss"]
    if _problem.get("key") != (n, d, M, K, dtype, loss):
        values = np.random.default_rng(0)
        sizes = ((min(n, _DISTINCT), d, 1), (min(n, _DISTINCT), K, 1), (M, d, d), (K, M, M))
        X, Y, V, W = (
            (values.standard_normal((rows, columns)) / scale**0.5).astype(dtype)
            for rows, columns, scale in sizes
        )
        if loss == "softmax":
            Y = np.eye(K, dtype=dtype)[Y.argmax(axis=1)]
        elif loss == "logistic":
            Y = np.where(Y > 0, 1, -1).astype(dtype)
        of = drawn(n)
        _problem.update(key=(n, d, M, K, dtype, loss), arrays=[X[of], Y[of], V, W])
    return _problem["arrays"]


def drawn(n: int) -> Any:
    """Which of a few rows each row of X repeats: the answers cost no more for many rows."""
    import numpy as np

    of = np.arange(n)
    of[_DISTINCT:] = np.random.default_rng(1).integers(0, _DISTINCT, max(0, n - _DISTINCT))
    return of


_problem: dict[str, Any] = {}


def tried(tool: Any, side: Side, benchmark: dict[str, Any], limit: float) -> dict[str, Any]:
    """What a side alone does on a benchmark: "right", "slow", "absent" or "failed", and more."""
    try:
        make = partial(side.step, benchmark)
        timing, n = tool.measuring.timing, benchmark["shape"][0]
        seconds = timing.estimate(make, n, limit)
        if limit < seconds < SURELY * limit:  # few rows say little where a call itself costs much
            seconds = timing.warm_up(make(n), 0, 2)
        if seconds > limit:
            return {"kind": "slow", "seconds": seconds}
        error = checked(tool, side, side.plan(benchmark), benchmark)
        return {"kind": "right", "seconds": seconds, "error": error}
    except Absent as reason:
        return {"kind": "absent", "sentence": str(reason)}
    except Exception as failure:
        return failed(failure)


def unpaired(base: dict[str, Any], head: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a benchmark that only one side can be timed on; None where both can."""
    if head["kind"] == "failed":
        also = f"; base: {base['sentence']}" if base["kind"] == "failed" else ""
        return {"kind": "failed", "sentence": head["sentence"] + also}
    if base["kind"] == "failed":
        kind = "absent" if head["kind"] == "absent" else "repaired"
        return {"kind": kind, "sentence": f"in the base: {base['sentence']}", "fails": "base"}
    if base["kind"] == "absent":
        if head["kind"] == "absent":
            return head
        return {"kind": "new", "sentence": base["sentence"], "seconds": head["seconds"]}
    if head["kind"] == "absent":
        return {"kind": "lost", "sentence": head["sentence"]}
    if base["kind"] == "slow":
        sentence = f"an epoch takes about {base['seconds']:.2g} s, the limit is {LIMIT:g} s"
        return {"kind": "absent", "sentence": sentence}
    was, seconds = base["seconds"], head["seconds"]
    if head["kind"] == "slow" or seconds > FARTHEST * was:
        sentence = f"an epoch takes about {seconds:.2g} s, and {was:.2g} s in the base"
        return {"kind": "far", "sentence": sentence, "seconds": seconds}
    return None


def answers(tool: Any, benchmark: dict[str, Any]) -> Any:
    """What both sides must find on the problem, made once."""
    key = benchmark["activation"], benchmark["loss"], *benchmark["shape"], benchmark["dtype"]
    if _answers.get("key") != key:
        X, Y, V, W = problem(benchmark)
        net = tool.Network(benchmark["activation"], benchmark["loss"])
        found = tool.checking.answers.Answers(net, X, Y, tool.Parameters(V, W), drawn(len(X)))
        _answers.update(key=key, answers=found)
    return _answers["answers"]


_answers: dict[str, Any] = {}


def checked(tool: Any, side: Side, plan: Any, benchmark: dict[str, Any]) -> float:
    """The root mean square error of ∇L in units of ε. Raises RuntimeError for a wrong plan."""
    import numpy as np

    right = answers(tool, benchmark)
    try:
        right.hold(plan)
    except tool.checking.answers.Disagreement as wrong:
        raise RuntimeError(f"{side.name} {wrong}") from None
    exact = right.epochs[0].right.gradient
    off = [(a - b).ravel() for a, b in zip(plan.gradient()[1], exact, strict=True)]
    squares = [float(np.mean(np.concatenate(one) ** 2)) for one in (off, [*map(np.ravel, exact)])]
    return float(np.sqrt(squares[0] / squares[1]) / np.finfo(plan.dtype).eps)


def failed(failure: Exception) -> dict[str, str]:
    """A failure in one sentence, with the last place in the sources."""
    place = traceback.extract_tb(failure.__traceback__)[-1]
    text = " ".join(str(failure).split())[:500]
    where = f" ({Path(place.filename).name}:{place.lineno})"
    return {"kind": "failed", "sentence": f"{type(failure).__name__}: {text}{where}"}
