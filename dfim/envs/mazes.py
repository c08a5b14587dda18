"""The point mazes of OGBench (arXiv 2410.20092): walls, tasks, teleport pads, coordinates.

A cell is (row, column), a position is (x, y) in units; both are arrays `[..., 2]` of NumPy or JAX.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from dfim.config.errors import FieldError, suggest
from dfim.io import inputs

Array = Any  # of NumPy or of JAX
Cell = tuple[int, int]
Task = tuple[Cell, Cell]  # start, goal

CELL = 4.0  # side of a cell, in units


@dataclasses.dataclass(frozen=True)
class Maze:
  """A rectangle of cells that is walled all around.

  Attributes:
    name: as in OGBench's names of data sets.
    rows: one text of cells a row; "1" is a wall, "0" is free.
    tasks: the five published pairs of start and goal, by which planners are compared.
    std: standard deviation in units of the positions in `navigate` data, over both axes.
    pads_in, pads_out: cells whose centres teleport, and to which they do.
  """

  name: str
  rows: tuple[str, ...]
  tasks: tuple[Task, ...]
  std: float
  pads_in: tuple[Cell, ...] = ()
  pads_out: tuple[Cell, ...] = ()

  @functools.cached_property
  def walls(self) -> np.ndarray:
    """Which cells are walls, bool `[rows, columns]`."""
    return np.array([list(row) for row in self.rows]) == "1"

  @functools.cached_property
  def free(self) -> np.ndarray:
    """The cells that are no walls, int `[N, 2]`, row by row."""
    return np.argwhere(~self.walls)

  @property
  def middle(self) -> np.ndarray:
    """The position `[2]` of the middle of the maze."""
    return center((np.array(self.walls.shape) - 1) / 2)


def _tasks(*ends: tuple[int, int, int, int]) -> tuple[Task, ...]:
  return tuple((task[:2], task[2:]) for task in ends)


MEDIUM = Maze(
  "medium",
  tuple("11111111 10011001 10010001 11000111 10010001 10100101 10001001 11111111".split()),
  tasks=_tasks((1, 1, 6, 6), (6, 1, 1, 6), (5, 3, 4, 2), (6, 5, 6, 1), (2, 6, 1, 1)),
  std=5.6,
)
LARGE = Maze(
  "large",
  tuple(
    """111111111111 100001000001 101101010101 100000010001 101111011101 100101000001 110101010111
    100100010001 111111111111""".split()
  ),
  tasks=_tasks((1, 1, 7, 10), (5, 4, 7, 1), (7, 4, 1, 10), (3, 8, 5, 4), (1, 1, 5, 4)),
  std=8.8,
)
GIANT = Maze(
  "giant",
  tuple(
    """1111111111111111 1010000001100001 1010110101001101 1000100100010001 1011101111110101
    1000100010000101 1110101001010111 1000100100010001 1010101111110101 1011100010001101
    1000001000100001 1111111111111111""".split()
  ),
  tasks=_tasks((1, 1, 10, 14), (1, 14, 10, 1), (8, 14, 1, 1), (8, 3, 5, 12), (5, 9, 3, 8)),
  std=13.4,
)
TELEPORT = Maze(
  "teleport",
  tuple(
    """111111111111 100000101001 110100010011 110111000001 100001010101 101101010101 101101010101
    100001000101 111111111111""".split()
  ),
  tasks=_tasks((1, 10, 7, 1), (1, 1, 7, 10), (5, 6, 7, 10), (7, 1, 7, 10), (5, 6, 7, 1)),
  std=9.6,
  pads_in=((4, 6), (5, 1)),
  pads_out=((1, 7), (6, 1), (6, 10)),
)
MAZES = {maze.name: maze for maze in (MEDIUM, LARGE, GIANT, TELEPORT)}


def named(name: str) -> Maze:
  """The maze of this name."""
  if name not in MAZES:
    fix = f"give one of {', '.join(MAZES)}{suggest(str(name), MAZES)}."
    raise FieldError("maze", name, fix)
  return MAZES[name]


def center(cell: Array) -> Array:
  """The positions of the centres of cells."""
  return CELL * (cell[..., ::-1] - 1.0)


def cell_of(position: Array) -> Array:
  """The cells, int, in which positions lie."""
  return ((position[..., ::-1] + 1.5 * CELL) // CELL).astype(int)


def normalize(maze: Maze, position: Array) -> Array:
  """Positions in units as numbers around 0, of deviation 0.5 in `navigate` data."""
  return (position - _like(position, maze.middle)) / (2 * maze.std)


def denormalize(maze: Maze, x: Array) -> Array:
  """The inverse of `normalize`."""
  return 2 * maze.std * x + _like(x, maze.middle)


def check_cell(maze: Maze, cell: Any, field: str) -> None:
  """Raises FieldError where a cell is a wall, or outside of the maze."""
  axes = dict(axes=("number",), dtype=np.int64)
  cell = tuple(map(int, inputs.numbers(cell, field, (2,), **axes)))
  _refuse(maze, cell, cell, field)


def check_positions(maze: Maze, position: Any, field: str) -> np.ndarray:
  """Positions `[N, 2]` as float32; raises FieldError where one is in a wall, or outside."""
  axes = dict(axes=("position", "coordinate"), dtype=np.float32)
  position = inputs.numbers(position, field, (None, 2), **axes)
  for n, cell in enumerate(cell_of(position)):
    shown = f"{'({:g}, {:g})'.format(*position[n])}, position {n},"
    _refuse(maze, tuple(map(int, cell)), shown, field)
  return position


def _refuse(maze: Maze, cell: Cell, shown: Any, field: str) -> None:
  inside = all(0 <= n < size for n, size in zip(cell, maze.walls.shape, strict=True))
  if inside and not maze.walls[cell]:
    return
  where = f"in the wall of cell {cell}" if inside else f"outside, in cell {cell},"
  nearest = maze.free[np.abs(maze.free - cell).sum(-1).argmin()]
  fix = f"the nearest free cell is {tuple(nearest.tolist())}, of centre {center(nearest).tolist()}."
  raise FieldError(field, shown, fix, f": {shown} lies {where} of maze {maze.name}; ")


def _like(x: Array, value: np.ndarray) -> np.ndarray:
  """`value [2]` with the rank and the type of `x [..., 2]`."""
  return value.reshape((1,) * (x.ndim - 1) + (2,)).astype(x.dtype)
