"""Single faults in the CUDA kernels, each planted in a copy of the package, are found out."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

import twolayer as tl

# Of each variant a problem with several blocks, parts and tiles, all with an edge.
SHAPES = {"cuda-samples": (5, 3, 5, 2), "cuda-tiled": (37, 6, 17, 18), "cuda-fused": (70, 3, 5, 2)}

FAULTS = {  # variant, module, what stands there, what is planted
    "the loss of the last block is lost": (
        "cuda-fused", "sums", "range(t, len(losses), THREADS)",
        "range(t, len(losses) - 1, THREADS)",
    ),
    "finish leaves out the last part": (
        "cuda-tiled", "sums", "for p in range(y, gVs.shape[0], lanes)",
        "for p in range(y, gVs.shape[0] - 1, lanes)",
    ),
    "the last row of a tile is outside": (
        "cuda-tiled", "memory/slices", "i < u4(A.shape[0]) if", "i + u4(1) < u4(A.shape[0]) if",
    ),
    "a product without its barrier": (
        "cuda-tiled", "products", "            cuda.syncthreads()\n", "",
    ),
    "a sum without its tail": (
        "cuda-tiled", "products", "end = u4(min(end, u4(k + u4(share))))",
        "end = u4(u4(min(end, u4(k + u4(share)))) // u4(depth) * u4(depth))",
    ),
    "the strides of the two operands exchanged": (
        "cuda-tiled", "products", "in_steps(depth, half, strideA, strideB,",
        "in_steps(depth, half, strideB, strideA,",
    ),
    "the loss of the second warp is lost": (
        "cuda-fused", "fused", "for p in range(1, warps)", "for p in range(2, warps)",
    ),
    "the last sample is outside": ("cuda-fused", "fused", "row < n)", "u4(row + u4(1)) < n)"),
    "the stride of W without its padding": (
        "cuda-samples", "samples", "k * W.shape[1] + m", "k * M + m",
    ),
}  # fmt: skip


def agrees(package, name, monkeypatch):
    """Whether a variant of a package agrees on its problem."""

    def module(name):
        return importlib.import_module(f"{package.__name__}.{name}")

    verify = module("checking.verify")
    monkeypatch.setattr(verify, "STEPS", 1)
    monkeypatch.setattr(module("engines.cuda_facts"), "_MULTIPROCESSORS", 2)
    monkeypatch.setattr(module("engines.tiled").TiledEngine, "least_share", 16)
    net = package.Network("tanh", "squared")
    case = module("checking.cases").problem(net, package.Shape(*SHAPES[name]), "float32")
    with module("checking.cuda.blocks").check_blocks():
        return verify.agreement(package.variants.get(name), case).agrees


@pytest.fixture
def copied(request, tmp_path, monkeypatch):
    """A copy of the package under a name of its own, not imported yet; it is forgotten again."""
    package = f"planted_{request.node.callspec.indices.popitem()[1]}"
    folder = tmp_path / package
    shutil.copytree(Path(tl.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for loaded in [one for one in sys.modules if one.partition(".")[0] == package]:
        del sys.modules[loaded]


@pytest.mark.parametrize("name", SHAPES)
def test_the_kernels_as_they_are_agree(name, copied, monkeypatch):
    assert agrees(importlib.import_module(copied.name), name, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_out(fault, copied, monkeypatch):
    name, module, old, new = FAULTS[fault]
    path = copied / "kernels" / "cuda" / f"{module}.py"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    assert not agrees(importlib.import_module(copied.name), name, monkeypatch)
