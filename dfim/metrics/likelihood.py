"""A lower bound on the log density of a sequence, or of a part of it, at any noise levels.

The model p is ancestral sampling down a grid `[rows, tokens]` from noise; its steps from t to s are
Gaussian about the mean that the clean estimate implies, with the variance of x_s given x_t for
white data of standard deviation sigma_data. With y the sequence at the times k of the last row, and
q the path's own way from y to more noise,

  ln p(y) >= - KL(q(x_top | y) | noise) - sum of E KL(q(x_s | x_t, y) | p(x_s | x_t))

over all steps of all tokens; in a token's last step, where s = k, ln p(y | x_t) replaces - KL.
Source: Diffusion Forcing (arXiv 2407.01392), theorem 3.1 and appendix A, where the sign of the KL
terms and an index are misprinted; Ho et al. (2006.11239), eq. 5.
"""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import interpolants
from dfim.io import inputs

Array = jax.Array
Path = interpolants.Path
Clean = Callable[[Array, Array], Array]  # (x_t, t) -> x


def ending_at(levels: np.ndarray, ends: np.ndarray) -> np.ndarray:
  """A matrix of `core.levels` that stops each token at its level in `ends [tokens]`."""
  how = dict(dtype=np.int64, low=0)
  levels = inputs.numbers(levels, "levels", (None, None), axes=("row", "token"), **how)
  how["high"] = int(levels.max(initial=0))
  ends = inputs.numbers(ends, "ends", (levels.shape[1],), axes=("token",), **how)
  stopped = np.maximum(levels, ends[None])
  moves = np.any(np.diff(stopped, axis=0), axis=1)
  return stopped[np.concatenate([[True], moves])]  # a row that repeats would cost an evaluation


def lower_bound(
  clean: Clean, key: Array, y: Array, grid: Array, *, path: Path, sigma_data: float
) -> Array:
  """An unbiased estimate `[B]` of the bound, in nats; one network evaluation a step of the grid.

  `clean` estimates every token, `key` is of the forward noise, `y` `[B, tokens, ...]` at the times
  of the grid's last row. `grid`, `[rows, tokens]` or `[rows, B, tokens]`, falls down the rows. A
  token that stays at its largest time is left out, one that stays at another is given.
  """
  _check(y, grid, sigma_data)
  rows = jnp.asarray(grid, y.dtype).reshape(len(grid), -1, y.shape[1], *[1] * (y.ndim - 2))
  key, apart = jax.random.split(key)
  each = tuple(range(1, y.ndim))  # the axes of an example
  noise = sigma_data * interpolants.noise_like(apart, y)
  y = jnp.where(rows[-1] == jnp.max(rows), noise, y)

  def body(total, row):
    n, s, t = row
    eps = sigma_data * interpolants.noise_like(jax.random.fold_in(key, n), y)
    x_t = _signal(path, rows[-1], t) * y + jnp.sqrt(_noise(path, rows[-1], t)) * eps
    cost = _step_cost(path, sigma_data, y, x_t, clean(x_t, t), rows[-1], s, t)
    return total - cost.sum(each), None

  start = -_start_cost(path, sigma_data, y, rows[-1], rows[0]).sum(each)
  return jax.lax.scan(body, start, (jnp.arange(len(rows) - 1), rows[1:], rows[:-1]))[0]


def _check(y: Array, grid: Array, sigma_data: float) -> None:
  if jnp.ndim(y) < 2 or not jnp.issubdtype(y.dtype, jnp.floating):
    raise ValueError(f"y of {y.dtype} {jnp.shape(y)}: give floating numbers [B, tokens, ...].")
  shape = jnp.shape(grid)
  fits = len(shape) in (2, 3) and shape[0] > 1 and shape[-1] == y.shape[1]
  if not fits or (len(shape) == 3 and shape[1] not in (1, len(y))):
    raise ValueError(f"grid of shape {shape}: give [rows, tokens] or [rows, B, tokens] of y.")
  if not 0.0 < sigma_data < math.inf:
    raise FieldError("sigma_data", sigma_data, "give a number above 0.")
  if not isinstance(y, jax.core.Tracer):
    inputs.examples(y, "y")
  if not isinstance(grid, jax.core.Tracer):
    axes = ("row", "example", "token") if len(shape) == 3 else ("row", "token")
    times = inputs.numbers(grid, "grid", shape, axes=axes, low=0, high=1)
    rising, rows = np.diff(times, axis=0) > 0, np.arange(1, len(times))
    inputs.refuse_where(rising, times[1:], "grid", axes, "times may not rise down the rows", rows)


def _start_cost(path: Path, sigma_data: float, y: Array, k: Array, t: Array) -> Array:
  """KL of x_t given y from the noise that sampling starts with, for each number of y."""
  mean, var = _signal(path, k, t) * y / sigma_data, _noise(path, k, t)
  cost = 0.5 * (jnp.square(mean) + var - 1.0 - jnp.log(jnp.where(k < t, var, 1.0)))
  return jnp.where(k < t, cost, 0.0)


def _step_cost(
  path: Path, sigma_data: float, y: Array, x_t: Array, x: Array, k: Array, s: Array, t: Array
) -> Array:
  """KL(q | p) of the step from t to s for each number of y; - ln p(y | x_t) where s = k."""
  moves, ends = s < t, s == k
  mean_q, var_q = _bridge(path, y, x_t, k, s, t)
  mean_p, _ = interpolants.ddpm_posterior(path, x_t, x, s, t)
  var_p = jnp.where(moves, _norm(path, s) / _norm(path, t) * _noise(path, s, t), 1.0)
  apart = (var_q + jnp.square((mean_q - mean_p) / sigma_data)) / var_p
  density = jnp.log(2 * jnp.pi * sigma_data**2 * var_p)
  spread = jnp.log(var_p / jnp.where(moves & ~ends, var_q, 1.0)) - 1.0
  return jnp.where(moves, 0.5 * (apart + jnp.where(ends, density, spread)), 0.0)


def _bridge(path: Path, y: Array, x_t: Array, k: Array, s: Array, t: Array) -> tuple[Array, Array]:
  """Mean and variance (in units of sigma_data^2) of x_s between y at k and x_t, k <= s < t."""
  total = jnp.where(s < t, _noise(path, k, t), 1.0)
  before, after = _noise(path, k, s) / total, _noise(path, s, t) / total
  mean = _signal(path, s, t) * before * x_t + _signal(path, k, s) * after * y
  return mean, before * after * total


def _signal(path: Path, s: Array, t: Array) -> Array:
  """The share of x_s in x_t; 1 where s = t."""
  return jnp.where(s < t, path.alpha(t) / jnp.where(s < t, path.alpha(s), 1.0), 1.0)


def _noise(path: Path, s: Array, t: Array) -> Array:
  """The variance of x_t given x_s, in units of sigma_data^2; 0 where s = t."""
  kept = _signal(path, s, t) * path.sigma(s)
  return jnp.where(s < t, jnp.square(path.sigma(t)) - jnp.square(kept), 0.0)


def _norm(path: Path, t: Array) -> Array:
  """The variance of x_t for white data, in units of sigma_data^2."""
  return jnp.square(path.alpha(t)) + jnp.square(path.sigma(t))
