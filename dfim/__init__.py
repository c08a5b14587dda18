"""Few-step generation by moment matching, and sequences with a noise level per token."""

__version__ = "0.1.0"
