"""Level matrices: int `[rows, tokens]`, from `steps` (noise) to 0 (clean) down the rows.

Source: Diffusion Forcing section 3.2, algorithm 2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError

Array = jax.Array


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
  """Refuses a level matrix that does not take `tokens` tokens from noise to clean."""
  levels = np.asarray(levels)
  if levels.ndim != 2 or not np.issubdtype(levels.dtype, np.integer) or len(levels) < 2:
    found = f"shape {levels.shape}, {levels.dtype}"
    raise ValueError(f"levels of {found}: give whole numbers [rows, tokens], 2 rows or more.")
  if levels.shape[1] != tokens:
    raise ValueError(f"levels has {levels.shape[1]} columns: give one for each of {tokens} tokens.")
  if np.any(levels[0] != steps):
    raise ValueError(f"levels starts at {levels[0].tolist()}: noise is level steps = {steps}.")
  for row, token in np.argwhere(np.diff(levels, axis=0) > 0):
    raise ValueError(f"levels rises in row {row + 1}, token {token}: noise may only fall.")
  if np.any(levels[-1] != 0):
    raise ValueError(f"levels ends at {levels[-1].tolist()}: clean is level 0, for every token.")


def _staircase(steps: int, rank: np.ndarray, lag: float) -> np.ndarray:
  if lag < 0:
    raise FieldError("lag", lag, "set it to 0 or more.")
  if steps < 1 or len(rank) < 1:
    raise FieldError("steps", steps, f"with tokens={len(rank)}: set each to 1 or more.")
  start = (rank * lag).astype(int)
  row = np.arange(steps + start.max() + 1)
  return np.clip(steps + start[None, :] - row[:, None], 0, steps)
