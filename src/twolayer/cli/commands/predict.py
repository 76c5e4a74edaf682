"""`twolayer predict`: the outputs of a trained network for new inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ...composed.functions import predict as outputs
from ...data import datasets, files
from ...machine.atomic import replacing
from ...showing import output
from ...training.checkpoint import Model, load_model
from ..options import VariantFiles, add_files

_VARIANT = "numpy"


def predict(
    model: Annotated[Path, typer.Argument(help="An .npz file that twolayer train --save wrote.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Inputs, a row a sample: .npy, .csv, .npz with X, or the name of a data set."
        ),
    ],
    save: Annotated[Path, typer.Option(help="Write F, a row a sample, to this .npy or .csv file.")],
    target: Annotated[
        int, typer.Option(help="How many of the last columns of a .csv file are no inputs.")
    ] = 0,
    variant_file: VariantFiles = None,
) -> None:
    """Write F = h(W σ(V x)) for each sample x: probabilities for softmax and logistic."""
    output.check_writable(save=save)
    kind = output.kind("save", save, (".csv", ".npy"))
    add_files(variant_file)
    trained = load_model(model)
    dtype = trained.theta.V.dtype
    if Path(data).suffix in files.FORMATS or Path(data).exists():
        X = files.load_inputs(data, target, dtype)
    else:
        X = datasets.load(data, dtype).X
    F = _outputs(trained, X)
    told = f"{len(F)} rows of {F.shape[1]} outputs in {save}"
    output.deliver(
        lambda: output.stdout().print(told, soft_wrap=True),
        (save, lambda file: _write(file, F, kind)),
    )


def _write(path: Path, F: np.ndarray, kind: str) -> None:
    with replacing(path) as file:
        if kind == ".npy":
            np.save(file, F)
        else:
            digits = 9 if F.dtype == np.float32 else 17  # as many as make the same number again
            np.savetxt(file, F, delimiter=",", fmt=f"%.{digits}g")


def _outputs(model: Model, X: np.ndarray) -> np.ndarray:
    """F (n, K)."""
    d = model.theta.V.shape[1]
    if X.shape[1] != d:
        raise ValueError(f"data: expected {d} inputs a row, as the network has, got {X.shape[1]}")
    return outputs(model.net, model.theta, X, _VARIANT)
