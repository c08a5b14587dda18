"""Groups of particles: which examples of a batch stand together, token by token.

A group shares its times, and what counts in it are particles whose prefixes are alike. Drawn as
they come, few are: `like_prefixes` puts those together that are. Source: docs/fusion.md.
"""

import jax
import jax.numpy as jnp

from dfim.core import times as times_lib

Array = jax.Array


def like_prefixes(key: Array, x: Array, *, group_size: int, streams: int) -> Array:
  """Cuts the batch into groups of examples whose tokens before i are alike, for each token i.

  All examples are halved, by which of two of them, drawn at random, they are nearer to; then each
  half is, until a group is left. (Thirds, or fifths, where a number of groups does not halve.) Who
  meets whom depends on the prefixes alone, which stand still: moment matching stays exact, given a
  context all of whose tokens are at one level.

  Args:
    key: one key.
    x: data, `[B, 2 T, ...]`: of two streams, the first of which is the context.
    group_size: M, which divides B.
    streams: see `streams`; must be 2, for in one stream the prefix moves.

  Returns:
    int `[B, 2 T]`: the example that stands at each place of each token; a group is `group_size`
    places in a row. The context, which does not move, stays as it is.
  """
  if streams != 2:
    raise ValueError(f"groups=like_prefixes with streams={streams}: set objective.streams=2.")
  batch, tokens = x.shape[0], x.shape[1] // 2
  data = jnp.asarray(x)[:, :tokens].reshape(batch, tokens, -1)

  def of_token(drawn: tuple[Array, Array]) -> Array:
    i, key = drawn
    groups = jnp.arange(batch)[None]
    for parts in _prime_factors(batch // group_size):
      key, key_drawn = jax.random.split(key)
      groups = jax.random.permutation(key_drawn, groups, axis=1, independent=True)
      members = data[groups]
      apart = members[:, :, None] - members[:, None, :2]
      near = jnp.sqrt(jnp.sum(jnp.square(apart), axis=-1))
      near = jnp.sum(jnp.where(jnp.arange(tokens) < i, near, 0.0), axis=-1)
      place = jnp.argsort(near[..., 0] - near[..., 1], axis=1)
      groups = jnp.take_along_axis(groups, place, axis=1).reshape(len(groups) * parts, -1)
    return groups.reshape(-1)

  moving = jax.lax.map(of_token, (jnp.arange(tokens), jax.random.split(key, tokens)))
  still = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, tokens))
  return jnp.concatenate([still, moving.T], axis=1)


def shared(times: times_lib.Times, order: Array) -> times_lib.Times:
  """Gives every example the times of its place.

  Args:
    times: of the places, `[B, T, 1, ...]`, the same within each group.
    order: the example at each place of each token, `[B, T]`.
  """
  place = jnp.argsort(order, axis=0)
  s, r, t, active = (at_places(a, place) for a in (times.s, times.r, times.t, times.active))
  return times.replace(s=s, r=r, t=t, active=active, order=order)


def at_places(a: Array, order: Array | None) -> Array:
  """`[B, T, ...]` of the examples, as they stand in their groups; as they came for None."""
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
