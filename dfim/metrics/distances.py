"""Distances between two samples without bias: zero on average where the distributions agree."""

import numpy as np

from dfim.io import inputs
from dfim.metrics import points, subsets as subsets_lib

_BLOCK = 1024  # rows at a time: 160 MB against 20,000 points


def energy_distance(x: np.ndarray, y: np.ndarray, *, group: int = 1) -> tuple[float, float]:
  """2 E|x - y| - E|x - x'| - E|y - y'| over distinct pairs, and its standard error.

  Exact in one dimension by sorting, in blocks of rows otherwise. The standard error is the
  jackknife's, which is up to sqrt(2) too large where the distributions agree.

  No pair is taken within a `group` of consecutive rows, which may depend on one another. There are
  three groups or more of either.

  Source: G. Szekely and M. Rizzo, Energy statistics, J. Stat. Plan. Inference 143, 2013.
  """
  group = inputs.whole(group, "energy_distance: group", low=1)
  x, y = points.pair(x, y, ("energy_distance: x", "energy_distance: y"), least=3 * group)
  if len(x) % group or len(y) % group:
    sizes = f"{len(x)}, {len(y)} points"
    raise ValueError(f"energy_distance: group={group} does not divide both of {sizes}.")
  of_group = lambda sums, others: sums.reshape(-1, group).mean(1) / others
  xy, yx = of_group(_sums(x, y), len(y)), of_group(_sums(y, x), len(x))
  xx, yy = (of_group(_sums(a, a) - _sums_within(a, group), len(a) - group) for a in (x, y))
  value = xy.mean() + yx.mean() - xx.mean() - yy.mean()
  return float(value), float(np.sqrt(_jackknife(xy, xx) + _jackknife(yx, yy)))


def kernel_distance(
  x: np.ndarray, y: np.ndarray, *, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
  """Squared MMD of features `[N, D]`, `[M, D]`, kernel (x.y / D + 1)^3, and its standard error.

  The mean over random `subsets` of `size` points of each sample, at most half of the smaller one.
  The field prints the spread over subsets divided by sqrt(subsets); we divide by the root of how
  many subsets the samples hold without overlap, if these are fewer. The order of the points changes
  nothing, see `metrics.subsets`.

  Source: M. Binkowski et al., Demystifying MMD GANs, arXiv 1801.01401 (KID on Inception features).
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
  """Sum over y of |x - y|, for each x: `[N]`."""
  if x.shape[1] == 1:
    return _sums_by_sorting(x[:, 0], y[:, 0])
  blocks = (x[i : i + _BLOCK] for i in range(0, len(x), _BLOCK))
  return np.concatenate([_distances(b, y).sum(1) for b in blocks])


def _sums_by_sorting(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """The same on the line."""
  y = np.sort(y)
  below = np.concatenate([[0.0], np.cumsum(y)])
  k = np.searchsorted(y, x)  # points to the left of x
  return x * (2 * k - len(y)) - 2 * below[k] + below[-1]


def _sums_within(x: np.ndarray, group: int) -> np.ndarray:
  """Sum of |x - x'| over the group of x, for each x: `[N]`."""
  if group == 1:
    return np.zeros(len(x))
  return np.concatenate([_sums(own, own) for own in x.reshape(-1, group, x.shape[1])])


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """`[N, M]`, by one matrix product."""
  squared = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1)[None] - 2 * x @ y.T
  return np.sqrt(squared.clip(0, out=squared), out=squared)


def _jackknife(between: np.ndarray, within: np.ndarray) -> float:
  """Variance from leaving each of n groups out, given its mean distances `[n]`."""
  n = len(between)
  moves = 2 * (between - between.mean()) / (n - 1) - 2 * (within - within.mean()) / (n - 2)
  return (n - 1) / n * float(np.sum(moves**2))


def _cubic_mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """Unbiased MMD^2 of `[n, D]` and `[n, D]`: no point meets itself."""
  n = len(x)
  apart = lambda gram: (gram.sum() - gram.trace()) / (n * (n - 1))
  return float(apart(_cubic(x, x)) + apart(_cubic(y, y)) - 2 * _cubic(x, y).mean())


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """The Gram matrix `[n, n]`."""
  linear = x @ y.T / x.shape[1] + 1
  return linear * linear * linear  # `**3` takes a logarithm and an exponential of each
