"""Layer 1: distances between sets of samples `[N, D]` or `[N, ...]`, on the host."""
