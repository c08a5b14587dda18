"""Layer 1: distances between sets of samples, on the host, in float64 where it matters."""
