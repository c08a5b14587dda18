"""Metrics of sequences on walks whose distribution is known."""

import numpy as np
import pytest

from dfim.data.synthetic import walk
from dfim.metrics import sequences, subsets
from tests.data.helpers import refused


def walks(seed, size=2000, **fields):
  return next(walk.walk(size, seed, **fields))["x"]


def line(*degrees):
  """One sequence `[1, T, 2]` of points in these directions, at radii 1, 2, ..."""
  radius = np.arange(1, len(degrees) + 1)
  return (radius * np.exp(1j * np.deg2rad(degrees))).view(float).reshape(1, -1, 2)


def test_turning_angles_of_known_points_ignore_rotation_and_scale():
  found = sequences.turning_angles(line(10, 60, 60, 350, -170))
  np.testing.assert_allclose(np.rad2deg(found), [[50, 0, -70, -160]], atol=1e-9)
  x = walks(0, 50)
  turned = 3 * x @ np.array([[0.6, 0.8], [-0.8, 0.6]])
  angles = sequences.turning_angles(x)
  np.testing.assert_allclose(angles, sequences.turning_angles(turned), atol=1e-6)
  np.testing.assert_allclose(angles, -sequences.turning_angles(x[:, ::-1])[:, ::-1], atol=1e-12)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_turning_back_is_plus_pi(zero):
  x = np.array([[[1.0, 0.0], [-1.0, zero], [1.0, zero]]])
  np.testing.assert_array_equal(sequences.turning_angles(x), [[np.pi, np.pi]])


@pytest.mark.parametrize("metric", [sequences.joint, sequences.turn, sequences.local])
def test_fresh_data_are_at_zero_on_average(metric):
  draws = [np.stack(metric(walks(2 * i, 200), walks(2 * i + 1, 200))) for i in range(40)]
  value, error = np.moveaxis(draws, 1, 0)
  assert np.all(np.abs(value.mean(0)) < 4 * value.std(0) / np.sqrt(len(draws)))
  assert np.all(error.mean(0) > 0.8 * value.std(0))


def test_joint_sees_dependence_that_turns_cannot():
  """Turns that all go one way have the right distribution one by one."""
  side = np.where(np.arange(2000) % 2, 1, -1)[:, None]
  one_way = np.exp(1j * np.deg2rad(50.0) * side * np.arange(6))
  first = walks(0)[:, :1]
  points = (first[..., 0] + 1j * first[..., 1]) * one_way
  x, y = np.stack([points.real, points.imag], -1), walks(1, spread=0.0)
  value, error = sequences.joint(x, y)
  assert value > 5 * error
  value, error = sequences.turn(x, y)
  assert abs(value) < 4 * error


def test_the_error_of_turn_counts_sequences_not_angles():
  """The distributions differ by their share of left-turning sequences, whose angles all agree."""

  def one_sided(seed, left):
    rng = np.random.default_rng(seed)
    side = np.where(rng.uniform(size=(150, 1)) < left, 1, -1)
    turns = side * (50 + 5 * rng.normal(size=(150, 5)))
    angle = np.deg2rad(np.cumsum(np.pad(turns, [(0, 0), (1, 0)]), axis=1))
    return np.stack([np.cos(angle), np.sin(angle)], -1)

  runs = [sequences.turn(one_sided((i, 0), 0.5), one_sided((i, 1), 0.8)) for i in range(150)]
  value, error = np.transpose(runs)
  assert 0.8 < error.mean() / value.std() < 1.25


@pytest.mark.parametrize("name", ["joint", "local"])
def test_a_large_set_is_compared_by_a_part_that_does_not_depend_on_the_order(name, monkeypatch):
  x, y, metric = walks(0, 400), walks(1, 300), getattr(sequences, name)
  few = metric(*(a[subsets.choose(a, 100)] for a in (x, y)))
  monkeypatch.setattr(sequences, f"_{name.upper()}", 100)
  np.testing.assert_array_equal(metric(x, y), few)
  by_place = (a[np.argsort(a[:, 0, 0])] for a in (x, y))
  np.testing.assert_allclose(metric(*by_place), few, rtol=1e-9)


@pytest.mark.parametrize(
  "metric, x, y, how, place",
  [
    (sequences.turn, np.zeros((4, 3, 2)), np.zeros((4, 5, 2)), {}, "turn: "),
    (sequences.local, np.zeros((4, 5, 2)), np.zeros((4, 3, 2)), {}, "local: 5 tokens, 3"),
    (sequences.local, np.zeros((4, 2, 2)), np.zeros((4, 2, 2)), {}, "stretches of 3"),
    (sequences.local, walks(0, 4), walks(1, 4), dict(tokens=0), "local: tokens=0"),
  ],
)
def test_bad_shapes_are_refused(metric, x, y, how, place):
  with refused(place):
    metric(x, y, **how)
