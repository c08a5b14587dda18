"""Baseline forecasters, `(series, windows, paths, seed) -> [P, N, H, D]` in raw units.

`windows` are those of `data.series.forecasting.load`, of which `origin` and the horizon are read.
Nothing is fitted or chosen on values at or after the first origin.
"""

from collections.abc import Mapping
import itertools
from typing import Any

import numpy as np

from dfim.config.errors import FieldError
from dfim.data.series import forecasting, ridge
from dfim.io import inputs
from dfim.metrics import crps

Series, Windows, Choice = forecasting.Series, dict[str, Any], tuple[int, float]
_RIDGES = (1.0, 10.0, 100.0, 1000.0)


def check(series: forecasting.Series, windows: Windows) -> None:
  """Raises ValueError unless all baselines can be fitted and `windows` are of this series."""
  series, origin, horizon = _checked(series, windows)
  _validation(_known(series, origin, horizon), horizon)
  if "distribution" in series:
    _distribution(series)
  truth = forecasting.targets(series, origin, horizon)
  if not np.array_equal(truth, windows["target"], equal_nan=True):
    raise FieldError("series", series, "windows of data were cut from another one.", ": ")


def seasonal_naive(series: Series, windows: Windows, paths: int = 100, seed: int = 0) -> np.ndarray:
  """The last season again, plus the errors of a training forecast at the same phase."""
  series, origin, horizon = _checked(series, windows, paths)
  train_end, *_ = _known(series, origin, horizon)["cuts"]
  values, season, origin = series["values"], series["season"], origin[:, None]
  h = np.arange(horizon)
  naive = lambda origin: values[origin - season + h % season]
  first = season + origin % season  # the earliest training forecast of that phase
  choices = (train_end - len(h) - first) // season + 1
  u = np.random.default_rng(seed).random((paths, len(origin), 1))
  past = first + season * (u * choices).astype(int)
  return naive(origin) + values[past + h] - naive(past)


def ridge_var(
  series: Series, windows: Windows, paths: int = 100, seed: int = 0, *, choice: Choice | None = None
) -> np.ndarray:
  """Draws of `data.series.ridge`, with the order and ridge of `choose_ridge_var` by default."""
  series, origin, horizon = _checked(series, windows, paths)
  choice = choice or choose_ridge_var(series, windows, seed=seed)
  end = _known(series, origin, horizon)["cuts"][0]
  fitted = ridge.fit(series, end, *ridge.choice(choice, "choice", end - 1))
  return ridge.draw(series, fitted, origin, horizon, paths, np.random.default_rng(seed))


def choose_ridge_var(series: Series, windows: Windows, paths: int = 100, seed: int = 0) -> Choice:
  """The order, of 1, 2, 5 and a season + 1, and ridge with the least CRPS-sum in validation."""
  series, origin, horizon = _checked(series, windows, paths)
  known = _known(series, origin, horizon)
  origin = _validation(known, horizon)
  total = forecasting.targets(series, origin, horizon).sum(-1)
  end = min(known["cuts"][0], int(origin[0]))

  def score(choice: tuple[int, float]) -> float:
    rng = np.random.default_rng(seed)
    drawn = ridge.draw(series, ridge.fit(series, end, *choice), origin, horizon, paths, rng)
    if not np.isfinite(drawn).all():  # it grows beyond all numbers
      return np.inf
    return float(crps.exact(drawn.sum(-1), total).mean())

  orders = sorted({1, 2, 5, series["season"] + 1})
  return min(itertools.product(orders, _RIDGES), key=score)


def oracle(series: Series, windows: Windows, paths: int = 100, seed: int = 0) -> np.ndarray:
  """Draws from the exact distribution of the series."""
  series, origin, horizon = _checked(series, windows, paths)
  known, root = _distribution(series)
  rows = origin[:, None] + np.arange(horizon)
  mean = lambda t: known["mean"][t % len(known["mean"])]
  past, drift = series["values"][origin - 1] - mean(origin - 1), np.zeros(windows["target"].shape)
  rng = np.random.default_rng(seed)
  return mean(rows) + ridge.simulate(past, known["matrix"].T, drift, root, paths, rng)


def _distribution(series: forecasting.Series) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """As `forecasting.exact_distribution` gives it, and the root `[D, D]` of its covariance."""
  dims = series["values"].shape[1]
  shapes = dict(mean=(None, dims), matrix=(dims, dims), covariance=(dims, dims))
  given, field = series["distribution"], "series.distribution"
  if not isinstance(given, Mapping) or set(shapes) - set(given):
    raise ValueError(f"{field}: give {', '.join(shapes)}, or leave it out")
  axes = ("row", "column")
  number = lambda name: inputs.numbers(given[name], f"{field}.{name}", shapes[name], axes=axes)
  known = {name: number(name) for name in shapes}
  if not len(known["mean"]):
    raise ValueError(f"{field}.mean: has no row; give one for each step of its season")
  try:
    return known, ridge.root(known["covariance"])
  except np.linalg.LinAlgError:
    raise ValueError(f"{field}.covariance: is not positive definite; give one that is") from None


def _checked(series: Series, windows: Windows, paths: int = 1) -> tuple[Series, np.ndarray, int]:
  inputs.whole(paths, "paths", low=1)
  series, shape = forecasting.checked(series, "series"), np.shape(windows["target"])
  rows, dims = series["values"].shape
  if len(shape) != 3 or shape[2] != dims:
    raise ValueError(f"data.target of shape {shape}: give [windows, horizon, {dims}].")
  limits = dict(low=1, high=min(rows - shape[1], forecasting.known(series)))
  sizes = dict(axes=("window",), dtype=np.int64, **limits)
  return series, inputs.numbers(windows["origin"], "data.origin", shape[:1], **sizes), shape[1]


def _known(series: forecasting.Series, origin: np.ndarray, horizon: int) -> forecasting.Series:
  """The series cut at the first origin; the rows between training and it may validate."""
  first, season = int(origin.min()), series["season"]
  train_end, least = min(series["cuts"][0], first), 200 + 3 * season + horizon
  if train_end < least:
    fix = f"baselines need {least} training steps before the first forecast, not {train_end}"
    raise FieldError("series.cuts", series["cuts"], f"{fix}; or set baselines=False")
  return series | dict(cuts=(train_end, first, first + horizon))


def _validation(known: forecasting.Series, horizon: int) -> np.ndarray:
  train_end, first, _ = known["cuts"]
  room = first - train_end or forecasting.HELD
  if room < horizon:
    line = f"{room} steps between rows {train_end} and {first} hold no horizon={horizon}"
    raise ValueError(f"series.cuts: {line} to validate on; leave more, or set baselines=False")
  return forecasting.origins(known, horizon, split="validation")
