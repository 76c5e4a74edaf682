"""Choosing an implementation for a network, a shape and this machine.

An answer from the store needs neither NumPy nor a compiler, so nothing here imports them for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from ..machine import hardware
from ..machine.store import Store
from . import known
from .choice import Candidate, Choice, Question

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["Candidate", "Choice", "choose", "choose_by_name"]


class Terms(NamedTuple):
    """What a choice must keep to, besides the question. held: X and Y are in memory already."""

    epochs: int | None = None
    device: str | None = None
    max_memory: int | None = None
    deterministic: bool = False
    variants: tuple[str, ...] | None = None
    cold: bool = False
    held: bool = False


Progress = Callable[[str, float, float], None]  # (what is done, units done, units in all)


def _nobody_looks(what: str, done: float, total: float) -> None: ...


_PACKAGE = __name__.partition(".")[0]
_answers: dict[tuple[Any, ...], Choice] = {}  # of this process, by store and question


def choose(
    net: Network,
    *,
    n: int,
    d: int,
    M: int,
    K: int,
    dtype: Any = "float32",
    epochs: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    max_memory: int | None = None,
    deterministic: bool = False,
    variants: Sequence[str] | None = None,
    cold: bool = False,
    batch: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Choice:
    """The variant that is right here and takes the least time.

    Without `epochs` the time of an epoch counts, else before + epochs · seconds an epoch, in a new
    process. A race of some seconds decides. Answers are kept in the store, unless something decided
    that may be otherwise another time, as other programs on this machine. Nothing is printed: that
    something is measured, and who was left out, goes to the logger of this package.

    Arguments: net; n, d, M, K, the sizes; dtype, float32 or float64; epochs; device, "cpu",
    "cuda" or "cluster", by default cpu and cuda; threads, by default all CPUs of this process;
    max_memory, bytes, by default what is free; deterministic, whether the same call must return the
    same bits; variants, the names to choose from, by default all of this project's and your own;
    cold, whether nothing is compiled yet; batch, rows of an update where an epoch is as many
    updates as cover n, by default all rows in one step; fresh, whether all is measured anew,
    whatever is kept; progress(what, done, total), called while something is measured. Raises
    ValueError or TypeError for a bad argument, RuntimeError where no variant can do it, MemoryError
    where more memory would help.
    """
    from ..interface import check_threads
    from ..network import float_type, one_of, positive_integer

    n, d, M, K = (positive_integer(*pair) for pair in zip("ndMK", (n, d, M, K), strict=True))
    if device is not None:
        one_of("device", device, ("cpu", "cuda", "cluster"))
    for argument, value in (
        ("epochs", epochs), ("max_memory", max_memory), ("batch", batch),
    ):  # fmt: skip
        if value is not None:
            positive_integer(argument, value)
    q = Question(
        net.activation, net.loss, n, d, M, K, float_type("dtype", dtype).name,
        check_threads(threads), 0 if batch is None or batch >= n else batch,
    )  # fmt: skip
    names = None if variants is None else tuple(variants)
    asked = Terms(epochs, device, max_memory, deterministic, names, cold)
    return ask(net, q, asked, fresh, progress)


def ask(
    net: Network, q: Question, asked: Terms, fresh: bool = False, progress: Progress | None = None
) -> Choice:
    """The answer from the store, or one that is found now and kept there."""
    store = Store()
    key = _key(q, asked, _formulas(net))
    if not fresh and (found := _recall(store, key, q, asked)) is not None:
        return found
    from . import decide

    choice, holds = decide.choose(store, net, q, asked, fresh, progress or _nobody_looks)
    if holds:
        known.keep(
            store, known.ANSWER, {"key": key, "choice": choice.to_json()}, variant=choice.variant,
            **{name: value for name, value in q._asdict().items() if name != "batch"},
        )  # fmt: skip
        _answers[store.path, key] = choice
    return choice


def choose_by_name(
    activation: str,
    loss: str,
    *,
    n: int,
    d: int,
    M: int,
    K: int,
    dtype: str,
    threads: int | None,
    variants: Sequence[str] | None,
    batch: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    **terms: Any,
) -> Choice:
    """`choose` for Network(activation, loss); an answer from the store takes no import for it.

    All terms are to be given. What is no good is in no store, so `choose` is who refuses it.
    """
    count = hardware.thread_limit()[0] if threads is None else threads
    q = Question(activation, loss, n, d, M, K, dtype, count, batch or 0)
    asked = Terms(variants=None if variants is None else tuple(variants), **terms)
    if not fresh and (found := _recall(Store(), _key(q, asked), q, asked)) is not None:
        return found
    from ..network import Network

    return choose(
        Network(activation, loss), n=n, d=d, M=M, K=K, dtype=dtype, threads=threads,
        variants=variants, batch=batch, fresh=fresh, progress=progress, **terms,
    )  # fmt: skip


def _formulas(net: Network) -> str:
    """What σ and ℓ of a user compute, in words that change with it; of ours their names say it."""
    if not net.from_outside():
        return ""
    from ..kernels.compiler.contents import contents

    held = [*net.sigma, *vars(net.objective).values()]
    return "".join(contents(one) for one in held if callable(getattr(one, "py_func", one)))


def _key(q: Question, asked: Terms, formulas: str = "") -> str:
    """A name for all that an answer depends on, but the machine. formulas: of the user's own."""
    outside: list[tuple[str, str]] = []
    # Where nobody has loaded the list of variants, nobody has added to it either.
    if f"{_PACKAGE}.variants" in sys.modules or _offered():
        from . import field

        outside = field.outside()
    return hashlib.sha256(json.dumps([q, asked, outside, formulas]).encode()).hexdigest()[:16]


@cache  # it looks through all that is installed
def _offered() -> bool:
    """Whether other packages offer variants."""
    return bool(entry_points(group="twolayer.variants"))


def _recall(store: Store, key: str, q: Question, asked: Terms) -> Choice | None:
    """The answer that was given before, unless its memory is not free any more."""
    found = _answers.get((store.path, key))
    if found is None:
        for entry in reversed(known.find(store, known.ANSWER)):
            if entry.get("key") == key:
                with contextlib.suppress(KeyError, TypeError, ValueError):  # of another make
                    found = _answers[store.path, key] = Choice.from_json(entry["choice"])
                    break
    if found is None:
        return None
    held = q.data_bytes if asked.held else 0
    return found if found.memory - held <= hardware.available_memory() else None
