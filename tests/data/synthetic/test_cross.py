"""Paths of the cross go straight from corner to corner."""

import numpy as np
import pytest

from dfim.data.synthetic import cross
from dfim.metrics import composition
from tests.data.helpers import refused


@pytest.mark.parametrize("corners", [2, 4])
def test_paths_lead_from_each_corner_through_the_centre_to_the_opposite_one(corners):
  x = cross.load(size=2000, tokens=11, corners=corners, spread=0.0)["x"]
  np.testing.assert_allclose(x[:, ::-1], -x, atol=1e-6)
  np.testing.assert_allclose(np.abs(x[:, 0]), cross.HALF_WIDTH)
  np.testing.assert_allclose(np.diff(x, n=2, axis=1), 0, atol=1e-6)
  starts, counts = np.unique(np.sign(x[:, 0]), axis=0, return_counts=True)
  assert len(starts) == corners and np.all(np.abs(counts / 2000 * corners - 1) < 0.15)
  assert corners == 4 or np.all(x[:, 0, 0] < 0)


def test_all_fresh_paths_are_whole_and_blurred_as_said():
  x, exact = (cross.load(size=4000, spread=s)["x"] for s in (0.02, 0.0))
  assert composition.shares(x) == dict(whole=1.0, stitched=0.0, returned=0.0, off=0.0)
  assert abs((x - exact).std() - 0.02) < 1e-3


@pytest.mark.parametrize("field, value", dict(tokens=2, corners=3, spread=-1).items())
def test_a_wrong_field_is_named(field, value):
  with refused(f"data.{field}={value}"):
    cross.cross(4, 0, **{field: value})
