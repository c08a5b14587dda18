"""Scores of sequences: fresh data score 0, and faults score more, where they are."""

import numpy as np
import pytest

from dfim.data.synthetic import steered_walk, walk
from dfim.evaluators import points, sequences
from tests.data.helpers import refused

SIZE = 1500


@pytest.fixture(scope="module")
def reference():
  return walk.load("test", SIZE, tokens=8)


def drawn_from(**fields):
  """A perfect sampler of a walk, whatever the number of steps."""

  def draw(params, count, steps, first=0, *, length=8):
    return walk.load("train", count, tokens=length, **fields)["x"]

  return draw


def test_fresh_data_score_zero_within_their_errors_and_other_turns_more(reference):
  rows, figures = sequences.scores(drawn_from(), None, reference=reference, steps=(1, 4))
  assert list(rows) == ["fresh data", "1 steps", "4 steps"] and not figures
  for row in rows.values():
    assert all(abs(row[k]) < 4 * row[f"{k}_se"] for k in ("joint", "turn", "following"))
  rows, _ = sequences.scores(drawn_from(angle=30.0), None, reference=reference, steps=(1,))
  assert rows["1 steps"]["turn"] > 10 * rows["1 steps"]["turn_se"]
  assert rows["1 steps"]["joint"] > 10 * rows["1 steps"]["joint_se"]
  wide = lambda x: np.concatenate([x, x[..., :1]], axis=-1)
  draw = lambda *given: wide(drawn_from()(*given))
  rows, _ = sequences.scores(draw, None, reference=dict(x=wide(reference["x"])), steps=(1,))
  assert list(rows["1 steps"]) == ["joint", "joint_se", "following", "following_se"]
  assert abs(rows["1 steps"]["joint"]) < 4 * rows["1 steps"]["joint_se"]


def test_the_floor_does_not_depend_on_the_order_of_the_data(reference):
  x = reference["x"][:200]
  by_place = x[np.argsort(x[:, 0, 0])]
  floors = [
    scores(drawn_from(), None, reference=dict(x=data), steps=())[0]["fresh data"]
    for scores in (sequences.scores, points.scores)
    for data in (x, by_place)
  ]
  assert floors[1] == pytest.approx(floors[0], rel=1e-9)
  assert floors[3] == pytest.approx(floors[2], rel=1e-9)
  assert abs(floors[1]["joint"]) < 4 * floors[1]["joint_se"], "the halves are alike"


def test_samples_are_drawn_under_conditions_of_data_that_they_are_not_compared_with():
  reference, asked, rng = steered_walk.load("test", 4000), [], np.random.default_rng(0)

  def steered(obey):
    def draw(params, count, steps, *, cond):
      asked.append(cond)
      side = (2 * cond["turn"][:, 1:] - 1) * np.where(rng.uniform(size=(count, 5)) < obey, 1, -1)
      turns = 55 * cond["gain"] * side + 5 * rng.normal(size=side.shape)
      first = rng.uniform(0, 360, (count, 1))
      direction = np.deg2rad(np.cumsum(np.concatenate([first, turns], 1), 1))
      return 0.7 * np.stack([np.cos(direction), np.sin(direction)], -1)

    return draw

  rows, _ = sequences.scores(steered(0.9), None, reference=reference, steps=(1,))
  for row in rows.values():
    assert all(abs(row[k]) < 4 * row[f"{k}_se"] for k in ("joint", "turn", "following"))
  rows, _ = sequences.scores(steered(0.5), None, reference=reference, steps=(1, 2))
  assert len(rows) == 3 and rows["2 steps"]["following"] > 8 * rows["2 steps"]["following_se"]
  assert all(len(cond["turn"]) == len(cond["gain"]) == 2000 for cond in asked)
  gains = [np.sort(c["gain"][:, 0]) for c in asked]
  assert np.all(gains[0] == gains[1]) and set(gains[0]) < set(reference["cond"]["gain"][:, 0])


def test_samples_of_which_no_prefix_is_that_of_data_have_no_value_given_it():
  reference = walk.load("test", 600, tokens=3)
  apart = np.arange(3)[:, None, None] * np.ones((3, 3, 2)) - 1
  rows, _ = sequences.scores(lambda *_: apart, None, reference=reference, steps=(1,))
  assert rows["1 steps"]["following"] is None is rows["1 steps"]["following_se"]


X = walk.load("test", 6, tokens=4)["x"]
TURN = np.zeros((6, 4), np.int32)


@pytest.mark.parametrize(
  "check, change, place",
  [
    (points.check_scores, dict(reference=dict(x=X[:5])), "reference.x of 5 sequences"),
    (points.check_scores, dict(reference=dict(x=X * np.nan)), "reference.x: nan at sequence 0"),
    (sequences.check_scores, dict(reference=dict(x=X[:, :1])), "reference.x: "),
    (sequences.check_scores, dict(shape=(6, 2)), "reference.x: "),
    (sequences.check_scores, dict(reference=dict(x=X, mask=TURN == 0)), "reference.mask: "),
    (sequences.check_scores, dict(reference=dict(x=X, cond=TURN)), "reference.cond of ndarray"),
    (
      sequences.check_scores,
      dict(reference=dict(x=X, cond=dict(turn=TURN[:5]))),
      "reference.cond.turn of shape (5, 4)",
    ),
    (
      sequences.check_scores,
      dict(reference=dict(x=X, cond=dict(gain=X[:, 0] * np.nan))),
      "reference.cond.gain: nan at row 0",
    ),
    (
      sequences.check_rollout,
      dict(reference=dict(x=X, cond=dict(turn=TURN))),
      "reference.cond: ",
    ),
    (sequences.check_rollout, dict(reference=dict(x=X[:2])), "reference.x of 2 sequences"),
    (sequences.check_rollout, dict(tokens=5), "tokens=5"),
    (sequences.check_rollout, dict(any_length=False), "rollout: "),
  ],
)
def test_arguments_that_would_fail_after_training_are_refused(check, change, place):
  given = dict(reference=dict(x=X), steps=1)
  check(**given)
  with refused(place):
    check(**given | change)


def test_a_rollout_that_leaves_the_circle_late_is_seen_late(reference):
  def drifting(params, count, steps, *, length):
    x = drawn_from()(params, count, steps, length=length).copy()
    x[:, 6:] *= 1.3
    return x

  rows, figures = sequences.rollout(drifting, None, reference=reference, steps=4)
  assert list(rows) == [f"token {k}" for k in range(3, 9)]
  within = [abs(row["local"]) < 4 * row["local_se"] for row in rows.values()]
  assert within == [True] * 4 + [False] * 2
  assert figures["tracks"].dtype == np.uint8 and figures["tracks"].shape[1] > 500
