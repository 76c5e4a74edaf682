"""Trained networks and checkpoints on disk: .npz files, without pickles, replaced as a whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.files import read_arrays
from ..interface.checks import check_parameters
from ..machine.atomic import replacing
from ..network import Network, Parameters
from .loop import Training

_EXPECTED = "expected a checkpoint of twolayer train"
_SHARE = 0.05  # of the time at most goes into checkpoints


class Model(NamedTuple):
    """A trained network, and the classes that its outputs are for, if they were numbered."""

    net: Network
    theta: Parameters
    classes: np.ndarray | None = None


def save_model(path: Path, model: Model) -> None:
    """Write V, W and the names of σ and ℓ; `numpy.load` reads them."""
    net, theta, classes = model
    more: dict[str, Any] = {} if classes is None else {"classes": classes}
    with replacing(path) as file:
        np.savez(file, V=theta.V, W=theta.W, activation=net.activation, loss=net.loss, **more)


def load_model(path: Path) -> Model:
    """What `save_model` wrote. Raises ValueError for a file that is no such model."""
    arrays = read_arrays(path, ("V", "W", "activation", "loss"))
    try:
        net = Network(str(arrays["activation"]), str(arrays["loss"]))
        theta = check_parameters(net, (arrays["V"], arrays["W"]))
        return Model(net, theta, arrays.get("classes"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a trained network, got: {error}") from None


def variant_of(path: Path) -> str:
    """The name of the variant that a checkpoint was made with."""
    with suppress(KeyError, TypeError, json.JSONDecodeError):
        return str(json.loads(str(read_arrays(path, ())["settings"]))["variant"])
    raise ValueError(f"{path}: {_EXPECTED}")


class Checkpoint:
    """The state of a training on disk, with the settings that a training must share to go on.

    Arguments: path of an .npz file; settings, JSON values by name.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self._next = 0.0

    def save(self, training: Training) -> None:
        """Write the state, once it is safe on the disk in place of the last one."""
        begun = time.monotonic()
        arrays: dict[str, Any] = {"settings": json.dumps(self.settings), **training.state()}
        with replacing(self.path) as file:
            np.savez(file, **arrays)
        now = time.monotonic()
        self._next = now + (now - begun) / _SHARE

    def save_in_time(self, training: Training) -> None:
        """Write the state unless that would take more than a twentieth of the time."""
        if time.monotonic() >= self._next:
            self.save(training)

    def restore(self, training: Training) -> str | None:
        """Let the training go on from the file; returns a sentence where the last digits may move.

        That may be where the number of threads is another. Raises ValueError where other settings
        are, and for a file that is no checkpoint.
        """
        arrays = read_arrays(self.path, ())
        try:
            found = json.loads(str(arrays["settings"]))
            moved = None
            for name, ours, theirs in _differences(self.settings, found):
                if name != "threads":
                    raise ValueError(
                        f"resume: {self.path} was made with {name} {theirs}, expected the same, "
                        f"got {ours}: {_to_write(name, theirs)}"
                    )
                moved = (
                    f"resume: {self.path} was made with {theirs} threads and goes on with {ours}: "
                    "the last digits may be others"
                )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
            raise ValueError(f"{self.path}: {_EXPECTED}") from None
        try:
            training.restore(arrays)
        except KeyError as error:
            raise ValueError(f"{self.path}: {_EXPECTED}, {error.args[0]} is missing") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: {_EXPECTED}, got: {error}") from None
        return moved


def _to_write(name: str, value: Any) -> str:
    """What to add to the command for a setting of the checkpoint, or what else to do."""
    if name in ("data", "n", "d", "K"):
        return "it needs the same data, or another --checkpoint"
    if name == "stream" and not value:
        return "it needs room for all rows in memory, and no --stream"
    return f"leave out --{name}" if value is None else f"add --{name} {value}".removesuffix(" True")


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            yield name, ours.get(name), theirs.get(name)
