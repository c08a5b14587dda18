"""Checkpoints, their checksums, and a run's folder."""
