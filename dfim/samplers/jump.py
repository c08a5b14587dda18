"""Sampling: one scan down a grid of times. What the grid is decides what it is.

A grid is `[K + 1]` (whole examples), `[rows, tokens]` (each token at its own pace) or
`[rows, B, tokens]`, noisiest first; every row is given x's rank. Tokens whose time stays the same
between two rows come back bit-identical. Sources: IMM algorithms 4 and 5; DDIM (2010.02502) eq. 12.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dfim.core import interpolants

Array = jax.Array
Jump = Callable[[Array, Array, Array], Array]  # (x_t, s, t) -> x_s
Clean = Callable[[Array, Array], Array]  # (x_t, t) -> x
Step = Callable[[Array, Array, Array, Array], Array]  # (key, x_t, s, t) -> x_s


def scan(step: Step, key: Array, x: Array, grid: Array) -> Array:
  """Applies `step` between each two rows of `grid`.

  Args:
    step: `(key, x_t, s, t) -> x_s`, times of x's rank.
    key: one key, `[B]` keys so that an example's noise does not depend on its batch, or `[B, T]` so
      that neither does a token's on the tokens around it.
    x: `[B, ...]`, the noise to start from, of standard deviation sigma_data.
    grid: see the module.
  """
  rows = _of_rank(jnp.asarray(grid, x.dtype), x.ndim)

  def body(x, row):
    n, s, t = row
    return jnp.where(s == t, x, step(fold_in(key, n), x, s, t)), None

  return jax.lax.scan(body, x, (jnp.arange(len(rows) - 1), rows[1:], rows[:-1]))[0]


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


def pushforward(jump: Jump, x: Array, grid: Array) -> Array:
  """x <- f_{s,t}(x), row after row (IMM algorithm 4). Draws no noise."""
  return scan(pushforward_step(jump), jax.random.key(0), x, grid)


def restart(
  jump: Jump, key: Array, x: Array, grid: Array, *, path: interpolants.Path, sigma_data: float
) -> Array:
  """From each row to the last row's time at once, then fresh noise up to the next row's.

  IMM, algorithm 5.
  """
  end = _of_rank(jnp.asarray(grid, x.dtype), x.ndim)[-1]
  return scan(restart_step(jump, path=path, sigma_data=sigma_data, end=end), key, x, grid)


def ancestral(
  clean: Clean,
  key: Array,
  x: Array,
  grid: Array,
  *,
  path: interpolants.Path,
  sigma_data: float,
  eta: float,
) -> Array:
  """A denoiser's steps down the grid, see `ancestral_step`."""
  return scan(ancestral_step(clean, path=path, sigma_data=sigma_data, eta=eta), key, x, grid)


def pushforward_step(jump: Jump) -> Step:
  """The model's own jump."""
  return lambda key, x, s, t: jump(x, s, t)


def restart_step(
  jump: Jump, *, path: interpolants.Path, sigma_data: float, end: float | Array
) -> Step:
  """A jump to `end`, taken as clean, then fresh noise up to s; none where s is `end`.

  IMM, algorithm 5. `end` is the last time of the grid, and broadcasts to t.
  """

  def step(key, x, s, t):
    last = jnp.broadcast_to(jnp.asarray(end, t.dtype), t.shape)
    clean = jump(x, last, t)
    eps = sigma_data * interpolants.noise_like(key, x)
    return jnp.where(s == last, clean, interpolants.interpolate(path, clean, eps, s))

  return step


def ancestral_step(clean: Clean, *, path: interpolants.Path, sigma_data: float, eta: float) -> Step:
  """A denoiser's step: DDIM at eta = 0, the DDPM posterior at eta = 1 (DDIM eqs. 12, 16)."""
  if not 0.0 <= eta <= 1.0:
    raise ValueError(f"eta={eta}: set it in [0, 1], 0 for DDIM and 1 for DDPM.")

  def step(key, x, s, t):
    estimate = clean(x, t)
    if eta == 0.0:
      return interpolants.ddim(path, x, estimate, s, t)
    std = eta * interpolants.ddpm_posterior(path, x, estimate, s, t)[1]
    kept = jnp.sqrt(jnp.maximum(jnp.square(path.sigma(s)) - jnp.square(std), 0.0))
    direction = (x - path.alpha(t) * estimate) / jnp.where(s == t, 1.0, path.sigma(t))
    noise = std * sigma_data * interpolants.noise_like(key, x)
    return path.alpha(s) * estimate + kept * direction + noise

  return step


def _of_rank(grid: Array, rank: int) -> Array:
  """`[rows, ...]` of x's rank: batch axis first, then tokens, then 1s."""
  if grid.ndim > 3 or (grid.ndim > 1 and rank < 3) or len(grid) < 2:
    raise ValueError(
      f"grid of shape {grid.shape} for samples of rank {rank}: give [K + 1] times, or"
      " [rows, tokens] or [rows, B, tokens] for sequences."
    )
  axes = {1: (), 2: (1, *grid.shape[1:]), 3: grid.shape[1:]}[grid.ndim]
  return grid.reshape(len(grid), *axes, *[1] * (rank - len(axes)))
