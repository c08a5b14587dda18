"""Breadth-first paths in a maze, and whether planned segments cross its walls.

Paths ignore teleport pads. Neighbours are tried in OGBench's order: up, left, down, right.
"""

import collections
from collections.abc import Iterator
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dfim.envs import mazes, point_maze

Array = jax.Array
Maze = mazes.Maze
Cell = mazes.Cell
_NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))


@functools.cache
def distances(maze: Maze, goal: Cell) -> np.ndarray:
  """Cells on the shortest path from each cell to `goal`, int `[rows, columns]`; -1 without one."""
  mazes.check_cell(maze, goal, "goal")
  found = np.full(maze.walls.shape, -1)
  found[goal], queue = 0, collections.deque([goal])
  while queue:
    cell = queue.popleft()
    for there in _free_neighbours(maze, cell):
      if found[there] < 0:
        found[there] = found[cell] + 1
        queue.append(there)
  found.setflags(write=False)  # as it is shared
  return found


def next_cell(maze: Maze, cell: Cell, goal: Cell) -> Cell:
  """The cell after `cell` on the shortest path; `cell` itself at the goal or without a path."""
  steps = distances(maze, goal)
  return min((cell, *_free_neighbours(maze, cell)), key=lambda there: steps[there])


def cells(maze: Maze, start: Cell, goal: Cell) -> np.ndarray:
  """The shortest path, both ends included, int `[N, 2]`; ValueError without one."""
  mazes.check_cell(maze, start, "start")
  if distances(maze, goal)[start] < 0:
    raise ValueError(f"goal: no path leads from {start} to {goal} in maze {maze.name}")
  path = [start]
  while path[-1] != goal:
    path.append(next_cell(maze, path[-1], goal))
  return np.array(path)


def steps(maze: Maze, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
  """Breadth-first-optimal steps `[N]`, not rounded, from positions `[N, 2]` to goals `[N, 2]`.

  The length of the line from the start, over the centres of the cells between, to the goal, less
  the 1.0 within which the goal is reached, at 0.2 units a step. Shorter ways exist: `direction`
  cuts corners and takes about 0.85 of these steps, and a diagonal step has up to 0.28 units.
  """
  start, goal = (
    mazes.check_positions(maze, p, name) for name, p in dict(start=start, goal=goal).items()
  )
  length = np.array([_length(maze, *pair) for pair in zip(start, goal, strict=True)])
  return np.maximum(length - point_maze.TOLERANCE, 0.0) / point_maze.SPEED


@functools.cache
def targets(maze: Maze) -> np.ndarray:
  """`center(next_cell)` for each cell and each goal, float32 `[rows, columns] * 2 + [2]`.

  Entries of walls are of no use.
  """
  found = np.zeros(maze.walls.shape * 2 + (2,), np.float32)
  for goal in map(tuple, maze.free.tolist()):
    for cell in map(tuple, maze.free.tolist()):
      found[cell + goal] = mazes.center(np.array(next_cell(maze, cell, goal)))
  found.setflags(write=False)
  return found


def direction(maze: Maze, position: Array, goal: Array) -> Array:
  """OGBench's expert: the unit vector `[2]` to the centre of the next cell to the goal `[2]`."""
  cell, of_goal = mazes.cell_of(position), mazes.cell_of(goal)
  target = jnp.asarray(targets(maze))[cell[0], cell[1], of_goal[0], of_goal[1]]
  towards = target - position
  return towards / (jnp.linalg.norm(towards) + 1e-6)


def junctions(maze: Maze) -> np.ndarray:
  """The free cells that are no straight corridor, int `[N, 2]`: `navigate` has its goals there."""
  straight = [{(-1, 0), (1, 0)}, {(0, -1), (0, 1)}]
  ways = lambda cell: {(i - cell[0], j - cell[1]) for i, j in _free_neighbours(maze, cell)}
  return np.array([cell for cell in maze.free.tolist() if ways(cell) not in straight])


def random_tasks(maze: Maze, count: int, seed: int) -> tuple[mazes.Task, ...]:
  """Random pairs of different cells that a path joins, none of them published; for validation."""
  free, rng = [tuple(cell) for cell in maze.free.tolist()], np.random.default_rng(seed)
  far = [(a, b) for a in free for b in free if distances(maze, b)[a] > 0]
  fresh = [task for task in far if task not in maze.tasks]
  return tuple(fresh[n] for n in rng.permutation(len(fresh))[:count])


def crosses(maze: Maze, a: Array, b: Array, radius: float = 0.0) -> Array:
  """Whether straight segments from `a` to `b` `[..., 2]` touch a wall or end outside: bool `[...]`.

  `radius` is that of a disc that moves along the segment; the point's is 0.7, and in contact it
  sinks up to 0.05 into a wall. NaN counts as a wall.
  """
  walls = mazes.center(np.argwhere(maze.walls)).astype(np.float32)
  one = functools.partial(_crosses_any, walls, maze.walls.shape, radius)
  return jnp.vectorize(one, signature="(d),(d)->()")(jnp.asarray(a), jnp.asarray(b))


def _crosses_any(
  walls: np.ndarray, shape: tuple[int, int], radius: float, a: Array, b: Array
) -> Array:
  last = jnp.array([shape[1], shape[0]]) - 1
  inside = lambda p: jnp.all((p >= -1.5 * mazes.CELL) & (p <= mazes.CELL * (last - 0.5)))
  half, middle = (b - a) / 2, (a + b)[None] / 2 - walls  # [2], [walls, 2]
  found = _overlaps(half, middle)
  if radius > 0:
    found |= _distance(half, middle) <= radius
  return jnp.any(found) | ~(inside(a) & inside(b))


def _overlaps(half: Array, middle: Array) -> Array:
  """Whether segments `middle -+ half` meet a cell around 0, by separating axes."""
  x, y, side = middle[:, 0], middle[:, 1], mazes.CELL / 2
  hx, hy = jnp.abs(half)
  aside = jnp.abs(x * half[1] - y * half[0]) <= side * (hx + hy)
  return (jnp.abs(x) <= side + hx) & (jnp.abs(y) <= side + hy) & aside


def _distance(half: Array, middle: Array) -> Array:
  """From segments to a cell around 0 that they do not meet: of an end, or of a corner."""
  side = mazes.CELL / 2
  to_cell = lambda p: jnp.linalg.norm(p - jnp.clip(p, -side, side), axis=-1)
  found = jnp.minimum(to_cell(middle - half[None]), to_cell(middle + half[None]))
  for corner in ((-side, -side), (-side, side), (side, -side), (side, side)):
    to_corner = jnp.array([corner]) - middle
    along = to_corner @ half / jnp.maximum(half @ half, 1e-12)
    off = to_corner - jnp.clip(along, -1.0, 1.0)[:, None] * half[None]
    found = jnp.minimum(found, jnp.linalg.norm(off, axis=-1))
  return found


def _free_neighbours(maze: Maze, cell: Cell) -> Iterator[Cell]:
  """In OGBench's order; the outer cells are walls, so all indices exist."""
  around = ((cell[0] + i, cell[1] + j) for i, j in _NEIGHBOURS)
  return (there for there in around if not maze.walls[there])


def _length(maze: Maze, start: np.ndarray, goal: np.ndarray) -> float:
  ends = (tuple(map(int, mazes.cell_of(p))) for p in (start, goal))
  between = mazes.center(cells(maze, *ends)[1:-1].astype(float))
  line = np.concatenate([start[None], between, goal[None]])
  return float(np.linalg.norm(np.diff(line, axis=0), axis=-1).sum())
