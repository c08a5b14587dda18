"""Forecasters to compare with, `(series, windows, paths, seed) -> [P, N, H, D]` in raw units.

`series` and `windows` are what `data.forecasting` makes; of `windows` only `origin` and the shape
of `target` are read. Nothing is fitted or chosen on values at or after the first origin.
"""

import itertools
from typing import Any

import numpy as np

from dfim.data import forecasting
from dfim.data import ridge
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
  """Simulates the vector autoregression of `data.ridge`.

  Args:
    series: as above.
    windows: as above.
    paths: how many for each window.
    seed: of the errors.
    choice: order and ridge; `choose_ridge_var`'s by default.
  """
  choice = choice or choose_ridge_var(series, windows, seed=seed)
  law = ridge.fit(series, _known(series, windows)["cuts"][0], *choice)
  rng = np.random.default_rng(seed)
  return ridge.draw(series, law, windows["origin"], windows["target"].shape[1], paths, rng)


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
    drawn = ridge.draw(series, ridge.fit(series, end, *choice), origin, horizon, paths, rng)
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
  drawn = ridge.simulate(
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
