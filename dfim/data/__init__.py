"""Layer 1: one file a family of data sets; `base` states the contract of a source."""
