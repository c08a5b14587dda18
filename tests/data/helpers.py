"""Shared by tests of data sets."""

import contextlib

import jax
import numpy as np
import pytest


@contextlib.contextmanager
def refused(*parts, kind=ValueError):
  """The block raises `kind`, in one line that holds all `parts`."""
  with pytest.raises(kind) as error:
    yield
  line = str(error.value)
  assert "\n" not in line and all(str(part) in line for part in parts), line


def assert_equal(a, b):
  """Two trees hold the same arrays."""
  jax.tree.map(np.testing.assert_array_equal, a, b)


def numbers_of(x, pixels):
  """Which of `pixels` each image of x in [-1, 1] is."""
  found = np.rint((x + 1) * 127.5).astype(np.uint8)
  return [int(np.argmax((pixels == image).all((1, 2, 3)))) for image in found]
