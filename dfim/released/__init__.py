"""Weights that cross the border: released programs' in, our own out, and in again."""
