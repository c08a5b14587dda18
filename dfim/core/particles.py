"""What one particle of the discrepancy is: from a batch to groups of particles.

A rule is `rule(y, z, x_t, times, f, *, kernel, group_size, ...) -> (mmd2, weight_of)`: the
discrepancy of each group, and how a weight w(s, t) of the times' shape is reduced to that shape.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dfim.core import mmd
from dfim.core import parameterization
from dfim.core import times as times_lib

Array = jax.Array


def example(
  y: Array,
  z: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  *,
  kernel: mmd.Kernel,
  group_size: int,
) -> tuple[Array, Callable[[Array], Array]]:
  """A particle is a whole example; a group is `group_size` consecutive ones (IMM eq. 67).

  Args:
    y: `[B, ...]`, outputs of the trained model.
    z: `[B, ...]`, outputs of the frozen model.
    x_t: `[B, ...]`, unused: nothing is conditioned on.
    times: of shape `[B, 1, ...]`, equal within a group.
    f: gives the kernel its bandwidth, |c_out(s, t)| times the number of scalars.
    kernel: see `kernels`.
    group_size: M.

  Returns:
    MMD^2 of each group, `[G]`, and a function from `[B, 1, ...]` to `[G]`.
  """
  del x_t
  one_per_group = lambda a: a.reshape(-1, group_size)[:, 0]
  cloud = lambda a: a.reshape(-1, group_size, a[0].size)
  c_out = one_per_group(jnp.where(times.active, jnp.abs(f.c_out(times.s, times.t)), 1.0))
  scale = jnp.where(one_per_group(times.active), 1.0 / (c_out * y[0].size), 0.0)
  return mmd.mmd2(cloud(y), cloud(z), kernel, scale), one_per_group
