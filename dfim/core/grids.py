"""The times of sampling, noisiest first.

Two kinds. A *time grid* `[K + 1]` is what a whole example steps through, in K steps; a sampler
calls it with `steps=` and `path=`. A
*level matrix*, int `[rows, tokens]`, gives each token a level in 0 (clean) .. steps (noise), row
after row; `at` turns it into times. Sources: IMM section 7.3, appendix F, I.2; Diffusion Forcing
section 3.2, algorithm 2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dfim.core import interpolants, times as times_lib

Array = jax.Array


def uniform(
  steps: int, t_max: float, t_min: float, *, path: interpolants.Path | None = None
) -> Array:
  """`[steps + 1]` evenly spaced times."""
  del path
  _check(steps, t_max, t_min)
  return jnp.linspace(t_max, t_min, steps + 1)


def edm(path: interpolants.Path, steps: int, t_max: float, t_min: float, rho: float = 7.0) -> Array:
  """`[steps + 1]` times, evenly spaced in eta^(1 / rho) (Karras et al. 2206.00364, eq. 5)."""
  _check(steps, t_max, t_min)
  if t_max >= 1.0:
    raise ValueError(f"t_max={t_max}: eta(1) is infinite; set t_max < 1.")
  if rho <= 0.0:
    raise ValueError(f"rho={rho}: set it above 0.")
  ends = interpolants.eta(path, jnp.asarray([t_max, t_min], float)) ** (1.0 / rho)
  etas = jnp.linspace(ends[0], ends[1], steps + 1) ** rho
  return _with_ends(path.time(etas[1:-1]), t_max, t_min)


def through_eta(
  path: interpolants.Path,
  etas: tuple[float, ...],
  t_max: float,
  t_min: float,
  *,
  steps: int | None = None,
) -> Array:
  """`[len(etas) + 2]` times through the given noise-to-signal ratios (IMM I.2: eta = 1.4)."""
  _check(len(etas) + 1, t_max, t_min)
  if steps not in (None, len(etas) + 1):
    raise ValueError(f"steps={steps}: etas gives {len(etas) + 1}; set steps to that.")
  with jax.ensure_compile_time_eval():
    grid = _with_ends(path.time(jnp.asarray(etas, float)), t_max, t_min)
  if not isinstance(grid, jax.core.Tracer) and not np.all(np.diff(grid) < 0):
    raise ValueError(f"etas={tuple(etas)}: must fall, between those of t_max and t_min.")
  return grid


def discrete(levels: int, steps: int, *, path: interpolants.Path | None = None) -> Array:
  """`[steps + 1]` times of a `DiscreteVP` path: the levels of the released Diffusion Forcing."""
  del path
  if not 1 <= steps <= levels:
    raise ValueError(f"steps={steps}: set 1 <= steps <= levels = {levels}.")
  index = np.trunc(np.linspace(-1.0, levels - 1.0, steps + 1))[::-1]  # -1 is clean
  return jnp.asarray((index + 1.0) / levels, float)


def full_sequence(steps: int, tokens: int) -> np.ndarray:
  """All tokens together: `[steps + 1, tokens]`."""
  return pyramid(steps, tokens, lag=0.0)


def autoregressive(steps: int, tokens: int) -> np.ndarray:
  """One token after the other: `[steps tokens + 1, tokens]`."""
  return pyramid(steps, tokens, lag=float(steps))


def pyramid(steps: int, tokens: int, lag: float = 1.0) -> np.ndarray:
  """Token k starts int(k lag) rows late: `[steps + int((tokens - 1) lag) + 1, tokens]`."""
  return _staircase(steps, np.arange(tokens), lag)


def trapezoid(steps: int, tokens: int, lag: float = 1.0) -> np.ndarray:
  """Both ends first, the middle last; symmetric: token k waits as token tokens - 1 - k does."""
  k = np.arange(tokens)
  return _staircase(steps, np.minimum(k, tokens - 1 - k), lag)


def at(levels: Array, times: Array) -> Array:
  """The times `[rows, tokens]` of a level matrix; `times` `[steps + 1]`, noisiest first."""
  return jnp.asarray(times)[len(times) - 1 - jnp.asarray(levels)]


def check_levels(levels: np.ndarray, steps: int, tokens: int) -> None:
  """Refuses a level matrix that does not take `tokens` tokens from noise to clean.

  Raises:
    ValueError: naming what is wrong and where.
  """
  levels = np.asarray(levels)
  if levels.ndim != 2 or not np.issubdtype(levels.dtype, np.integer) or len(levels) < 2:
    raise ValueError(
      f"levels of shape {levels.shape}, {levels.dtype}: give whole numbers [rows, tokens],"
      " 2 rows or more."
    )
  if levels.shape[1] != tokens:
    raise ValueError(f"levels has {levels.shape[1]} columns: give one for each of {tokens} tokens.")
  if np.any(levels[0] != steps):
    raise ValueError(f"levels starts at {levels[0].tolist()}: noise is level steps = {steps}.")
  rises = np.argwhere(np.diff(levels, axis=0) > 0)
  if len(rises):
    row, token = rises[0]
    raise ValueError(f"levels rises in row {row + 1}, token {token}: noise may only fall.")
  if np.any(levels[-1] != 0):
    raise ValueError(f"levels ends at {levels[-1].tolist()}: clean is level 0, for every token.")


def _staircase(steps: int, order: np.ndarray, lag: float) -> np.ndarray:
  if lag < 0:
    raise ValueError(f"lag={lag}: set it to 0 or more.")
  if steps < 1 or len(order) < 1:
    raise ValueError(f"steps={steps}, tokens={len(order)}: set each to 1 or more.")
  start = (order * lag).astype(int)
  row = np.arange(steps + start.max() + 1)
  return np.clip(steps + start[None, :] - row[:, None], 0, steps)


def _with_ends(inner: Array, t_max: float, t_min: float) -> Array:
  """The end points as given, not as they come back from eta and its inverse."""
  return jnp.concatenate([jnp.full(1, t_max, inner.dtype), inner, jnp.full(1, t_min, inner.dtype)])


def _check(steps: int, t_max: float, t_min: float) -> None:
  if steps < 1:
    raise ValueError(f"steps={steps}: a grid takes at least 1 step.")
  times_lib.check_ends(t_max, t_min)
