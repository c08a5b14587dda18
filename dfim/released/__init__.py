"""Weights of others and our own as files: readers, a writer, names and layouts."""
