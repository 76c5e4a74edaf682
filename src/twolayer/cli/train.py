"""`twolayer train`: gradient descent on a named data set or on one's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import datasets, files, variants
from ..network import Network, Parameters, float_type
from ..train import Diverged, Epoch, gradient_descent, score
from . import options, output

_DIVERGED = 1
_INTERRUPTED = 130  # what shells report of a program that Ctrl-C ended


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(datasets.BUNDLED)}, an .npz file with X and Y, or a .csv file."
        ),
    ] = None,
    X: Annotated[
        Path | None, typer.Option("--X", help="Inputs, a row a sample, .npy or .csv.")
    ] = None,
    Y: Annotated[Path | None, typer.Option("--Y", help="Targets or labels, .npy or .csv.")] = None,
    target: Annotated[
        int, typer.Option(help="How many of the last columns of a .csv file are targets.")
    ] = 1,
    M: Annotated[int, typer.Option("--M", help="Hidden units.")] = 32,
    activation: options.Activation = "tanh",
    loss: Annotated[
        str | None, typer.Option(help="ℓ by name, by default the data set's; squared for files.")
    ] = None,
    variant: Annotated[str, typer.Option(help="The implementation that trains.")] = "numpy",
    variant_file: options.VariantFiles = None,
    dtype: options.Dtype = "float32",
    step: Annotated[float, typer.Option(help="The step size μ.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="Passes over all samples.")] = 200,
    seed: Annotated[int, typer.Option(help="For the random initial parameters.")] = 0,
    threads: options.Threads = None,
    scheduler: options.Scheduler = None,
    json: options.JsonFile = None,
    save: Annotated[
        Path | None, typer.Option(help="Write V, W and the names of σ and ℓ to this .npz file.")
    ] = None,
) -> None:
    """Train by gradient descent and say how well the network fits its training data.

    Files are used as they are: scale the inputs, and add a column of ones for an offset.
    """
    for argument, path in (("json", json), ("save", save)):
        if path is not None:
            output.check_writable(argument, path)
    if save is not None and save.suffix != ".npz":
        raise ValueError(f"save: expected a file named .npz, got {str(save)!r}")
    for file in variant_file or ():
        variants.add_file(file)
    chosen = variants.get(variant)
    options.connect(scheduler, [chosen])
    dtype = float_type("dtype", dtype).name
    inputs, targets, data_loss = _load(data, X, Y, target, dtype)
    net = Network(activation, loss or data_loss)
    theta = net.init(inputs.shape[1], M, _outputs(net, targets), dtype, seed)
    plan = chosen.plan(net, inputs, targets, theta, threads)
    history, code = _run(gradient_descent(plan, step, epochs), epochs)
    theta = plan.theta
    final = plan.gradient()[0]
    kind, value = score(net, plan.predict(inputs), targets)
    output.stdout().print(
        f"{chosen.name} on {plan.shape}, {activation}, {net.loss}: "
        f"loss {final:.6g} after {len(history)} epochs, {kind} {value:.4f}",
        soft_wrap=True,
    )
    if save is not None:
        _save(save, net, theta)
    if json is not None:
        report: dict[str, Any] = {
            "variant": chosen.name, **plan.shape._asdict(), "dtype": dtype,
            "activation": activation, "loss": net.loss, "step": step, "seed": seed,
            "epochs": len(history), "stopped": {_DIVERGED: "diverged", _INTERRUPTED: "interrupted"}
            .get(code), "final_loss": final, "score": {kind: value},
            "history": [epoch.loss for epoch in history],
        }  # fmt: skip
        output.write_json(json, report)
    if code:
        raise typer.Exit(code)


def _load(
    data: str | None, X: Path | None, Y: Path | None, target: int, dtype: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """X, Y and the name of the loss that fits them."""
    if (data is None) == (X is None) or (X is None) != (Y is None):
        raise ValueError("data: expected either a data set or file, or both --X and --Y")
    if data is None:
        assert X is not None
        assert Y is not None
        return *files.load_pair(X, Y, dtype), "squared"
    if Path(data).suffix in files.FORMATS:
        return *files.load(data, target, dtype), "squared"
    found = datasets.load(data, dtype)
    return found.X, found.Y, found.loss


def _outputs(net: Network, Y: np.ndarray) -> int:
    """K of a network for these targets; the check of the targets themselves is the plan's."""
    if Y.ndim == 2:
        return Y.shape[1]
    classes = net.objective.targets == "distribution" and Y.dtype.kind in "iu"
    return max(1, int(Y.max()) + 1) if classes else 1


def _run(descent: Any, epochs: int) -> tuple[list[Epoch], int]:
    """The epochs that were done, and the exit code: 0 unless they ended early."""
    console = output.stderr()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    history: list[Epoch] = []
    with bar:
        task = bar.add_task("", total=epochs)
        try:
            for epoch in descent:
                history.append(epoch)
                bar.update(task, completed=epoch.number, description=f"loss {epoch.loss:.6g}")
        except Diverged as error:
            output.complain(str(error))
            return history, _DIVERGED
        except KeyboardInterrupt:
            output.complain("interrupted: the network so far follows")
            return history, _INTERRUPTED
    return history, 0


def _save(path: Path, net: Network, theta: Parameters) -> None:
    """Write the network whole; `numpy.load` reads it."""
    new = path.with_name(f".{path.name}")
    try:
        with new.open("wb") as file:
            np.savez(file, V=theta.V, W=theta.W, activation=net.activation, loss=net.loss)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
