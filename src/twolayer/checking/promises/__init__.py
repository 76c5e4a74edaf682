"""Whether a variant keeps what the interface promises beyond L, ∇L and F at the first θ.

Each promise is a function that uses plans as a caller may, and yields what it found there next to
what it should be.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...interface import Variant
from ...network import Network, Shape
from .. import cases
from ..verify import ORACLE, Agreement, Worst, failed
from . import arrays, errors, results, state, together
from .trial import Broken, Trial

# The first has a tail beyond 16 inputs, 32 hidden units and 8 outputs; in the second arrays of
# different meaning have one shape; the last has many rows: one more than a multiple of all powers
# of two up to 512.
SHAPES = (Shape(67, 19, 35, 11), Shape(12, 4, 4, 4), Shape(2561, 3, 5, 2))

Promise = Callable[[Trial], Iterator[Worst]]
EVERYWHERE: dict[str, Promise] = {
    "steps": results.after_steps,
    "slices": results.slices,
    "loss": state.losses,
    "update": state.updates,
    "updates": state.several,
    "predict": results.predictions,
    "same bits": arrays.same_bits,
    "fewer threads": together.fewer_threads,
    "untouched": arrays.untouched,
}
ONCE: dict[str, Promise] = {
    "theta": state.parameters,
    "labels": results.labels,
    "sizes": results.sizes,
    "first updates": state.first_updates,
    "layouts": arrays.layouts,
    "apart": arrays.apart,
    "refilled": arrays.refilled,
    "zeros": results.zeros,
    "overflow": results.overflow,
    "any order": state.any_order,
    "many rows": results.long_sums,
    "several plans": together.several_plans,
    "other plans": together.other_plans,
    "Python threads": together.python_threads,
    "errors": errors.refusals,
}


def promises(
    variant: Variant,
    net: Network,
    dtype: str,
    threads: int | None = None,
    shapes: Sequence[Shape] = SHAPES,
    seed: int = 50,
) -> Iterator[Agreement]:
    """Whether a variant keeps each promise, on a network and dtype: an Agreement for each."""
    for number, shape in enumerate(shapes):
        if shape.n > 1000 and variant.name == ORACLE:  # which has no blocks of rows
            break
        case = cases.problem(net, shape, dtype, seed + number)
        if variant.refusal(net, case.shape, case.X.dtype):
            continue
        trial = Trial.of(variant, case, threads)
        for name, promise in (EVERYWHERE | ({} if number else ONCE)).items():
            if variant.reproducible or promise is not arrays.same_bits:
                yield from _kept(trial, name, promise)


def _kept(trial: Trial, name: str, promise: Promise) -> Iterator[Agreement]:
    case = trial.case
    about = (trial.variant.name, case.net, f"promise: {name}", case.shape, trial.dtype.name)
    kept = np.geterr(), np.random.get_state(), random.getstate()
    try:
        with contextlib.suppress(Exception):
            trial.plan()  # libraries may draw random numbers when they are imported
        np.seterr(divide="warn", over="warn", under="ignore", invalid="warn")
        np.random.seed(70)  # a seed of its own: a variant may have set another long ago
        random.seed(70)
        before = _surroundings()
        found: Sequence[Worst] = list(promise(trial))
        if before != _surroundings():
            raise Broken("NumPy's error state or a global random state was changed")
    except Exception as error:  # whatever a variant raises is its own affair
        yield failed(about, error, Broken, quantity=name)
        return
    finally:
        np.seterr(**kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])
    first = next((one for one in found if one.ratio > 1), None)
    if found:  # nothing where it is no promise of this variant or dtype
        yield Agreement(*about, *(first or max(found, key=lambda one: one.ratio)))


def _surroundings() -> tuple[Any, ...]:
    numpy_random = np.random.get_state(legacy=False)["state"]
    return np.geterr(), numpy_random["pos"], numpy_random["key"].tobytes(), random.getstate()
