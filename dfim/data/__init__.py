"""Layer 1: one file a family of data sets; `arrays` states the contract of a source."""
