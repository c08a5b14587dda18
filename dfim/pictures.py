"""Samples as uint8 images that people can look at."""

import numpy as np
from PIL import Image
from PIL import ImageDraw

from dfim.writer import image_grid
from dfim.writer import save_png


def picture(x: np.ndarray, limits: tuple[float, float], columns: int = 16) -> np.ndarray:
  """Images `[N, H, W, C]` as a grid, points of the plane `[N, 2]` as a density."""
  if x.ndim == 4:
    return image_grid(x, columns, max(1, 32 // x.shape[1]), limits=limits)
  density, *_ = np.histogram2d(x[:, 1], x[:, 0], bins=96, range=[limits, limits])
  shade = np.log1p(density[::-1, :, None])
  return np.rint(255 * (1.0 - shade / max(shade.max(), 1e-9))).astype(np.uint8).repeat(3, 0).repeat(3, 1)


def panels(named: dict[str, np.ndarray]) -> np.ndarray:
  """Pictures below each other, each under its name: uint8 `[H, W, 3]`."""
  title, gap = 16, 6
  width = max(p.shape[1] for p in named.values())
  height = sum(p.shape[0] + title + gap for p in named.values())
  sheet = Image.new("RGB", (width, height), "white")
  pen, top = ImageDraw.Draw(sheet), 0
  for name, image in named.items():
    pen.text((2, top + 2), name, fill="black")
    sheet.paste(Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3))), (0, top + title))
    top += image.shape[0] + title + gap
  return np.asarray(sheet)
