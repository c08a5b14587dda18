"""Layer 0: pure mathematics. Imports jax and flax.struct, and nothing of dfim."""
