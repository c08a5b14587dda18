"""Failures in a row are found right after the last, whenever the results are ready."""

import jax.numpy as jnp
import pytest

from dfim.training import nonfinite


class Pending:
  """A count that is ready after `late` calls of `is_ready`."""

  def __init__(self, value, late):
    self.value, self.late = value, late

  def is_ready(self):
    self.late -= 1
    return self.late < 0

  def __int__(self):
    return self.value


@pytest.mark.parametrize("late", [0, 3, 1000])
def test_ten_running_stop_right_after_the_tenth(late):
  watch, skipped = nonfinite.Guard(5, 1), 5
  outcomes = [True] * 7 + [False] * 9 + [True] + [False] * 10
  stopped = []
  for good in outcomes:
    skipped += not good
    stopped.append(watch.failed(Pending(skipped, late)))
  assert stopped == [False] * (len(outcomes) - 1) + [True]


def test_it_does_not_wait_while_all_is_well():
  watch = nonfinite.Guard(0, 1)
  values = [Pending(0, 1000) for _ in range(nonfinite.Guard.AHEAD)]
  assert not any(watch.failed(value) for value in values)
  assert len(watch._unseen) == nonfinite.Guard.AHEAD
  assert not watch.failed(jnp.int32(0)) and len(watch._unseen) == nonfinite.Guard.AHEAD


@pytest.mark.parametrize("taken", [0, 1])
def test_a_run_that_has_never_taken_a_step_fails_at_its_last(taken):
  watch = nonfinite.Guard(0, taken)
  assert not watch.failed(Pending(1, 3))
  assert watch.failed(Pending(2, 3), last=True) == (taken == 0)
