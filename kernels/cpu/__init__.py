"""Kernels for the CPU: scalar loops, blocks with BLAS, register-tiled products."""
