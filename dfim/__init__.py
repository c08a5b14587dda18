"""Few-step generation by moment matching, and sequences with a noise level per token."""

from dfim.io.version import VERSION as __version__  # noqa: F401
