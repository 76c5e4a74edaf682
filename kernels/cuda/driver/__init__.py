"""What stands between kernels and whatever runs them: a GPU's driver, or a simulator."""
