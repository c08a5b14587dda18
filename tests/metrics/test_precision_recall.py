"""Precision, recall, density and coverage against their definitions, pair by pair."""

import tracemalloc

import numpy as np
import pytest

from dfim.metrics import precision_recall


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def by_definition(x, y, k, k_density):
  def radius(points, i, k):
    return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

  inside = lambda point, points, i, k: np.linalg.norm(point - points[i]) <= radius(points, i, k)
  balls = sum(inside(b, x, i, k_density) for b in y for i in range(len(x)))
  return dict(
    precision=np.mean([any(inside(b, x, i, k) for i in range(len(x))) for b in y]),
    recall=np.mean([any(inside(a, y, j, k) for j in range(len(y))) for a in x]),
    density=balls / (k_density * len(y)),
    coverage=np.mean([any(inside(b, x, i, k_density) for b in y) for i in range(len(x))]),
  )


@pytest.mark.parametrize("memory", [1, 500, 2**20])
def test_agrees_with_the_definition(memory):
  x, y = normal(0, 25, 3), 0.8 * normal(1, 18, 3) + 1.0
  expected = by_definition(x, y, 3, 5)
  assert all(0 < value < 1 for value in expected.values())
  assert precision_recall.scores(x, y, memory=memory) == pytest.approx(expected)


def test_a_set_holds_itself_sets_apart_share_nothing_and_far_features_keep_their_distances():
  x = normal(0, 200, 6)
  found = precision_recall.scores(x, x)
  assert {found[name] for name in ("precision", "recall", "coverage")} == {1.0}
  assert set(precision_recall.scores(x, x + 100).values()) == {0.0}
  x, y = normal(0, 60, 4), normal(1, 60, 4)
  plain, far = (precision_recall.scores(x + shift, y + shift) for shift in (0, 1e5))
  assert far == pytest.approx(plain)


def test_fresh_data_have_a_density_of_one():
  found = precision_recall.scores(normal(0, 1500, 8), normal(1, 1500, 8))
  assert found["density"] == pytest.approx(1, abs=0.05)
  # Of the 2n - 1 other points, data or samples alike, none of the k nearest is a sample.
  n, k = 1500, 5
  expected = 1 - np.prod([(n - 1 - i) / (2 * n - 1 - i) for i in range(k)])
  assert found["coverage"] == pytest.approx(expected, abs=0.02)


def test_memory_is_of_blocks_not_of_all_pairs():
  x, y = normal(0, 3000, 4).astype(np.float32), normal(1, 3000, 4).astype(np.float32)
  tracemalloc.start()
  precision_recall.scores(x, y, memory=2**20)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 6 * 2**20 < 3000 * 3000 * 4
