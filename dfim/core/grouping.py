"""Groups of particles: which examples of a batch stand together, token by token.

A place is a row of the groups: place p is in group p // M, and all places of a group share their
times. `order[p, i]` is the example that stands at place p for token i. What counts in a group are
particles whose prefixes are alike; among examples as they come few are. Source:
docs/moment_forcing.md.
"""

import jax
import jax.numpy as jnp

from dfim.core import times as times_lib

Array = jax.Array


def as_they_came(key: Array, x: Array, *, group_size: int, streams: int) -> None:
  """Examples that come one after another, for every token: no order of their own."""
  del key, x, group_size, streams


def like_prefixes(key: Array, x: Array, *, group_size: int, streams: int) -> Array:
  """Cuts the batch into groups of examples whose tokens before i are alike, for each token i.

  Two examples are drawn; all are sorted by how much nearer they are to the first than to the
  second, and cut in the middle. Each half is cut likewise, until a part is one group. (In three
  where the number of groups has a factor 3, and so on.) Who meets whom depends on the prefixes
  alone, which stand still: moment matching stays exact, given a clean context. Chosen among the
  examples of one (micro-)batch, which should hold several groups.

  Args:
    key: one key.
    x: data, `[B, 2 T, ...]`: of two streams, the first of which is the context.
    group_size: M, which divides B.
    streams: see `streams`; must be 2, for in one stream the prefix moves.

  Returns:
    The order, int `[B, 2 T]`. The context, which does not move, stays as it came.

  Raises:
    ValueError: one stream, or groups that do not divide the batch.
  """
  batch, tokens = x.shape[0], x.shape[1] // 2
  if streams != 2:
    raise ValueError(
      f"groups=like_prefixes with streams={streams}: set objective.streams=2, or"
      " objective.groups.name=core.grouping.as_they_came."
    )
  if batch % group_size:
    raise ValueError(f"group_size={group_size} does not divide the batch of {batch}.")
  data = jnp.asarray(x)[:, :tokens].reshape(batch, tokens, -1)

  def of_token(drawn: tuple[Array, Array]) -> Array:
    i, key = drawn

    def apart(a: Array, b: Array) -> Array:  # of the tokens before i, as `particles.likeness` sums
      each = jnp.sqrt(jnp.sum(jnp.square(data[a] - data[b]), axis=-1))
      return jnp.sum(jnp.where(jnp.arange(tokens) < i, each, 0.0), axis=-1)

    parts = jnp.arange(batch)[None]  # [parts, examples of each]
    for pieces in _prime_factors(batch // group_size):
      key, key_pair = jax.random.split(key)
      parts = jax.random.permutation(key_pair, parts, axis=1, independent=True)
      first, second = parts[:, :1], parts[:, 1:2]  # any two, after the shuffle
      nearest_first = jnp.argsort(apart(parts, first) - apart(parts, second), axis=1)
      parts = jnp.take_along_axis(parts, nearest_first, axis=1)
      parts = parts.reshape(len(parts) * pieces, -1)
    return parts.reshape(-1)

  moving = jax.lax.map(of_token, (jnp.arange(tokens), jax.random.split(key, tokens)))
  still = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, tokens))
  return jnp.concatenate([still, moving.T], axis=1)


def shared(places: times_lib.Times) -> times_lib.Times:
  """The times of the examples, each of which has those of its place.

  Args:
    places: times of the places, `[B, T, 1, ...]`, the same within each group, and their order.

  Returns:
    Times of `[B, T, 1, ...]`.
  """
  if places.order is None:
    return places
  place_of = jnp.argsort(places.order, axis=0)  # the inverse: where each example stands
  s, r, t, active = (at_places(a, place_of) for a in (places.s, places.r, places.t, places.active))
  return places.replace(s=s, r=r, t=t, active=active)


def at_places(a: Array, order: Array | None) -> Array:
  """`[B, T, ...]` of the examples as they stand at their places: by `order`, `[B, T]` or None."""
  if order is None:
    return a
  return jnp.take_along_axis(a, order.reshape(*order.shape, *[1] * (a.ndim - 2)), axis=0)


def _prime_factors(number: int) -> list[int]:
  """2, 2, 3 of 12."""
  factors, divisor = [], 2
  while number > 1:
    while number % divisor == 0:
      factors.append(divisor)
      number //= divisor
    divisor += 1
  return factors
