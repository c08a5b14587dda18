"""Particles: from a batch to clouds of M points, and a similarity of points.

A rule is `rule(y, z, prefixes, w, times, f, *, group_size, ...) -> Clouds`; a group is `group_size`
consecutive rows. A loss of 0 means the right distribution of whole examples (`example`,
`per_particle_times`), each token (`token`), active tokens and context (`sequence`), or each token
given those before it (`prefix`). Sources: IMM equation 67; docs/moment_forcing.md.
"""

from collections.abc import Callable
import math

import flax.struct
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import grouping, parameterization, prefixes as prefixes_lib, times as times_lib

Array = jax.Array
Times = times_lib.Times
Parameterization = parameterization.Parameterization
Prefixes = prefixes_lib.Prefixes


@flax.struct.dataclass
class Clouds:
  """Two clouds of M points each; all but these broadcast against their pairs, `[..., M, M]`."""

  y: Array  # [..., M, D], of the trained model
  z: Array  # [..., M, D], of the frozen model
  scale: Array  # inverse bandwidth of the kernel; 0 where nothing is active
  weight: Array
  active: Array  # bool; the loss is the mean over active pairs, also over those of weight 0
  t: Array | None  # None where the points of a cloud have different times
  similarity: Array | float = 1.0  # a PSD kernel of what the points are conditioned on


def example(
  y: Array,
  z: Array,
  prefixes: Prefixes,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
) -> Clouds:
  """A point is a whole example: clouds `[G, M, D]` (IMM eq. 67).

  Outputs `y`, `z` of the trained and the frozen model are `[B, ...]`, `prefixes` those of x_t;
  `times`, `[B, 1, ...]`, are equal within a group; weights `w` have their shape. The bandwidth is
  |c_out(s, t)| D.
  """
  del prefixes
  _check_times("example", times, whole=True)
  points = (a.reshape(-1, group_size, a[0].size) for a in (y, z))
  of_pairs = lambda a: a.reshape(-1, group_size)[:, :1, None]
  return _clouds(*points, of_pairs, of_pairs(times.active), w, times, f)


def per_particle_times(
  y: Array,
  z: Array,
  prefixes: Prefixes,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
  inverse_bandwidth: float = 10.0,
) -> Clouds:
  """A point is a whole example at its own times; pairs of similar times are compared: ours.

  The similarity of a pair is exp(-inverse_bandwidth (|u(t) - u(t')| + |u(s) - u(s')| / 2)) times M,
  u = log(t + 0.05); its weight and bandwidth are geometric means. The sum is no MMD^2 in the strict
  sense, and may be negative. A large `inverse_bandwidth` gives the loss of M = 1.
  """
  del prefixes
  _check_times("per_particle_times", times, whole=True, per_particle=True)
  _check_inverse_bandwidth(inverse_bandwidth)
  pairs = lambda a: (a.reshape(-1, group_size, 1), a.reshape(-1, 1, group_size))
  distance = lambda u: jnp.abs(jnp.subtract(*pairs(jnp.log(u + 0.05))))
  mean = lambda a: jnp.sqrt(jnp.multiply(*pairs(a)))
  similarity = jnp.exp(-inverse_bandwidth * (distance(times.t) + distance(times.s) / 2))
  points = (a.reshape(-1, group_size, a[0].size) for a in (y, z))
  clouds = _clouds(*points, mean, jnp.logical_and(*pairs(times.active)), w, times, f)
  return clouds.replace(t=None, similarity=group_size * similarity)


def token(
  y: Array,
  z: Array,
  prefixes: Prefixes,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
) -> Clouds:
  """A point is one token: clouds `[G, T, M, D]`, of `y` `[B, T, ...]`; see `example`.

  Padding is not active; the times of a group are those of its active particles.
  """
  del prefixes
  _check_times("token", times)
  points = (grouping.token_clouds(a, group_size) for a in (y, z))
  of_pairs = lambda a: _of_tokens(a, times, group_size, y.shape[1])[..., None, None]
  alone = _in_groups(times.active, group_size, y.shape[1])
  active = alone[..., :, None] & alone[..., None, :]
  return _clouds(*points, of_pairs, active, w, times, f)


def prefix(
  y: Array,
  z: Array,
  prefixes: Prefixes,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
  bandwidth_multiplier: float = 1.0,
  mean: bool = False,
) -> Clouds:
  """A point is one token, compared where what it is conditioned on is similar: `[G, T, M, D]`.

  The similarity is `prefixes.similarity`; `times` has the slots' assignment. With two streams the
  prefixes are of the first, the context, in the rows of examples.
  """
  _check_times("prefix", times)
  if bandwidth_multiplier <= 0.0:
    raise FieldError("bandwidth_multiplier", bandwidth_multiplier, "set it above 0, to 1.")
  slots = times.assignment
  slots = None if slots is None else slots[:, -prefixes.x.shape[1] :]
  how = dict(bandwidth_multiplier=bandwidth_multiplier, mean=mean, assignment=slots)
  similarity = prefixes_lib.similarity(prefixes, group_size=group_size, **how)
  similarity = jnp.tile(similarity, (1, times.streams, 1, 1))
  return token(y, z, prefixes, w, times, f, group_size=group_size).replace(similarity=similarity)


token.padded = prefix.padded = True  # they take batches with a mask


def sequence(
  y: Array,
  z: Array,
  prefixes: Prefixes,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
  inverse_bandwidth: float = 1.0,
) -> Clouds:
  """A point is all tokens of a sequence: clouds `[G, M, T D]`.

  Active tokens are in units of their |c_out|, others of 1 / `inverse_bandwidth`; 0 leaves them out.
  """
  _check_times("sequence", times)
  if times.streams == 2:
    fix = "set objective.particles.name=core.particles.prefix, or objective.conditioning=None."
    raise ValueError(f"sequence with two streams: takes one; {fix}")
  _check_inverse_bandwidth(inverse_bandwidth)
  of_tokens = lambda a: _of_tokens(a, times, group_size, y.shape[1])
  active = _in_groups(times.active, group_size, y.shape[1])[..., 0]
  unit, size = 1.0 / of_tokens(_c_out(times, f)), math.prod(y.shape[2:])
  scalars = size * jnp.sum(active | (inverse_bandwidth > 0.0), axis=-1)

  def points(a: Array) -> Array:
    outputs, fixed = (grouping.token_clouds(b, group_size) for b in (a, prefixes.x))
    here, units = active[..., None, None], unit[..., None, None]
    scaled = jnp.where(here, units * outputs, inverse_bandwidth * fixed)
    return jnp.moveaxis(scaled, 1, 2).reshape(len(a) // group_size, group_size, -1)

  count = jnp.maximum(jnp.sum(active, axis=-1), 1)
  mean = lambda a: (jnp.sum(of_tokens(a) * active, axis=-1) / count)[:, None, None]
  scale = 1.0 / jnp.maximum(scalars, 1)[:, None, None]
  some = jnp.any(active, axis=-1)[:, None, None]
  return Clouds(points(y), points(z), scale, weight=mean(w), active=some, t=mean(times.t))


def _clouds(
  y: Array,
  z: Array,
  of_pairs: Callable[..., Array],
  active: Array,
  w: Array,
  times: Times,
  f: Parameterization,
) -> Clouds:
  """Clouds of points `[..., M, D]`; `of_pairs` brings arrays of the times' shape to pairs."""
  scale = 1.0 / (of_pairs(_c_out(times, f)) * y.shape[-1])
  weight, t = of_pairs(w), of_pairs(times.t)
  return Clouds(y, z, scale=jnp.where(active, scale, 0.0), weight=weight, active=active, t=t)


def _check_inverse_bandwidth(inverse_bandwidth: float) -> None:
  """Refuses a negative one: the least similar pairs would count most."""
  if inverse_bandwidth < 0.0:
    raise FieldError("inverse_bandwidth", inverse_bandwidth, "set it to 0 or more.")


def _check_times(rule: str, times: Times, whole: bool = False, per_particle: bool = False) -> None:
  """Refuses times of tokens if `whole`, and those that are shared in a group or not."""
  if times.per_particle_times != per_particle:
    fix = f"{rule} needs {per_particle}; change it, or name another rule of core.particles."
    raise FieldError("sample_times.per_particle_times", times.per_particle_times, fix)
  if whole and any(size != 1 for size in times.t.shape[1:]):
    fix = "choose core.patterns.example, or particles of tokens."
    raise ValueError(f"particles.{rule} with times of shape {times.t.shape}: {fix}")


def _in_groups(a: Array, group_size: int, tokens: int) -> Array:
  """From the times' shape to `[G, T, M]`."""
  each = jnp.moveaxis(a.reshape(-1, group_size, a.shape[1]), 1, 2)
  return jnp.broadcast_to(each, (len(each), tokens, group_size))


def _of_tokens(a: Array, times: Times, group_size: int, tokens: int) -> Array:
  """From the times' shape, with values >= 0 that a group's active particles share, to `[G, T]`.

  Of a group without any, that of its first.
  """
  a, active = (_in_groups(b, group_size, tokens) for b in (a, times.active))
  shared = jnp.max(jnp.where(active, a, 0.0), axis=-1)
  return jnp.where(jnp.any(active, axis=-1), shared, a[..., 0])


def _c_out(times: Times, f: Parameterization) -> Array:
  """|c_out(s, t)|, the unit of a jump's output; 1 where nothing is active."""
  return jnp.where(times.active, jnp.abs(f.c_out(times.s, times.t)), 1.0)
