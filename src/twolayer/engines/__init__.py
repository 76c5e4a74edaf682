"""What variants are made of: the whole batch at once; chunks and panels on a CPU; CUDA devices."""
