"""Samples as uint8 pictures; all functions refuse numbers that are not finite, with their place."""

import math
import os

import numpy as np
from PIL import Image, ImageDraw

from dfim.io import atomic, inputs


def picture(x: np.ndarray, limits: tuple[float, float], columns: int = 20) -> np.ndarray:
  """Images `[N, H, W, C]` as a grid, sequences `[N, T, D]` as lines, points `[N, D]` as density.

  Of more than three channels the first three are shown; of two, the first.
  """
  x = inputs.examples(x, "samples")
  match x.ndim:
    case 4:
      x = x[..., : 3 if x.shape[-1] > 2 else 1]
      return image_grid(x, columns, max(1, 32 // x.shape[1]), gap=1, limits=limits)
    case 3:
      return tracks(x, limits, columns)
    case 2:
      return density(x, limits)
  shown = "images [N, H, W, C], sequences [N, T, D] or points [N, D]"
  raise ValueError(f"samples of shape {x.shape}: a picture shows {shown}.")


def image_grid(
  images: np.ndarray,
  columns: int | None = None,
  scale: int = 1,
  *,
  gap: int = 0,
  limits: tuple[float, float] = (-1.0, 1.0),
) -> np.ndarray:
  """Lays `[N, H, W, C]` out in rows of `columns`, each pixel `scale` wide: uint8 `[H', W', C]`.

  By default the grid is about square; left-over tiles are black. `gap` pixels of grey part them.
  """
  tiles = pixels(images, limits)
  n, h, w, c = tiles.shape
  columns = columns or math.isqrt(n - 1) + 1
  tiles = np.pad(tiles, [(0, -n % columns), (0, 0), (0, 0), (0, 0)])
  tiles = np.pad(tiles, [(0, 0), (0, gap), (0, gap), (0, 0)], constant_values=128)
  rows = tiles.reshape(-1, columns, h + gap, w + gap, c).swapaxes(1, 2)
  grid = rows.reshape(-1, columns * (w + gap), c)
  return grid.repeat(scale, 0).repeat(scale, 1)


def pixels(images: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Images `[N, H, W, C]` as uint8: `limits` become 0 and 255, values beyond are clipped."""
  low, high = inputs.limits(limits, "limits")
  unit = (inputs.examples(images, "images", 4, dtype=np.float32) - low) / (high - low)
  return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def density(x: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Points `[N, D]` within `limits`, darker where there are more: uint8 `[H, W, 1]`.

  Of more than two dimensions the first two are shown; points of a line lie on the middle row.
  """
  low, high = inputs.limits(limits, "limits")
  x = inputs.examples(x, "points", 2)
  if x.shape[1] == 1:
    x = np.pad(x, [(0, 0), (0, 1)], constant_values=(low + high) / 2)
  counts, *_ = np.histogram2d(x[:, 1], x[:, 0], bins=96, range=[limits, limits])
  shade = np.log1p(counts[::-1, :, None])
  pixels = np.rint(255 * (1.0 - shade / max(shade.max(), 1e-9))).astype(np.uint8)
  return pixels.repeat(3, 0).repeat(3, 1)


def tracks(
  x: np.ndarray, limits: tuple[float, float], columns: int = 20, side: int = 48
) -> np.ndarray:
  """Sequences `[N, T, D]`, a tile each: uint8 `[H, W, 1]`; values beyond `limits` lie outside.

  Points of the plane, D = 2, are joined to a path, its first point ringed; others are lines.
  """
  low, high = inputs.limits(limits, "limits")
  unit = (inputs.examples(x, "sequences", 3) - low) / (high - low)
  unit = unit.clip(-1000, 1000)  # Pillow walks along every pixel of a line, outside of the tile too
  time = np.broadcast_to(np.linspace(0, 1, unit.shape[1])[:, None], unit.shape[1:])
  tiles = []
  for one in unit:
    tile = Image.new("L", (side, side), "white")
    lines = [one] if unit.shape[2] == 2 else np.stack([time, one], axis=-1).swapaxes(0, 1)
    for line in lines:
      points = [(side * u, side * (1 - v)) for u, v in line]
      ImageDraw.Draw(tile).line(points, fill="black")
      if unit.shape[2] == 2:
        ImageDraw.Draw(tile).circle(points[0], 2, outline="black")
    tiles.append(np.asarray(tile)[..., None])
  return image_grid(np.stack(tiles), columns, gap=1, limits=(0, 255))


def panels(named: dict[str, np.ndarray]) -> np.ndarray:
  """Pictures below each other, each under its name: uint8 `[H, W, 3]`."""
  title, gap = 16, 6
  width = max(image.shape[1] for image in named.values())
  height = sum(image.shape[0] + title + gap for image in named.values())
  sheet = Image.new("RGB", (width, height), "white")
  pen, top = ImageDraw.Draw(sheet), 0
  for name, image in named.items():
    pen.text((2, top + 2), name, fill="black")
    sheet.paste(Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3))), (0, top + title))
    top += image.shape[0] + title + gap
  return np.asarray(sheet)


def save_png(path: str | os.PathLike, array: np.ndarray) -> None:
  """Saves uint8 `[H, W]` or `[H, W, 1 | 3]`, in one move."""
  image = Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
  atomic.replace(path, lambda file: image.save(file, "PNG"))
