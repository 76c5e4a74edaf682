"""Two-layer networks: one interface, many implementations, verified and measured."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from . import deferred as _deferred
from .machine import given as _given  # noqa: F401  (before other libraries change it)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import activations, history, losses, variants
    from .activations import Activation
    from .choosing import choose
    from .composed.functions import loss_and_gradient, predict
    from .interface import Engine, Plan, Problem, Variant, Weights
    from .losses import Loss
    from .network import Network, Parameters, Shape
    from .targets import Targets
    from .training import optimizers
    from .training.optimizers import Optimizer

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "Engine",
    "Loss",
    "Network",
    "Optimizer",
    "Parameters",
    "Plan",
    "Problem",
    "Shape",
    "Targets",
    "Variant",
    "Weights",
    "activations",
    "choose",
    "history",
    "loss_and_gradient",
    "losses",
    "optimizers",
    "predict",
    "variants",
]

# Where the names come from. They are loaded when they are asked for: a compiler takes half a second
# to import, and who asks the store which variant to take needs none.
_HOMES = {
    "Activation": "activations",
    "Loss": "losses",
    "Optimizer": "training.optimizers",
    "Targets": "targets",
    "Engine": "interface",
    "Weights": "interface",
    "predict": "composed.functions",
    "Network": "network",
    "Parameters": "network",
    "Plan": "interface",
    "Problem": "interface",
    "Shape": "network",
    "Variant": "interface",
    "choose": "choosing",
    "loss_and_gradient": "composed.functions",
}


_MODULES = {
    "activations": "activations",
    "history": "history",
    "losses": "losses",
    "optimizers": "training.optimizers",
    "variants": "variants",
}


def _composed() -> "Iterable[Variant]":
    return _import_module(".composed", __name__).VARIANTS


def _html(thing: object) -> str:
    return str(_import_module(".showing.notebook", __name__).html(thing))


_deferred.VARIANTS.append(_composed)
_deferred.HTML.append(_html)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f".{_MODULES[name]}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
