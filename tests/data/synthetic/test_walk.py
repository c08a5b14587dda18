"""The turning walk has the distribution that it claims."""

import numpy as np
import pytest
import scipy.stats

from dfim.data.synthetic import walk
from tests.data.helpers import refused


def turns(**fields):
  """The turning angles of 4,000 sequences, in degrees, `[4000, tokens - 1]`."""
  x = walk.load(size=4000, **fields)["x"].astype(float)
  ahead, behind = (x[:, a, 0] + 1j * x[:, a, 1] for a in (slice(1, None), slice(0, -1)))
  return np.rad2deg(np.angle(ahead / behind))


def test_every_token_is_uniform_on_the_circle():
  x = walk.load(radius=0.9)["x"]
  assert x.shape == (20_000, 6, 2) and x.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 0.9, rtol=1e-6)
  assert abs(x.std() - 0.9 / np.sqrt(2)) < 0.005
  around = np.arctan2(x[..., 1], x[..., 0]) / (2 * np.pi) + 0.5
  assert all(scipy.stats.kstest(u, "uniform").pvalue > 1e-3 for u in around.T)


@pytest.mark.parametrize(
  "fields, means",
  [(dict(), [-50, 50]), (dict(branches=3, angle=60.0), [-60, 0, 60]), (dict(branches=1), [0])],
)
def test_turns_are_a_fair_choice_of_branches_blurred(fields, means):
  found = turns(**fields)
  branch = np.abs(found[..., None] - np.array(means)).argmin(-1)
  for n, mean in enumerate(means):
    here = found[branch == n]
    assert abs(here.size * len(means) / found.size - 1) < 0.05
    assert scipy.stats.kstest((here - mean) / 5, "norm").pvalue > 1e-3


def test_turns_of_one_sequence_are_independent_and_without_spread_on_the_branches():
  correlation = np.corrcoef(turns().T) - np.eye(5)
  assert np.abs(correlation).max() < 4 / np.sqrt(4000)
  np.testing.assert_allclose(np.abs(turns(spread=0.0)), 50, atol=1e-3)


@pytest.mark.parametrize(
  "field, value", dict(tokens=0, branches=2.5, spread=-1, radius=0, angle=np.nan).items()
)
def test_a_wrong_field_is_named(field, value):
  with refused(f"data.{field}={value}"):
    walk.walk(4, 0, **{field: value})
