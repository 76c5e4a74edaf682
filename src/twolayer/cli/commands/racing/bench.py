"""`twolayer bench`: the variants side by side on real data and over swept shapes."""

from __future__ import annotations

from typing import Annotated

import typer

from ....interface import check_threads
from ....measuring import race as races
from ....measuring.workloads import workloads
from ....network import Network, float_type
from ....showing import output, tables
from ....showing import plot as plots
from ... import options
from ...calm import Waiting
from .run import Files, Kind, run

_KIND = Kind("bench", tables.show, tables.markdown, plots.figure)


def bench(
    shape: options.Shapes = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=SIZES", help="As in n=100,1000,10000; repeatable.",
            rich_help_panel=options.PROBLEM,
        ),
    ] = None,
    quick: options.Quick = False,
    activation: options.Activation = "tanh",
    loss: options.Loss = "squared",
    dtype: options.Dtype = "float32",
    variants: options.VariantNames = None,
    variant_file: options.VariantFiles = None,
    threads: options.Threads = None,
    scheduler: options.Scheduler = None,
    skip_above: options.SkipAbove = races.LIMIT,
    wait_calm: options.WaitCalm = 0.0,
    json: options.JsonFile = None,
    plot: options.Plot = None,
    roofline: options.Roofline = None,
    readme: options.Readme = None,
) -> None:  # fmt: skip
    """Time the variants side by side, each after it was checked.

    Without --shape and --sweep: real data sets, and sweeps of n, d, M and K from one base point.
    Sweeps have the squared loss unless another is named, so that K = 1 is a problem too.
    """
    if shape and not sweep:
        options.refuse("with --shape", quick=quick)
    waiting = Waiting(wait_calm)
    field = options.select_variants(variants, variant_file, clustered=scheduler is not None)
    dtype = float_type("dtype", dtype).name
    threads = check_threads(threads)
    options.positive_seconds("skip-above", skip_above)
    files = Files(json, plot, roofline, readme)
    files.check(_KIND.marker)
    options.connect(scheduler, field)
    net = Network(activation, loss)
    groups = workloads(net, dtype, shape or (), sweep or (), quick, output.complain)
    run(_KIND, groups, field, dtype, threads, skip_above, waiting, files)
