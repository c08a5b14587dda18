"""Whole, stitched and returned paths of the cross."""

import numpy as np
import pytest

from dfim.data.synthetic import cross
from dfim.metrics import composition
from tests.data.helpers import refused


def paths(first, last):
  """Straight from one corner to the centre, and on to another."""
  ends = cross.HALF_WIDTH * np.array([first, (0, 0), last], float)
  return np.stack([np.interp(np.linspace(0, 2, 21), range(3), a) for a in ends.T], axis=-1)


def test_the_end_tells_whole_from_stitched_and_returned():
  corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
  x = np.stack([paths(a, b) for a in corners for b in corners])
  assert composition.shares(x) == dict(whole=0.25, stitched=0.5, returned=0.25, off=0.0)


def test_paths_that_stop_early_round_the_centre_or_leave_the_diagonals_are_off():
  whole = paths((-1, -1), (1, 1))
  adjacent = np.stack([np.linspace(-0.87, 0.87, 21), np.full(21, -0.87)], axis=-1)
  bent = whole + 0.5 * np.sin(np.linspace(0, 2 * np.pi, 21))[:, None] * [1, -1]
  x = np.stack([whole, whole[:15].repeat(2, 0)[:21], adjacent, bent])
  assert composition.shares(x) == dict(whole=0.25, stitched=0.0, returned=0.0, off=0.75)
  assert composition.shares(x, tolerance=1.5)["off"] == 0.0


@pytest.mark.parametrize(
  "x", [np.zeros((3, 4, 3)), np.full((3, 4, 2), np.nan), np.zeros((0, 4, 2))]
)
def test_no_paths_of_the_plane_are_refused(x):
  with refused("x"):
    composition.shares(x)
