"""Which answers are kept, and what they are kept for."""

import dataclasses

import numpy as np
import pytest
from made_up import START

import twolayer as tl
from twolayer import choosing
from twolayer.choosing import field
from twolayer.machine.calm import Calm
from twolayer.registry import Registry, add_file

NET = tl.Network("tanh", "squared")
SMALL, LARGE = {"n": 5, "d": 3, "M": 4, "K": 2}, {"n": 3000, "d": 3, "M": 4, "K": 2}


@pytest.mark.usefixtures("store")
def test_starts_beside_other_programs_are_not_kept(monkeypatch):
    asked = []

    def once(variant, workload, threads, cold):
        asked.append(variant.name)
        return START

    monkeypatch.setattr("twolayer.choosing.starts.startup.once", once)
    monkeypatch.setattr("twolayer.machine.calm.Watch.calm", lambda self: Calm(others=1.0))
    for _ in range(2):
        choice = tl.choose(NET, **LARGE, epochs=10**9)
        assert choice.calm == "other programs kept 1.0 CPUs busy"
    assert asked == ["numba-fused"] * 12


@pytest.mark.usefixtures("store")
def test_an_answer_is_for_the_formulas_that_it_was_found_for(raced):
    def net(slope):
        return tl.Network(tl.Activation("tanh", np.tanh, slope, (1, 1)), "squared")

    raced(numpy=1e-9)
    own = net(lambda a: 1 - np.tanh(a) ** 2)
    assert tl.choose(own, **SMALL).variant == "numpy"
    raced(numba_loops=1e-9)
    assert tl.choose(own, **SMALL).variant == "numpy"  # kept
    assert tl.choose(net(lambda a: 2 - np.tanh(a) ** 2), **SMALL).variant == "numba-loops"
    assert tl.choose(NET, **SMALL).variant == "numba-loops"


@pytest.mark.parametrize(
    ("lacks", "gpus", "kept"),
    [
        ("no NVIDIA GPU", 0, True),
        ("no NVIDIA GPU", 1, False),  # it may be back the next time
        ("no NVIDIA GPU that can be used: busy", 1, False),
        ("needs the package numba-cuda", 1, True),
        ("needs compute capability 8.0, this GPU has 7.5", 1, True),
    ],
)
def test_an_answer_without_a_gpu_that_may_come_back_is_not_kept(lacks, gpus, kept, monkeypatch):
    there = dataclasses.replace(
        tl.variants.get("numpy"), name="on-gpu", device="cuda", lacks=lambda: lacks
    )
    tl.variants.add(there)
    monkeypatch.setattr(field, "gpu_count", lambda: gpus)
    q = field.Question("tanh", "squared", 5, 3, 4, 2, "float32", 1, 0)
    asked = choosing.Terms(variants=("numpy", "on-gpu"))
    found, ruled_out, holds = field.able(NET, q, asked)
    assert ([variant.name for variant in found], ruled_out) == (["numpy"], {"on-gpu": lacks})
    assert holds is kept


def test_two_files_of_one_name_have_digests_of_their_own(tmp_path):
    digests = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(
            "import twolayer as tl\n"
            "class Mine(tl.variants.get('numpy').make): pass\n"
            f"VARIANT = tl.Variant('{folder}', 'cpu', '', Mine)\n"
        )
        (variant,) = add_file(path, [Registry(tl.Variant)])
        loaded = field.source(variant)
        path.write_text(path.read_text() + "# changed\n")
        assert field.source(variant) == loaded  # of what was loaded
        digests.append((variant, loaded))
    assert field.source(digests[0][0]) == digests[0][1] != digests[1][1]
