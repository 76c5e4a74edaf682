"""`twolayer train`: an optimizer on a named data set or on one's own files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ... import variants
from ...data.bundled import BUNDLED
from ...data.text import Columns
from ...interface import Plan
from ...machine.atomic import is_stream
from ...network import Network, Parameters, Shape, float_type, positive_integer
from ...progress import Bar
from ...showing import output, units
from ...showing import plot as plots
from ...texts import counted
from ...training import optimizers
from ...training.checkpoint import Checkpoint, Model, save_model, variant_of
from ...training.loop import Diverged, Training
from .. import codes, options
from .. import data as datas

_USUAL = "numpy"
_LONG = 3e11  # flop of numpy in a minute, about: beside more, choosing a variant takes little
_STOPPED = {codes.WRONG: "diverged", codes.INTERRUPTED: "interrupted"}


def train(
    data: Annotated[
        str | None,
        typer.Argument(help=f"{', '.join(BUNDLED)}, or a file: .csv, .npz or Zarr with X and Y."),
    ] = None,
    X: Annotated[
        Path | None,
        typer.Option(
            "--X",
            help="Inputs, a row a sample, .npy, .csv or a Zarr array.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = None,
    Y: Annotated[
        Path | None,
        typer.Option(
            "--Y",
            help="Targets or labels, .npy, .csv or a Zarr array.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Read X and Y in blocks, as is done if the memory is too small.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = False,
    target: Annotated[
        int,
        typer.Option(
            help="How many of the last columns of a .csv file are targets.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = 1,
    header: options.Header = None,
    drop: options.Drop = None,
    classes: Annotated[
        bool,
        typer.Option(
            "--classes",
            help="Number the labels that occur; they may be words.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = False,
    M: Annotated[
        int, typer.Option("--M", help="Hidden units.", rich_help_panel=options.PROBLEM)
    ] = 32,
    activation: options.Activation = "tanh",
    loss: Annotated[
        str | None,
        typer.Option(
            help="ℓ by name, by default the data set's; squared for files.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="The implementation that trains, by default numpy, and auto where that would take "
            "longer than about a minute.",
            rich_help_panel=options.VARIANTS,
        ),
    ] = None,
    variant_file: options.VariantFiles = None,
    dtype: options.Dtype = "float32",
    optimizer: Annotated[
        str,
        typer.Option(help=f"{', '.join(optimizers.names())}.", rich_help_panel=options.TRAINING),
    ] = "gd",
    step: Annotated[
        float | None,
        typer.Option(
            help="The step size μ, by default the optimizer's own.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            help=f"μ for the k-th update: {', '.join(optimizers.RULES)}.",
            rich_help_panel=options.TRAINING,
        ),
    ] = "constant",
    batch: Annotated[
        int | None,
        typer.Option(
            help="Rows of a mini-batch, by default all.", rich_help_panel=options.TRAINING
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="Passes over all samples.", rich_help_panel=options.TRAINING)
    ] = 200,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|FILE|X,Y",
            help="Keep the parameters that are best on these samples.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a better validation.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="For the initial parameters and the order of the samples.",
            rich_help_panel=options.TRAINING,
        ),
    ] = 0,
    threads: options.Threads = None,
    scheduler: options.Scheduler = None,
    json: options.JsonFile = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the loss of each epoch, .svg or .png.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write V, W and the names of σ and ℓ to this .npz file.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Keep the state of the training in this .npz file.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the checkpoint, if there is one.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
) -> None:
    """Train and say how well the network fits its training data.

    Files are used as they are: scale the inputs, and add a column of ones for an offset.
    """
    _check_files({"json": json, "plot": plot, "save": save, "checkpoint": checkpoint}, resume)
    epochs = positive_integer("epochs", epochs)
    if patience is not None and positive_integer("patience", patience) and validation is None:
        raise ValueError("patience: expected --validation beside it, got none")
    if resume and checkpoint is None:
        raise ValueError("resume: expected --checkpoint beside it, got none")
    options.add_files(variant_file)
    if variant is None and resume and checkpoint is not None and checkpoint.exists():
        variant = variant_of(checkpoint)
    options.connect(scheduler, [variants.get(variant or _USUAL)])
    dtype = float_type("dtype", dtype).name
    make = optimizers.get(optimizer)
    step = make.step if step is None else step
    algorithm = make(step, rule)
    columns = Columns(target, header, drop, classes)
    if stream and data is not None and not datas.is_file(data):
        raise ValueError("stream: expected a file, or --X and --Y, got the name of a data set")
    whole = datas.load(data, X, Y, columns, dtype, stream)
    held = None
    if validation is not None:
        held = datas.load_validation(validation, whole, columns, stream)
    net = Network(activation, loss or whole.loss)
    parts, K, names = datas.label(net, [whole, held] if held else [whole], classes)
    n, d = whole.X.shape
    chosen = variants.get(variant or _usual(Shape(n, d, M, K).flops() * epochs))
    theta = net.init(d, M, K, dtype, seed)
    order = None if batch is None and validation is None else seed
    whole, *rest = datas.ready(parts, chosen, net, (M, K), dtype, threads, stream, order)
    held = rest[0] if rest else None
    if validation is not None and held is None:
        whole, held = datas.split(whole, validation)
    plan = whole.plan(chosen, net, theta, threads)
    validate = None
    if held is not None:
        validate = _validation(held.plan(variants.get(plan.variant), net, theta, threads))
    training = Training(plan, algorithm, batch, seed, validate)
    settings: dict[str, Any] = {
        "variant": plan.variant, **plan.shape._asdict(), "dtype": dtype, "activation": activation,
        "loss": net.loss, "optimizer": optimizer, "step": step, "rule": rule, "batch": batch,
        "seed": seed, "validation": validation, "threads": plan.threads,
        "stream": whole.streamed or None,
    }  # fmt: skip
    kept = None
    if checkpoint is not None:
        parts = [whole, held] if held else [whole]
        kept = Checkpoint(checkpoint, settings | {"data": datas.checksum(*parts)})
        if resume and checkpoint.exists() and (moved := kept.restore(training)):
            datas.note(moved)
    code = _run(training, epochs, patience, kept)
    plan.theta = training.theta
    final = plan.gradient()[0]
    # Of data on disk the outputs may be too many for the memory as well.
    fit = {} if whole.streamed else dict([net.objective.score(plan.predict(whole.X), whole.Y)])
    report = settings | {
        "epochs": len(training.history), "stopped": _STOPPED.get(code), "final_loss": final,
        "score": fit, "history": [epoch.loss for epoch in training.history],
    }  # fmt: skip
    if names is not None:
        report["classes"] = names.tolist()
    if held is not None:
        report["best_epoch"] = training.best.epoch
        report["validation_history"] = [epoch.validation for epoch in training.history]
    caption = f"{optimizer}, {plan.variant} on {plan.shape}, {activation}, {net.loss}"

    def tell() -> None:
        if names is not None:
            datas.note(datas.told(names))
        _tell(training, final, fit, f"{plan.variant} on {plan.shape}", optimizer)

    output.deliver(
        tell,
        (save, lambda file: save_model(file, Model(net, plan.theta, names))),
        (json, lambda file: output.write_json(file, report)),
        (
            plot if training.history else None,
            lambda file: plots.plot(plots.history_figure, training.history, file, caption),
        ),
    )
    if code:
        raise typer.Exit(code)


def _usual(flops: float) -> str:
    """The variant of a training of so much work where none is named."""
    return _USUAL if flops <= _LONG else "auto"


def _check_files(paths: dict[str, Path | None], resume: bool) -> None:
    """Refuse what could not be written at the end before anything is trained."""
    output.check_writable(**paths)
    plots.check(plot=paths["plot"])
    checkpoint = paths["checkpoint"]
    for argument in ("save", "checkpoint"):
        path = paths[argument]
        if path is not None:
            output.kind(argument, path, (".npz",))
    if checkpoint is None:
        return
    if is_stream(checkpoint):  # which is read again
        raise ValueError(f"checkpoint: expected a plain file, got {str(checkpoint)!r}")
    if checkpoint.exists() and not resume:
        raise ValueError(
            "checkpoint: expected a new file, or --resume to go on from it, got "
            f"{str(checkpoint)!r}, which exists"
        )


def _validation(plan: Plan) -> Callable[[Parameters], float]:
    def validate(theta: Parameters) -> float:
        plan.theta = theta
        return plan.loss()

    return validate


def _run(training: Training, epochs: int, patience: int | None, kept: Checkpoint | None) -> int:
    """Make the epochs that are left, and return the exit code: 0 unless they ended early."""
    code = 0

    def keep(save: Callable[[Training], object]) -> None:
        nonlocal code
        try:
            save(training)
        except OSError as error:  # what was trained until now is delivered all the same
            if not code:
                output.complain(f"checkpoint: {error}: it is not written from now on")
            code = codes.FAILED

    with Bar(epochs) as bar:
        bar.show("", len(training.history))
        try:
            while len(training.history) < epochs and not training.stalled(patience):
                epoch = training.epoch()
                text = f"loss {epoch.loss:.6g}"
                if training.validate is not None:
                    text += f"  validation {epoch.validation:.6g}, best {training.best.loss:.6g}"
                bar.show(text, epoch.number)
                if kept is not None and not code:
                    keep(kept.save_in_time)
            if kept is not None and not code:
                keep(kept.save)
        except Diverged as error:
            output.complain(str(error))
            return codes.WRONG
        except KeyboardInterrupt:
            output.complain("interrupted: the network so far follows")
            return codes.INTERRUPTED
    return code


def _tell(training: Training, final: float, fit: dict[str, float], on: str, optimizer: str) -> None:
    """One line: what was trained and what came out."""
    net, best = training.plan.net, training.best
    sentence = (
        f"{on}, {net.activation}, {net.loss}, {optimizer}: "
        f"loss {final:.6g} after {counted(len(training.history), 'epoch')}"
    )
    sentence += "".join(f", {kind} {units.fixed(value, 4)}" for kind, value in fit.items())
    if training.validate is not None and math.isfinite(best.loss):
        sentence += f"; validation loss {best.loss:.6g}, the lowest, after epoch {best.epoch}"
    output.stdout().print(sentence, soft_wrap=True)
