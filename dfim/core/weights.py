"""Loss weights w(s, t), of the times' shape. `target` is the parameterization's prediction.

The objective passes `path, s, t` and `target`; a config gives the other arguments.
"""

import jax
import jax.numpy as jnp

from dfim.core import interpolants

Array = jax.Array


def uniform(path: interpolants.Path, s: Array, t: Array, *, target: str | None = None) -> Array:
  """w = 1."""
  del path, s, target
  return jnp.ones_like(t)


def imm(
  path: interpolants.Path,
  s: Array,
  t: Array,
  *,
  a: float = 1.0,
  b: float = 4.0,
  target: str | None = None,
) -> Array:
  """IMM's weight (eq. 13): sigmoid(b - lambda) (-dlambda/dt) / 2 * alpha^a / (alpha^2 + sigma^2).

  Written without logarithms, (sigma' alpha - alpha' sigma) sigma alpha^(a - 1) over
  (sigma^2 + e^-b alpha^2) (alpha^2 + sigma^2): the same for every path, and finite at t = 0,
  where the printed form is infinity times zero. Depends on t alone.
  """
  del s, target
  one = jnp.ones_like(t)
  alpha, alpha_slope = jax.jvp(path.alpha, (t,), (one,))
  sigma, sigma_slope = jax.jvp(path.sigma, (t,), (one,))
  turn = sigma_slope * alpha - alpha_slope * sigma
  noise = jnp.square(sigma) + jnp.exp(-b) * jnp.square(alpha)
  norm = jnp.square(alpha) + jnp.square(sigma)
  return turn * sigma * alpha ** (a - 1.0) / (noise * norm)
