"""Recorded episodes in the point mazes."""

import dataclasses
import functools

import numpy as np
import pytest

from dfim.data.trajectories import point_maze
from dfim.envs import mazes, paths
from tests.data.helpers import assert_equal, refused

Recipe = point_maze.Recipe
SMALL = dict(episodes=40, steps=120)
pytestmark = pytest.mark.usefixtures("optimized")


@functools.cache
def recorded(kind, maze="medium", split="train", **fields):
  return point_maze.generate(Recipe(maze, kind, **fields), split)


@pytest.mark.parametrize("maze", mazes.MAZES)
def test_navigate_covers_the_maze_by_small_steps_at_deviation_half(maze):
  data = recorded("navigate", maze, episodes=100, steps=500)
  position, world = data["position"], mazes.named(maze)
  assert position.shape == data["action"].shape == (100, 500, 2)
  seen = np.unique(mazes.cell_of(position).reshape(-1, 2), axis=0)
  assert len(seen) >= 0.95 * len(world.free) and not world.walls[tuple(seen.T)].any()
  moved = np.abs(np.diff(position, axis=1)).max(-1)
  jumps = np.mean(moved > 0.45)
  assert (0 < jumps < 0.01) if world.pads_in else jumps == 0
  assert np.abs(data["action"]).max() == 1 and abs(data["action"].std() - 0.7) < 0.02
  assert abs(mazes.normalize(world, position).std() - 0.5) < 0.05
  moves = np.linalg.norm(position[:, 200:] - position[:, :-200], axis=-1)
  assert np.median(moves) > 8  # it goes on to new goals


def test_free_steps_are_the_actions():
  data = recorded("navigate", episodes=100, steps=500)
  moved = np.diff(data["position"], axis=1) - 0.2 * data["action"][:, :-1]
  assert 0.6 < np.mean(np.abs(moved).max(-1) < 1e-5) < 0.999
  assert np.abs(moved).max() < 0.3  # contacts push by no more than a step


def test_stitch_goes_four_cells_and_stays():
  data = recorded("stitch", episodes=200, steps=201)
  cell = mazes.cell_of(data["position"])
  away = np.array(
    [
      paths.distances(mazes.MEDIUM, tuple(map(int, first)))[tuple(last)]
      for first, last in zip(cell[:, 0], cell[:, -1], strict=True)
    ]
  )
  assert np.mean(away == 4) > 0.95
  last = data["position"][:, -20:] - mazes.center(cell[:, -1:])
  assert np.linalg.norm(last, axis=-1).max() < 1.5


def test_validation_is_a_tenth_and_apart_from_training():
  recipe = Recipe("medium", episodes=50, steps=20)
  train, held_out = (point_maze.generate(recipe, split) for split in point_maze.SPLITS)
  assert held_out["position"].shape == (5, 20, 2)
  starts = train["position"][:, 0, None] == held_out["position"][None, :, 0]
  assert not starts.all(-1).any()
  assert Recipe("giant").size("train") == (500, 2001)
  assert Recipe("large").size("validation") == (100, 1001)
  assert Recipe("giant", "stitch").size("train") == (5000, 201)


def test_a_cache_holds_what_is_generated_and_damage_is_refused(tmp_path, monkeypatch):
  recipe = Recipe("medium", **SMALL)
  fresh = point_maze.recorded(recipe, "train")
  assert_equal(fresh, point_maze.recorded(recipe, "train", tmp_path))
  assert_equal(fresh, point_maze.generate.__wrapped__(recipe, "train"))
  (path,) = tmp_path.iterdir()
  monkeypatch.setattr(point_maze, "generate", None)  # the file is read
  assert_equal(fresh, point_maze.recorded(recipe, "train", str(tmp_path)))
  path.write_bytes(path.read_bytes()[:-100])
  with refused(path, "delete it"):
    point_maze.recorded(recipe, "train", tmp_path)
  np.savez(path, position=fresh["position"])
  with refused(path, "action", "delete it"):
    point_maze.recorded(recipe, "train", tmp_path)


def test_everything_that_determines_episodes_names_their_file(monkeypatch):
  recipe, path = (
    Recipe("medium", **SMALL),
    lambda r, split="train": point_maze.path_of(r, split, ""),
  )
  path = lambda recipe, split="train": point_maze.path_of(recipe, split, "cache")
  changes = dict(maze="large", kind="stitch", seed=1, episodes=41, steps=121, noise=0.4)
  others = [path(dataclasses.replace(recipe, **{k: v})) for k, v in changes.items()]
  assert len({path(recipe), path(recipe, "validation"), *others}) == 2 + len(changes)
  whole = Recipe("medium")
  assert path(whole) == path(Recipe("medium", episodes=1000, steps=1001, noise=0.5))
  monkeypatch.setattr(point_maze, "_VERSION", 2)
  assert path(recipe) not in others and path(whole) != path(recipe)


@pytest.mark.parametrize(
  "make, field",
  [
    *[(lambda: Recipe("larg"), "maze='larg'"), (lambda: Recipe("large", "play"), "kind='play'")],
    *[
      (lambda: Recipe("large", seed=-1), "seed=-1"),
      (lambda: Recipe("large", noise=-1), "noise=-1"),
    ],
    (lambda: Recipe("large").size("test"), "data.split"),
  ],
)
def test_a_wrong_field_is_named(make, field):
  with refused(field):
    make()
