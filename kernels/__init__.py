"""Number crunching: arrays in, arrays out; no state, no files, no clock, no policy."""

if "." not in __name__:
    raise ImportError(
        "import twolayer.kernels instead of kernels: this folder is a part of twolayer"
    )

from .compiler.settings import check_environment

check_environment()  # before anything here imports Numba
