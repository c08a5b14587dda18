"""Layer 1: one scan over a grid of times, and guidance, which wraps the network."""
