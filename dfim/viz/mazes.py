"""Pictures of mazes and of paths in them."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from dfim.envs import mazes
from dfim.io import inputs


def picture(maze: mazes.Maze, paths: np.ndarray, *, scale: int = 8) -> np.ndarray:
  """Paths `[N, T, 2]` in units over the walls, y upwards, a colour each: uint8 `[H, W, 3]`.

  A ring marks a start, a dot an end; `scale` is in pixels a unit. Values outside are clipped.
  """
  paths = inputs.examples(paths, "paths", 3)
  rows, columns = maze.walls.shape
  side = int(mazes.CELL * scale)
  shade = np.where(maze.walls[::-1], 70, 255).astype(np.uint8).repeat(side, 0).repeat(side, 1)
  image = Image.fromarray(shade).convert("RGB")
  pen = ImageDraw.Draw(image)
  x, y = np.moveaxis(paths + 1.5 * mazes.CELL, -1, 0)  # from the corner of cell (0, 0)
  pixels = np.stack([scale * x, rows * side - scale * y], -1)
  pixels = pixels.clip(0, [columns * side, rows * side])
  for n, path in enumerate(pixels):
    colour = tuple(int(200 * c) for c in colorsys.hsv_to_rgb(n / len(pixels), 1, 1))
    pen.line([tuple(p) for p in path], fill=colour)
    pen.circle(tuple(path[0]), scale // 2, outline=colour, width=2)
    pen.circle(tuple(path[-1]), scale // 2, fill=colour)
  return np.asarray(image)
