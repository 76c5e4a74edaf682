"""Try the plan of packed matrices on a GPU with each of its engines: right, and how fast.

    python tools/try_planes.py ["mma" "wgmma" "wgmma in turns"]

A kernel that fails takes its process with it: one a process, where they are new. Prints a line of
JSON for each try, in about a minute: the agreement with the oracle of small problems, then the
gradient of large ones against cuda-tiled's and float64's, the time of each launch of an epoch, and
that of an epoch.
"""

import json
import sys
import time

import numpy as np
from numba import cuda

import twolayer as tl
from twolayer import cases, planes, tuning, verify

SMALL = [(1100, 50, 70, 3), (1500, 65, 130, 10), (1025, 200, 48, 16)]
LARGE = [(60_000, 784, 1024, 10), (100_000, 784, 128, 10), (100_000, 784, 128, 1)]
LAUNCHES = ("pack V", "A and parts of U", "loss", "head", "sums")
REPEATS = 20
ROWS = slice(1000, 5000)


def agreements():
    """Each small problem's worst error, in units of its bound."""
    verify.STEPS = 3
    for shape in SMALL:
        for net in (tl.Network("tanh", "softmax"), tl.Network("gelu", "squared")):
            case = cases.problem(net, tl.Shape(*shape), "float32")
            result = verify.agreement(tl.variants.get("cuda-tensor"), case)
            yield {"try": "agreement", "agrees": bool(result.agrees), "says": str(result)}


def milliseconds(run):
    """The median of the times between events around a launch."""
    found = []
    for _ in range(REPEATS + 2):
        begin, end = cuda.event(), cuda.event()
        begin.record()
        run()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return round(float(np.median(found[2:])), 4)


def error(found, expected):
    """The largest error, of the largest."""
    pairs = zip(found, expected, strict=True)
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in pairs)


def large(shape):
    """The problem, cuda-tiled's gradient, and float64's over some rows."""
    net = tl.Network("tanh", "softmax" if shape[3] > 1 else "squared")
    case = cases.problem(net, tl.Shape(*shape), "float32")
    _, tiled = tl.variants.get("cuda-tiled").plan(*case[1:]).gradient()
    X, Y = case.X[ROWS].astype(float), case.Y[ROWS].astype(float)
    theta = tl.Parameters(*(weights.astype(float) for weights in case.theta))
    _, exact = tl.variants.get("numpy").plan(net, X, Y, theta).gradient()
    return case, tiled, exact


def tried(case, tiled, exact):
    """Errors and times of a large problem's plan."""
    plan = tl.variants.get("cuda-tensor").plan(*case[1:])
    assert isinstance(plan, planes.PlanesPlan)
    found = {"against cuda-tiled": error(plan.gradient()[1], tiled)}
    found["rows against float64"] = error(plan.gradient(ROWS)[1], exact)
    first = plan.gradient()[1]
    found["repeats"] = all(map(np.array_equal, first, plan.gradient()[1]))
    launches, parts = plan._sum_rows(plan.X, plan.Y)
    finish = plan._finish(parts, plan.shape.n, update=False)
    names = (*LAUNCHES, "finish")
    times = dict(zip(names, map(milliseconds, (*launches, finish)), strict=True))
    found["ms"] = times | {"sum": round(sum(times.values()), 4)}
    found["pack X ms"] = milliseconds(
        plan._packed(plan.X, plan._shifts_X, plan._buffers["X"], plan._buffers["xr"])
    )
    found["epoch ms"] = milliseconds(lambda: plan.step(1e-6))
    found["parts"] = [len(part) for part in parts]
    return found


def main():
    """Run all tries."""
    names = sys.argv[1:] or sorted(planes.ENGINES)
    for name in names:
        with tuning.forced({"engine": name}):
            for found in agreements():
                print(json.dumps({"engine": name, **found}), flush=True)
    for shape in LARGE:
        problem = large(shape)
        for name in names:
            begin = time.time()
            try:
                with tuning.forced({"engine": name}):
                    found = tried(*problem)
            except Exception as failure:
                found = {"failed": f"{type(failure).__name__}: {failure}"}
            line = {"engine": name, "try": "large", "shape": shape, **found}
            print(json.dumps({**line, "s": round(time.time() - begin, 1)}), flush=True)


if __name__ == "__main__":
    main()
