"""Cells and positions of the mazes, and refusals of walls."""

import numpy as np
import pytest

from dfim.envs import mazes
from tests.data.helpers import refused

ALL = pytest.mark.parametrize("maze", mazes.MAZES.values(), ids=mazes.MAZES)


@ALL
def test_a_maze_is_walled_and_its_tasks_and_pads_are_free(maze):
  edge = np.ones(maze.walls.shape, bool)
  edge[1:-1, 1:-1] = False
  assert maze.walls[edge].all() and len(maze.tasks) == 5
  for cell in (*sum(maze.tasks, ()), *maze.pads_in, *maze.pads_out):
    mazes.check_cell(maze, cell, "cell")


@ALL
def test_positions_and_cells_are_inverse(maze):
  rng = np.random.default_rng(0)
  for offset in rng.uniform(-1.999, 1.999, (20, *maze.free.shape)):
    np.testing.assert_array_equal(mazes.cell_of(mazes.center(maze.free) + offset), maze.free)
  assert mazes.center(np.array((1, 3))).tolist() == [8.0, 0.0]


@ALL
def test_normalization_is_inverted_and_centred(maze):
  p = mazes.center(maze.free).astype(np.float32)
  x = mazes.normalize(maze, p)
  assert x.dtype == np.float32 and np.abs(x).max() < 1.3
  np.testing.assert_allclose(mazes.denormalize(maze, x), p, atol=1e-5)
  ends = mazes.center(np.array([(0, 0), np.array(maze.walls.shape) - 1]))
  np.testing.assert_allclose(mazes.normalize(maze, ends).sum(0), 0, atol=1e-12)


def test_a_wall_and_the_outside_are_refused_with_cell_maze_and_fix():
  with refused("tasks: (0, 3)", "wall", "maze large", "(1, 3), of centre [8.0, 0.0]."):
    mazes.check_cell(mazes.LARGE, (0, 3), "tasks")
  with refused(
    "goal: (-9, 0), position 1,", "outside", "cell (1, -1)", "nearest free cell is (1, 1)"
  ):
    mazes.check_positions(mazes.MEDIUM, [[0, 0], [-9, 0]], "goal")
  with refused("goal: nan at position 0, coordinate 1"):
    mazes.check_positions(mazes.MEDIUM, [[0, np.nan]], "goal")
  with refused("maze='larg'", "did you mean 'large'"):
    mazes.named("larg")
