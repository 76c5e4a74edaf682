"""The kernels' number types by NumPy's names."""

import numpy as np
from numba import types


def real_type(dtype: str):
    """The scalar type, which kernels also call to convert: real(0)."""
    return {"float32": np.float32, "float64": np.float64}[dtype]


def matrix_type(dtype: str):
    """Numba's type of a C-contiguous matrix."""
    return types.Array(types.float32 if dtype == "float32" else types.float64, 2, "C")
