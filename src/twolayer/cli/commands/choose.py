"""`twolayer choose`: which implementation to take, and why."""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ...choosing import choose_by_name
from ...progress import Bar
from ...showing import choices, output
from ...texts import parts
from ..options import (
    Activation,
    Drop,
    Dtype,
    Header,
    JsonFile,
    Threads,
    VariantFiles,
    VariantNames,
    add_files,
)

_HIDDEN = 32  # units, as `train` has them
_PLAIN = (1, None, None, False)  # what is said of texts by default
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def choose(
    data: Annotated[
        list[str] | None,
        typer.Argument(help="A data set, a file with X and Y, or two files: X, then Y."),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="n,d,M,K", help="Sizes, where there are no data.")
    ] = None,
    M: Annotated[
        int | None, typer.Option("--M", help="Hidden units, with data; 32 by default.")
    ] = None,
    target: Annotated[
        int, typer.Option(help="How many of the last columns of a .csv file are targets.")
    ] = 1,
    header: Header = None,
    drop: Drop = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="Number the labels that occur; they may be words.")
    ] = False,
    activation: Activation = "tanh",
    loss: Annotated[
        str | None, typer.Option(help="ℓ by name, by default the data set's, else squared.")
    ] = None,
    dtype: Dtype = "float32",
    batch: Annotated[
        int | None, typer.Option(help="Rows of an update, by default all: gradient descent.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Compare whole new processes that run so many epochs: imports count."),
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="With --epochs: nothing is compiled yet.")
    ] = False,
    threads: Threads = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cluster; by default cpu and cuda.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Bytes at most, as in 500M or 2G; by default what is free.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only what returns the same bits each time.")
    ] = False,
    variants: VariantNames = None,
    variant_file: VariantFiles = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how each was timed, and who was ruled out.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure anew, whatever is known of this machine.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Say which variant to take for data or a shape on this machine, by a race of some seconds.

    `twolayer choose digits --M 64`, or `twolayer choose --shape 60000,784,128,10 --batch 64`.
    The answer is kept. --variants may name torch, torch-compile and jax too.
    """
    output.check_writable(json=json)
    if cold and epochs is None:
        raise ValueError("cold: expected --epochs beside it, got none")
    add_files(variant_file)
    if data:
        if shape is not None:
            raise ValueError(f"shape: expected no data beside it, got {' '.join(data)}")
        sizes, of_data = _sizes(
            data,
            _HIDDEN if M is None else M,
            (target, header, drop, classes),
            loss,
            activation,
            dtype,
        )
        loss = loss or of_data
    else:
        for option, value, usual in (
            ("M", M, None), ("target", target, 1), ("header", header, None), ("drop", drop, None),
            ("classes", classes, False),
        ):  # fmt: skip
            if value != usual:
                raise ValueError(f"{option}: expected data beside it, got none")
        sizes = _parsed(shape)
    with ExitStack() as stack:
        bars: list[Bar] = []

        def progress(what: str, done: float, total: float) -> None:
            if not bars:  # most answers need none
                bars.append(stack.enter_context(Bar(total)))
            bars[0].show(what, done, total)

        choice = choose_by_name(
            activation, loss or "squared", **sizes, dtype=dtype, epochs=epochs, device=device,
            threads=threads, max_memory=None if max_memory is None else _bytes(max_memory),
            deterministic=deterministic, variants=None if variants is None else parts(variants),
            cold=cold, batch=batch, fresh=fresh, progress=progress,
        )  # fmt: skip
    output.deliver(
        lambda: choices.show(output.stdout(), choice, explain),
        (json, lambda file: output.write_json(file, choice.to_json())),
    )


def _parsed(shape: str | None) -> dict[str, int]:
    """n, d, M and K of a text. An answer from the store needs no more than this."""
    if shape is None:
        raise ValueError("data: expected a data set, files, or --shape n,d,M,K, got none")
    sizes = parts(shape)
    if len(sizes) == 4 and all(size.isdecimal() and 0 < len(size) < 19 for size in sizes):
        return dict(zip("ndMK", map(int, sizes), strict=True))
    from ...network import Shape

    return Shape.parse(shape)._asdict()


def _sizes(
    data: list[str], M: int, text: tuple[int, bool | None, str | None, bool], loss: str | None,
    activation: str, dtype: str,
) -> tuple[dict[str, int], str]:  # fmt: skip
    """n, d, M and K of a network for data, and the loss that fits them."""
    from ...data.bundled import BUNDLED

    # Answered without the imports that reading data takes; options of texts are refused below.
    known = BUNDLED.get(data[0]) if len(data) == 1 and text == _PLAIN else None
    if known and loss in (None, known.loss):
        return {"n": known.n, "d": known.d, "M": M, "K": known.K}, known.loss
    from ...data.text import Columns
    from ...interface.checks import check_targets
    from ...network import Network, Shape, float_type
    from .. import data as datas

    if len(data) > 2:
        raise ValueError(f"data: expected one file or two, X and Y, got {len(data)}")
    columns = Columns(*text)
    if len(data) == 2:
        found = datas.load(None, Path(data[0]), Path(data[1]), columns, dtype)
    else:
        found = datas.load(data[0], None, None, columns, dtype)
    net = Network(activation, loss or found.loss)
    (labelled,), K, _ = datas.label(net, [found], text[-1])
    n, d = labelled.X.shape
    for _, Y in labelled.Y.blocks():
        check_targets(net, Y, Shape(len(Y), d, M, K), float_type("dtype", dtype))
    return {"n": n, "d": d, "M": M, "K": K}, found.loss


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found or math.isinf(float(found[1])):
        raise ValueError(f"max-memory: expected bytes, as in 500M or 2G, got {text!r}")
    return int(float(found[1]) * _UNITS[found[2].upper()])
