import numpy as np
import pytest
from scipy.spatial import distance

from dfim.metrics import neighbours

X, Y = (np.random.default_rng(seed).normal(size=(n, 2, 3)) for seed, n in ((0, 40), (1, 25)))


@pytest.mark.parametrize("block", [7, 1024])
def test_agrees_with_all_pairs(monkeypatch, block):
  monkeypatch.setattr(neighbours, "_BLOCK", block)
  pairs = distance.cdist(X.reshape(40, 6), Y.reshape(25, 6))
  apart, indices = neighbours.nearest(X, Y)
  np.testing.assert_allclose(apart, pairs.min(1))
  np.testing.assert_array_equal(indices, pairs.argmin(1))
  own = distance.cdist(X.reshape(40, 6), X.reshape(40, 6)) + np.diag(np.full(40, np.inf))
  np.testing.assert_allclose(neighbours.nearest(X, X, exclude_self=True)[0], own.min(1))


def test_a_copy_is_at_zero_exactly():
  far = X + 1e3
  np.testing.assert_array_equal(neighbours.nearest(far[:5], far)[0], 0)
  twice = np.concatenate([far, far])
  np.testing.assert_array_equal(neighbours.nearest(twice, twice, exclude_self=True)[0], 0)


def test_refuses_other_sizes_and_an_empty_reference():
  for queries, reference, own in ((X, Y[:, :1], False), (X, Y[:0], False), (X[:1], X[:1], True)):
    with pytest.raises(ValueError, match="neighbours"):
      neighbours.nearest(queries, reference, own)


def test_refuses_no_query_numbers_that_are_not_finite_and_queries_beyond_their_own_set():
  bad = X.copy()
  bad[7, 1, 2] = np.nan
  for queries, reference, own, line in (
    (X[:0], Y, False, "queries of 0 sequences"),
    (bad, Y, False, "queries: nan at sequence 7, token 1, dimension 2"),
    (X, bad, False, "reference: nan at sequence 7"),
    (X, X[:20], True, "reference of 20 rows: give 40"),
  ):
    with pytest.raises(ValueError, match=f"neighbours: {line}"):
      neighbours.nearest(queries, reference, own)


def test_unsigned_integers_do_not_wrap():
  x = np.array([[0], [250]], np.uint8)
  apart, indices = neighbours.nearest(x, np.array([[10], [255]], np.uint8))
  assert apart.tolist() == [10.0, 5.0] and indices.tolist() == [0, 1]
