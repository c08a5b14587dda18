"""Kernels `(x, y, scale) -> k` on the last axis; they broadcast over all others.

`x`, `y`: `[..., D]`; `scale`: `[...]`, an inverse bandwidth; d^2 = max(||x - y||^2, floor), for a
gradient of 0 at x = y. No Gram trick: it would cancel. Source: IMM section 4.2, appendix C.8.
"""

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError

Array = jax.Array
Scalar = float | Array  # may follow a schedule


def laplace(
  x: Array, y: Array, scale: Array, *, bandwidth_multiplier: Scalar = 1.0, floor: float = 1e-8
) -> Array:
  """m exp(-scale d / m) with m = `bandwidth_multiplier`: every moment (docs/moment_forcing.md)."""
  m = bandwidth_multiplier
  if floor <= 0.0:
    raise FieldError("floor", floor, "set it above 0, for the gradient where particles meet.")
  if isinstance(m, float | int) and m <= 0.0:
    raise FieldError("bandwidth_multiplier", m, "set it above 0.")
  return m * jnp.exp(-scale / m * jnp.sqrt(_squared_distance(x, y, floor)))


def rbf(x: Array, y: Array, scale: Array, *, floor: float = 1e-8) -> Array:
  """exp(-scale d^2 / 2)."""
  return jnp.exp(-0.5 * scale * _squared_distance(x, y, floor))


def energy(x: Array, y: Array, scale: Array, *, floor: float = 1e-8) -> Array:
  """-scale d^2: the first moment only (IMM lemma 1); conditionally positive definite."""
  return -scale * _squared_distance(x, y, floor)


def pseudo_huber(
  x: Array, y: Array, scale: Array, *, c: Scalar = 0.03, floor: float = 1e-8
) -> Array:
  """scale (c - sqrt(d^2 + c^2)): every moment (IMM lemma 2); conditionally positive definite."""
  if isinstance(c, float | int) and c <= 0.0:
    raise FieldError("c", c, "set it above 0.")
  return scale * (c - jnp.sqrt(_squared_distance(x, y, floor) + c**2))


def _squared_distance(x: Array, y: Array, floor: float) -> Array:
  return jnp.maximum(jnp.sum(jnp.square(x - y), axis=-1), floor)
