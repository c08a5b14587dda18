"""A vector autoregression with intercept and calendar, fitted by ridge regression.

A yardstick for forecasts, see `evaluators.baselines`, and what windows may be shown relative to,
see `forecasting`. A series is what `forecasting` describes; values are standardised by those that
are fitted, errors are normal with their full covariance.
"""

from typing import Any

import numpy as np

Law = dict[str, Any]


def fit(series: dict[str, Any], end: int, order: int, ridge: float) -> Law:
  """Least squares on rows before `end`; the ridge spares the intercept and the calendar."""
  values = series["values"][:end]
  mean, std = values.mean(0), values.std(0)
  t = np.arange(order, end)
  past = _past(values, mean, std, t, order)
  inputs = np.concatenate([past, _regressors(series, t)], -1)
  penalty = np.where(np.arange(inputs.shape[1]) < past.shape[1], ridge, 0.0)
  y = (values[t] - mean) / std
  weights = np.linalg.solve(inputs.T @ inputs + np.diag(penalty), inputs.T @ y)
  error = y - inputs @ weights
  covariance = error.T @ error / len(error) + 1e-9 * np.eye(len(mean))  # of dimensions that agree
  lagged, drift = np.split(weights, [past.shape[1]])
  root = np.linalg.cholesky(covariance)
  return dict(mean=mean, std=std, order=order, lagged=lagged, drift=drift, root=root)


def draw(
  series: dict[str, Any],
  law: Law,
  origin: np.ndarray,
  horizon: int,
  paths: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """Paths `[P, N, H, D]` in raw units from rows `origin [N]` on."""
  past, drift = _start(series, law, origin, horizon)
  return law["mean"] + law["std"] * simulate(past, law["lagged"], drift, law["root"], paths, rng)


def expect(series: dict[str, Any], law: Law, origin: np.ndarray, horizon: int) -> np.ndarray:
  """The mean `[N, H, D]` of `draw`'s paths."""
  past, drift = _start(series, law, origin, horizon)
  none = np.zeros_like(law["root"])
  (mean,) = simulate(past, law["lagged"], drift, none, 1, np.random.default_rng(0))
  return law["mean"] + law["std"] * mean


def simulate(
  past: np.ndarray,
  lagged: np.ndarray,
  drift: np.ndarray,
  root: np.ndarray,
  paths: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """Draws y_h = past_h lagged + drift_h + root e_h, e_h standard normal: `[P, N, H, D]`.

  Args:
    past: values before the first step, the latest first, `[N, order D]`.
    lagged: `[order D, D]`.
    drift: `[N, H, D]`.
    root: `[D, D]`, of the covariance.
    paths: P.
    rng: of the errors.
  """
  n, horizon, dims = drift.shape
  past = np.broadcast_to(past, (paths, *past.shape))
  steps = []
  for h in range(horizon):
    steps.append(past @ lagged + drift[:, h] + rng.normal(size=(paths, n, dims)) @ root.T)
    past = np.concatenate([steps[-1], past[..., :-dims]], -1)
  return np.stack(steps, 2)


def _start(
  series: dict[str, Any], law: Law, origin: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
  """The standardised past of each row, and the drift of each step after it."""
  past = _past(series["values"], law["mean"], law["std"], origin, law["order"])
  drift = _regressors(series, origin[:, None] + np.arange(horizon)) @ law["drift"]
  return past, drift


def _past(
  values: np.ndarray, mean: np.ndarray, std: np.ndarray, t: np.ndarray, order: int
) -> np.ndarray:
  """The `order` values before each row of t, the latest first, standardised: `[N, order D]`."""
  return ((values[t[:, None] - np.arange(1, order + 1)] - mean) / std).reshape(len(t), -1)


def _regressors(series: dict[str, Any], t: np.ndarray) -> np.ndarray:
  """Calendar and a one: `[..., F + 1]`."""
  return np.concatenate([series["calendar"][t], np.ones((*t.shape, 1))], -1)
