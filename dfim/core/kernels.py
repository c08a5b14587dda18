"""Kernels on the last axis: `kernel(x, y, scale)` broadcasts over all others.

`x`, `y`: `[..., D]`; `scale`: `[...]`, an inverse bandwidth; returns `[...]`. With
d^2 = max(||x - y||^2, floor). The floor is on the *squared* distance: it keeps the gradient at
x = y at 0, where that of a norm is NaN. No Gram trick (|x|^2 + |y|^2 - 2 x y): IMM's two clouds
lie close together and the difference would cancel.

A kernel is one function. To add one, write it here, or anywhere importable, and name it in a
config: `kernel=dict(name="core.kernels.rbf")`. The tests in `tests/core/test_kernels.py` pick up
every public function of this module by themselves. Source: IMM section 4.2, appendix C.8.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def laplace(
  x: Array,
  y: Array,
  scale: Array,
  *,
  bandwidth_multiplier: float | Array = 1.0,
  floor: float = 1e-8,
) -> Array:
  """m exp(-scale d / m) with m = `bandwidth_multiplier`: every moment.

  The gradient does not vanish as particles meet, and its value there does not depend on m; for m to
  infinity the kernel is minus an energy distance.

  Let a share p of a particle's partners lie at distance d, and the others at its own place.
  It stays there, right or wrong, up to p = 1 / (1 + exp(-scale d / m)), because distant partners
  pull less: 0.73 where scale d is 1, and 0.53 for m = 8. Where data have branches and particles few
  numbers, so that scale d is not small, the learnt probability of a branch then depends on the path
  of training: start with a wide kernel, by a schedule (docs/moment_forcing.md).
  """
  m = bandwidth_multiplier
  if floor <= 0.0:
    raise ValueError(f"floor={floor}: set it above 0, for the gradient where particles meet.")
  if isinstance(m, float | int) and m <= 0.0:
    raise ValueError(f"bandwidth_multiplier={m}: set it above 0.")
  return m * jnp.exp(-scale / m * jnp.sqrt(_squared_distance(x, y, floor)))


def rbf(x: Array, y: Array, scale: Array, *, floor: float = 1e-8) -> Array:
  """exp(-scale d^2 / 2)."""
  return jnp.exp(-0.5 * scale * _squared_distance(x, y, floor))


def energy(x: Array, y: Array, scale: Array, *, floor: float = 1e-8) -> Array:
  """-scale d^2: the first moment only (IMM lemma 1); conditionally positive definite."""
  return -scale * _squared_distance(x, y, floor)


def pseudo_huber(
  x: Array, y: Array, scale: Array, *, c: float | Array = 0.03, floor: float = 1e-8
) -> Array:
  """scale (c - sqrt(d^2 + c^2)): every moment (IMM lemma 2); conditionally positive definite.

  Pairs nearer than `c` draw a particle to their mean, those further off to their median, as all of
  Laplace's do. Small jumps learn the flow of the data by the mean; between two pairs as likely the
  median is anywhere, so nothing undoes what the network began with. Sharp shapes want a small `c`
  (docs/moment_forcing.md).
  """
  if isinstance(c, float | int) and c <= 0.0:
    raise ValueError(f"c={c}: set it above 0.")
  return scale * (c - jnp.sqrt(_squared_distance(x, y, floor) + c**2))


def _squared_distance(x: Array, y: Array, floor: float) -> Array:
  """max(||x - y||^2, floor) over the last axis."""
  return jnp.maximum(jnp.sum(jnp.square(x - y), axis=-1), floor)
