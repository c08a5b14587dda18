"""The walk with a memory turns as it claims: by the turn before last, and by no other."""

import numpy as np
import pytest

from dfim.data.synthetic import memory_walk
from dfim.metrics import sequences
from tests.data.helpers import refused


def turns(**fields):
  x = memory_walk.load(size=4000, **fields)["x"]
  return np.rad2deg(sequences.turning_angles(x))


def test_both_angles_are_as_likely_and_blurred():
  found = turns()
  first = found > 15
  assert found.shape == (4000, 6) and abs(first.mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(4000)
  for angle, here in ((60, found[first]), (-30, found[~first])):
    assert abs(here.mean() - angle) < 0.2 and abs(here.std() - 5) < 0.2


@pytest.mark.parametrize("repeat", [0.8, 0.3])
def test_a_turn_repeats_the_one_before_last_and_forgets_all_others(repeat):
  branch = np.where(turns(repeat=repeat, tokens=8) > 15, 1.0, -1.0)
  for lag, wanted in ((1, 0), (2, 2 * repeat - 1), (3, 0), (4, (2 * repeat - 1) ** 2)):
    correlation = (branch[:, lag:] * branch[:, :-lag]).mean(0)
    np.testing.assert_allclose(correlation, wanted, atol=4 / np.sqrt(4000))


@pytest.mark.parametrize("field, value", dict(tokens=0, repeat=1.5, radius=0, spread=-1).items())
def test_a_wrong_field_is_named(field, value):
  with refused(f"data.{field}={value}"):
    memory_walk.memory_walk(4, 0, **{field: value})
  with refused("data.angles of shape (3,)"):
    memory_walk.memory_walk(4, 0, angles=(1.0, 2.0, 3.0))
