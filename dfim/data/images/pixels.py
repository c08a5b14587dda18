"""Shared by image sets: from uint8 rows, in memory or read when they are needed, to batches.

A set is `dict(x=uint8 [N, H, W, C], label=int32 [N])`, the label where there is one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dfim.data import base
from dfim.data.images import augment as augment_lib
from dfim.io import inputs

_FLIP, _AUGMENT = 1, 2  # which stream of random numbers


def in_memory(
  data: dict[str, np.ndarray],
  batch_size: int,
  seed: int,
  start: int,
  process: base.Process,
  **how: Any,
) -> base.Batches:
  """Batches of a set; `how` is what `finish` takes."""
  raw = base.batches(data, batch_size, seed, start, process=process)
  finished = map(finish(batch_size, seed, process, **how), base.count_from(start), raw)
  return base.Batches(finished, raw.size, raw.examples, raw.labels)


def finish(
  batch_size: int,
  seed: int,
  process: base.Process,
  *,
  flip: bool,
  augment: augment_lib.EDM | None,
  limit: float = 1.0,
) -> Callable[[int, dict[str, np.ndarray]], dict[str, Any]]:
  """A function from (n, uint8 rows of batch n) to the batch that a network sees.

  `flip` mirrors half the images; `augment` adds `cond.augment [B, 9]`; `limit` is white.
  """
  part = base.share(batch_size, process)

  def apply(n: int, data: dict[str, np.ndarray]) -> dict[str, Any]:
    data = scaled(data, limit)
    x, cond = data.pop("x"), data
    if flip:
      coins = np.random.default_rng((seed, n, _FLIP)).random(batch_size)[part] < 0.5
      x = np.where(coins[:, None, None, None], x[:, :, ::-1], x)
    if augment is not None:
      drawn = augment.draw(np.random.default_rng((seed, n, _AUGMENT)), batch_size)[part]
      x, cond = augment.transform(x, drawn), cond | dict(augment=augment.labels(drawn))
    return dict(x=x) | (dict(cond=cond) if cond else {})

  return apply


def scaled(data: dict[str, np.ndarray], limit: float = 1.0) -> dict[str, np.ndarray]:
  """uint8 to float32 in [-limit, limit]; labels as they are."""
  return data | dict(x=limit * (data["x"].astype(np.float32) / np.float32(127.5) - 1))


def labels(value: Any, field: str, count: int, rows: np.ndarray | None = None) -> np.ndarray:
  """Labels from outside as int32 `[count]`; `rows` are their numbers in a larger set."""
  how = dict(axes=("example",), dtype=np.int32, low=0, rows=rows)
  return inputs.numbers(value, field, (count,), **how)
