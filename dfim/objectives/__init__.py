"""Layer 1: one file an objective, each with `loss(apply, params, frozen, batch, key, *, ...)`."""
