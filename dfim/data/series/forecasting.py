"""Real series of several values a step, cut into a known context and a horizon to forecast.

A series is `dict(values=float64 [N, D], calendar=float32 [N, F], season, cuts)`; the season is in
steps, `cuts = (train_end, test_start, test_end)` in rows. Rows at the end that are NaN are yet to
be forecast.
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
  """Loads and oil temperature of a transformer, hourly, D = 7 (Informer, arXiv 2012.07436)."""
  where = "ETTh1.csv and ETTh2.csv are in ETT-small of https://github.com/zhouhaoyi/ETDataset"
  table = _table(path, where, least=14_400, dtype=str, skiprows=1)
  try:
    hours = table[:, 0].astype("datetime64[s]").astype("datetime64[h]").astype(int)
    values = table[:, 1:].astype(np.float64)
  except ValueError as error:
    raise ValueError(f"data.series.path: {path} wants dates, then numbers ({error})") from None
  if np.any(np.diff(hours) != 1):
    raise ValueError(f"data.series.path: {path} skips an hour; give each row the next one")
  cuts = (8_640, 11_520, 14_400)  # 12 months of 30 days to train, 4 to validate, 4 to test
  return dict(values=_finite(values, path), calendar=_hourly(hours), season=24, cuts=cuts)


def exchange(path: str | os.PathLike) -> Series:
  """Eight exchange rates, cut as GluonTS's exchange_rate_nips (LSTNet, arXiv 1703.07015)."""
  where = "get it from https://github.com/laiguokun/multivariate-time-series-data"
  values = _finite(_table(path, where, least=6_221, dtype=np.float64), path)
  calendar = _cycles(np.arange(len(values)) % 5 / 5)  # no dates in the file: a week is five rows
  return dict(values=values, calendar=calendar, season=1, cuts=(6_071, 6_071, 6_221))


def vector_autoregression(length: int = 10_000, dims: int = 4, seed: int = 0) -> Series:
  """A generated hourly series and its `distribution`: 60 % train, 20 % validate, 20 % test."""
  for name, value, low in (("length", length, 1), ("dims", dims, 1), ("seed", seed, 0)):
    inputs.whole(value, f"data.series.{name}", low=low)
  known, burn_in = exact_distribution(dims, seed), 400  # 0.9^400 is 5e-19: the start is forgotten
  rng = np.random.default_rng((seed, 1))
  noise = rng.normal(size=(burn_in + length, dims)) @ np.linalg.cholesky(known["covariance"]).T
  z = np.zeros((len(noise), dims))
  for t in range(1, len(z)):
    z[t] = known["matrix"] @ z[t - 1] + noise[t]
  hours, cuts = np.arange(length), (length * 6 // 10, length * 8 // 10, length)
  values = z[burn_in:] + known["mean"][hours % 24]
  return dict(values=values, calendar=_hourly(hours), season=24, cuts=cuts, distribution=known)


def exact_distribution(dims: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
  """`mean [24, D]`, `matrix` and `covariance [D, D]` of `vector_autoregression`.

  y_t - mean[t mod 24] = matrix (y_{t-1} - mean[(t-1) mod 24]) + e_t, e_t normal of that covariance.
  """
  rng = np.random.default_rng((seed, 0))
  matrix, mixing = rng.normal(size=(2, dims, dims))
  level, amplitude, phase = rng.uniform([[5.0], [1.0], [0.0]], [[10.0], [3.0], [24.0]], (3, dims))
  covariance = mixing @ mixing.T + np.eye(dims)
  std = np.sqrt(np.diag(covariance))
  mean = level + amplitude * np.cos(2 * np.pi * (np.arange(24)[:, None] - phase) / 24)
  matrix = 0.9 * matrix / np.abs(np.linalg.eigvals(matrix)).max()
  return dict(mean=mean, matrix=matrix, covariance=covariance / np.outer(std, std))


def checked(series: Any, field: str = "data.series") -> Series:
  """The series with float64 `values`, float32 `calendar` and ints; `field` names it in errors."""
  names = set(series) if isinstance(series, Mapping) else set()
  if missing := {"values", "calendar", "season", "cuts"} - names:
    raise ValueError(f"{field}: has no {', '.join(sorted(missing))}; name one such as ett")
  if "law" in series:
    raise ValueError(f"{field}.law: moved to distribution; rename it.")
  axes, limits = ("row", "column"), dict(low=-_LARGEST, high=_LARGEST, finite=False)
  values = inputs.numbers(series["values"], f"{field}.values", (None, None), axes=axes, **limits)
  if not values.size:
    raise ValueError(f"{field}.values of shape {values.shape}: give a row and a column or more.")
  season = inputs.whole(series["season"], f"{field}.season", low=1)
  cuts, rows = _wholes(series["cuts"], f"{field}.cuts"), len(values)
  if len(cuts) != 3 or not 0 < cuts[0] <= cuts[1] < cuts[2] <= rows:
    fix = f"give 0 < train_end <= test_start < test_end <= {rows} rows"
    raise FieldError(f"{field}.cuts", cuts, fix)
  how = dict(axes=axes, dtype=np.float32)
  calendar = inputs.numbers(series["calendar"], f"{field}.calendar", (len(values), None), **how)
  sound = dict(series) | dict(values=values, calendar=calendar, season=season, cuts=cuts)
  past = values[: max(known(sound), cuts[0])]
  fix = "fill it (only whole rows at the end, after training, may be NaN)"
  inputs.refuse_where(np.isnan(past), past, f"{field}.values", axes, fix)
  size = np.abs(past).max(0)
  tiny, named = (0 < size) & (size < _SMALLEST), f"{field}.values, largest"
  inputs.refuse_where(tiny, size, named, axes[1:], "scale it up")
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

  `x [B, T, stack D]` with T = (context + horizon) / stack, and `cond.covariates` `[B, T, stack (F +
  lags D)]`: the calendar, then lagged values of each step. Values are shown as (value - location) /
  scale: the location is the `anchor`'s, of each window and dimension; the scale gives x a std of 1.
  `examples` gives the raw rows. No lag is shorter than the horizon. Anchors are "last" (the
  context's last value), "mean" (the context's), "train" (the training part's) and "ridge" (in the
  horizon the mean forecast of `data.series.ridge`, of order and ridge `regression`).
  """
  series = checked(series)
  view = _View(context, horizon, stack, _wholes(lags, "data.lags"), anchor)
  view = view.fitted_to(series, regression)
  scale, origin = view.scale(series), view.training(series)
  take = base.rows(len(origin), batch_size, seed, process=process)
  batches = (view.show(series, origin[take(n)], scale) for n in base.count_from(start))
  raw = lambda t: {name: series[name][t] for name in ("values", "calendar")}
  return base.Batches(batches, len(origin), lambda i: raw(view.rows(origin[i])))


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
  """The windows of a split (`origins`), shown as by `windows`, and the truth in raw units.

  `length` replaces `horizon`, except for the scale. Returns `x` and maybe `cond` of `windows`,
  `context`, the number of known tokens, `origin [N]`, the first row to forecast, `target` `[N,
  horizon, D]`, NaN where yet to be forecast, `location [N, T stack, D]` and `scale [D]` for
  `to_raw`. Only `target` and the tokens of `x` after the context depend on the horizon's values.
  """
  series = checked(series)
  view = _View(context, horizon, stack, _wholes(lags, "data.lags"), anchor)
  view = view.fitted_to(series, regression)
  scale = view.scale(series)
  length = horizon if length is None else inputs.whole(length, "data.length", low=1)
  view = dataclasses.replace(view, horizon=length)
  origin = origins(series, length, split=split, stride=stride, count=count, first=view.first)
  target, location = targets(series, origin, length), view.location(series, origin)
  truth = dict(origin=origin, target=target, location=location, scale=scale)
  return view.show(series, origin, scale) | dict(context=context // stack) | truth


def origins(
  series: Series,
  horizon: int,
  *,
  split: str = "test",
  stride: int | None = None,
  count: int | None = None,
  first: int = 0,
) -> np.ndarray:
  """Rows `[N]`, from `first` on, at which the forecasts of a split begin, `stride` rows apart.

  `count` keeps so many at most, evenly spread. "validation" is the part between "train" and "test",
  or the last 150 steps of training where there is none.
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
    raise ValueError(f"data.horizon: {horizon} steps do not fit into {rows}")
  keep = len(found) if count is None else min(count, len(found))
  return found[base.evenly_spread(len(found), keep)]


def targets(series: Series, origin: np.ndarray, horizon: int) -> np.ndarray:
  """The true values `[N, horizon, D]` from rows `origin [N]` on, NaN where they are not known."""
  values = checked(series)["values"]
  last = len(values) - inputs.whole(horizon, "data.horizon", low=1)
  wanted = dict(axes=("window",), dtype=np.int64, low=0, high=last)
  origin = inputs.numbers(origin, "data.origin", (None,), **wanted)
  return values[origin[:, None] + np.arange(horizon)]


def to_raw(x: np.ndarray, data: dict[str, Any], *, first: int = 0) -> np.ndarray:
  """Tokens `[..., N, K, stack D]` of `load`'s windows, from token `first` on, as raw steps."""
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
      raise ValueError(f"data.stack: context and horizon must be multiples of stack={self.stack}")
    if self.anchor not in _ANCHORS:
      raise ValueError(f"data.anchor: {self.anchor!r} is not one of {', '.join(_ANCHORS)}")
    if short := [lag for lag in self.lags if lag < self.horizon]:
      fix = f"{short[0]} is shorter than horizon={self.horizon}; give longer ones."
      raise FieldError("data.lags", tuple(self.lags), fix)

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
        raise ValueError("data.regression: forecasts diverge; give a lower order or a larger ridge")
      return np.concatenate([np.repeat(last, self.context, axis=1), expected], axis=1)
    where = last
    if self.anchor == "train":
      where = values[: series["cuts"][0]].mean(0)
    elif self.anchor == "mean":
      where = values[self.rows(origin)[:, : self.context]].mean(1, keepdims=True)
    return np.broadcast_to(where, (len(origin), steps, values.shape[1]))

  def scale(self, series: Series) -> np.ndarray:
    """The std `[D]` of value - location over all training windows, in blocks; 1 for a constant."""
    origin, values = self.training(series), series["values"]
    blocks = ridge.blocks(origin, (self.context + self.horizon) * (values.shape[1] + 4))
    share = np.array([len(block) / len(origin) for block in blocks])
    mean, variance = np.swapaxes([self._moments(series, block) for block in blocks], 0, 1)
    std = np.sqrt(share @ variance + share @ (mean - share @ mean) ** 2)
    constant = ridge.is_constant(std, values[: series["cuts"][0]])
    return np.where(constant, np.maximum(std, 1.0), std)

  def training(self, series: Series) -> np.ndarray:
    """The origins `[N]` of all training windows."""
    train_end, needed = series["cuts"][0], self.first + self.horizon
    if train_end < needed:
      raise ValueError(f"data.context: {needed} steps do not fit into {train_end} of training")
    return np.arange(self.first, train_end - self.horizon + 1)

  def show(self, series: Series, origin: np.ndarray, scale: np.ndarray) -> dict[str, Any]:
    """`x` and, where there are covariates, `cond` of the windows at `origin [N]`."""
    t, location = self.rows(origin), self.location(series, origin)
    shown = lambda t: (series["values"][t] - location) / scale
    covariates = [series["calendar"][t], *(shown(t - lag) for lag in self.lags)]
    tokens, float32 = t.shape[1] // self.stack, np.float32
    stacked = lambda a: a.reshape(len(t), tokens, self.stack * a.shape[-1]).astype(float32)
    x, covariates = stacked(shown(t)), stacked(np.concatenate(covariates, -1))
    return dict(x=x) | ({"cond": dict(covariates=covariates)} if covariates.size else {})

  def _moments(self, series: Series, origin: np.ndarray) -> np.ndarray:
    t, location = self.rows(origin), self.location(series, origin)
    left = (v[t] - location[..., d] for d, v in enumerate(series["values"].T))
    return np.array([(x.mean(), x.var()) for x in left]).T

  def rows(self, origin: np.ndarray) -> np.ndarray:
    """The rows of windows: `[N, context + horizon]`."""
    return origin[:, None] + np.arange(-self.context, self.horizon)


def _wholes(value: Any, field: str) -> tuple[int, ...]:
  if not isinstance(value, Iterable):
    raise FieldError(field, value, "give whole numbers, such as (24, 168).")
  return tuple(inputs.whole(n, field) for n in value)


def _table(path: str | os.PathLike, where: str, *, least: int, **options: Any) -> np.ndarray:
  """A file of numbers with commas, `[N, 8]`, N >= `least`; `where` says where to get it."""
  path = inputs.path(path, "data.series.path")
  if not path.is_file():
    raise FileNotFoundError(f"data.series.path: no file {path}; {where}")
  try:
    table = np.loadtxt(path, delimiter=",", ndmin=2, **options)
  except (ValueError, OSError, EOFError, zlib.error) as error:
    line = " ".join(str(error).split())[:200]
    raise ValueError(f"data.series.path: {path} cannot be read ({line}); {where}") from None
  if table.shape[1] != 8 or len(table) < least:
    found = f"{len(table)} rows of {table.shape[1]} columns, not at least {least} of 8"
    raise ValueError(f"data.series.path: {path} has {found}; {where}")
  return table


def _finite(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
  return inputs.numbers(values, f"data.series.path: {path}", values.shape, axes=("row", "column"))


def _hourly(hours: np.ndarray) -> np.ndarray:
  """Hour of the day and day of the week `[N, 4]`, of hours since 1970 began, on a Thursday."""
  return _cycles(hours % 24 / 24, hours // 24 % 7 / 7)


def _cycles(*phases: np.ndarray) -> np.ndarray:
  pairs = [f(2 * np.pi * phase) for phase in phases for f in (np.cos, np.sin)]
  return np.stack(pairs, -1).astype(np.float32)
