"""Conditions: a dict of arrays, batch first, and what stands for their absence.

Integer conditions (labels `[B]`) are absent as -1, floating ones (actions `[B, T, A]`, augmentation
`[B, 9]`) as zeros. Every network maps these to its null embedding.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
Condition = dict[str, Array] | None
_KEPT = {"augment"}  # tells what was done to x: untold, a turned image would pass for a plain one


def null(cond: Condition) -> Condition:
  """The absent condition, of the same shapes."""
  return jax.tree.map(_absent, cond)


def drop(key: Array, cond: Condition, rate: float) -> Condition:
  """Each example's condition made absent with probability `rate` (IMM section 4.3).

  All of an example's conditions go together, but for its augmentation, which always stays.
  """
  if not 0.0 <= rate <= 1.0:
    raise ValueError(f"objective.drop_rate={rate}: a probability lies in [0, 1].")
  if cond is None or rate == 0.0:
    return cond
  batch = jax.tree.leaves(cond)[0].shape[0]
  gone = jax.random.bernoulli(key, rate, (batch,))
  of_rank = lambda a: gone.reshape(-1, *[1] * (a.ndim - 1))
  dropped = jax.tree.map(lambda a: jnp.where(of_rank(a), _absent(a), a), cond)
  return dropped | {k: a for k, a in cond.items() if k in _KEPT}


def _absent(a: Array) -> Array:
  return jnp.full_like(a, -1 if jnp.issubdtype(a.dtype, jnp.integer) else 0)
