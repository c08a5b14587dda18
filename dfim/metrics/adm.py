"""Samples as pixels, and as the file of them that ADM's suite reads (arXiv 2105.05233)."""

from collections.abc import Callable, Iterator
import math
import os
import pathlib
from typing import Any

import numpy as np

from dfim.io import atomic
from dfim.viz import images as pictures

_PIECE = 1000  # samples in memory at a time: 800 MB of 256 x 256 pixels in float32


def pixels(x: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
  """Images `[N, H, W, 1 | 3]` as uint8 `[N, H, W, 3]`, see `viz.images.pixels`."""
  check(np.shape(x)[1:])
  return np.broadcast_to(pictures.pixels(x, limits), (*np.shape(x)[:3], 3))


def check(shape: tuple[int, ...]) -> None:
  """Raises ValueError unless samples of `shape` are images of 1 or 3 channels."""
  if len(shape) != 3 or shape[-1] not in (1, 3):
    raise ValueError(f"samples of shape {list(shape)} are no images [H, W, 1 | 3]; decode latents")


def drawn(
  draw: Callable[..., np.ndarray],
  params: Any,
  count: int,
  steps: int,
  limits: tuple[float, float],
  first: int = 0,
) -> Iterator[np.ndarray]:
  """Samples `first` to `count` of `sample.make_draw`'s `draw` as `pixels`, piece by piece."""
  for n in range(first, count, _PIECE):
    yield pixels(draw(params, min(_PIECE, count - n), steps, first=n), limits)


def write(
  path: str | os.PathLike,
  images: Callable[[int], Iterator[np.ndarray]],
  shape: tuple[int, int, int, int],
  labels: np.ndarray | None = None,
) -> None:
  """Writes uint8 `[N, H, W, 3]` "arr_0" and labels "arr_1" atomically; an existing file stays.

  `images(first)` gives `[n, H, W, 3]` at a time, kept in `path` + ".part" to resume from.
  """
  path = pathlib.Path(path)
  if path.exists():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f"{path.name}.part")
  with open(part, "ab") as file:
    size = math.prod(shape[1:])
    done = file.tell() // size
    file.truncate(done * size)
    for piece in images(done):
      file.write(piece.tobytes())
      file.flush()
  arrays = [np.memmap(part, np.uint8, "r", shape=shape), *([] if labels is None else [labels])]
  atomic.replace(path, lambda file: np.savez(file, *arrays))
  part.unlink()
