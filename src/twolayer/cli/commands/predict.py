"""`twolayer predict`: the outputs of a trained network for new inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ...composed.functions import predict as outputs
from ...data import datasets, files
from ...data.sources import Source, check_finite
from ...data.text import Columns
from ...machine.atomic import replacing
from ...network import enough_memory
from ...showing import output
from ...texts import counted
from ...training.checkpoint import Model, load_model
from .. import data as datas
from ..options import OUTPUT, PROBLEM, Drop, Header, VariantFiles, add_files

_VARIANT = "numpy"


def predict(
    model: Annotated[Path, typer.Argument(help="An .npz file that twolayer train --save wrote.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Inputs, a row a sample: .npy, .csv, Zarr, .npz with X, or a data set's name."
        ),
    ],
    save: Annotated[
        Path,
        typer.Option(
            help="Write F, a row a sample, to this .npy or .csv file.", rich_help_panel=OUTPUT
        ),
    ],
    target: Annotated[
        int,
        typer.Option(
            help="How many of the last columns of a .csv file are no inputs.",
            rich_help_panel=PROBLEM,
        ),
    ] = 0,
    header: Header = None,
    drop: Drop = None,
    variant_file: VariantFiles = None,
) -> None:
    """Write F = h(W σ(V x)) for each sample x: probabilities for softmax and logistic."""
    output.check_writable(save=save)
    kind = output.kind("save", save, (".csv", ".npy"))
    add_files(variant_file)
    output.check_unread(model, data if datas.is_file(data) else None)
    trained = load_model(model)
    dtype = trained.theta.V.dtype
    columns = Columns(target, header, drop)
    if datas.is_file(data):
        X = files.open_inputs(data, columns, datas.note)
    else:
        files.check_columns(columns, "a data set", usual=0)
        X = Source(datasets.load(data, dtype).X, data)
    F = _outputs(trained, X)
    told = f"{counted(len(F), 'row')} of {counted(F.shape[1], 'output')} in {save}"

    def tell() -> None:
        if trained.classes is not None:
            datas.note(datas.told(trained.classes))
        output.stdout().print(told, soft_wrap=True)

    output.deliver(tell, (save, lambda file: _write(file, F, kind)))


def _write(path: Path, F: np.ndarray, kind: str) -> None:
    with replacing(path) as file:
        if kind == ".npy":
            np.save(file, F)
        else:
            digits = 9 if F.dtype == np.float32 else 17  # as many as make the same number again
            np.savetxt(file, F, delimiter=",", fmt=f"%.{digits}g")


def _outputs(model: Model, X: Source) -> np.ndarray:
    """F (n, K), of blocks of the rows."""
    V, W = model.theta
    if X.shape[1] != V.shape[1]:
        more, text = X.shape[1] - V.shape[1], X.name.lower().endswith(files.TEXTS)
        hint = text and 0 < more < V.shape[1]
        advice = f": --target {more} leaves out the last" if hint else ""
        raise ValueError(
            f"data: expected {V.shape[1]} inputs a row, as the network has, "
            f"got {X.shape[1]}{advice}"
        )
    enough_memory(f"outputs of {X.name}", len(X) * len(W) * V.itemsize)
    F = np.empty((len(X), len(W)), V.dtype)
    for start, block in X.blocks(V.dtype):
        check_finite(X.name, block, start)
        F[start : start + len(block)] = outputs(model.net, model.theta, block, _VARIANT)
    return F
