import functools

import numpy as np
import pytest

from dfim.metrics import distances
from tests.data.helpers import refused

BOTH = pytest.mark.parametrize("distance", [distances.energy_distance, distances.kernel_distance])


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def mean_distance(x, y, *, distinct):
  pairs = [
    np.linalg.norm(a - b)
    for i, a in enumerate(x)
    for j, b in enumerate(y)
    if not distinct or i != j
  ]
  return np.mean(pairs)


@pytest.mark.parametrize("width", [1, 3])
def test_energy_agrees_with_a_plain_double_sum(width):
  x, y = normal(0, 17, width), normal(1, 23, width) + 0.5
  expected = 2 * mean_distance(x, y, distinct=False)
  expected -= mean_distance(x, x, distinct=True) + mean_distance(y, y, distinct=True)
  np.testing.assert_allclose(distances.energy_distance(x, y)[0], expected, rtol=1e-6)


def test_energy_on_the_line_is_the_same_by_sorting_and_by_pairs():
  x, y = np.round(normal(0, 300, 1), 1), np.round(normal(1, 200, 1) + 0.2, 1)  # many ties
  padded = (np.pad(a, [(0, 0), (0, 1)]) for a in (x, y))
  found = distances.energy_distance(x, y)
  np.testing.assert_allclose(found, distances.energy_distance(*padded), rtol=1e-6)


@pytest.mark.parametrize("width", [1, 3])
def test_energy_takes_no_pair_within_a_group(width):
  x, y = normal(0, 12, width), normal(1, 20, width) + 0.5
  apart = lambda z: [
    np.linalg.norm(z[i] - z[j]) for i in range(len(z)) for j in range(len(z)) if i // 4 != j // 4
  ]
  expected = 2 * mean_distance(x, y, distinct=False) - np.mean(apart(x)) - np.mean(apart(y))
  np.testing.assert_allclose(distances.energy_distance(x, y, group=4)[0], expected, rtol=1e-6)


def test_energy_does_not_depend_on_blocks(monkeypatch):
  x, y = normal(0, 50, 4), normal(1, 70, 4)
  whole = distances.energy_distance(x, y)
  monkeypatch.setattr(distances, "_BLOCK", 7)
  np.testing.assert_allclose(distances.energy_distance(x, y), whole, rtol=1e-10)


CUBIC = functools.partial(distances.kernel_distance, size=100)


@pytest.mark.parametrize(
  "distance, count, shift, low, high",
  [
    (distances.energy_distance, 200, 0.0, 0.9, 1.7),
    (distances.energy_distance, 200, 0.5, 0.8, 1.25),
    (CUBIC, 400, 0.3, 0.8, 1.6),
  ],
)
@pytest.mark.parametrize("width", [1, 3])
def test_the_error_is_the_spread_of_repetitions(distance, count, shift, low, high, width):
  """Right where the distributions differ; up to sqrt(2) too large where they agree."""
  draw = lambda i, n: normal((i, n), n, width)
  runs = [distance(draw(i, count), draw(i + 999, count - 50) + shift) for i in range(150)]
  value, error = np.transpose(runs)
  assert low < error.mean() / value.std() < high


@BOTH
def test_is_unbiased_for_one_distribution_and_finds_another(distance):
  values = np.array([distance(normal((0, i), 60, 2), normal((1, i), 80, 2))[0] for i in range(200)])
  assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
  assert (values < 0).mean() > 0.3  # a V-statistic never is
  value, error = distance(normal(0, 400, 2), normal(1, 400, 2) + 1)
  assert value > 5 * error


def test_kernel_distance_agrees_with_a_plain_double_sum():
  x, y = normal(0, 9, 3), normal(1, 9, 3) + 1
  k = lambda a, b: (a @ b / 3 + 1) ** 3
  off = [(i, j) for i in range(9) for j in range(9) if i != j]
  expected = np.mean([k(x[i], x[j]) + k(y[i], y[j]) for i, j in off])
  expected -= 2 * np.mean([k(a, b) for a in x for b in y])
  np.testing.assert_allclose(distances._cubic_mmd2(x, y), expected, rtol=1e-10)


@pytest.mark.parametrize("name, value", [("group", 0), ("group", 3), ("size", 1), ("subsets", 1)])
def test_counts_that_would_divide_by_zero_are_refused(name, value):
  distance = distances.energy_distance if name == "group" else distances.kernel_distance
  with refused(f"{name}={value}"):
    distance(normal(0, 9, 2), normal(1, 10, 2), **{name: value})
