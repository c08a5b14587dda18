"""Groups of particles: which examples of a batch are compared, for each token.

Slots of a group, p // M, share their times; `assignment[p, i]` is the example in slot p for token
i.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import prefixes as prefixes_lib
from dfim.core.prefixes import Prefixes
from dfim.core.scales import Scales

Array = jax.Array


def contiguous(key: Array, prefixes: Prefixes, *, group_size: int, scales: Scales) -> None:
  """Consecutive examples for every token: no assignment, slot p holds example p."""
  del key, prefixes, group_size, scales


def by_prefix(key: Array, prefixes: Prefixes, *, group_size: int, scales: Scales) -> Array:
  """Cuts the batch into groups of examples with similar prefixes, for each token i.

  Examples are sorted by how much closer their prefixes are to one random example than to another,
  and cut into equal parts, and each part likewise; those in which token i is padding come last.
  The assignment is int `[B, T]`. It depends on clean prefixes alone, which are held fixed: moment
  matching stays exact.
  """
  batch, tokens = prefixes.real.shape
  if batch % group_size:
    raise FieldError("group_size", group_size, f"does not divide the batch of {batch}.")
  apart = functools.partial(prefixes_lib.distance, units=scales.units, discount=scales.discount)

  def of_token(numbered: tuple[Array, Array]) -> Array:
    i, key = numbered
    rows = lambda parts: jax.tree.map(lambda a: a[parts], prefixes)
    padded = lambda parts: ~prefixes.real[parts, i]
    parts = jnp.arange(batch)[None]  # [parts, examples of each]
    for pieces in prime_factors(batch // group_size):
      key, key_pair = jax.random.split(key)
      parts = jax.random.permutation(key_pair, parts, axis=1, independent=True)
      parts = _sorted(parts, padded(parts))
      first, second = jnp.moveaxis(jax.vmap(apart)(rows(parts), rows(parts[:, :2]))[:, i], -1, 0)
      nearer = jnp.where(padded(parts), jnp.inf, first - second)
      parts = _sorted(parts, nearer).reshape(len(parts) * pieces, -1)
    return parts.reshape(-1)

  return jax.lax.map(of_token, (jnp.arange(tokens), jax.random.split(key, tokens))).T


def _sorted(parts: Array, by: Array) -> Array:
  return jnp.take_along_axis(parts, jnp.argsort(by, axis=1), axis=1)


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
