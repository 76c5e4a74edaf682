"""Two-layer networks: one interface, many implementations, verified and measured."""

from pathlib import Path as _Path

for _folder in ("kernels", "variants"):
    if (_Path(__file__).parent / _folder).is_file():
        raise ImportError(
            f"twolayer/{_folder} is a file where a symbolic link belongs: check the repository out "
            "with symbolic links (git config core.symlinks true), or install a built wheel"
        )

from . import optimizers, variants
from .interface import Plan, Problem, Variant
from .network import Network, Parameters, Shape
from .oneline import loss_and_gradient

__version__ = "0.1.0"

__all__ = [
    "Network",
    "Parameters",
    "Plan",
    "Problem",
    "Shape",
    "Variant",
    "loss_and_gradient",
    "optimizers",
    "variants",
]
