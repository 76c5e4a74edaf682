"""CUDA kernels held to their promises: without a GPU, and over all float32 inputs on one."""
