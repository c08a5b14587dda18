"""Sequences of one's own: an .npz of arrays, scaled by one number, with masks and conditions.

| array | form |
|---|---|
| `x` | floating `[N, T, D]` |
| `mask`, may be missing | booleans `[N, T]`, False on padding, which may hold anything |
| `label`, may be missing | integers `[N]`, classes from 0 |
| any other | a condition of this name, of a kind of `core.conditioning`, as it is |

`numpy.savez("train.npz", x=x, action=action)` writes one. Batches are `x [B, T, D]`, `mask [B, T,
1]` and `cond`; see `data.base`.
"""

import os
from typing import Any

from absl import logging
import numpy as np

from dfim.core import conditioning
from dfim.data import base
from dfim.io import inputs, npz as npz_lib

Path = str | os.PathLike
_SHARED, _EACH = ("sequence", "place"), ("sequence", "token", "place")  # axes of conditions
_FIX = "numpy.savez floating [N, T, D] as 'x'"


def npz(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  path: Path,
  std: float | None = 0.5,
  like: Path | None = None,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches of a file, as `load` gives it."""
  return base.batches(load(path, std=std, like=like), batch_size, seed, start, process=process)


def load(
  path: Path, size: int | None = None, *, std: float | None = 0.5, like: Path | None = None
) -> dict[str, Any]:
  """A file's sequences, or `size` of them, evenly spread: `x [N, T, D]`, maybe `mask` and `cond`.

  x is multiplied by `scale(like, std)`, where `like` is the training file, by default this one, so
  that held-out data have the scale of training; with std=None by nothing.
  """
  data = _read(path)
  if std is not None:
    data["x"] *= np.float32(_scale(data if like is None else _read(like), like or path, std))
  count = len(data["x"])
  if size is None or inputs.whole(size, "data.size", low=1) >= count:
    return data
  rows = base.evenly_spread(count, size)
  take = lambda a: {k: take(v) if k == "cond" else v[rows] for k, v in a.items()}
  return take(data)


def scale(path: Path, std: float = 0.5) -> float:
  """What multiplies x of a file, so that all numbers of its real tokens together have that std.

  Samples divided by it are in the file's own units.
  """
  return _scale(_read(path), path, std)


def _scale(data: dict[str, Any], path: Path, std: float) -> float:
  std, x = inputs.number(std, "data.std", above=0), data["x"]
  real = x[data["mask"][..., 0]] if "mask" in data else x
  mean, found = float(real.mean(dtype=np.float64)), float(real.std(dtype=np.float64))
  if not found > 0:
    raise ValueError(f"data.path: {path}: x is {mean:g} throughout; set std=None, or vary it.")
  text = "%s: x has mean %.4g and standard deviation %.4g, and is multiplied by %.6g."
  logging.info(text, path, mean, found, std / found)
  if abs(mean) > found:
    logging.warning("%s: x has a mean beyond its standard deviation; subtract it first.", path)
  return std / found


def _read(path: Path) -> dict[str, Any]:
  """A file's arrays, checked, without their padding's values."""
  file, where = npz_lib.read_file(path, "data.path", _FIX), f"data.path: {path}"
  if "x" not in file:
    raise ValueError(f"{where} has no x, but {', '.join(sorted(file)) or 'nothing'}; {_FIX}.")
  x = file.pop("x")
  if x.dtype.kind != "f" or x.ndim != 3:
    raise ValueError(f"{where}: x of {conditioning.describe(x)}: give floating [N, T, D].")
  for name, array in file.items():
    if array.shape[:1] != x.shape[:1]:
      fix = f"x has {len(x)} sequences; give one value for each, or leave it out."
      raise ValueError(f"{where}: {name} of {conditioning.describe(array)}: {fix}")
  mask = _mask(file.pop("mask", None), x.shape, where)
  hidden = x if mask is None else np.where(mask, x, 0)
  data = dict(x=inputs.examples(hidden, f"{where}: x", 3, dtype=np.float32))
  if mask is not None:
    data["mask"] = mask
  return data | (dict(cond=_conditions(file, x.shape, mask, where)) if file else {})


def _mask(mask: np.ndarray | None, shape: tuple[int, ...], where: str) -> np.ndarray | None:
  """`[N, T, 1]`."""
  if mask is None:
    return None
  if mask.dtype != bool or mask.shape != shape[:2]:
    fix = f"give booleans {list(shape[:2])}, False on padding."
    raise ValueError(f"{where}: mask of {conditioning.describe(mask)}: {fix}")
  fix = "the sequence is all padding; leave it out"
  inputs.refuse_where(~mask.any(1), mask.any(1), f"{where}: mask", ("sequence",), fix)
  return mask[..., None]


def _conditions(
  file: dict[str, np.ndarray], shape: tuple[int, ...], mask: np.ndarray | None, where: str
) -> dict[str, np.ndarray]:
  """int32 and float32, null on padding."""
  try:
    conditioning.check(file, shape)
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from None
  found = {}
  for name, array in file.items():
    discrete, each = conditioning.is_discrete(array), conditioning.is_per_token(array)
    if each and mask is not None:
      real = mask if array.ndim == 3 else mask[..., 0]
      array = np.where(real, array.astype(np.int64), -1) if discrete else np.where(real, array, 0)
    how = dict(dtype=np.int32, low=0 if name == "label" else -1)
    how = how if discrete else dict(dtype=np.float32)
    how["axes"] = (_EACH if each else _SHARED)[: array.ndim]
    found[name] = inputs.numbers(array, f"{where}: {name}", array.shape, **how)
  return found
