"""Kernels in Numba CUDA. Nothing here is imported before a plan for a GPU is made."""
