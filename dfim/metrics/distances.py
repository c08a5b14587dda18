"""Distances between two samples without bias: zero on average where the distributions agree."""

import numpy as np

from dfim.io import inputs
from dfim.metrics import points, subsets as subsets_lib

_BLOCK = 1024  # rows at a time: 160 MB against 20,000 points


def energy_distance(x: np.ndarray, y: np.ndarray, *, group: int = 1) -> tuple[float, float]:
  """2 E|x - y| - E|x - x'| - E|y - y'| over distinct pairs, and its jackknife standard error.

  No pair is of a `group` of consecutive rows. Source: Szekely and Rizzo, J. Stat. Plan. Inf. 143,
  2013.
  """
  value, *changes = energy_changes(x, y, group=group)
  variances = [(len(a) - 1) / len(a) * float(np.sum(a**2)) for a in changes]
  return value, float(np.sqrt(sum(variances)))


def energy_changes(
  x: np.ndarray, y: np.ndarray, *, group: int = 1
) -> tuple[float, np.ndarray, np.ndarray]:
  """The energy distance, and its changes where one group of x, or one of y, is left out."""
  group = inputs.whole(group, "energy_distance: group", low=1)
  x, y = points.pair(x, y, ("energy_distance: x", "energy_distance: y"), least=3 * group)
  if len(x) % group or len(y) % group:
    sizes = f"{len(x)}, {len(y)} points"
    raise ValueError(f"energy_distance: group={group} does not divide both of {sizes}.")
  of_group = lambda sums, others: sums.reshape(-1, group).mean(1) / others
  own = lambda a: np.concatenate([_sums(g, g) for g in a.reshape(-1, group, a.shape[1])])
  within = lambda a: own(a) if group > 1 else 0.0
  xy, yx = of_group(_sums(x, y), len(y)), of_group(_sums(y, x), len(x))
  xx, yy = (of_group(_sums(a, a) - within(a), len(a) - group) for a in (x, y))
  value = xy.mean() + yx.mean() - xx.mean() - yy.mean()
  return float(value), _changes(xy, xx), _changes(yx, yy)


def kernel_distance(
  x: np.ndarray, y: np.ndarray, *, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
  """Squared MMD of features `[N, D]`, `[M, D]`, kernel (x.y / D + 1)^3, and its standard error.

  The mean over random `subsets` of `size` points, at most half of the smaller sample; the error is
  the spread over the root of how many of them do not overlap. Source: KID, arXiv 1801.01401.
  """
  count = inputs.whole(subsets, "kernel_distance: subsets", low=2)
  size = inputs.whole(size, "kernel_distance: size", low=2)
  x, y = points.pair(x, y, ("kernel_distance: x", "kernel_distance: y"), least=4)
  x, y = (a[subsets_lib.shuffle(a)] for a in (x, y))
  rng = np.random.default_rng(0)
  smaller = min(len(x), len(y))
  size = min(size, smaller // 2)
  draw = lambda a: a[rng.choice(len(a), size, replace=False)]
  values = [_cubic_mmd2(draw(x), draw(y)) for _ in range(count)]
  return float(np.mean(values)), float(np.std(values) / np.sqrt(min(count, smaller // size)))


def _sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Sum over y of |x - y|, for each x: `[N]`; on the line by sorting, else in blocks."""
  if x.shape[1] > 1:
    sums = []
    for block in (x[i : i + _BLOCK] for i in range(0, len(x), _BLOCK)):
      squared = np.sum(block**2, 1)[:, None] + np.sum(y**2, 1)[None] - 2 * block @ y.T
      sums.append(np.sqrt(squared.clip(0, out=squared), out=squared).sum(1))
    return np.concatenate(sums)
  x, y = x[:, 0], np.sort(y[:, 0])
  below = np.concatenate([[0.0], np.cumsum(y)])
  k = np.searchsorted(y, x)  # points to the left of x
  return x * (2 * k - len(y)) - 2 * below[k] + below[-1]


def _changes(between: np.ndarray, within: np.ndarray) -> np.ndarray:
  n = len(between)
  return 2 * (within - within.mean()) / (n - 2) - 2 * (between - between.mean()) / (n - 1)


def _cubic_mmd2(x: np.ndarray, y: np.ndarray) -> float:
  n = len(x)
  cube = lambda a: a * a * a  # `**3` takes a logarithm and an exponential of each
  gram = lambda a, b: cube(a @ b.T / a.shape[1] + 1)
  apart = lambda gram: (gram.sum() - gram.trace()) / (n * (n - 1))
  return float(apart(gram(x, x)) + apart(gram(y, y)) - 2 * gram(x, y).mean())
