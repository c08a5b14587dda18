"""A vector autoregression with intercept and calendar, fitted by ridge regression.

A yardstick for forecasts, see `evaluators.baselines`, and what windows may be shown relative to,
see `forecasting`. A series is what `forecasting.checked` returns; values are standardised by those
that are fitted, errors are normal with their full covariance.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dfim.io import inputs

Regression = dict[str, Any]
_BLOCK = 2**22  # numbers that are made of a series at once: 32 MB of float64


def choice(value: Any, field: str, most: int) -> tuple[int, float]:
  """Order and ridge of an autoregression, checked.

  Args:
    value: a pair of them.
    field: what it is called in the error.
    most: the largest order.

  Raises:
    ValueError: no such pair, or one that is out of range.
  """
  if not isinstance(value, tuple | list) or len(value) != 2:
    raise ValueError(f"{field}={value!r}: give an order and a ridge, such as (1, 100.0).")
  order = inputs.whole(value[0], f"{field}: order", low=1, high=most)
  return order, inputs.number(value[1], f"{field}: ridge", above=0)


def blocks(rows: np.ndarray, width: int) -> list[np.ndarray]:
  """`rows [N]` in order, in parts of at most `_BLOCK` numbers, at `width` numbers a row."""
  each = max(_BLOCK // width, 1)
  return np.split(rows, np.arange(each, len(rows), each))


def is_constant(std: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Whether a std `[D]` is no more than the rounding of `values [N, D]`.

  Below 1e-10 of the largest value less than six of the sixteen digits of float64 are left of what
  moves: less than the float32 holds that a network is given.
  """
  return std <= 1e-10 * np.abs(values).max(0)


def root(covariance: np.ndarray) -> np.ndarray:
  """The lower triangular root `[D, D]`, with rows of 0 for dimensions without variance.

  Raises:
    numpy.linalg.LinAlgError: the covariance of the others is not positive definite.
  """
  moving = np.ix_(*2 * [np.diag(covariance) != 0])
  found = np.zeros_like(covariance)
  found[moving] = np.linalg.cholesky(covariance[moving])
  return found


def fit(series: dict[str, Any], end: int, order: int, ridge: float) -> Regression:
  """Least squares on rows before `end`; the ridge spares the intercept and the calendar.

  A constant dimension is forecast as that constant, and helps to forecast no other. Parts of the
  calendar that follow from the rest of it, as the last of seven days does, have weight 0.
  """
  values = series["values"][:end]
  std = values.std(0)
  constant = is_constant(std, values)
  mean, std = np.where(constant, values[-1], values.mean(0)), np.where(constant, 0.0, std)
  rows, width = np.arange(order, end), order * len(mean)
  used = _independent(_regressors(series, rows))

  def design(t: np.ndarray) -> np.ndarray:
    return np.concatenate([_past(values, mean, std, t, order), _regressors(series, t) * used], -1)

  parts = blocks(rows, width + len(used))
  targets = [_standardised(values[t], mean, std) for t in parts]
  penalty = np.where(np.arange(width + len(used)) < width, ridge, 0.0)
  weights, error = _least_squares(design, parts, targets, penalty)
  covariance = error.T @ error / len(error) + 1e-9 * np.eye(len(mean))  # of dimensions that agree
  lagged, drift = np.split(weights, [width])
  return dict(
    mean=mean, std=std, order=order, lagged=lagged, drift=drift, root=np.linalg.cholesky(covariance)
  )


def draw(
  series: dict[str, Any],
  fitted: Regression,
  origin: np.ndarray,
  horizon: int,
  paths: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """Paths `[P, N, H, D]` in raw units from rows `origin [N]` on."""
  past, drift = _start(series, fitted, origin, horizon)
  return fitted["mean"] + fitted["std"] * simulate(
    past, fitted["lagged"], drift, fitted["root"], paths, rng
  )


def expect(
  series: dict[str, Any], fitted: Regression, origin: np.ndarray, horizon: int
) -> np.ndarray:
  """The mean `[N, H, D]` of `draw`'s paths."""
  past, drift = _start(series, fitted, origin, horizon)
  none = np.zeros_like(fitted["root"])
  (mean,) = simulate(past, fitted["lagged"], drift, none, 1, np.random.default_rng(0))
  return fitted["mean"] + fitted["std"] * mean


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


def _least_squares(
  design: Callable[[np.ndarray], np.ndarray],
  parts: list[np.ndarray],
  targets: list[np.ndarray],
  penalty: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Ridge regression whose inputs are made a part of the rows at a time.

  Args:
    design: from rows `[n]` to inputs `[n, K]`; a column of zeros gets weight 0.
    parts: of the rows.
    targets: `[n, D]` of each part.
    penalty: `[K]`.

  Returns:
    Weights `[K, D]` and the errors of all rows `[N, D]`.
  """
  gram, moment = 0.0, 0.0
  for t, y in zip(parts, targets, strict=True):
    x = design(t)
    gram, moment = gram + x.T @ x, moment + x.T @ y
  penalty = np.where(np.diag(gram) == 0, 1.0, penalty)
  weights = np.linalg.solve(gram + np.diag(penalty), moment)
  errors = [y - design(t) @ weights for t, y in zip(parts, targets, strict=True)]
  return weights, np.concatenate(errors)


def _start(
  series: dict[str, Any], fitted: Regression, origin: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
  """The standardised past of each row, and the drift of each step after it."""
  past = _past(series["values"], fitted["mean"], fitted["std"], origin, fitted["order"])
  drift = _regressors(series, origin[:, None] + np.arange(horizon)) @ fitted["drift"]
  return past, drift


def _past(
  values: np.ndarray, mean: np.ndarray, std: np.ndarray, t: np.ndarray, order: int
) -> np.ndarray:
  """The `order` values before each row of t, the latest first, standardised: `[N, order D]`."""
  past = values[t[:, None] - np.arange(1, order + 1)]
  return _standardised(past, mean, std).reshape(len(t), -1)


def _standardised(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
  """Values `[..., D]` in units of their std from the mean, those of a constant 0."""
  return (values - mean) / np.where(std > 0, std, np.inf)


def _regressors(series: dict[str, Any], t: np.ndarray) -> np.ndarray:
  """Calendar and a one: `[..., F + 1]`."""
  return np.concatenate([series["calendar"][t], np.ones((*t.shape, 1))], -1)


def _independent(columns: np.ndarray) -> np.ndarray:
  """Which columns of `[N, K]` are no combination of the last one and of those before them."""
  r = np.linalg.qr(columns, mode="r")  # small, with the same dependences
  size = np.linalg.norm(r, axis=0)
  r = r / np.where(size > 0, size, 1.0)
  kept = []
  for k in np.roll(np.arange(len(size)), 1):
    if np.linalg.matrix_rank(r[:, [*kept, k]], tol=1e-6) > len(kept):  # float32 rounds at 1e-7
      kept.append(k)
  return np.isin(np.arange(len(size)), kept)
