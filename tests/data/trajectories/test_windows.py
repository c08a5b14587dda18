"""Windows of recorded episodes: the contract of all sources, and that no window leaves one."""

import functools

import numpy as np
import pytest

from dfim.data.trajectories import point_maze, windows
from dfim.envs import mazes
from tests.data import test_sources as contract
from tests.data.helpers import assert_equal, refused

Recipe, Window = point_maze.Recipe, windows.Window
SMALL = dict(episodes=40, steps=120)
pytestmark = pytest.mark.usefixtures("optimized")

# The contract of every data source, of the source below.
test_starting_at_n_equals_skipping_n = contract.test_starting_at_n_equals_skipping_n
test_processes_hold_parts_of_one_batch = contract.test_processes_hold_contiguous_parts_of_one_batch
test_batches_differ_by_seed_and_number = contract.test_batches_differ_by_seed_and_number
test_refusals_come_before_the_first_batch = contract.test_refusals_come_before_the_first_batch


@pytest.fixture(
  params=[Window(5, 7), Window(4, 3, stack=2, actions=True, goal=11)], ids=["x", "all"]
)
def source(request):
  recipe = Recipe("medium", **SMALL)
  return functools.partial(windows.windows, recipe=recipe, window=request.param, rest=0.5)


@pytest.fixture
def ramp(monkeypatch):
  """Episodes whose positions say where they come from: (episode, step); actions are (step, 1)."""
  episode, step = np.indices((SMALL["episodes"], SMALL["steps"])).astype(np.float32)
  data = dict(
    position=np.stack([episode, step], -1), action=np.stack([step, np.ones_like(step)], -1)
  )
  monkeypatch.setattr(point_maze, "generate", lambda recipe, split: data)
  monkeypatch.setattr(mazes, "normalize", lambda maze, x: x)
  return Recipe("medium", **SMALL)


@pytest.mark.parametrize("stride, stack, goal", [(1, 1, None), (4, 2, 0), (5, 3, 17)])
def test_windows_are_evenly_spaced_and_stay_in_their_episode(ramp, stride, stack, goal):
  window = Window(4, stride, stack, actions=True, goal=goal)
  source = windows.windows(512, 0, recipe=ramp, window=window, rest=0.0)
  batches = [next(source) for _ in range(3)]
  for batch in batches:
    x = batch["x"].reshape(512, 4 * stack, 4)
    assert np.all(x[..., 0] == x[:, :1, 0])
    np.testing.assert_array_equal(np.diff(x[..., 1], axis=1), stride)
    # Actions are means over the steps that lead to the next position.
    np.testing.assert_allclose(x[..., 2], x[..., 1] + (stride - 1) / 2)
    last = x[:, -1, 1] + stride - 1
    if goal is not None:
      np.testing.assert_array_equal(batch["cond"]["goal"], x[:, -1, :2] + [0, goal])
      last = np.maximum(last, batch["cond"]["goal"][:, 1])
    assert 0 <= x[..., 1].min() and last.max() == SMALL["steps"] - 1
  assert len(np.unique(batches[0]["x"][:, 0, 0])) == SMALL["episodes"]


def test_an_epoch_has_every_window_once(ramp):
  window = Window(3, 10, goal=4)
  source = windows.windows(40, 1, recipe=ramp, window=window, rest=0.0)
  assert source.size == 40 * (120 - 24) and window.steps == 25
  x = np.concatenate([next(source)["x"] for _ in range(source.size // 40)])
  assert len(np.unique(x[:, 0], axis=0)) == source.size
  examples = source.examples(np.arange(source.size))["x"]
  assert_equal(np.unique(x, axis=0), np.unique(examples, axis=0))


def test_a_share_of_windows_begins_at_rest(ramp):
  window = Window(6, 2, actions=True)
  source = windows.windows(4000, 0, recipe=ramp, window=window, rest=0.3, standing=4)
  x = next(source)["x"]
  moved = np.diff(x[..., 1], axis=1)
  standing = (moved == 0).sum(1)
  assert abs(np.mean(standing > 0) - 0.3) < 0.03
  assert set(standing) == set(range(5))
  np.testing.assert_array_equal(np.sort(moved), moved)  # first it stands, then it moves by 2
  np.testing.assert_array_equal(x[:, :-1, 3], moved > 0)  # no action while it stands
  assert x[:, -1, 3].all()


def test_the_condition_of_a_window_at_rest_is_ahead_of_its_own_end(ramp):
  window = Window(6, 2, goal=3)
  batch = next(windows.windows(200, 0, recipe=ramp, window=window, rest=1.0))
  np.testing.assert_array_equal(batch["cond"]["goal"], batch["x"][:, -1] + [0, 3])


def test_an_evaluators_windows_are_fixed_and_of_the_validation():
  recipe, window = Recipe("medium", **SMALL), Window(4, 5, goal=0)
  data = windows.load(recipe=recipe, window=window, size=30)
  assert data["x"].shape == (30, 4, 2) and data["cond"]["goal"].shape == (30, 2)
  assert_equal(data, windows.load(recipe=recipe, window=window, size=30))
  raw = mazes.denormalize(mazes.MEDIUM, data["x"])
  held_out = point_maze.generate(recipe, "validation")["position"].reshape(-1, 2)
  gap = np.abs(raw.reshape(-1, 1, 2) - held_out[None]).max(-1).min(-1)
  assert gap.max() < 1e-5
  assert len(windows.load(recipe=recipe, window=window, size=None)["x"]) == 4 * (120 - 15)


@pytest.mark.parametrize("field, value", dict(rest=1.5, standing=0, split="test").items())
def test_a_wrong_argument_is_named(ramp, field, value):
  with refused(f"data.{field}"):
    windows.windows(8, 0, recipe=ramp, window=Window(3), **{field: value})


def test_a_window_that_is_longer_than_the_episodes_is_refused(ramp):
  with refused("data.window", "121 steps", "120"):
    windows.windows(8, 0, recipe=ramp, window=Window(25, 5))
  assert windows.windows(8, 0, recipe=ramp, window=Window(24, 5)).size == 40 * 5


@pytest.mark.parametrize(
  "fields", [dict(tokens=0), dict(tokens=3, goal=-1), dict(tokens=3, stride=0)]
)
def test_a_wrong_field_of_a_window_is_named(fields):
  name, value = list(fields.items())[-1]
  with refused(f"{name}={value}"):
    Window(**fields)
