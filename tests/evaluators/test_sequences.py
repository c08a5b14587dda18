"""Scores of sequences: fresh data score 0, and faults score more, where they are."""

import numpy as np
import pytest

from dfim.data.synthetic import walk
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
    assert abs(row["joint"]) < 4 * row["joint_se"] and abs(row["turn"]) < 4 * row["turn_se"]
  rows, _ = sequences.scores(drawn_from(angle=30.0), None, reference=reference, steps=(1,))
  assert rows["1 steps"]["turn"] > 10 * rows["1 steps"]["turn_se"]
  assert rows["1 steps"]["joint"] > 10 * rows["1 steps"]["joint_se"]
  wide = lambda x: np.concatenate([x, x[..., :1]], axis=-1)
  draw = lambda *given: wide(drawn_from()(*given))
  rows, _ = sequences.scores(draw, None, reference=dict(x=wide(reference["x"])), steps=(1,))
  assert list(rows["1 steps"]) == ["joint", "joint_se"]
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


X = walk.load("test", 6, tokens=4)["x"]


@pytest.mark.parametrize(
  "check, change, place",
  [
    (points.check_scores, dict(reference=dict(x=X[:5])), "reference.x of 5 sequences"),
    (points.check_scores, dict(reference=dict(x=X * np.nan)), "reference.x: nan at sequence 0"),
    (sequences.check_scores, dict(reference=dict(x=X[:, :1])), "reference.x: "),
    (sequences.check_scores, dict(shape=(6, 2)), "reference.x: "),
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
