"""The share of samples that lie where the data are, and of the data that the samples reach.

Every point has a ball that reaches to its k-th nearest neighbour in its own set. Sources: arXiv
1904.06991, equation 2 and section 3 (k = 3); arXiv 2002.09797, section 3 (k = 5).
"""

from collections.abc import Iterator

import numpy as np

from dfim.metrics import points

_K, _K_DENSITY = 3, 5  # neighbours of precision and recall, of density and coverage
LEAST_POINTS = 6  # of either set, for so many neighbours
_MEMORY = 256 * 2**20


def scores(
  reference: np.ndarray, samples: np.ndarray, *, memory: int = _MEMORY
) -> dict[str, float]:
  """`precision`, `recall`, `density` and `coverage` of `samples` `[M, D]`, computed in float32.

  Precision is the share of samples in the ball of some point of `reference` `[N, D]`, recall the
  share of reference points in the ball of some sample, density how many reference balls hold a
  sample, on average and over 5, coverage the share of reference points with a sample in their ball,
  edges included (unlike the program of 2002.09797). A block of distances takes `memory` bytes.
  """
  fields = "precision_recall: reference", "precision_recall: samples"
  x, y = points.pair(reference, samples, fields, least=LEAST_POINTS)
  x, y = (a - x.mean(0)[None] for a in (x, y))  # about the mean, float32 loses the fewest digits
  with np.errstate(over="ignore"):
    largest = 4 * max(np.square(a).sum(1).max() for a in (x, y))  # squared distance
  if not largest < np.finfo(np.float32).max:
    raise ValueError("precision_recall: distances overflow in float32; scale both down.")
  x, y = x.astype(np.float32), y.astype(np.float32)
  near, near_density = _radii(x, (_K, _K_DENSITY), memory)
  (near_samples,) = _radii(y, (_K,), memory)
  inside, recalled, covered, held = np.zeros(len(y), bool), 0, 0, 0
  for rows, apart in _blocks(x, y, memory):
    inside |= (apart <= near[rows, None]).any(0)
    recalled += (apart <= near_samples[None]).any(1).sum()
    in_ball = apart <= near_density[rows, None]
    covered += in_ball.any(1).sum()
    held += in_ball.sum()
  found = dict(precision=inside.mean(), recall=recalled / len(x))
  found |= dict(density=held / (_K_DENSITY * len(y)), coverage=covered / len(x))
  return {name: float(value) for name, value in found.items()}


def _radii(x: np.ndarray, ks: tuple[int, ...], memory: int) -> list[np.ndarray]:
  """For each k, the squared distance `[N]` of every point to its k-th nearest other one."""
  radii = np.empty((len(ks), len(x)), x.dtype)
  nth = [k - 1 for k in ks]
  for rows, apart in _blocks(x, x, memory):
    own = np.arange(len(apart))
    apart[own, rows.start + own] = np.inf  # oneself is no neighbour
    apart.partition(nth, axis=1)
    radii[:, rows] = apart[:, nth].T
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
