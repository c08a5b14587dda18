"""Scores of sequences: fresh data score 0, and what is wrong scores more, where it is wrong."""

import numpy as np
import pytest

from dfim.data import walk
from dfim.evaluators import sequences

SIZE = 1500


@pytest.fixture(scope="module")
def reference():
  return walk.load("test", SIZE, tokens=8)


def drawn_from(**fields):
  """A perfect sampler of a walk, whatever the number of steps."""

  def draw(params, count, steps, first=0, *, length=8):
    return walk.load("train", count, tokens=length, **fields)["x"]

  return draw


def test_fresh_data_score_zero_within_their_errors(reference):
  rows, figures = sequences.scores(drawn_from(), None, reference=reference, steps=(1, 4))
  assert list(rows) == ["fresh data", "1 steps", "4 steps"] and not figures
  for row in rows.values():
    assert abs(row["joint"]) < 4 * row["joint_se"] and abs(row["turn"]) < 4 * row["turn_se"]


def test_other_turns_are_seen(reference):
  rows, _ = sequences.scores(drawn_from(angle=30.0), None, reference=reference, steps=(1,))
  assert rows["1 steps"]["turn"] > 10 * rows["1 steps"]["turn_se"]
  assert rows["1 steps"]["joint"] > 10 * rows["1 steps"]["joint_se"]


def test_sequences_of_other_numbers_have_no_turns(reference):
  wide = lambda x: np.concatenate([x, x[..., :1]], axis=-1)
  draw = lambda *given: wide(drawn_from()(*given))
  rows, _ = sequences.scores(draw, None, reference=dict(x=wide(reference["x"])), steps=(1,))
  assert list(rows["1 steps"]) == ["joint", "joint_se"]
  assert abs(rows["1 steps"]["joint"]) < 4 * rows["1 steps"]["joint_se"]


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
