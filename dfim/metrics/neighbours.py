"""Distance to the nearest neighbour: are samples copies of the training data?"""

import math

import numpy as np

_BLOCK = 1024  # queries at a time: 500 MB against 60,000 references


def nearest(
  queries: np.ndarray, reference: np.ndarray, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """Each query's nearest reference: Euclidean distances, float64 `[N]`, and indices, int `[N]`.

  Args:
    queries: `[N, ...]`, flattened: pixels or features.
    reference: `[M, ...]`.
    exclude_self: query i is reference i, which does not count as its own neighbour.

  Raises:
    ValueError: points of different sizes, or no reference left to compare with.
  """
  x, y = (
    np.asarray(a, np.float64).reshape(len(a), math.prod(np.shape(a)[1:]))
    for a in (queries, reference)
  )
  if x.shape[1] != y.shape[1] or len(y) <= exclude_self:
    raise ValueError(f"neighbours: no distances from {x.shape} to {y.shape}")
  norms = np.sum(y**2, 1)[None]
  apart, indices = [], []
  for i in range(0, len(x), _BLOCK):
    block = x[i : i + _BLOCK]
    order = norms - 2 * block @ y.T  # squared distance, less the query's own norm
    if exclude_self:
      order[np.arange(len(block)), i + np.arange(len(block))] = np.inf
    indices.append(order.argmin(1))
    apart.append(np.linalg.norm(block - y[indices[-1]], axis=1))  # a copy is at 0, not at 1e-8
  return np.concatenate(apart), np.concatenate(indices)
