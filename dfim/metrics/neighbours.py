"""Distance to the nearest neighbour: are samples copies of the training data?"""

import numpy as np

from dfim.metrics import points

_BLOCK = 1024  # queries at a time: 500 MB against 60,000 references


def nearest(queries: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Nearest of `[M, ...]` to each of `[N, ...]`: distances, float64 `[N]`, and indices."""
  x, y = points.pair(queries, reference, ("neighbours: queries", "neighbours: reference"))
  norms = np.sum(y**2, 1)[None]
  apart, indices = [], []
  for i in range(0, len(x), _BLOCK):
    block = x[i : i + _BLOCK]
    indices.append((norms - 2 * block @ y.T).argmin(1))  # less the query's own norm
    apart.append(np.linalg.norm(block - y[indices[-1]], axis=1))  # a copy is at 0, not at 1e-8
  return np.concatenate(apart), np.concatenate(indices)
