"""Distance to the nearest neighbour: are samples copies of the training data?"""

import numpy as np

from dfim.metrics import points

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
    ValueError: points of different sizes, no reference left to compare with, or numbers that are
      not finite.
  """
  x, y = points.pair(queries, reference, ("neighbours: queries", "neighbours: reference"))
  if exclude_self and len(y) < max(2, len(x)):
    raise ValueError(
      f"neighbours: reference of {len(y)} rows: give {max(2, len(x))} or more, the queries and"
      " another one."
    )
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
