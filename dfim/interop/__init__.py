"""Weights and runs in and out of other programs."""
