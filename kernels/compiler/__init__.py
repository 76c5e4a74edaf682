"""How kernels are compiled, kept on disk, and called through addresses; for which processor."""
