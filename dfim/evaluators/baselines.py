"""Forecasters to compare with, `(series, windows, paths, seed) -> [P, N, H, D]` in raw units.

`series` and `windows` are what `data.forecasting` makes; of `windows` only `origin` and the shape
of `target` are read. Nothing is fitted or chosen on values at or after the first origin.
"""

import itertools
from typing import Any

import numpy as np

from dfim.data import forecasting
from dfim.metrics import crps

Windows = dict[str, Any]
_RIDGES = (1.0, 10.0, 100.0, 1000.0)  # beside some thousand steps of unit variance


def seasonal_naive(
  series: forecasting.Series, windows: Windows, paths: int = 100, seed: int = 0
) -> np.ndarray:
  """The last season again, plus errors that this forecast has made in training.

  A path takes all errors of one training forecast, of a random day at the same phase of the season:
  what belongs together among steps and dimensions stays together.
  """
  train_end, *_ = _known(series, windows)["cuts"]
  values, season, origin = series["values"], series["season"], windows["origin"][:, None]
  h = np.arange(windows["target"].shape[1])
  naive = lambda origin: values[origin - season + h % season]
  first = season + origin % season  # the earliest training forecast of that phase
  choices = (train_end - len(h) - first) // season + 1
  u = np.random.default_rng(seed).random((paths, len(origin), 1))
  past = first + season * (u * choices).astype(int)
  return naive(origin) + values[past + h] - naive(past)


def ridge_var(
  series: forecasting.Series,
  windows: Windows,
  paths: int = 100,
  seed: int = 0,
  *,
  choice: tuple[int, float] | None = None,
) -> np.ndarray:
  """Simulates a vector autoregression with intercept and calendar, fitted by ridge regression.

  Training values are standardised; errors are normal with their full covariance.

  Args:
    series: as above.
    windows: as above.
    paths: how many for each window.
    seed: of the errors.
    choice: order and ridge; `choose_ridge_var`'s by default.
  """
  choice = choice or choose_ridge_var(series, windows, seed=seed)
  law = _fit(series, _known(series, windows)["cuts"][0], *choice)
  rng = np.random.default_rng(seed)
  return _forecast(series, law, windows["origin"], windows["target"].shape[1], paths, rng)


def choose_ridge_var(
  series: forecasting.Series, windows: Windows, paths: int = 100, seed: int = 0
) -> tuple[int, float]:
  """The order and ridge with the least CRPS-sum on the validation windows.

  Orders 1, 2, 5 and a season + 1, ridges 1, 10, 100, 1000, each fitted on what lies before the
  validation windows and tried with the same random numbers.
  """
  known, horizon = _known(series, windows), windows["target"].shape[1]
  origin = forecasting.origins(known, horizon, split="validation")
  total = forecasting.targets(series, origin, horizon).sum(-1)
  end = min(known["cuts"][0], int(origin[0]))

  def score(choice: tuple[int, float]) -> float:
    rng = np.random.default_rng(seed)
    drawn = _forecast(series, _fit(series, end, *choice), origin, horizon, paths, rng)
    return float(crps.exact(drawn.sum(-1), total).mean())

  orders = sorted({1, 2, 5, series["season"] + 1})
  return min(itertools.product(orders, _RIDGES), key=score)


def oracle(
  series: forecasting.Series, windows: Windows, paths: int = 100, seed: int = 0
) -> np.ndarray:
  """Draws from the exact law of `forecasting.vector_autoregression`: no forecast is better."""
  law, origin = series["law"], windows["origin"]
  mean = lambda t: law["mean"][t % len(law["mean"])]
  horizon = origin[:, None] + np.arange(windows["target"].shape[1])
  drawn = _simulate(
    series["values"][origin - 1] - mean(origin - 1),
    law["matrix"].T,
    np.zeros(windows["target"].shape),
    np.linalg.cholesky(law["covariance"]),
    paths,
    np.random.default_rng(seed),
  )
  return mean(horizon) + drawn


def _known(series: forecasting.Series, windows: Windows) -> forecasting.Series:
  """The series cut at the first origin: what lies between training and it may validate."""
  first, horizon = int(windows["origin"].min()), windows["target"].shape[1]
  train_end, least = min(series["cuts"][0], first), 200 + 3 * series["season"] + horizon
  if train_end < least:
    raise ValueError(
      f"evaluators: baselines need {least} training steps before the first forecast, not "
      f"{train_end}; forecast a later part, or set baselines=False"
    )
  return series | dict(cuts=(train_end, first, first))


def _fit(
  series: forecasting.Series, end: int, order: int, ridge: float
) -> dict[str, np.ndarray | int]:
  """Least squares on rows before `end`; the ridge spares the intercept and the calendar."""
  values = series["values"][:end]
  mean, std = values.mean(0), values.std(0)
  t = np.arange(order, end)
  past = _past((values - mean) / std, t, order)
  inputs = np.concatenate([past, _regressors(series, t)], -1)
  penalty = np.where(np.arange(inputs.shape[1]) < past.shape[1], ridge, 0.0)
  y = (values[t] - mean) / std
  weights = np.linalg.solve(inputs.T @ inputs + np.diag(penalty), inputs.T @ y)
  error = y - inputs @ weights
  covariance = error.T @ error / len(error) + 1e-9 * np.eye(len(mean))  # of dimensions that agree
  lagged, drift = np.split(weights, [past.shape[1]])
  root = np.linalg.cholesky(covariance)
  return dict(mean=mean, std=std, order=order, lagged=lagged, drift=drift, root=root)


def _forecast(
  series: forecasting.Series,
  law: dict[str, Any],
  origin: np.ndarray,
  horizon: int,
  paths: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """`[P, N, H, D]` in raw units, by what `_fit` returned."""
  past = _past((series["values"] - law["mean"]) / law["std"], origin, law["order"])
  drift = _regressors(series, origin[:, None] + np.arange(horizon)) @ law["drift"]
  return law["mean"] + law["std"] * _simulate(past, law["lagged"], drift, law["root"], paths, rng)


def _past(z: np.ndarray, t: np.ndarray, order: int) -> np.ndarray:
  """The `order` values before each row of t, the latest first: `[N, order D]`."""
  return np.concatenate([z[t - k] for k in range(1, order + 1)], -1)


def _regressors(series: forecasting.Series, t: np.ndarray) -> np.ndarray:
  """Calendar and a one: `[..., F + 1]`."""
  return np.concatenate([series["calendar"][t], np.ones((*t.shape, 1))], -1)


def _simulate(
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
