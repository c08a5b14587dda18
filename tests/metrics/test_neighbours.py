import numpy as np
import pytest
from scipy.spatial import distance

from dfim.metrics import neighbours
from tests.data.helpers import refused

X, Y = (np.random.default_rng(seed).normal(size=(n, 2, 3)) for seed, n in ((0, 40), (1, 25)))


@pytest.mark.parametrize("block", [7, 1024])
def test_agrees_with_all_pairs(monkeypatch, block):
  monkeypatch.setattr(neighbours, "_BLOCK", block)
  pairs = distance.cdist(X.reshape(40, 6), Y.reshape(25, 6))
  apart, indices = neighbours.nearest(X, Y)
  np.testing.assert_allclose(apart, pairs.min(1))
  np.testing.assert_array_equal(indices, pairs.argmin(1))


def test_a_copy_is_at_zero_exactly():
  np.testing.assert_array_equal(neighbours.nearest(X[:5] + 1e3, X + 1e3)[0], 0)


def test_bad_sets_are_refused():
  bad = X.copy()
  bad[7, 1, 2] = np.nan
  for queries, reference, place in (
    (X, Y[:, :1], "reference of 3 numbers each"),
    (X, Y[:0], "reference of 0 sequences"),
    (X[:0], Y, "queries of 0 sequences"),
    (bad, Y, "queries: nan at sequence 7, token 1, dimension 2"),
    (X, bad, "reference: nan at sequence 7"),
  ):
    with refused(f"neighbours: {place}"):
      neighbours.nearest(queries, reference)


def test_unsigned_integers_do_not_wrap():
  x = np.array([[0], [250]], np.uint8)
  apart, indices = neighbours.nearest(x, np.array([[10], [255]], np.uint8))
  assert apart.tolist() == [10.0, 5.0] and indices.tolist() == [0, 1]
