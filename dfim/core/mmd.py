"""Squared maximum mean discrepancy between groups of particles (IMM eqs. 1, 12, 67)."""

from collections.abc import Callable

import jax

Array = jax.Array
Kernel = Callable[[Array, Array, Array], Array]  # (x, y, scale) -> k, see `kernels`


def grams(y: Array, z: Array, kernel: Kernel, scale: Array) -> tuple[Array, Array, Array]:
  """The Gram matrices k(y, y'), k(z, z') and k(y, z') of M particles, `[..., M, M]` each.

  MMD^2 is the mean of k_yy + k_zz - 2 k_yz over all pairs: a V-statistic, which has the diagonals.
  `y` and `z` are `[..., M, D]`; `scale`, an inverse bandwidth, broadcasts against the pairs.
  """
  gram = lambda a, b: kernel(a[..., :, None, :], b[..., None, :, :], scale)
  return gram(y, y), gram(z, z), gram(y, z)
