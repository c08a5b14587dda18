"""Metrics of sequences on walks whose distribution is known."""

import functools

import numpy as np
import pytest

from dfim.data.synthetic import bent_walk, memory_walk, steered_walk, walk
from dfim.metrics import distances, sequences, subsets
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


METRICS = [sequences.joint, sequences.turn, sequences.local, sequences.following]


@pytest.mark.parametrize("metric", METRICS)
def test_fresh_data_are_at_zero_on_average(metric):
  pairs = walks(0, 80 * 200).reshape(40, 2, 200, 6, 2)
  draws = [np.stack(metric(*pair)) for pair in pairs]
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


def draw(source, seed, size=1500, **fields):
  """Sequences and their conditions."""
  batch = next(source(size, seed, **fields))
  return batch["x"], batch.get("cond", {})


SOURCES = {
  "plain": walk.walk,
  "memory": memory_walk.memory_walk,
  "bent": bent_walk.bent_walk,
  "steered": steered_walk.steered_walk,
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("metric", [sequences.joint, sequences.following])
def test_one_distribution_scores_zero_within_its_error_whatever_the_numbers(metric, name):
  (x, u), (y, v) = (draw(SOURCES[name], seed) for seed in (0, 1))
  value, error = metric(x, y, conditions=(u, v))
  assert abs(value) < 4 * error
  units, reduced = (lambda cond: {k: 1e3 * a if k == "gain" else a for k, a in cond.items()}), 1e-3
  other = metric(reduced * x, reduced * y, conditions=(units(u), units(v)))
  np.testing.assert_allclose(np.divide(other, reduced), (value, error), rtol=1e-4)


def test_conditions_alone_are_compared_fairly_where_sets_are_small():
  x, cond = draw(steered_walk.steered_walk, 0, 80 * 200)
  parts = lambda a: a.reshape(40, 2, 200, *a.shape[1:])
  x, turn, gain = parts(x), parts(cond["turn"]), parts(cond["gain"])
  for metric in (sequences.joint, sequences.following):
    of = lambda i, j: dict(turn=turn[i, j], gain=gain[i, j])
    found = [metric(x[i, 0], x[i, 1], conditions=(of(i, 0), of(i, 1))) for i in range(40)]
    value, error = np.transpose(found)
    assert abs(value.mean()) < 4 * value.std() / np.sqrt(40)
    assert error.mean() > 0.8 * value.std()


@pytest.mark.parametrize(
  "name, wrong",
  [
    ("memory", dict(repeat=0.5)),  # each turn alone is right
    ("bent", dict(spread=40.0)),
    ("steered", dict(obey=0.5)),  # the branch ignores its condition
  ],
)
def test_a_next_token_that_ignores_what_it_depends_on_is_seen(name, wrong):
  source = SOURCES[name]
  (x, u), (y, v) = draw(source, 0, **wrong), draw(source, 1)
  value, error = sequences.following(x, y, conditions=(u, v))
  assert value > 5 * error


@pytest.mark.parametrize("source", [walk.walk, bent_walk.bent_walk])
def test_right_tokens_of_other_prefixes_are_seen(source):
  x, y = draw(source, 0)[0].copy(), draw(source, 1)[0]
  x[:, -1] = x[np.random.default_rng(0).permutation(len(x)), -1]
  value, error = sequences.following(x, y)
  assert value > 5 * error


def test_a_condition_shared_by_all_tokens_is_part_of_every_prefix():
  of = functools.partial(draw, steered_walk.steered_walk, tokens=2, angles=(0.0, 120.0))
  (x, u), (y, v) = of(0), of(1)
  value, error = sequences.following(x, y, conditions=(u, v))
  assert abs(value) < 4 * error
  shuffled = dict(u, gain=u["gain"][np.random.default_rng(0).permutation(len(x))])
  value, error = sequences.following(x, y, conditions=(shuffled, v))
  assert value > 5 * error


def test_a_single_token_is_compared_given_its_condition():
  """Points at 0 and 1 by a coin: as likely in both sets, but in one the coin does not decide."""
  rng = np.random.default_rng(0)
  coins = rng.integers(0, 2, (2, 400))
  x, y = (c[:, None, None] + 0.1 * rng.normal(size=(400, 1, 1)) for c in coins)
  right, wrong = dict(label=coins[0]), dict(label=rng.integers(0, 2, 400))
  value, error = sequences.following(x, y, conditions=(right, dict(label=coins[1])))
  assert abs(value) < 4 * error
  value, error = sequences.following(x, y, conditions=(wrong, dict(label=coins[1])))
  assert value > 5 * error


def test_one_cell_is_the_plain_distance_of_the_tokens_that_have_a_prefix():
  x, y = walks(0, 20), walks(1, 25, angle=20.0)
  value, error = sequences.following(x, y, neighbours=25)
  found = [distances.energy_changes(x[:, i], y[:, i]) for i in range(1, 6)]
  assert value == pytest.approx(np.mean([f[0] for f in found]))
  changes = (np.mean([f[k] for f in found], axis=0) for k in (1, 2))  # of a sequence, all tokens
  assert error == pytest.approx(np.sqrt(sum(np.sum(a**2) for a in changes)))


def test_sets_without_three_similar_prefixes_have_no_value():
  apart = np.concatenate([line(*(angle + 50 * np.arange(6))) for angle in (0, 120, 240)])
  apart *= 0.7 / np.arange(1, 7)[:, None]
  found = sequences.following(apart, walks(1, 300), neighbours=8)
  assert np.isnan(found).all()


def test_following_does_not_depend_on_the_order():
  (x, u), (y, v) = (draw(steered_walk.steered_walk, seed, 300) for seed in (0, 1))
  found = sequences.following(x, y, conditions=(u, v))
  i, j = np.argsort(x[:, 0, 0]), np.argsort(y[:, 0, 0])
  rows = lambda cond, order: {name: a[order] for name, a in cond.items()}
  other = sequences.following(x[i], y[j], conditions=(rows(u, i), rows(v, j)))
  np.testing.assert_allclose(other, found, rtol=1e-9)


def test_prefixes_that_are_all_equal_fill_one_cell_of_which_a_part_is_compared(monkeypatch):
  x, y = (np.pad(walks(seed, 300)[:, :1], [(0, 0), (1, 0), (0, 0)]) for seed in (0, 1))
  value, error = sequences.following(x, y)
  assert value == pytest.approx(distances.energy_distance(x[:, 1], y[:, 1])[0], abs=4 * error)
  monkeypatch.setattr(sequences, "_MOST", 100)
  monkeypatch.setattr(distances, "_sums", _few(distances._sums))
  fewer = sequences.following(x, y)
  assert abs(fewer[0]) < 4 * fewer[1] and fewer[1] > error


def _few(sums):
  def checked(x, y):
    assert max(len(x), len(y)) <= 100
    return sums(x, y)

  return checked


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
    (sequences.following, walks(0, 4), walks(1, 4), dict(neighbours=2), "neighbours=2"),
    (
      sequences.following,
      np.zeros((4, 1, 2)),
      np.zeros((4, 1, 2)),
      {},
      "following: sequences of 1",
    ),
    (sequences.following, np.zeros((4, 3, 2)), np.zeros((4, 3, 3)), {}, "following: y of (3, 3)"),
    (
      sequences.joint,
      np.zeros((4, 3, 2)),
      np.zeros((4, 3, 2)),
      dict(conditions=(dict(a=np.zeros(4, int)), {})),
      "joint: conditions of ['a'] and []",
    ),
  ],
)
def test_bad_shapes_are_refused(metric, x, y, how, place):
  with refused(place):
    metric(x, y, **how)
