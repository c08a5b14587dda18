"""Breadth-first paths against scipy's, and segments against points along them."""

import jax
import numpy as np
import pytest
import scipy.sparse.csgraph

from dfim.envs import mazes, paths
from tests.data.helpers import refused

ALL = pytest.mark.parametrize("maze", mazes.MAZES.values(), ids=mazes.MAZES)


@ALL
def test_distances_are_the_shortest_paths(maze):
  near = np.abs(maze.free[:, None] - maze.free[None]).sum(-1) == 1
  expected = scipy.sparse.csgraph.shortest_path(near, unweighted=True)
  expected = np.where(np.isfinite(expected), expected, -1)
  for n, goal in enumerate(maze.free.tolist()):
    assert np.all(paths.distances(maze, tuple(goal))[tuple(maze.free.T)] == expected[:, n])


@ALL
def test_paths_are_connected_free_and_shortest(maze):
  for start, goal in paths.random_tasks(maze, 20, seed=1):
    path = paths.cells(maze, start, goal)
    assert tuple(path[0]) == start and tuple(path[-1]) == goal
    assert not maze.walls[tuple(path.T)].any()
    assert np.all(np.abs(np.diff(path, axis=0)).sum(-1) == 1)
    assert len(path) - 1 == paths.distances(maze, goal)[start]
    assert (start, goal) not in maze.tasks
    target = paths.targets(maze)[start + goal]
    np.testing.assert_array_equal(target, mazes.center(path[1]))


def test_steps_of_lines_and_of_a_bend():
  start = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
  goal = np.array([[4.0, 0.0], [0.0, 0.0], [4.0, 4.0]])
  # Less the 1.0 within which a goal is reached; the bend is over (0, 4).
  expected = [(4 - 1) / 0.2, 0, (3.5 + 4 - 1) / 0.2]
  np.testing.assert_allclose(paths.steps(mazes.MEDIUM, start, goal), expected, rtol=1e-6)


def test_an_unreachable_cell_is_refused_and_its_distance_is_minus_one():
  trap = mazes.TELEPORT.pads_out[0]  # which only a teleport leads to
  assert paths.distances(mazes.TELEPORT, trap)[1, 1] == -1
  assert paths.next_cell(mazes.TELEPORT, (1, 1), trap) == (1, 1)
  with refused("goal", "(1, 1)", "maze teleport"):
    paths.cells(mazes.TELEPORT, (1, 1), trap)
  with refused("goal", "(0, 0)"):
    paths.distances(mazes.TELEPORT, (0, 0))


def test_junctions_are_no_straight_corridors():
  rows = ["".join(map(str, row)) for row in mazes.LARGE.walls.astype(int)]
  found = set(map(tuple, paths.junctions(mazes.LARGE).tolist()))
  for i, j in mazes.LARGE.free:
    around = rows[i - 1][j] + rows[i + 1][j] + rows[i][j - 1] + rows[i][j + 1]
    assert ((i, j) in found) == (around not in ("0011", "1100"))


def distance_to_walls(maze, points):
  boxes = mazes.center(np.argwhere(maze.walls))
  beyond = np.maximum(np.abs(points[..., None, :] - boxes) - 2, 0)
  return np.linalg.norm(beyond, axis=-1).min(-1)


@pytest.mark.parametrize("radius", [0.0, 0.7])
def test_segments_cross_where_a_point_along_them_is_in_a_wall(rng, radius):
  maze = mazes.MEDIUM
  a = mazes.center(rng.choice(maze.free, 400)) + rng.uniform(-1.9, 1.9, (400, 2))
  b = a + rng.normal(size=(400, 2)) * rng.choice([0.2, 1.0, 4.0], (400, 1))
  share = np.linspace(0, 1, 800)[:, None, None]
  closest = distance_to_walls(maze, a + share * (b - a)).min(0)
  found = np.asarray(jax.jit(paths.crosses, static_argnums=(0, 3))(maze, a, b, radius))
  clear = np.abs(closest - radius) > 0.01 if radius else closest != 0
  clear |= closest == 0
  assert clear.sum() > 350 and 0.1 < found.mean() < 0.9
  np.testing.assert_array_equal(found[clear], (closest <= radius)[clear])


def test_outside_and_not_a_number_are_walls():
  a = np.array([[-20.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
  b = np.array([[-21.0, 0.0], [np.nan, 0.0], [3.0, 0.0], [0.0, 100.0]])
  assert paths.crosses(mazes.MEDIUM, a, b).tolist() == [True, True, False, True]
