"""`twolayer peers`: PyTorch, JAX and NumPy against numba-fused, an epoch at a time."""

from __future__ import annotations

from ....interface import check_threads
from ....measuring.race import REFERENCE
from ....measuring.workloads import peers as listed
from ....measuring.workloads import workloads
from ....network import Network, float_type
from ....showing import output
from ....showing import peers as table
from ....showing import plot as plots
from ... import options
from ...calm import Waiting
from .run import Files, Kind, run

_KIND = Kind(
    table.MARKER, table.show, table.markdown, plots.peers_figure,
    lambda groups: {"peers": table.report(groups)},
)  # fmt: skip


def peers(
    shape: options.Shapes = None,
    quick: options.Quick = False,
    activation: options.ActivationOrNone = None,
    loss: options.LossOrNone = None,
    dtype: options.Dtype = "float32",
    variants: options.VariantNamesOrOurs = table.VARIANTS,
    variant_file: options.VariantFiles = None,
    threads: options.Threads = None,
    skip_above: options.SkipAbove = table.LIMIT,
    wait_calm: options.WaitCalm = 0.0,
    json: options.JsonFile = None,
    plot: options.Plot = None,
    roofline: options.Roofline = None,
    readme: options.Readme = None,
) -> None:
    """Time what users would pick instead against numba-fused, in one table with a row a shape.

    Without --shape: eight shapes with networks of their own. Loops over mini-batches are compared
    by `twolayer updates --peers`.
    """
    where = "with --shape" if shape else "without --shape, whose shapes have networks of their own"
    if shape:
        options.refuse(where, quick=quick)
    else:
        options.refuse(where, activation=activation, loss=loss)
    waiting = Waiting(wait_calm)
    field = options.select_variants(variants, variant_file, clustered=False)
    dtype = float_type("dtype", dtype).name
    threads = check_threads(threads)
    options.positive_seconds("skip-above", skip_above)
    files = Files(json, plot, roofline, readme)
    files.check(_KIND.marker)
    names = [variant.name for variant in field]
    if plot is not None and REFERENCE not in names:
        raise ValueError(
            f"plot: expected {REFERENCE} among the variants, for times are relative to its own, "
            f"got {', '.join(names)}"
        )
    net = Network(activation or "tanh", loss or "squared")
    groups = (
        workloads(net, dtype, shape, complain=output.complain) if shape else listed(dtype, quick)
    )
    run(_KIND, groups, field, dtype, threads, skip_above, waiting, files)
