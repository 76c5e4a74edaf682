"""Optimizers, the epochs of a training, and what lets one go on later."""
