"""All distances between sets take, and refuse, the same sets."""

import jax
import numpy as np
import pytest

from dfim.metrics import distances, neighbours, precision_recall, sequences
from tests.data.helpers import refused

ANY = [
  distances.energy_distance,
  distances.kernel_distance,
  neighbours.nearest,
  precision_recall.scores,
]
ALL = [*ANY, sequences.joint, sequences.turn, sequences.local]
X, Y = np.random.default_rng(0).integers(0, 128, (2, 40, 4, 2), np.uint8)


def assert_close(found, expected):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16])
def test_numbers_of_any_type_have_the_same_distance(metric, dtype):
  assert_close(metric(X.astype(dtype), Y.astype(dtype)), metric(X.astype(float), Y.astype(float)))


def with_nan(x):
  x = x.astype(float)
  x[7, 1, 1] = np.nan
  return x


@pytest.mark.parametrize("metric", ANY)
def test_examples_are_flattened_and_their_order_changes_nothing(metric):
  assert_close(metric(X, Y), metric(X.reshape(40, 8), Y.reshape(40, 8)))
  if metric is not neighbours.nearest:
    assert_close(metric(X[::-1], Y[np.argsort(Y[:, 0, 0])]), metric(X, Y))


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
  "x, y, place",
  [
    (X, with_nan(Y), ": nan at sequence 7, token 1, dimension 1"),
    (X, Y[:, :3], ""),
    (X[:0], Y, " of 0 sequences"),
  ],
)
def test_bad_sets_are_refused(metric, x, y, place):
  with refused(place):
    metric(x, y)


def test_distances_that_overflow_are_refused():
  with refused("overflow in float32"):
    precision_recall.scores(X.astype(float), Y * 1e25)
