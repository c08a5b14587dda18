"""Time grids `[K + 1]`, noisiest first, of samplers that move a whole example in K steps.

A sampler calls a grid with `steps=` and `path=`. Sources: IMM section 7.3, appendix F, I.2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import interpolants, times as times_lib

Array, Path = jax.Array, interpolants.Path


def uniform(steps: int, t_max: float, t_min: float, *, path: Path | None = None) -> Array:
  """`[steps + 1]` evenly spaced times."""
  del path
  _check(steps, t_max, t_min)
  return jnp.linspace(t_max, t_min, steps + 1)


def edm(path: Path, steps: int, t_max: float, t_min: float, rho: float = 7.0) -> Array:
  """`[steps + 1]` times, evenly spaced in eta^(1 / rho) (Karras et al. 2206.00364, eq. 5)."""
  _check(steps, t_max, t_min)
  if t_max >= 1.0:
    raise FieldError("t_max", t_max, "eta(1) is infinite; set t_max < 1.")
  if rho <= 0.0:
    raise FieldError("rho", rho, "set it above 0.")
  ends = interpolants.eta(path, jnp.asarray([t_max, t_min], float)) ** (1.0 / rho)
  etas = jnp.linspace(ends[0], ends[1], steps + 1) ** rho
  return _with_ends(path.time(etas[1:-1]), t_max, t_min)


def through_eta(
  path: Path, etas: tuple[float, ...], t_max: float, t_min: float, *, steps: int | None = None
) -> Array:
  """`[len(etas) + 2]` times through the given noise-to-signal ratios (IMM I.2: eta = 1.4)."""
  _check(len(etas) + 1, t_max, t_min)
  if steps not in (None, len(etas) + 1):
    raise FieldError("steps", steps, f"etas gives {len(etas) + 1}; set steps to that.")
  with jax.ensure_compile_time_eval():
    grid = _with_ends(path.time(jnp.asarray(etas, float)), t_max, t_min)
  if not isinstance(grid, jax.core.Tracer) and not np.all(np.diff(grid) < 0):
    raise FieldError("etas", tuple(etas), "must fall, between those of t_max and t_min.")
  return grid


def discrete(levels: int, steps: int, *, path: Path | None = None) -> Array:
  """`[steps + 1]` times of a `DiscreteVP` path: the levels of the released Diffusion Forcing."""
  del path
  if not 1 <= steps <= levels:
    raise FieldError("steps", steps, f"set 1 <= steps <= levels = {levels}.")
  index = np.trunc(np.linspace(-1.0, levels - 1.0, steps + 1))[::-1]  # -1 is clean
  return jnp.asarray((index + 1.0) / levels, float)


def _with_ends(inner: Array, t_max: float, t_min: float) -> Array:
  return jnp.concatenate([jnp.full(1, t_max, inner.dtype), inner, jnp.full(1, t_min, inner.dtype)])


def _check(steps: int, t_max: float, t_min: float) -> None:
  if steps < 1:
    raise FieldError("steps", steps, "a grid takes at least 1 step.")
  times_lib.check_ends(t_max, t_min)
