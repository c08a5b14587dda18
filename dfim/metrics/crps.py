"""Continuous ranked probability score of forecasts that are given as sample paths.

CRPS(F, y) is the integral of (F(z) - 1{y <= z})^2 dz; for a point forecast it is |x - y|.
"""

import numpy as np
import scoringrules

_LEVELS = np.arange(1, 20) / 20  # .05, .10, ..., .95


def scores(paths: np.ndarray, target: np.ndarray) -> dict[str, float]:
  """CRPS over sum |y|, exact and by quantiles, of the dimensions and of their sum.

  `crps` is the mean over dimensions of sum CRPS / sum |y|, sums over windows and steps; `crps_sum`
  is the same of the sum over dimensions, which sees how they depend on each other. `*_quantile`
  are those of the released programs and of GluonTS: see `quantile`.

  Args:
    paths: P samples of each window, `[P, N, H, D]`.
    target: the truth, `[N, H, D]`.

  Raises:
    ValueError: shapes that do not belong together; a dimension that is 0 throughout.
  """
  paths, target = np.asarray(paths, np.float64), np.asarray(target, np.float64)
  if paths.ndim != 4 or not len(paths) or paths.shape[1:] != target.shape:
    raise ValueError(
      f"crps: needs [P, N, H, D] and [N, H, D], not {list(paths.shape)}, {list(target.shape)}"
    )
  each, total = (paths, target), (paths.sum(-1, keepdims=True), target.sum(-1, keepdims=True))
  return dict(
    crps=_relative(exact(*each), target),
    crps_sum=_relative(exact(*total), total[1]),
    crps_quantile=_relative(quantile(*each), target),
    crps_sum_quantile=_relative(quantile(*total), total[1]),
  )


def exact(paths: np.ndarray, target: np.ndarray) -> np.ndarray:
  """CRPS `[...]` of the law that puts 1 / P on each of P samples `[P, ...]`, against `[...]`.

  E|X - y| - E|X - X'| / 2 with X and X' independent of that law, so that a pair may be one sample
  twice: of few samples it is too large, by 1 / P of the second term on average.

  Source: J. Matheson and R. Winkler, Management Science 22, 1976.
  """
  return scoringrules.crps_ensemble(target, paths, m_axis=0, estimator="qd", backend="numpy")


def quantile(paths: np.ndarray, target: np.ndarray) -> np.ndarray:
  """The mean of twice the pinball loss at 19 levels q = .05 ... .95, `[...]`; else as `exact`.

  The quantile at q is the int(q P)-th smallest sample. Over all levels of (0, 1) the mean would be
  the CRPS; leaving the ends out, where the loss is small, makes it 4 to 5% larger. Compare like
  with like.

  Source: the released Diffusion Forcing and GluonTS programs (mean_wQuantileLoss).
  """
  ranks = np.maximum(np.arange(1, 20) * len(paths) // 20, 1)  # whole numbers: .05 P may round down
  at = np.sort(paths, axis=0)[ranks - 1]
  levels = _LEVELS.reshape(-1, *[1] * target.ndim)
  return np.mean(2 * np.abs((at - target) * ((target <= at) - levels)), axis=0)


def _relative(values: np.ndarray, target: np.ndarray) -> float:
  """Sums over windows and steps of `[N, H, D]`, over those of |y|; then the mean over D."""
  sizes = np.abs(target).sum((0, 1))
  if not sizes.all():
    raise ValueError("crps: a dimension of the target is 0 throughout, so CRPS / |y| has no value")
  return float(np.mean(values.sum((0, 1)) / sizes))
