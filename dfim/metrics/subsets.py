"""Random parts of a set, functions of the seed and of the rows' content, not of their order."""

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
  """The projections `[N]` of `rows` `[N, ...]` on one random direction, equal for equal rows."""
  size = math.prod(rows.shape[1:])
  direction = np.random.default_rng(0).normal(size=size)
  block = max(1, _NUMBERS // size)
  parts = (rows[n : n + block].reshape(-1, size) for n in range(0, len(rows), block))
  # Row by row and not by a matrix product, whose rounding may depend on the place of a row.
  return np.concatenate([(part.astype(np.float64) * direction[None]).sum(1) for part in parts])
