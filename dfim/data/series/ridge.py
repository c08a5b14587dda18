"""A vector autoregression with intercept and calendar, fitted by ridge regression.

Values are standardised by those that are fitted; errors are normal with their full covariance.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dfim.config.errors import FieldError
from dfim.io import inputs

Array = np.ndarray
Generator = np.random.Generator
Regression = dict[str, Any]
Series = dict[str, Any]  # as `forecasting.checked` returns it
_BLOCK = 2**22  # numbers that are made of a series at once: 32 MB of float64


def choice(value: Any, field: str, most: int) -> tuple[int, float]:
  """Order, `most` at most, and ridge of an autoregression; `field` names them in errors."""
  if not isinstance(value, tuple | list) or len(value) != 2:
    raise FieldError(field, value, "give an order and a ridge, such as (1, 100.0).")
  order = inputs.whole(value[0], f"{field}: order", low=1, high=most)
  return order, inputs.number(value[1], f"{field}: ridge", above=0)


def blocks(rows: Array, width: int) -> list[Array]:
  """`rows [N]` in order, in parts of at most `_BLOCK` numbers, at `width` numbers a row."""
  each = max(_BLOCK // width, 1)
  return np.split(rows, np.arange(each, len(rows), each))


def is_constant(std: Array, values: Array) -> Array:
  """Whether a std `[D]` is no more than the rounding of `values [N, D]`: 1e-10 of the largest."""
  return std <= 1e-10 * np.abs(values).max(0)


def root(covariance: Array) -> Array:
  """The lower triangular root `[D, D]`, rows of 0 without variance, or LinAlgError."""
  moving = np.ix_(*2 * [np.diag(covariance) != 0])
  found = np.zeros_like(covariance)
  found[moving] = np.linalg.cholesky(covariance[moving])
  return found


def fit(series: Series, end: int, order: int, ridge: float) -> Regression:
  """Least squares on rows before `end`; the ridge spares the intercept and the calendar."""
  values = series["values"][:end]
  std = values.std(0)
  constant = is_constant(std, values)
  mean, std = np.where(constant, values[-1], values.mean(0)), np.where(constant, 0.0, std)
  rows, width = np.arange(order, end), order * len(mean)
  used = _independent(_regressors(series, rows))

  def design(t: Array) -> Array:
    return np.concatenate([_past(values, mean, std, t, order), _regressors(series, t) * used], -1)

  parts = blocks(rows, width + len(used))
  targets = [_standardised(values[t], mean, std) for t in parts]
  penalty = np.repeat([ridge, 0.0], [width, len(used)])
  weights, error = _least_squares(design, parts, targets, penalty)
  covariance = error.T @ error / len(error) + 1e-9 * np.eye(len(mean))  # of dimensions that agree
  lagged, drift = np.split(weights, [width])
  root = np.linalg.cholesky(covariance)
  return dict(mean=mean, std=std, order=order, lagged=lagged, drift=drift, root=root)


def draw(
  series: Series, fitted: Regression, origin: Array, horizon: int, paths: int, rng: Generator
) -> Array:
  """Paths `[P, N, H, D]` in raw units from rows `origin [N]` on."""
  past = _past(series["values"], fitted["mean"], fitted["std"], origin, fitted["order"])
  drift = _regressors(series, origin[:, None] + np.arange(horizon)) @ fitted["drift"]
  drawn = simulate(past, fitted["lagged"], drift, fitted["root"], paths, rng)
  return fitted["mean"] + fitted["std"] * drawn


def expect(series: Series, fitted: Regression, origin: Array, horizon: int) -> Array:
  """The mean `[N, H, D]` of `draw`'s paths."""
  exact = fitted | dict(root=np.zeros_like(fitted["root"]))
  return draw(series, exact, origin, horizon, 1, np.random.default_rng(0))[0]


def simulate(
  past: Array, lagged: Array, drift: Array, root: Array, paths: int, rng: Generator
) -> Array:
  """Draws y_h = past_h lagged + drift_h + root e_h, e_h standard normal: `[P, N, H, D]`.

  `past [N, order D]`, the latest first; `lagged [order D, D]`, `drift [N, H, D]`, `root [D, D]`.
  """
  n, horizon, dims = drift.shape
  past = np.broadcast_to(past, (paths, *past.shape))
  steps = []
  for h in range(horizon):
    steps.append(past @ lagged + drift[:, h] + rng.normal(size=(paths, n, dims)) @ root.T)
    past = np.concatenate([steps[-1], past[..., :-dims]], -1)
  return np.stack(steps, 2)


def _least_squares(
  design: Callable[[Array], Array], parts: list[Array], targets: list[Array], penalty: Array
) -> tuple[Array, Array]:
  """Weights `[K, D]` and errors `[N, D]` of a ridge regression, in `parts` of the rows."""
  gram, moment = 0.0, 0.0
  for t, y in zip(parts, targets, strict=True):
    x = design(t)
    gram, moment = gram + x.T @ x, moment + x.T @ y
  penalty = np.where(np.diag(gram) == 0, 1.0, penalty)
  weights = np.linalg.solve(gram + np.diag(penalty), moment)
  errors = [y - design(t) @ weights for t, y in zip(parts, targets, strict=True)]
  return weights, np.concatenate(errors)


def _past(values: Array, mean: Array, std: Array, t: Array, order: int) -> Array:
  past = values[t[:, None] - np.arange(1, order + 1)]
  return _standardised(past, mean, std).reshape(len(t), -1)


def _standardised(values: Array, mean: Array, std: Array) -> Array:
  return (values - mean) / np.where(std > 0, std, np.inf)  # a constant is 0


def _regressors(series: Series, t: Array) -> Array:
  return np.concatenate([series["calendar"][t], np.ones((*t.shape, 1))], -1)


def _independent(columns: Array) -> Array:
  """Which columns of `[N, K]` are no combination of the last one and of those before them."""
  r = np.linalg.qr(columns, mode="r")  # small, with the same dependences
  size = np.linalg.norm(r, axis=0)
  r = r / np.where(size > 0, size, 1.0)
  kept = []
  for k in np.roll(np.arange(len(size)), 1):
    if np.linalg.matrix_rank(r[:, [*kept, k]], tol=1e-6) > len(kept):  # float32 rounds at 1e-7
      kept.append(k)
  return np.isin(np.arange(len(size)), kept)
