"""Layer 1: one file a family of data sets; `base` states the contract of a source.

Wrong fields and files raise ValueError or FileNotFoundError before the first batch, in one line
with the field, the place and the fix.
"""
