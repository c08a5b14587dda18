"""Random parts of a set that do not depend on the order of its rows.

Files are often sorted, by class or by time. A part that is chosen here is a function of the seed
and of the rows' content alone: the same set in another order has the same part.
"""

import math

import numpy as np

_NUMBERS = 2**22  # at a time, 32 MB


def choose(rows: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
  """Indices `[min(count, N)]` of a uniformly random part of `rows` `[N, ...]`; of all, in order."""
  return np.arange(len(rows)) if count >= len(rows) else shuffle(rows, seed)[:count]


def shuffle(rows: np.ndarray, seed: int = 0) -> np.ndarray:
  """The indices `[N]` of `rows` in a random order, the same for the same rows in another order."""
  order = np.argsort(keys(rows), kind="stable")  # equal rows may change places
  return order[np.random.default_rng((seed, 1)).permutation(len(order))]


def keys(rows: np.ndarray) -> np.ndarray:
  """A float64 number `[N]` for each of `rows` `[N, ...]`: equal rows have equal numbers.

  It is the projection on one random direction.
  """
  size = math.prod(rows.shape[1:])
  direction = np.random.default_rng(0).normal(size=size)
  block = max(1, _NUMBERS // size)
  parts = (rows[n : n + block].reshape(-1, size) for n in range(0, len(rows), block))
  # Row by row and not by a matrix product, whose rounding may depend on the place of a row.
  return np.concatenate([(part.astype(np.float64) * direction[None]).sum(1) for part in parts])
