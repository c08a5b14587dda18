"""Guidance wraps the network: `classifier_free(apply, weight)` is an `apply` again."""

from typing import Any

import jax
import jax.numpy as jnp

from dfim.core import conditions
from dfim.core import parameterization

Array = jax.Array


def classifier_free(apply: parameterization.Apply, weight: float) -> parameterization.Apply:
  """G = G(null) + weight (G(cond) - G(null)), in one doubled batch (IMM eq. 14, appendix E).

  On the raw output, which for IMM's parameterizations is the same as guiding the jump. weight 1
  is no guidance and costs nothing; weight 0 is the unconditional model.
  """
  if weight == 1.0:
    return apply

  def guided(params: Any, x: Array, s: Array, t: Array, cond: conditions.Condition, **kwargs):
    twice = lambda a, b: jax.tree.map(lambda u, v: jnp.concatenate([u, v]), a, b)
    pair = lambda u: u if u.shape[0] == 1 else twice(u, u)  # a time shared by the batch stays so
    both = twice(conditions.null(cond), cond)
    raw = apply(params, twice(x, x), pair(s), pair(t), both, **kwargs)
    without, given = jnp.split(raw, 2)
    return without + weight * (given - without)

  return guided
