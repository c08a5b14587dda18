"""Layer 1: distances between sets of samples, on the host, in float64 where it matters.

All raise ValueError, in one line with the argument and the place, for other shapes, too few
examples, and numbers that are not finite. Points `[N, D]` may be `[N, ...]`, which is flattened.
"""
