"""Shared by tests of data sets."""

import contextlib
import pathlib
import struct
import time

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
  jax.tree.map(np.testing.assert_array_equal, a, b)


def numbers_of(x, pixels):
  """Which of `pixels` each image of x in [-1, 1] is."""
  found = np.rint((x + 1) * 127.5).astype(np.uint8)
  return [int(np.argmax((pixels == image).all((1, 2, 3)))) for image in found]


def alive(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
  except OSError:
    return False


def all_end(pids, seconds=20):
  ends = time.monotonic() + seconds
  while any(map(alive, pids)) and time.monotonic() < ends:
    time.sleep(0.05)
  return not any(map(alive, pids))


def spoiled(series, row, value=np.nan):
  """The series with every value from `row` on overwritten."""
  values = np.array(series["values"], float)
  values[row:] = value
  return series | dict(values=values)


def idx_bytes(array):
  header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
  return header + array.astype(np.uint8).tobytes()
