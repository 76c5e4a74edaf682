"""The list of activations σ. Their formulas stand in `kernels/formulas/activations.py`."""

from __future__ import annotations

from .kernels.formulas.activations import ACTIVATIONS, Activation
from .registry import Registry, listed

__all__ = ["REGISTRY", "Activation", "add", "get", "names"]

REGISTRY = listed(Registry(Activation, ACTIVATIONS.values()))

names = REGISTRY.names
get = REGISTRY.get
add = REGISTRY.add
