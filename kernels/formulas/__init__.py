"""Every formula once: σ, h, ℓ, δ, the updates of optimizers, and the functions they are made of."""
