"""Layer 1: networks `(params, x_in, s, t, cond) -> G`; the only place that imports flax.linen."""
