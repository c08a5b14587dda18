"""Squared maximum mean discrepancy between groups of particles (IMM eqs. 1, 12, 67)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Kernel = Callable[[Array, Array, Array], Array]  # (x, y, scale) -> k, see `kernels`


def mmd2(y: Array, z: Array, kernel: Kernel, scale: Array, *, factor: Array | None = None) -> Array:
  """MMD^2 of particles `y` and `z`, a V-statistic: the diagonals are counted.

  Args:
    y: `[..., M, D]`, M particles of D numbers.
    z: `[..., M, D]`.
    kernel: `(x, y, scale) -> k`.
    scale: `[...]`, inverse bandwidth of each group, the same in all three Gram matrices.
    factor: None or `[..., M, M]`, a positive semi-definite kernel of what the particles are
      conditioned on; multiplies all three Gram matrices.

  Returns:
    `[...]`, not negative (but for rounding), 0 where the two groups agree as sets.
  """
  terms = pairs(y, z, kernel, scale[..., None, None])
  return jnp.mean(terms if factor is None else terms * factor, axis=(-1, -2))


def pairs(y: Array, z: Array, kernel: Kernel, scale: Array) -> Array:
  """k(y, y') + k(z, z') - 2 k(y, z') of all pairs, `[..., M, M]`, whose mean is `mmd2`.

  Args:
    y: `[..., M, D]`.
    z: `[..., M, D]`.
    kernel: `(x, y, scale) -> k`.
    scale: `[..., M, M]` or size 1 where pairs share it.
  """

  def gram(a: Array, b: Array) -> Array:
    return kernel(a[..., :, None, :], b[..., None, :, :], scale)

  return gram(y, y) + gram(z, z) - 2.0 * gram(y, z)
