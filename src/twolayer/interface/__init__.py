"""The interface between an implementation and everybody who runs one."""

from .engine import Engine, Problem
from .plan import Plan
from .variant import Variant, check_threads
from .weights import ForeignWeights, Weights

__all__ = ["Engine", "ForeignWeights", "Plan", "Problem", "Variant", "Weights", "check_threads"]
