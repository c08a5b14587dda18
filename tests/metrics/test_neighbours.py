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


def test_a_copy_is_at_zero_exactly():
  np.testing.assert_array_equal(neighbours.nearest(X[:5] + 1e3, X + 1e3)[0], 0)
