"""Squared maximum mean discrepancy between groups of particles (IMM eqs. 1, 12, 67)."""

from collections.abc import Callable

import jax

Array = jax.Array
Kernel = Callable[[Array, Array, Array], Array]  # (x, y, scale) -> k, see `kernels`


def grams(y: Array, z: Array, kernel: Kernel, scale: Array) -> tuple[Array, Array, Array]:
  """k(y, y'), k(z, z') and k(y, z') of all pairs of M particles `[..., M, D]`: `[..., M, M]` each.

  MMD^2 is the mean of k_yy + k_zz - 2 k_yz over all pairs, with the diagonals (a V-statistic).
  """
  gram = lambda a, b: kernel(a[..., :, None, :], b[..., None, :, :], scale)
  return gram(y, y), gram(z, z), gram(y, z)
