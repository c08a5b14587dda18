"""Continuous ranked probability score of forecasts that are given as sample paths.

CRPS(F, y) is the integral of (F(z) - 1{y <= z})^2 dz; for a point forecast it is |x - y|.
"""

from typing import Any

import numpy as np
import scoringrules

from dfim.io import inputs

_AXES = ("path", "window", "step", "column")


def scores(paths: np.ndarray, target: np.ndarray) -> dict[str, float]:
  """CRPS of paths `[P, N, H, D]` over sum |y| of the truth `[N, H, D]`, and its mean over D.

  `crps_sum` is that of the sum over dimensions; `*_quantile` are those of `quantile`.
  """
  paths, target = _checked(paths, target, rank=4)
  check(target)
  each, total = (paths, target), (paths.sum(-1, keepdims=True), target.sum(-1, keepdims=True))
  return dict(
    crps=_relative(exact(*each), target),
    crps_sum=_relative(exact(*total), total[1]),
    crps_quantile=_relative(quantile(*each), target),
    crps_sum_quantile=_relative(quantile(*total), total[1]),
  )


def along(paths: np.ndarray, target: np.ndarray) -> np.ndarray:
  """CRPS of the sum over dimensions at each step `[H]`, over the mean absolute sum of all steps."""
  paths, target = _checked(paths, target, rank=4)
  check(target, columns=False)
  total = target.sum(-1)
  return exact(paths.sum(-1), total).mean(0) / np.abs(total).mean()


def check(target: np.ndarray, field: str = "target", *, columns: bool = True) -> None:
  """Refuses a truth `[N, H, D]` with a sum, or with `columns` a column, too small to divide by."""
  sizes, total = np.abs(target).sum((0, 1)), np.abs(target.sum(-1)).sum()
  fix = "is 0 throughout, and scores are relative to it; leave it out, or forecast another part"
  if columns and not sizes.all():
    raise ValueError(f"{field}: column {int(sizes.argmin())} {fix}")
  if total <= 1e-12 * sizes.sum():
    raise ValueError(f"{field}: the sum over columns {fix}")


def exact(paths: np.ndarray, target: np.ndarray) -> np.ndarray:
  """CRPS `[...]` of P samples `[P, ...]` against `[...]`: E|X - y| - E|X - X'| / 2, all pairs."""
  paths, target = _checked(paths, target)
  return scoringrules.crps_ensemble(target, paths, m_axis=0, estimator="qd", backend="numpy")


def quantile(paths: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Mean of twice the pinball loss at q = 0.05 ... 0.95, `[...]`, as GluonTS; else as `exact`."""
  paths, target = _checked(paths, target)
  ranks = np.maximum(np.arange(1, 20) * len(paths) // 20, 1)  # whole: 0.05 P may round down
  at = np.sort(paths, axis=0)[ranks - 1]
  levels = np.arange(1, 20).reshape(-1, *[1] * target.ndim) / 20
  return np.mean(2 * np.abs((at - target) * ((target <= at) - levels)), axis=0)


def _checked(paths: Any, target: Any, rank: int | None = None) -> tuple[np.ndarray, np.ndarray]:
  rank = max(np.ndim(paths), 1) if rank is None else rank
  axes = (_AXES + ("place",) * rank)[:rank]
  paths = inputs.numbers(paths, "paths", (None,) * rank, axes=axes)
  if not len(paths):
    raise ValueError(f"paths of shape {paths.shape}: give a path or more.")
  return paths, inputs.numbers(target, "target", paths.shape[1:], axes=axes[1:])


def _relative(values: np.ndarray, target: np.ndarray) -> float:
  """Sums over windows and steps of `[N, H, D]`, over those of |y|; then the mean over D."""
  return float(np.mean(values.sum((0, 1)) / np.abs(target).sum((0, 1))))
