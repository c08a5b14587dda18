"""Scales of prefixes, found once, from the first batch: nothing is chosen by hand.

Source: docs/moment_forcing.md, "Prefixes and their scales".
"""

from collections.abc import Mapping
import dataclasses

import jax
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import prefixes as prefixes_lib

Prefixes = prefixes_lib.Prefixes
_NOISE = (1.0, 3.0, 9.0)  # sigma / alpha of the levels at which an estimate is scored
_NEAR = 0.25  # of the mean distance: how far those that count may be on average
_WIDER = 4.0  # times the examples that shall count, when it is
_TRIED = 2.0 ** np.arange(-2.0, 14.25, 0.5)  # inverse bandwidths, times the mean distance
_SMALLEST = 1e-30  # inverse bandwidth, for 0 times an infinite distance
_ROWS, _OTHERS = 128, 1024  # that are read, at most


@dataclasses.dataclass(frozen=True)
class Scales:
  """Of T tokens: what `core.grouping` and `core.posterior` compare prefixes with."""

  units: Mapping[str, float]  # see `prefixes.units`
  discount: tuple[float, ...]  # [T], see `prefixes.distance`
  inverse_bandwidth: tuple[float, ...]  # [T], of the posterior mean
  count: tuple[float, ...]  # [T], reference examples that then count, without the example itself

  def describe(self) -> str:
    """One line for the log."""
    listed = lambda values: " ".join(f"{v:.3g}" for v in values)
    return (
      f"Prefixes, token by token: {listed(self.count)} reference examples count, "
      f"discount {listed(self.discount)}"
    )


@dataclasses.dataclass(frozen=True)
class Fit:
  """How scales follow from data: by the least error of denoising an example that is left out.

  For each token, each discount of `discounts`, and each number of reference examples that shall
  count, `counts`, an effective sample size (sum w)^2 / sum w^2 of the weights w = exp(-beta d),
  gives a beta. The pair is chosen whose posterior mean, over the other examples, is nearest to the
  example, in the mean square over examples and three levels of noise, when four times as many
  count: training averages over what a mean of fewer scatters, never over its bias. For the same
  reason those that count must be near, on average a quarter as far as two random ones: else there
  is nobody like the example, and 1 counts, its own datum. One value fixes a choice.
  """

  counts: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
  discounts: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)

  def __post_init__(self):
    if not self.counts or min(self.counts) < 1.0:
      raise FieldError("scales.counts", self.counts, "give numbers of examples, 1 or more.")
    if not self.discounts or not 0.0 <= min(self.discounts) <= max(self.discounts) <= 1.0:
      raise FieldError("scales.discounts", self.discounts, "give numbers in [0, 1].")

  def fit(self, prefixes: Prefixes, *, sigma_data: float, stride: int) -> Scales:
    """Scales for sequences such as these, every `stride`-th of which the network sees."""
    cut = lambda tree, rows: jax.tree.map(lambda a: np.asarray(a)[rows], tree)
    others = cut(prefixes, slice(_OTHERS))
    x, rows = others.x, np.arange(0, len(others.x), stride)[:_ROWS]
    units = {name: float(a) for name, a in prefixes_lib.units(prefixes).items()}
    distance = jax.jit(prefixes_lib.distance)
    apart = [np.array(distance(cut(others, rows), others, units, g)) for g in self.discounts]
    chosen = []
    for i in range(x.shape[1]):
      near = [_LeftOut(a[i], rows, others.real[:, i]) for a in apart]
      chosen.append(self._of_token(near, x[:, i], sigma_data, np.random.default_rng(i)))
    return Scales(units, *zip(*chosen, strict=True))

  def _of_token(
    self, near: list["_LeftOut"], x: np.ndarray, sigma_data: float, rng: np.random.Generator
  ) -> tuple[float, float, float]:
    """Discount, inverse bandwidth and count of one token, of `x` `[N, D]`."""
    if len(near[0].rows) < 2:  # all the rest is padding
      return self.discounts[-1], 0.0, 1.0
    tasks = [near[0].task(x, sigma_data * noise, rng) for noise in _NOISE]
    found = []
    for discount, others in zip(self.discounts, near, strict=True):
      for count in [n for n in self.counts if others.are_near(n)] or [min(self.counts)]:
        wider, _ = others.inverse_bandwidth(_WIDER * count)
        error = others.error(tasks, x, wider)
        found.append((error, discount, *others.inverse_bandwidth(count)))
    _, discount, beta, count = min(found)
    return discount, float(f"{beta:.3g}"), count


class _LeftOut:
  """The distances of one token's prefixes to those of other examples, never to their own."""

  def __init__(self, apart: np.ndarray, rows: np.ndarray, real: np.ndarray):
    """`apart` `[M, N]` are of the examples `rows` to all; padding, not `real`, does not count."""
    apart = np.where(real, apart, np.inf)
    apart[np.arange(len(rows)), rows] = np.inf
    self.rows, self.apart = rows[real[rows]], apart[real[rows]]
    finite = self.apart[np.isfinite(self.apart)]
    self.mean = float(np.mean(finite)) if finite.size else 0.0
    self.tried = _TRIED / self.mean if self.mean > 0.0 else 0.0 * _TRIED
    self.counts, self.means = np.transpose([self._around(beta) for beta in self.tried])

  def inverse_bandwidth(self, count: float) -> tuple[float, float]:
    """That with which `count` examples count, and their number.

    The nearest there is, where examples are too few or prefixes are all the same.
    """
    return self._at(count, self.tried), float(np.clip(count, self.counts[-1], self.counts[0]))

  def are_near(self, count: float) -> bool:
    """Whether `count` examples that count are near, on average."""
    return self._at(count, self.means) <= _NEAR * self.mean

  def _at(self, count: float, values: np.ndarray) -> float:
    return float(np.interp(np.log(count), np.log(self.counts[::-1]), values[::-1]))

  def _around(self, beta: float) -> tuple[float, float]:
    """How many examples count, in the geometric mean over rows, and how far they are on average."""
    if not len(self.rows):
      return 1.0, 0.0
    w = np.exp(-max(beta, _SMALLEST) * (self.apart - self.apart.min(axis=1, keepdims=True)))
    total = w.sum(axis=1)
    far = np.sum(w * np.where(np.isfinite(self.apart), self.apart, 0.0), axis=1) / total
    count = np.exp(np.mean(np.log(total**2 / np.square(w).sum(axis=1))))
    return float(count), float(np.mean(far))

  def task(self, x: np.ndarray, noise: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Examples `[R, D]`, and the log-likelihoods `[R, N]` of all data given their noisy x."""
    own = x[self.rows].astype(np.float64)
    noisy = own + noise * rng.normal(size=own.shape)
    squared = np.sum(noisy**2, 1)[:, None] - 2.0 * noisy @ x.T + np.sum(x.astype(float) ** 2, 1)
    return own, -squared / (2.0 * noise**2)

  def error(self, tasks: list[tuple[np.ndarray, ...]], x: np.ndarray, beta: float) -> float:
    """The mean square error of the posterior mean over the others."""
    found = []
    for own, log in tasks:
      log = log - max(beta, _SMALLEST) * self.apart
      shares = np.exp(log - log.max(axis=1, keepdims=True))
      mean = shares @ x / shares.sum(axis=1, keepdims=True)
      found.append(np.mean(np.sum((own - mean) ** 2, axis=1)))
    return float(np.mean(found))
