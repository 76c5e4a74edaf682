"""Variants on a GPU, as far as a machine without one can tell: choice, refusals, arithmetic."""

import ctypes
import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.special
from numba.extending import register_jitable
from typer.testing import CliRunner

import twolayer as tl
from twolayer.checking import cases
from twolayer.checking.verify import agreement
from twolayer.cli import app
from twolayer.interface import Problem
from twolayer.kernels.formulas.activations import ACTIVATIONS
from twolayer.kernels.formulas.losses import LOSSES
from twolayer.kernels.formulas.updates import UPDATES, Update
from twolayer.machine import hardware
from twolayer.network import DTYPES

ON_CUDA = [name for name in tl.variants.names() if "cuda" in tl.variants.get(name).devices]
PEERS = ["torch", "torch-compile", "jax"]


def small(dtype="float32", net=None):
    return cases.problem(net or tl.Network("tanh", "softmax"), tl.Shape(40, 7, 9, 3), dtype)


def test_the_peers_run_on_either_device():
    assert set(ON_CUDA) >= {*PEERS, "cupy"}
    for name in PEERS:
        variant = tl.variants.get(name)
        assert variant.device == "cpu"
        assert variant.devices == ("cpu", "cuda")
        assert variant.on("cpu") is variant
        there = variant.on("cuda")
        assert (there.name, there.device, there.summary) == (name, "cuda", variant.summary)


def test_another_device_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"^device of variant torch: expected one of cpu, cuda, got 'gpu'$"
    ):
        tl.variants.get("torch").on("gpu")
    with pytest.raises(ValueError, match=r"^device of variant numpy: expected one of cpu, got"):
        tl.variants.get("numpy").plan(*small()[1:], device="cuda")


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_list_has_a_line_for_each_device(tmp_path):
    path = tmp_path / "list.json"
    assert command("list", "--json", path).exit_code == 0
    rows = [(row["name"], row["device"]) for row in json.loads(path.read_text())["variants"]]
    assert rows == [
        (name, device) for name in tl.variants.names() for device in tl.variants.get(name).devices
    ]


def test_verify_takes_a_device(monkeypatch):
    monkeypatch.setattr("twolayer.engines.cuda_facts.gpu_count", lambda: 0)
    shown = command("verify", "--device", "cuda", "--variants", "numpy,jax", "--shape", "3,2,2,1")
    assert shown.exit_code == 3  # nothing was verified
    assert "numpy" not in shown.stdout
    assert "jax" in shown.stdout
    wrong = command("verify", "--device", "gpu", "--variants", "numpy,jax")
    assert wrong.exit_code == 2
    assert wrong.stderr == ("device: expected one that a variant runs on, cpu, cuda, got 'gpu'\n")


def test_a_gpu_that_is_not_there_is_told_with_every_reason(monkeypatch):
    monkeypatch.setattr("twolayer.engines.cuda_facts.gpu_count", lambda: 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    wrong = command("gpu", "--variants", "jax,cupy")
    assert wrong.exit_code == 2
    assert wrong.stderr == (
        "variants: expected one that runs on a GPU here, got none: jax: no NVIDIA GPU; "
        "cupy: no NVIDIA GPU\n"
    )


@pytest.mark.parametrize("name", ON_CUDA)
def test_without_a_gpu_its_absence_is_the_reason(name, monkeypatch):
    monkeypatch.setattr("twolayer.engines.cuda_facts.gpu_count", lambda: 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    variant = tl.variants.get(name).on("cuda")
    if name.startswith("cuda-"):
        pytest.importorskip("numba_cuda")
    assert variant.unavailable() == "no NVIDIA GPU"
    with pytest.raises(RuntimeError, match=f"variant {name} cannot run here: no NVIDIA GPU"):
        tl.variants.get(name).plan(*small()[1:], device="cuda")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torch", "PyTorch was installed without CUDA"),
        ("torch-compile", "PyTorch was installed without CUDA"),
        ("jax", "JAX was installed without CUDA"),
        ("cupy", None),
    ],
)
def test_a_library_without_cuda_is_the_reason(name, reason, monkeypatch):
    if "torch" in name:
        monkeypatch.setattr(pytest.importorskip("torch").version, "cuda", None)
    monkeypatch.setattr("twolayer.engines.cuda_facts.gpu_count", lambda: 1)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("jax_cuda") else True
    )
    assert tl.variants.get(name).on("cuda").unavailable() == reason


def test_cupy_refuses_to_round_to_tf32(monkeypatch):
    monkeypatch.setattr("twolayer.engines.cuda_facts.gpu_count", lambda: 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv("CUPY_TF32", "1")
    assert "CUPY_TF32" in tl.variants.get("cupy").unavailable()


@pytest.mark.parametrize(
    ("init", "count", "expected"), [(0, 2, 2), (100, 0, 0), (None, 0, 0)], ids=str
)
def test_gpus_are_counted_by_the_driver(init, count, expected, monkeypatch):
    def load(name):
        if init is None:
            raise OSError("no such library")

        def fill(pointer):
            pointer._obj.value = count
            return 0

        return SimpleNamespace(cuInit=lambda flags: init, cuDeviceGetCount=fill)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert hardware.gpu_count() == expected


@pytest.mark.parametrize("name", ["torch", "jax", "cupy"])
def test_memory_that_a_gpu_lacks_is_refused(name, monkeypatch):
    free = 1 << 20
    if name == "torch":
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 1 << 30))
        monkeypatch.setattr(torch, "tensor", None)  # nothing is allocated before
    elif name == "jax":
        pytest.importorskip("jax")
        stats = {"bytes_limit": 2 * free, "bytes_in_use": free}
        place = SimpleNamespace(memory_stats=lambda: stats)
        monkeypatch.setattr("twolayer.variants.jax.place", lambda name, threads: place)
    else:
        stand_in(monkeypatch, free)
    problem = Problem(tl.Network(), tl.Shape(300, 1000, 8, 1), np.dtype("float32"), 1)
    with pytest.raises(
        MemoryError, match=r"^a plan on the GPU with n=.*: needs .* GiB of its memory, .* GiB are f"
    ):
        tl.variants.get(name).on("cuda").make(problem)


@pytest.mark.parametrize("name", ["torch", "torch-compile"])
def test_pytorchs_products_are_float32_and_its_setting_is_put_back(name, monkeypatch):
    torch = pytest.importorskip("torch")
    if reason := tl.variants.get(name).unavailable():
        pytest.skip(reason)
    plan = tl.variants.get(name).plan(*small()[1:], threads=1)
    before, inside = torch.get_float32_matmul_precision(), []
    item = torch.Tensor.item

    def spied(self):
        inside.append(torch.get_float32_matmul_precision())
        return item(self)

    monkeypatch.setattr(torch.Tensor, "item", spied)
    torch.set_float32_matmul_precision("medium")
    try:
        plan.step(0.1)
        assert inside == ["highest"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_pytorch_makes_nothing_on_another_device():
    """A device without memory has results without values, and refuses to mix with the CPU's."""
    torch = pytest.importorskip("torch")
    from twolayer.variants.torch import Torch

    for activation in ACTIVATIONS:
        for loss in LOSSES:
            _, net, X, Y, theta = small(net=tl.Network(activation, loss))
            shape = tl.Shape(*X.shape, *theta.W.shape[::-1])
            engine = Torch(Problem(net, shape, X.dtype, 1), device="meta")
            weights, held = engine.weights(), engine.hold(X, Y)
            value, slopes = engine._differentiate(*held, weights.theta)
            assert {value.device.type, *(slope.device.type for slope in slopes)} == {"meta"}
            assert value.dtype == torch.float64
            with pytest.raises((RuntimeError, NotImplementedError)):  # L has to be copied
                engine.update(*held, weights, UPDATES["descend"], (0.1,))


@pytest.mark.parametrize("loss", LOSSES)
def test_jaxs_products_are_asked_for_in_float32(loss):
    jax = pytest.importorskip("jax")
    _, net, X, Y, theta = small(net=tl.Network("tanh", loss))
    from twolayer.variants.jax import float64, functions

    step, _, predict = functions(net)
    with float64():
        texts = step.lower(theta, X, Y, 0.1).as_text(), predict.lower(theta, X).as_text()
    for text, count in zip(texts, (5, 2), strict=True):
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert len(products) == count
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
    assert jax.config.jax_default_matmul_precision is None


class OnDevice(np.ndarray):
    """An array that is used as CuPy's, which leaves the device by `get` only."""

    def get(self, out=None):
        if out is None:
            return np.array(self)
        out[...] = self
        return out

    def set(self, values):
        self[...] = values


def stand_in(monkeypatch, free=1 << 40):
    """A module in CuPy's place whose arrays are NumPy's."""

    def asarray(array):
        return np.array(array).view(OnDevice)

    cupy = ModuleType("cupy")
    cupy.__dict__.update({name: getattr(np, name) for name in np.__all__})
    cupy.asarray = asarray
    cupy.empty = lambda shape, dtype: np.full(shape, np.nan, dtype).view(OnDevice)
    cupy.fuse = lambda function: function
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    runtime = SimpleNamespace(memGetInfo=lambda: (free, 1 << 40))
    cupy.cuda = SimpleNamespace(runtime=runtime)
    cupyx, scipy_there = ModuleType("cupyx"), ModuleType("cupyx.scipy")
    scipy_there.special = scipy.special
    for name, module in (("cupy", cupy), ("cupyx", cupyx), ("cupyx.scipy", scipy_there)):
        monkeypatch.setitem(sys.modules, name, module)
    from twolayer.variants import cupy as variant

    monkeypatch.setattr("twolayer.variants.cupy._fused", variant._fused.__wrapped__)
    monkeypatch.setattr("twolayer.engines.cuda_facts.gpu_count", lambda: 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    return cupy


EACH_ONCE = [
    *(tl.Network(activation, "squared") for activation in ACTIVATIONS),
    *(tl.Network("tanh", loss) for loss in LOSSES if loss != "squared"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("net", EACH_ONCE, ids=lambda net: f"{net.activation}-{net.loss}")
def test_cupys_plan_agrees(net, dtype, monkeypatch):
    stand_in(monkeypatch)
    with np.errstate(all="ignore"):
        result = agreement(tl.variants.get("cupy"), small(dtype, net=net))
    assert result.agrees, result


def test_cupys_activation_is_computed_by_cupys_functions(monkeypatch):
    """A formula that went around them would leave the device."""
    cupy = stand_in(monkeypatch)
    called = []

    def spied(name):
        own = getattr(np, name)
        return lambda *arguments: called.append(name) or own(*arguments)

    for name in ("tanh", "exp", "where"):
        setattr(cupy, name, spied(name))
    for activation in ("tanh", "elu"):
        tl.variants.get("cupy").plan(*small(net=tl.Network(activation, "squared"))[1:])
    assert set(called) == {"tanh", "exp", "where"}


def abs_of(theta):
    return theta._make(map(abs, theta))


def climb(w, g, mu):
    return (w + mu * g,)


OWN = Update("climb", register_jitable(climb), 0)


@pytest.mark.parametrize("update", [*UPDATES.values(), OWN], ids=lambda update: update.name)
def test_cupys_updates_are_those_on_the_host(update, monkeypatch):
    stand_in(monkeypatch)
    scalars = update.formula.__code__.co_argcount - 2 - update.slots
    plans = [tl.variants.get(name).plan(*small("float64")[1:]) for name in ("cupy", "numpy")]
    for plan in plans:
        plan.slots = tuple(map(abs_of, [plan.theta] * update.slots))
        plan.update(update, (0.5,) * scalars, slice(3, 30))
    for found, expected in zip(plans[0].theta, plans[1].theta, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
