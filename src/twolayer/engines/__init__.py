"""Engines that several variants share: the whole batch at once, and those on a CUDA device."""
