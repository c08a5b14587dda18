"""Sampling: one scan down a grid of times. The step decides how, the grid how far.

A grid is `[K + 1]` (whole examples), `[rows, tokens]` (each token at its own pace) or
`[rows, B, tokens]`, noisiest first; every row is given x's rank. Tokens whose time stays the same
between two rows come back bit-identical. Sources: IMM algorithms 4 and 5; DDIM (2010.02502) eq. 12.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import interpolants
from dfim.core.parameterization import Parameterization

Array = jax.Array


class Model(NamedTuple):
  """A network with its weights and condition, as samplers call it."""

  jump: Callable[[Array, Array, Array], Array]  # (x_t, s, t) -> x_s
  denoise: Callable[[Array, Array], Array]  # (x_t, t) -> x, the clean estimate
  path: interpolants.Path
  sigma_data: float  # the standard deviation of pure noise is this too
  remember: Callable[[Array, Array], Any] | None = None  # (x, t) -> the cache with these tokens


ModelOf = Callable[..., Model]  # (condition, cache=None) -> model
Step = Callable[[Model, Array, Array, Array, Array, Array], Array]  # (model, key, x_t, s, t, end)


def of_network(
  apply: Callable[..., Any], params: Any, f: Parameterization, cond: Any = None, cache: Any = None
) -> Model:
  """The model of a network; with the first three arguments bound, a `ModelOf`.

  `apply` is `(params, x_in, s, t, cond) -> G`; with `cache=`, keys and values of the tokens before,
  it returns the new cache too.
  """
  net = apply if cache is None else lambda *args: apply(*args, cache=cache)[0]
  add = lambda x, t: apply(params, f.c_in(t) * x, t, t, cond, cache=cache)[1]
  return Model(
    jump=lambda x, s, t: f(net, params, x, s, t, cond),
    denoise=lambda x, t: f.clean(net, params, x, t, cond),
    path=f.path,
    sigma_data=f.sigma_data,
    remember=None if cache is None else add,
  )


def scan(
  model: Model, key: Array, x: Array, grid: Array, *, step: Step, end: Array | None = None
) -> Array:
  """Steps down `grid`, row after row; with `step` bound, a sampler of whole examples.

  Args, besides the model, its grid and a step such as `Pushforward()`:
    key: one key, `[B]` keys so that an example's noise does not depend on its batch, or `[B, T]` so
      that neither does a token's on the tokens around it.
    x: `[B, ...]`, the noise to start from, of standard deviation sigma_data.
    end: the time of finished samples; None for the grid's last row.
  """
  rows = _of_rank(jnp.asarray(grid, x.dtype), x.ndim)
  end = rows[-1] if end is None else end

  def body(x, row):
    n, s, t = row
    return jnp.where(s == t, x, step(model, fold_in(key, n), x, s, t, end)), None

  return jax.lax.scan(body, x, (jnp.arange(len(rows) - 1), rows[1:], rows[:-1]))[0]


@dataclasses.dataclass(frozen=True)
class Pushforward:
  """The model's own jump from t to s (IMM algorithm 4). Draws no noise."""

  def __call__(self, model: Model, key: Array, x: Array, s: Array, t: Array, end: Array) -> Array:
    del key, end
    return model.jump(x, s, t)


@dataclasses.dataclass(frozen=True)
class Restart:
  """A jump to `end`, taken as clean, then fresh noise up to s (IMM algorithm 5)."""

  def __call__(self, model: Model, key: Array, x: Array, s: Array, t: Array, end: Array) -> Array:
    last = jnp.broadcast_to(jnp.asarray(end, t.dtype), t.shape)
    clean = model.jump(x, last, t)
    eps = model.sigma_data * interpolants.noise_like(key, x)
    return jnp.where(s == last, clean, interpolants.interpolate(model.path, clean, eps, s))


@dataclasses.dataclass(frozen=True)
class Ancestral:
  """A denoiser's step: DDIM at eta = 0, the DDPM posterior at eta = 1 (DDIM eqs. 12, 16)."""

  eta: float

  def __post_init__(self):
    if not 0.0 <= self.eta <= 1.0:
      raise FieldError("eta", self.eta, "set it in [0, 1], 0 for DDIM and 1 for DDPM.")

  def __call__(self, model: Model, key: Array, x: Array, s: Array, t: Array, end: Array) -> Array:
    del end
    path, clean = model.path, model.denoise(x, t)
    if self.eta == 0.0:
      return interpolants.ddim(path, x, clean, s, t)
    std = self.eta * interpolants.ddpm_posterior(path, x, clean, s, t)[1]
    kept = jnp.sqrt(jnp.maximum(jnp.square(path.sigma(s)) - jnp.square(std), 0.0))
    direction = (x - path.alpha(t) * clean) / jnp.where(s == t, 1.0, path.sigma(t))
    noise = std * model.sigma_data * interpolants.noise_like(key, x)
    return path.alpha(s) * clean + kept * direction + noise


def fold_in(key: Array, n: Array) -> Array:
  """`jax.random.fold_in` of one key, or of each of `[B]` or `[B, T]`."""
  fold = jax.random.fold_in
  for _ in range(key.ndim):
    fold = jax.vmap(fold, (0, None))
  return fold(key, n)


def split(key: Array) -> tuple[Array, Array]:
  """Two keys of one, or of each of `[B]` or `[B, T]`."""
  halve = jax.random.split
  for _ in range(key.ndim):
    halve = jax.vmap(halve)
  pair = halve(key)
  return pair[..., 0], pair[..., 1]


def _of_rank(grid: Array, rank: int) -> Array:
  """`[rows, ...]` of x's rank: batch axis first, then tokens, then 1s."""
  if grid.ndim > 3 or (grid.ndim > 1 and rank < 3) or len(grid) < 2:
    fix = "give [K + 1] times, or [rows, tokens] or [rows, B, tokens] for sequences."
    raise ValueError(f"grid of shape {grid.shape} for samples of rank {rank}: {fix}")
  axes = {1: (), 2: (1, *grid.shape[1:]), 3: grid.shape[1:]}[grid.ndim]
  return grid.reshape(len(grid), *axes, *[1] * (rank - len(axes)))
