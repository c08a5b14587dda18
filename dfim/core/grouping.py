"""Groups of particles: which examples of a batch are compared, for each token.

Slots of a group, p // M, share their times; `assignment[p, i]` is the example in slot p for token
i.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError

Array = jax.Array


def contiguous(key: Array, x: Array, *, group_size: int) -> None:
  """Consecutive examples for every token: no assignment, slot p holds example p."""
  del key, x, group_size


def by_prefix(key: Array, x: Array, *, group_size: int) -> Array:
  """Cuts the batch into groups of examples with similar prefixes, for each token i.

  Examples are sorted by how much closer their prefixes are to one random example than to another,
  and cut into equal parts, and each part likewise. `x` is data of two streams, `[B, 2 T, ...]`,
  context first; the assignment is int `[B, 2 T]`, in which examples keep their slots for the
  context. It depends on clean prefixes alone, which are held fixed: moment matching stays exact.
  """
  batch, tokens = x.shape[0], x.shape[1] // 2
  if batch % group_size:
    raise FieldError("group_size", group_size, f"does not divide the batch of {batch}.")
  data = jnp.asarray(x)[:, :tokens].reshape(batch, tokens, -1)

  def of_token(numbered: tuple[Array, Array]) -> Array:
    i, key = numbered
    each = lambda a, b: jnp.sqrt(jnp.sum(jnp.square(data[a] - data[b]), axis=-1))
    before = jnp.arange(tokens) < i
    distance = lambda a, b: jnp.sum(jnp.where(before, each(a, b), 0.0), axis=-1)
    parts = jnp.arange(batch)[None]  # [parts, examples of each]
    for pieces in prime_factors(batch // group_size):
      key, key_pair = jax.random.split(key)
      parts = jax.random.permutation(key_pair, parts, axis=1, independent=True)
      first, second = parts[:, :1], parts[:, 1:2]  # any two, after the shuffle
      nearest_first = jnp.argsort(distance(parts, first) - distance(parts, second), axis=1)
      parts = jnp.take_along_axis(parts, nearest_first, axis=1)
      parts = parts.reshape(len(parts) * pieces, -1)
    return parts.reshape(-1)

  active = jax.lax.map(of_token, (jnp.arange(tokens), jax.random.split(key, tokens)))
  context = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, tokens))
  return jnp.concatenate([context, active.T], axis=1)


by_prefix.clean_context = True  # which it compares


def gather_slots(tree: Any, assignment: Array | None) -> Any:
  """Arrays `[B, T, ...]` of the examples, in the order of the slots."""
  if assignment is None:
    return tree
  index = lambda a: assignment.reshape(*assignment.shape, *[1] * (a.ndim - 2))
  return jax.tree.map(lambda a: jnp.take_along_axis(a, index(a), axis=0), tree)


def scatter_slots(tree: Any, assignment: Array | None) -> Any:
  """Arrays `[B, T, ...]` of the slots, in the order of the examples: undoes `gather_slots`."""
  return gather_slots(tree, None if assignment is None else jnp.argsort(assignment, axis=0))


def token_clouds(a: Array, group_size: int) -> Array:
  """`[B, T, ...]` to the points of each token of each group, `[G, T, M, D]`."""
  split = a.reshape(-1, group_size, a.shape[1], math.prod(a.shape[2:]))
  return jnp.moveaxis(split, 1, 2)


def prime_factors(number: int) -> list[int]:
  """The prime factors of `number` in rising order, each as often as it divides; [] for 1."""
  factor = next((n for n in range(2, number + 1) if number % n == 0), 1)
  return [] if number == 1 else [factor, *prime_factors(number // factor)]
