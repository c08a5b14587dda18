"""How much of the samples lies where the data are, and how much of the data the samples reach.

Every point stands for a ball that reaches as far as its k-th nearest neighbour in its own set. All
four numbers count points in balls, of features that deserve Euclidean distances; name the features
beside them. Each depends on how many points there are: compare sets of the same size.

Sources: T. Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative
Models, arXiv 1904.06991, equation 2 and section 3 (k = 3); M. Naeem et al., Reliable Fidelity and
Diversity Metrics for Generative Models, arXiv 2002.09797, section 3 (k = 5).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dfim.io import inputs
from dfim.metrics import points

LEAST_POINTS = 6  # of either set, for the neighbours that `scores` looks at by default
_MEMORY = 256 * 2**20


def scores(
  reference: np.ndarray,
  samples: np.ndarray,
  *,
  k: int = 3,
  k_density: int = 5,
  dtype: Any = np.float32,
  memory: int = _MEMORY,
) -> dict[str, float]:
  """`precision`, `recall`, `density` and `coverage` of `samples`.

  Precision is the share of samples in the ball of some reference point, recall the share of
  reference points in the ball of some sample. Density is how many of the reference points' balls
  hold a sample, on average and over `k_density`: where the distributions agree it is 1, give or
  take, and outliers of the reference raise it less than they raise precision; it may be above 1.
  Coverage is the share of reference points with a sample in their ball. A point on the edge counts
  as inside, as in Kynkaanniemi et al.; the program of Naeem et al. leaves the edge out.

  Args:
    reference: features `[N, D]`, or `[N, ...]`, which is flattened.
    samples: features `[M, D]`.
    k: neighbours of precision and recall, fewer than there are points in either set.
    k_density: those of density and coverage, fewer than N.
    dtype: of the distances: float32, which errs by 1e-3 of a point's distance from the mean at
      most, or float64, twice as slow.
    memory: bytes that one block of distances may take, at least a row; no [N, M] is ever there.

  Raises:
    ValueError: points of different sizes, numbers that are not finite, or too few points for k.
  """
  k = inputs.whole(k, "precision_recall: k", low=1)
  k_density = inputs.whole(k_density, "precision_recall: k_density", low=1)
  x, y = _points(reference, samples, dtype)
  if max(k, k_density) >= len(x) or k >= len(y):
    raise ValueError(
      f"precision_recall: k={k}, k_density={k_density} of {len(x)} reference points and {len(y)} "
      "samples; give fewer neighbours than there are points."
    )
  near, near_density = _radii(x, (k, k_density), memory)
  (near_samples,) = _radii(y, (k,), memory)
  inside = np.zeros(len(y), bool)
  recalled = covered = held = 0
  for rows, apart in _blocks(x, y, memory):
    inside |= (apart <= near[rows, None]).any(0)
    recalled += (apart <= near_samples[None]).any(1).sum()
    in_ball = apart <= near_density[rows, None]
    covered += in_ball.any(1).sum()
    held += in_ball.sum()
  return dict(
    precision=float(inside.mean()),
    recall=float(recalled / len(x)),
    density=float(held / (k_density * len(y))),
    coverage=float(covered / len(x)),
  )


def _points(
  reference: np.ndarray, samples: np.ndarray, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
  """Both as `[N, D]` less the mean of the reference, which costs distances the fewest digits."""
  fields = "precision_recall: reference", "precision_recall: samples"
  x, y = points.pair(reference, samples, fields)
  mean = x.mean(0)
  x, y = x - mean[None], y - mean[None]
  with np.errstate(over="ignore"):
    largest = 4 * max(np.square(a).sum(1).max() for a in (x, y))  # squared distance
  if not largest < np.finfo(dtype).max:
    raise ValueError(f"precision_recall: distances overflow in {np.dtype(dtype)}; scale both down.")
  return x.astype(dtype), y.astype(dtype)


def _radii(x: np.ndarray, ks: tuple[int, ...], memory: int) -> list[np.ndarray]:
  """For each k, the squared distance `[N]` of every point to its k-th nearest other one."""
  radii = np.empty((len(ks), len(x)), x.dtype)
  for rows, apart in _blocks(x, x, memory):
    own = np.arange(len(apart))
    apart[own, rows.start + own] = np.inf  # oneself is no neighbour
    places = [k - 1 for k in ks]
    apart.partition(places, axis=1)
    radii[:, rows] = apart[:, places].T
  return list(radii)


def _blocks(x: np.ndarray, y: np.ndarray, memory: int) -> Iterator[tuple[slice, np.ndarray]]:
  """Rows of x, and their squared distances `[b, M]` to all of y, b as large as `memory` allows."""
  size = max(1, memory // (len(y) * y.itemsize))
  norms = np.einsum("nd,nd->n", y, y)[None]
  for start in range(0, len(x), size):
    rows = slice(start, min(start + size, len(x)))
    block = x[rows]
    apart = block @ y.T  # and in place from here on: this is the largest array there is
    apart *= -2
    apart += norms
    apart += np.einsum("nd,nd->n", block, block)[:, None]
    yield rows, apart.clip(0, out=apart)
