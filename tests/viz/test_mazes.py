"""Pictures of mazes show walls and paths where they are."""

import numpy as np
import pytest

from dfim.envs import mazes
from dfim.viz import mazes as pictures
from tests.data.helpers import refused


@pytest.mark.parametrize("maze", mazes.MAZES.values(), ids=mazes.MAZES)
def test_walls_are_dark_and_paths_are_where_they_go(maze):
  cell = maze.free[3]
  path = mazes.center(cell) + np.linspace(-1, 1, 9)[:, None]
  image = pictures.picture(maze, path[None], scale=4)
  rows, columns = maze.walls.shape
  assert image.shape == (16 * rows, 16 * columns, 3) and image.dtype == np.uint8
  middles = image[8::16, 8::16]
  np.testing.assert_array_equal((middles == 70).all(-1)[::-1], maze.walls)
  coloured = np.argwhere(image.max(-1) != image.min(-1))
  top, left = 16 * (rows - 1 - cell[0]), 16 * cell[1]
  assert len(coloured) > 10 and np.all(
    (coloured >= (top, left)) & (coloured < (top + 16, left + 16))
  )


def test_numbers_that_are_not_finite_are_refused():
  with refused("paths: nan"):
    pictures.picture(mazes.MEDIUM, np.full((1, 2, 2), np.nan))
