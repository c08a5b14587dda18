"""Layer 1: one file an objective, one signature, `loss(apply, params, frozen, batch, key, *, ...)`."""
