"""Data that are generated, from distributions that are known."""
