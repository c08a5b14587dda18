"""Real series of several values a step, cut into a context that is known and a horizon to forecast.

A series is `dict(values=float64 [N, D], calendar=float32 [N, F], season, cuts)`: the calendar holds
cos and sin of parts of the date, `season` is the period in steps, and `cuts = (train_end,
test_start, test_end)` are rows. Whole rows of values at the end, after training, may be NaN: they
are yet to be forecast. `windows` trains on a series and `load` evaluates; both show a window
relative to an anchor that its context alone decides, and nothing of the horizon leaks.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import os
from typing import Any
import zlib

import numpy as np

from dfim.config.errors import FieldError
from dfim.data import base
from dfim.data.series import ridge
from dfim.io import inputs

Series = dict[str, Any]
_ANCHORS = ("last", "mean", "train", "ridge")
HELD = 150  # training steps that validate where nothing lies between training and test
_LARGEST, _SMALLEST = 1e100, 1e-100  # of values: the sum of their squares is finite, and not 0


def ett(path: str | os.PathLike) -> Series:
  """Six loads and the oil temperature of a transformer, hourly: D = 7.

  Cut as the field does: 12 months to train, 4 to validate, 4 to test, of 30 days each.

  Source: H. Zhou et al., Informer, arXiv 2012.07436; ETTh1.csv or ETTh2.csv.
  """
  where = "ETTh1.csv and ETTh2.csv are in ETT-small of https://github.com/zhouhaoyi/ETDataset"
  table = _table(path, where, columns=8, least=14_400, dtype=str, skiprows=1)
  try:
    hours = table[:, 0].astype("datetime64[s]").astype("datetime64[h]").astype(int)
    values = table[:, 1:].astype(np.float64)
  except ValueError as error:
    raise ValueError(f"data.series.path: {path} wants dates, then numbers ({error})") from None
  if np.any(np.diff(hours) != 1):
    raise ValueError(f"data.series.path: {path} skips an hour; give each row the next one")
  values, cuts = _finite(values, path), (8_640, 11_520, 14_400)
  return dict(values=values, calendar=_hourly(hours), season=24, cuts=cuts)


def exchange(path: str | os.PathLike) -> Series:
  """Exchange rates of eight currencies to the dollar on business days since 1990: D = 8.

  Cut as GluonTS's exchange_rate_nips, whose values equal the first 6,221 rows of this file: 6,071
  days to train, then five windows of 30. The file has no dates; a week is five rows.

  Source: G. Lai et al., LSTNet, arXiv 1703.07015; exchange_rate.txt.gz.
  """
  where = "get it from https://github.com/laiguokun/multivariate-time-series-data"
  values = _finite(_table(path, where, columns=8, least=6_221, dtype=np.float64), path)
  calendar = _cycles(np.arange(len(values)) % 5 / 5)
  return dict(values=values, calendar=calendar, season=1, cuts=(6_071, 6_071, 6_221))


def vector_autoregression(length: int = 10_000, dims: int = 4, seed: int = 0) -> Series:
  """A made-up hourly series with its `distribution`, see `exact_distribution`; needs no file.

  The first 60 % train, the next 20 % validate and the last 20 % test.
  """
  for name, value, low in (("length", length, 1), ("dims", dims, 1), ("seed", seed, 0)):
    inputs.whole(value, f"data.series.{name}", low=low)
  known, burn_in = exact_distribution(dims, seed), 400  # 0.9^400 is 5e-19: the start is forgotten
  rng = np.random.default_rng((seed, 1))
  noise = rng.normal(size=(burn_in + length, dims)) @ np.linalg.cholesky(known["covariance"]).T
  z = np.zeros((len(noise), dims))
  for t in range(1, len(z)):
    z[t] = known["matrix"] @ z[t - 1] + noise[t]
  hours = np.arange(length)
  cuts = (length * 6 // 10, length * 8 // 10, length)
  values = z[burn_in:] + known["mean"][hours % 24]
  return dict(values=values, calendar=_hourly(hours), season=24, cuts=cuts, distribution=known)


def exact_distribution(dims: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
  """The distribution of `vector_autoregression`: `mean [24, D]`, `matrix`, `covariance [D, D]`.

  y_t - mean[t mod 24] = matrix (y_{t-1} - mean[(t-1) mod 24]) + e_t, e_t normal of that covariance.
  The largest eigenvalue of the matrix is 0.9; every e has unit variance.
  """
  rng = np.random.default_rng((seed, 0))
  matrix, mixing = rng.normal(size=(2, dims, dims))
  level, amplitude, phase = rng.uniform([[5.0], [1.0], [0.0]], [[10.0], [3.0], [24.0]], (3, dims))
  covariance = mixing @ mixing.T + np.eye(dims)
  std = np.sqrt(np.diag(covariance))
  return dict(
    mean=level + amplitude * np.cos(2 * np.pi * (np.arange(24)[:, None] - phase) / 24),
    matrix=0.9 * matrix / np.abs(np.linalg.eigvals(matrix)).max(),
    covariance=covariance / np.outer(std, std),
  )


def checked(series: Any, field: str = "data.series") -> Series:
  """The series with float64 `values`, float32 `calendar` and ints; `field` names it in errors.

  Everything that accepts a series calls it.
  """
  found = series if isinstance(series, Mapping) else {}
  if missing := sorted({"values", "calendar", "season", "cuts"} - set(found)):
    fix = "name one that has, such as data.series.forecasting.ett"
    raise ValueError(f"{field}: has no {', '.join(missing)}; {fix}")
  if "law" in found:
    raise ValueError(f"{field}.law: moved to distribution; rename it.")
  axes, limits = ("row", "column"), dict(low=-_LARGEST, high=_LARGEST, finite=False)
  values = inputs.numbers(series["values"], f"{field}.values", (None, None), axes=axes, **limits)
  if not values.size:
    raise ValueError(f"{field}.values of shape {values.shape}: give a row and a column or more.")
  season = inputs.whole(series["season"], f"{field}.season", low=1)
  cuts = _cuts(series["cuts"], f"{field}.cuts", len(values))
  how = dict(axes=axes, dtype=np.float32)
  calendar = inputs.numbers(series["calendar"], f"{field}.calendar", (len(values), None), **how)
  sound = dict(series) | dict(values=values, calendar=calendar, season=season, cuts=cuts)
  past = values[: max(known(sound), cuts[0])]
  fix = "fill it (whole rows at the end, after training, may be NaN: they are yet to be forecast)"
  inputs.refuse_where(np.isnan(past), past, f"{field}.values", axes, fix)
  size = np.abs(past).max(0)
  tiny = (0 < size) & (size < _SMALLEST)
  inputs.refuse_where(tiny, size, f"{field}.values, largest", axes[1:], "scale it up")
  return sound


def known(series: Series) -> int:
  """How many rows there are before those that are yet to be forecast."""
  rows = np.flatnonzero(~np.isnan(series["values"]).all(1))
  return int(rows[-1]) + 1 if len(rows) else 0


def windows(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  series: Series,
  context: int,
  horizon: int,
  stack: int = 1,
  lags: tuple[int, ...] = (),
  anchor: str = "last",
  regression: tuple[int, float] = (1, 100.0),
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches of windows that lie in the training part, lags too; see `data.base` for the contract.

  `x [B, T, stack D]` with T = (context + horizon) / stack: a token is `stack` steps.
  `cond.covariates [B, T, stack (F + lags D)]`: of each step the calendar, then its lagged values;
  without calendar and lags there is no `cond`. Values are shown as (value - location) / scale: the
  location, per window and dimension, is the anchor's; the scale, per dimension, is the std of
  value - location over all training windows, so that x has std 1. `examples` gives the raw rows:
  `values [n, context + horizon, D]`, and their `calendar`.

  No lag is shorter than the horizon, where it would read unknown values. The anchors are "last"
  (the context's last value), "mean" (the context's), "train" (the training part's mean) and "ridge"
  (in the context its last value, in the horizon the mean forecast of `data.series.ridge`, of order
  and ridge `regression`, fitted to the training part).
  """
  series = checked(series)
  view = _View(context, horizon, stack, _wholes(lags, "data.lags"), anchor)
  view = view.fitted_to(series, regression)
  scale, origin = view.scale(series), view.training(series)
  take = base.rows(len(origin), batch_size, seed, process=process)
  batches = (view.show(series, origin[take(n)], scale) for n in base.count_from(start))
  return base.Batches(batches, len(origin), lambda i: view.stored(series, origin[i]))


def load(
  *,
  series: Series,
  context: int,
  horizon: int,
  stack: int = 1,
  lags: tuple[int, ...] = (),
  anchor: str = "last",
  regression: tuple[int, float] = (1, 100.0),
  split: str = "test",
  stride: int | None = None,
  count: int | None = None,
  length: int | None = None,
) -> dict[str, Any]:
  """The windows of a split in order, shown as `windows` shows them, and the truth in raw units.

  The steps to forecast lie within the split, see `origins`; the context may lie before it.
  `length` replaces `horizon`, except for the scale.

  Returns:
    `x [N, T, stack D]` and, where there are covariates, `cond`; `context`, the number of tokens
    that are known; `origin [N]`, the row of the first step to forecast; `target [N, horizon, D]`,
    `location [N, T stack, D]` and `scale [D]` in float64, for `to_raw`. Only `target` and the
    tokens of `x` after the context know the horizon's values, NaN where yet to be forecast.
  """
  series = checked(series)
  view = _View(context, horizon, stack, _wholes(lags, "data.lags"), anchor)
  view = view.fitted_to(series, regression)
  scale = view.scale(series)
  length = horizon if length is None else inputs.whole(length, "data.length", low=1)
  view = dataclasses.replace(view, horizon=length)
  origin = origins(series, length, split=split, stride=stride, count=count, first=view.first)
  return view.show(series, origin, scale) | dict(
    context=context // stack,
    origin=origin,
    target=targets(series, origin, length),
    location=view.location(series, origin),
    scale=scale,
  )


def origins(
  series: Series,
  horizon: int,
  *,
  split: str = "test",
  stride: int | None = None,
  count: int | None = None,
  first: int = 0,
) -> np.ndarray:
  """Rows `[N]` at which the forecasts of a split begin, none before row `first`.

  They are `stride` rows apart, `horizon` by default; `count` keeps so many at most, evenly spread.
  Rows before each are known; those of training and validation are known up to the horizon's end.
  "validation" is the part between "train" and "test", or the last 150 steps of training where
  there is none: choose nothing but a baseline on those.
  """
  series = checked(series)
  for name, value in dict(horizon=horizon, stride=stride, count=count, first=first).items():
    if value is not None:
      inputs.whole(value, f"data.{name}", low=int(name != "first"))
  train_end, test_start, test_end = series["cuts"]
  held = (train_end, test_start) if test_start > train_end else (train_end - HELD, train_end)
  parts = dict(train=(0, train_end), validation=held, test=(test_start, test_end))
  base.check_split(split, parts)
  begin, end = parts[split]
  last = min(end - horizon, known(series) - (0 if split == "test" else horizon))
  found = np.arange(max(begin, first), last + 1, stride or horizon)
  if not len(found):
    rows = f"rows {max(begin, first)}-{end} ({split}), with values known before row {known(series)}"
    fix = "forecast fewer, or move the cuts"
    raise ValueError(f"data.horizon: {horizon} steps do not fit into {rows}; {fix}")
  keep = len(found) if count is None else min(count, len(found))
  return found[np.linspace(0, len(found) - 1, keep).round().astype(int)]


def targets(series: Series, origin: np.ndarray, horizon: int) -> np.ndarray:
  """The true values `[N, horizon, D]` from rows `origin [N]` on, NaN where they are not known."""
  values = checked(series)["values"]
  last = len(values) - inputs.whole(horizon, "data.horizon", low=1)
  wanted = dict(axes=("window",), dtype=np.int64, low=0, high=last)
  origin = inputs.numbers(origin, "data.origin", (None,), **wanted)
  return values[origin[:, None] + np.arange(horizon)]


def to_raw(x: np.ndarray, data: dict[str, Any], *, first: int = 0) -> np.ndarray:
  """Tokens `[..., N, K, stack D]` of the windows of `load`, from token `first` on, in raw units.

  They are unstacked: `[..., N, K stack, D]`.
  """
  steps = x.reshape(*x.shape[:-2], -1, len(data["scale"]))
  begin = first * (steps.shape[-2] // x.shape[-2])
  return data["location"][:, begin : begin + steps.shape[-2]] + data["scale"] * steps


@dataclasses.dataclass(frozen=True)
class _View:
  """How windows are shown. A window is named by its origin: the row of its first unknown step."""

  context: int
  horizon: int
  stack: int
  lags: tuple[int, ...]
  anchor: str
  fitted: ridge.Regression | None = None

  def __post_init__(self):
    for name in ("context", "horizon", "stack"):
      inputs.whole(getattr(self, name), f"data.{name}", low=1)
    if self.context % self.stack or self.horizon % self.stack:
      sizes = f"context {self.context} and horizon {self.horizon}"
      raise ValueError(f"data.stack: {sizes} must be multiples of stack={self.stack}")
    if self.anchor not in _ANCHORS:
      raise ValueError(f"data.anchor: {self.anchor!r} is not one of {', '.join(_ANCHORS)}")
    if short := [lag for lag in self.lags if lag < self.horizon]:
      raise ValueError(
        f"data.lags: lag {short[0]} is shorter than horizon={self.horizon} and would show values"
        " that are unknown when the forecast is made; give longer lags"
      )

  def fitted_to(self, series: Series, regression: tuple[int, float]) -> "_View":
    """The same view, with the regression that its anchor needs."""
    self.training(series)  # refuses sizes that do not fit
    if self.anchor != "ridge":
      return self
    order, penalty = ridge.choice(regression, "data.regression", self.context)
    fitted = ridge.fit(series, series["cuts"][0], order, penalty)
    return dataclasses.replace(self, fitted=fitted)

  @property
  def first(self) -> int:
    """The first origin with a whole context before it, lags too."""
    return self.context + max(self.lags, default=0)

  def location(self, series: Series, origin: np.ndarray) -> np.ndarray:
    """`[N, steps, D]`, from values before each origin."""
    values, steps = series["values"], self.context + self.horizon
    last = values[origin - 1, None]
    if self.anchor == "ridge":
      expected = ridge.expect(series, self.fitted, origin, self.horizon)
      if not np.all(np.abs(expected) <= _LARGEST):
        size = f"its forecasts exceed {_LARGEST:g} within {self.horizon} steps"
        raise ValueError(f"data.regression: {size}; give a lower order or a larger ridge")
      return np.concatenate([np.repeat(last, self.context, axis=1), expected], axis=1)
    where = last
    if self.anchor == "train":
      where = values[: series["cuts"][0]].mean(0)
    elif self.anchor == "mean":
      where = values[self._rows(origin)[:, : self.context]].mean(1, keepdims=True)
    return np.broadcast_to(where, (len(origin), steps, values.shape[1]))

  def scale(self, series: Series) -> np.ndarray:
    """The std `[D]` of value - location over all training windows, in blocks; 1 for a constant."""
    origin, values = self.training(series), series["values"]
    width = (self.context + self.horizon) * (values.shape[1] + 4)
    blocks = ridge.blocks(origin, width)
    share = np.array([len(block) / len(origin) for block in blocks])
    mean, variance = np.swapaxes([self._moments(series, block) for block in blocks], 0, 1)
    std = np.sqrt(share @ variance + share @ (mean - share @ mean) ** 2)
    constant = ridge.is_constant(std, values[: series["cuts"][0]])
    return np.where(constant, np.maximum(std, 1.0), std)

  def training(self, series: Series) -> np.ndarray:
    """The origins `[N]` of all training windows."""
    train_end, needed = series["cuts"][0], self.first + self.horizon
    if train_end < needed:
      parts = f"{needed} steps of context, lags and horizon"
      raise ValueError(f"data.context: {parts} do not fit into {train_end} of training")
    return np.arange(self.first, train_end - self.horizon + 1)

  def stored(self, series: Series, origin: np.ndarray) -> dict[str, np.ndarray]:
    """The raw rows of each window: `[N, steps, ...]`."""
    return {name: series[name][self._rows(origin)] for name in ("values", "calendar")}

  def show(self, series: Series, origin: np.ndarray, scale: np.ndarray) -> dict[str, Any]:
    """`x` and, where there are covariates, `cond` of the windows at `origin [N]`."""
    t, location = self._rows(origin), self.location(series, origin)
    shown = lambda t: (series["values"][t] - location) / scale
    covariates = [series["calendar"][t], *(shown(t - lag) for lag in self.lags)]
    x, covariates = self._tokens(shown(t)), self._tokens(np.concatenate(covariates, -1))
    return dict(x=x) | ({"cond": dict(covariates=covariates)} if covariates.size else {})

  def _moments(self, series: Series, origin: np.ndarray) -> np.ndarray:
    """Mean and variance of value - location over the windows at `origin`: `[2, D]`."""
    t, location = self._rows(origin), self.location(series, origin)
    left = (v[t] - location[..., d] for d, v in enumerate(series["values"].T))
    return np.array([(x.mean(), x.var()) for x in left]).T

  def _rows(self, origin: np.ndarray) -> np.ndarray:
    """The rows of windows: `[N, context + horizon]`."""
    return origin[:, None] + np.arange(-self.context, self.horizon)

  def _tokens(self, steps: np.ndarray) -> np.ndarray:
    """`[N, steps, F]` as float32 `[N, T, stack F]`."""
    n, length, width = steps.shape
    return steps.reshape(n, length // self.stack, self.stack * width).astype(np.float32)


def _wholes(value: Any, field: str) -> tuple[int, ...]:
  if not isinstance(value, Iterable):
    raise FieldError(field, value, "give whole numbers, such as (24, 168).")
  return tuple(inputs.whole(n, field) for n in value)


def _cuts(value: Any, field: str, rows: int) -> tuple[int, int, int]:
  cuts = _wholes(value, field)
  if len(cuts) != 3 or not 0 < cuts[0] <= cuts[1] < cuts[2] <= rows:
    raise FieldError(field, cuts, f"give 0 < train_end <= test_start < test_end <= {rows} rows")
  return cuts


def _table(
  path: str | os.PathLike, where: str, *, columns: int, least: int, **options: Any
) -> np.ndarray:
  """A file of numbers with commas, `[N, columns]`, N >= `least`; `where` says where to get it."""
  path = inputs.path(path, "data.series.path")
  if not path.is_file():
    raise FileNotFoundError(f"data.series.path: no file {path}; {where}")
  try:
    table = np.loadtxt(path, delimiter=",", ndmin=2, **options)
  except (ValueError, OSError, EOFError, zlib.error) as error:
    line = " ".join(str(error).split())[:200]
    raise ValueError(f"data.series.path: {path} cannot be read ({line}); {where}") from None
  if table.shape[1] != columns or len(table) < least:
    found = f"{len(table)} rows of {table.shape[1]} columns, not at least {least} of {columns}"
    raise ValueError(f"data.series.path: {path} has {found}; {where}")
  return table


def _finite(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
  return inputs.numbers(values, f"data.series.path: {path}", values.shape, axes=("row", "column"))


def _hourly(hours: np.ndarray) -> np.ndarray:
  """Hour of the day and day of the week `[N, 4]`, of hours since 1970 began, on a Thursday."""
  return _cycles(hours % 24 / 24, hours // 24 % 7 / 7)


def _cycles(*phases: np.ndarray) -> np.ndarray:
  """cos and sin of each phase `[N]`, in turns: float32 `[N, 2 len(phases)]`."""
  pairs = [f(2 * np.pi * phase) for phase in phases for f in (np.cos, np.sin)]
  return np.stack(pairs, -1).astype(np.float32)
