"""The tests in numba-cuda's simulator, whose blocks our own checker runs.

Run by make test-cuda: the simulator takes numba.cuda's place for a whole process.
"""

import os

import pytest


def pytest_collect_file():
    """Skip the whole folder where there is no simulator."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
        pytest.skip("the simulator needs NUMBA_ENABLE_CUDASIM=1: make test-cuda")
    pytest.importorskip("numba_cuda")
    pytest.importorskip("greenlet")


@pytest.fixture(autouse=True)
def checked_blocks():
    """Blocks run by the checker, which finds races and barriers that not all threads reach."""
    from twolayer.checking.cuda.blocks import check_blocks

    with check_blocks():
        yield
