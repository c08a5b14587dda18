"""The steered walk obeys its conditions as often as it claims."""

import numpy as np
import pytest

from dfim.data import identity
from dfim.data.synthetic import steered_walk
from dfim.metrics import sequences
from tests.data.helpers import refused


@pytest.fixture(scope="module")
def data():
  return steered_walk.load(size=4000)


def test_conditions_have_a_kind_each(data):
  turn, gain = data["cond"]["turn"], data["cond"]["gain"]
  assert (turn.shape, gain.shape) == ((4000, 6), (4000, 1)) and set(np.unique(turn)) == {0, 1}
  assert abs(turn.mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(4000)
  assert abs(gain.min() * 55 - 30) < 0.5 and abs(gain.max() * 55 - 80) < 0.5
  assert abs(gain.mean() - 1) < 0.02


def test_a_token_turns_by_its_own_condition_and_the_gain(data):
  turns = np.rad2deg(sequences.turning_angles(data["x"]))
  left, chance = turns > 0, 4 * np.sqrt(0.09 / 4000)
  obeys = left[:, None] == data["cond"]["turn"][:, :, None].astype(bool)  # [N, condition, turn]
  wanted = np.where(np.eye(6, 5, -1, bool), 0.9, 0.5)
  assert np.all(np.abs(obeys.mean(0) - wanted) < np.where(wanted == 0.9, chance, 0.032))
  blur = np.abs(turns) - 55 * data["cond"]["gain"]
  assert abs(blur.mean()) < 0.2 and abs(blur.std() - 5) < 0.2


def test_the_identity_of_a_stream_is_of_its_conditions_too():
  source = lambda obey: lambda: steered_walk.steered_walk(16, 0, obey=obey, spread=0.0)
  found = identity.identity(source(1.0))
  assert found["examples"] is None and found["shape"] == [6, 2]
  assert found == identity.identity(source(1.0)) != identity.identity(source(0.5))


@pytest.mark.parametrize("field, value", dict(obey=1.5, angles=(80, 30), tokens=0).items())
def test_a_wrong_field_is_named(field, value):
  with refused(f"data.{field}={value}"):
    steered_walk.steered_walk(4, 0, **{field: value})
