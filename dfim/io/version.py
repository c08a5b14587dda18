"""The version, in a module that Python finds even where a folder `dfim` hides `__init__`."""

VERSION = "0.1.0"
