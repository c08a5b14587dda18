"""Prefixes: what tokens are conditioned on, how far two of them are apart, and a kernel of them.

The prefix of token i is the tokens before it, the conditions of tokens up to its own, and those of
the whole sequence. Source: docs/moment_forcing.md.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dfim.core import conditioning

Array = jax.Array


@flax.struct.dataclass
class Prefixes:
  """The prefixes of all tokens of N sequences."""

  x: Array  # [N, T, D], of one stream
  cond: dict[str, Array]  # see `conditioning`
  real: Array  # bool [N, T], False on padding


def of_batch(batch: Mapping[str, Any], streams: int = 1) -> Prefixes:
  """Those of a batch that `two_stream.lay_out` returns; `x` may be of any level."""
  x, mask, cond = jnp.asarray(batch["x"]), batch.get("mask"), batch.get("cond") or {}
  size, tokens = len(x), x.shape[1] // streams
  cut = lambda a: a[:, :tokens] if conditioning.is_per_token(a) else a
  real = True if mask is None else mask.reshape(mask.shape[:2])[:, :tokens]
  return Prefixes(
    x=jnp.reshape(x[:, :tokens], (size, tokens, -1)),
    cond={name: jnp.asarray(cut(a)) for name, a in cond.items()},
    real=jnp.broadcast_to(real, (size, tokens)),
  )


def at(prefixes: Prefixes, x_t: Array) -> Prefixes:
  """The same with the tokens of `x_t` `[N, streams T, ...]` in place of x."""
  tokens = x_t[:, : prefixes.x.shape[1]]
  return prefixes.replace(x=jnp.reshape(tokens, prefixes.x.shape))


def units(prefixes: Prefixes) -> dict[str, Array]:
  """The typical distance of two examples' tokens, "x", and vector conditions, "cond.<name>".

  It is the root mean square, of tokens at one position, so that a distance in these units depends
  on neither the number of values nor their scale. 1 where all examples are the same.
  """
  found = {"x": _typical(prefixes.x, prefixes.real)}
  for name, a in prefixes.cond.items():
    if not conditioning.is_discrete(a):
      of_tokens = a.ndim == 3
      each = (a, prefixes.real) if of_tokens else (a[:, None], jnp.ones((len(a), 1)))
      found[f"cond.{name}"] = _typical(*each)
  return found


def distance(
  a: Prefixes,
  b: Prefixes,
  units: Mapping[str, float | Array],
  discount: Array | tuple[float, ...] | float = 1.0,
  *,
  conditioned: Array | bool = True,
) -> Array:
  """Distances of the prefixes of M and N sequences, token by token: `[T, M, N]`.

  For token i, sum_{j<i} g^(i-1-j) |a^j - b^j| + sum_{j<=i} g^(i-j) |c^j - c'^j| + |c - c'|, of
  tokens, their conditions and those of the sequence, each in its unit, with g = `discount`, one
  number or one for each token. Values that differ are a unit apart, and so is padding from a real
  token. Where `conditioned`, bool `[M]`, is False, conditions do not count.
  """
  steps = jnp.arange(a.x.shape[1])
  age = steps[:, None] - steps[None]
  discount = jnp.broadcast_to(jnp.asarray(discount, a.x.dtype), steps.shape)[:, None]
  share = lambda age: jnp.where(age < 0, 0.0, discount ** jnp.maximum(age, 0))
  recent = lambda each, age: jnp.tensordot(share(age), each, 1, precision="highest")

  both = a.real.T[:, :, None] & b.real.T[:, None]
  either = a.real.T[:, :, None] | b.real.T[:, None]
  each = jnp.where(both, _apart(a.x, b.x) / units["x"], either.astype(a.x.dtype))
  total = recent(each, age - 1)
  counts = jnp.broadcast_to(conditioned, len(a.x))[None, :, None]
  for name, of_a in a.cond.items():
    each = _apart(of_a, b.cond[name]) / units.get(f"cond.{name}", 1.0)
    each = recent(each, age) if conditioning.is_per_token(of_a) else each[None]
    total += jnp.where(counts, each, 0.0)
  return total


def similarity(
  prefixes: Prefixes,
  *,
  group_size: int,
  bandwidth_multiplier: float = 1.0,
  mean: bool = False,
  assignment: Array | None = None,
) -> Array:
  """exp(-d / (m d_0)) of all pairs of a group, in (0, 1], `[G, T, M, M]`; m is the multiplier.

  d is the `distance` without discount, or with `mean` that over the number of tokens before, and
  d_0 the median over all pairs of groups whose prefixes differ, for each token by itself (the
  median heuristic; Gretton et al. 2012, section 8). `assignment` `[B, T]` has the examples of the
  slots (`grouping`), the groups themselves without one.
  """
  prefixes = jax.tree.map(jax.lax.stop_gradient, prefixes)
  tokens, unit = prefixes.x.shape[1], units(prefixes)
  in_groups = lambda a: a.reshape(-1, group_size, *a.shape[1:])

  @jax.vmap
  def of_groups(group: Prefixes) -> Array:
    real = group.real.T
    apart = distance(group, group, unit)
    return jnp.where(real[:, :, None] & real[:, None], apart, 0.0)  # no pair of padding

  def of_token(numbered: tuple[Array, Array]) -> Array:
    i, members = numbered
    return of_groups(jax.tree.map(lambda a: in_groups(a[members]), prefixes))[:, i]

  if assignment is None:
    apart = of_groups(jax.tree.map(in_groups, prefixes))
  else:  # a token has its own groups
    apart = jax.lax.map(of_token, (jnp.arange(tokens), assignment.T))
    apart = jnp.moveaxis(apart, 0, 1)
  if mean:
    apart = apart / jnp.maximum(jnp.arange(tokens), 1).reshape(1, -1, 1, 1)
  return jnp.exp(-apart / (bandwidth_multiplier * _median_of_pairs(apart)))


def _median_of_pairs(apart: Array) -> Array:
  """The median of the distances above 0 of each token, `[1, T, 1, 1]`; infinity without one."""
  ordered = jnp.sort(jnp.moveaxis(apart, 1, 0).reshape(apart.shape[1], -1), axis=1)
  none, size = jnp.sum(ordered <= 0.0, axis=1), ordered.shape[1]
  at = jnp.minimum(none + (size - none) // 2, size - 1)
  median = jnp.take_along_axis(ordered, at[:, None], axis=1)
  return jnp.where(median > 0.0, median, jnp.inf)[None, ..., None]


def _apart(a: Array, b: Array) -> Array:
  """Distances of all pairs: `[T, M, N]` of `[M, T, D]`, `[M, N]` of `[M, D]`; also of values."""
  if conditioning.is_discrete(a):
    a, b = (jnp.moveaxis(c, 0, -1) for c in (a, b))
    return (a[..., :, None] != b[..., None, :]).astype(jnp.float32)
  a, b = (jnp.moveaxis(c, 0, -2) for c in (a, b))
  difference = a[..., :, None, :] - b[..., None, :, :]
  return jnp.sqrt(jnp.sum(jnp.square(difference), axis=-1))


def _typical(a: Array, real: Array) -> Array:
  """The root mean square distance of two examples' tokens, of `[N, T, D]` where `real` `[N, T]`."""
  real = real[..., None].astype(a.dtype)
  count = jnp.maximum(jnp.sum(real, axis=0, keepdims=True), 1.0)
  mean = jnp.sum(a * real, axis=0, keepdims=True) / count
  squares = jnp.sum(jnp.square(a - mean) * real)
  found = jnp.sqrt(2.0 * squares / jnp.maximum(jnp.sum(real), 1.0))
  return jnp.where(found > 0.0, found, 1.0)
