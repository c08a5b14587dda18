"""Particles: from a batch to clouds of M points, and a similarity of points.

A rule is `rule(y, z, x_t, w, times, f, *, group_size, ...) -> Clouds`; a group is `group_size`
consecutive rows, token by token (`grouping`). Where a rule's loss is 0, this is right:

* `example`, `per_particle_times`: the distribution of a whole example;
* `token`: each token's marginal, but not how tokens depend on one another;
* `sequence`: the joint distribution of the active tokens and the context;
* `prefix`: the conditional distribution of each token given those before it, which are held fixed.

Source: IMM equation 67; docs/results.md for `per_particle_times`, docs/moment_forcing.md for the
last three.
"""

from collections.abc import Callable
import math

import flax.struct
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import grouping, parameterization, prefix_kernel, times as times_lib

Array = jax.Array
Times = times_lib.Times
Parameterization = parameterization.Parameterization


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
  y: Array, z: Array, x_t: Array, w: Array, times: Times, f: Parameterization, *, group_size: int
) -> Clouds:
  """A point is a whole example: clouds `[G, M, D]` (IMM eq. 67).

  Args:
    y: `[B, ...]`, outputs of the trained model.
    z: `[B, ...]`, outputs of the frozen model.
    x_t: `[B, ...]`, of which some rules take the context.
    w: weights, of the times' shape.
    times: `[B, 1, ...]`, equal within a group.
    f: gives the kernel's bandwidth, |c_out(s, t)| times the number of scalars of a point.
    group_size: M.
  """
  del x_t
  _check_times("example", times, whole=True)
  of_group = lambda a: a.reshape(-1, group_size)[:, :1, None]
  return _clouds(_examples(y, group_size), _examples(z, group_size), of_group, w, times, f)


def per_particle_times(
  y: Array,
  z: Array,
  x_t: Array,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
  inverse_bandwidth: float = 10.0,
) -> Clouds:
  """A point is a whole example at its own times; pairs of similar times are compared: ours.

  The similarity of a pair is exp(-inverse_bandwidth (|u(t) - u(t')| + |u(s) - u(s')| / 2)) times
  M, u = log(t + 0.05); its weight and bandwidth are geometric means. As bandwidths differ, the sum
  is no MMD^2 in the strict sense, and may be negative. A large `inverse_bandwidth` gives the loss
  of M = 1; equal times give M times that of `example`. Arguments as in `example`.
  """
  del x_t
  _check_times("per_particle_times", times, whole=True, per_particle=True)
  prefix_kernel.check_inverse_bandwidth(inverse_bandwidth)
  pairs = lambda a: (a.reshape(-1, group_size, 1), a.reshape(-1, 1, group_size))
  distance = lambda u: jnp.abs(jnp.subtract(*pairs(jnp.log(u + 0.05))))
  mean = lambda a: jnp.sqrt(jnp.multiply(*pairs(a)))
  similarity = jnp.exp(-inverse_bandwidth * (distance(times.t) + distance(times.s) / 2))
  clouds = _clouds(_examples(y, group_size), _examples(z, group_size), mean, w, times, f)
  return clouds.replace(t=None, similarity=group_size * similarity)


def token(
  y: Array, z: Array, x_t: Array, w: Array, times: Times, f: Parameterization, *, group_size: int
) -> Clouds:
  """A point is one token: clouds `[G, T, M, D]`.

  Arguments as in `example`; `y` is `[B, T, ...]`, times are of each token or shared by all.
  """
  del x_t
  _check_times("token", times)
  points = (grouping.token_clouds(a, group_size) for a in (y, z))
  of_pairs = lambda a: _of_tokens(a, group_size, y.shape[1])[..., None, None]
  return _clouds(*points, of_pairs, w, times, f)


def prefix(
  y: Array,
  z: Array,
  x_t: Array,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
  inverse_bandwidth: float = 3.0,
  mean: bool = False,
) -> Clouds:
  """A point is one token, compared where the tokens before it are similar: `[G, T, M, D]`.

  The similarity is `prefix_kernel.prefix_similarity` of x_t, the same for both clouds. A large
  `inverse_bandwidth` compares a particle with itself alone, as M = 1 does; 0 is `token`. Arguments
  as in `token`; `times` has the assignment of the slots.
  """
  _check_times("prefix", times)
  given = dict(group_size=group_size, inverse_bandwidth=inverse_bandwidth, mean=mean)
  slots = dict(streams=times.streams, assignment=times.assignment)
  similarity = prefix_kernel.prefix_similarity(x_t, **given, **slots)
  return token(y, z, x_t, w, times, f, group_size=group_size).replace(similarity=similarity)


def sequence(
  y: Array,
  z: Array,
  x_t: Array,
  w: Array,
  times: Times,
  f: Parameterization,
  *,
  group_size: int,
  inverse_bandwidth: float = 1.0,
) -> Clouds:
  """A point is all tokens of a sequence: clouds `[G, M, T D]`.

  An active token is in units of its |c_out|, a context token in units of 1 / `inverse_bandwidth`;
  0 leaves the context out. Weights are averaged over active tokens. Arguments as in `token`.
  """
  _check_times("sequence", times)
  if times.streams == 2:
    raise ValueError(
      "sequence with two streams: takes one, as the context of two holds the active tokens' data;"
      " set objective.particles.name=core.particles.prefix, or objective.conditioning=None."
    )
  prefix_kernel.check_inverse_bandwidth(inverse_bandwidth)
  of_tokens = lambda a: _of_tokens(a, group_size, y.shape[1])
  active, size = of_tokens(times.active), math.prod(y.shape[2:])
  unit = 1.0 / of_tokens(_c_out(times, f))
  scalars = size * jnp.sum(active | (inverse_bandwidth > 0.0), axis=-1)

  def points(a: Array) -> Array:
    outputs, fixed = (grouping.token_clouds(b, group_size) for b in (a, x_t))
    here, units = active[..., None, None], unit[..., None, None]
    scaled = jnp.where(here, units * outputs, inverse_bandwidth * fixed)
    return jnp.moveaxis(scaled, 1, 2).reshape(len(a) // group_size, group_size, -1)

  def mean(a: Array) -> Array:
    mean = jnp.sum(of_tokens(a) * active, axis=-1) / jnp.maximum(jnp.sum(active, axis=-1), 1)
    return mean[:, None, None]

  scale = 1.0 / jnp.maximum(scalars, 1)[:, None, None]
  some = jnp.any(active, axis=-1)[:, None, None]
  return Clouds(points(y), points(z), scale, weight=mean(w), active=some, t=mean(times.t))


def _clouds(
  y: Array, z: Array, of_pairs: Callable[..., Array], w: Array, times: Times, f: Parameterization
) -> Clouds:
  """Clouds of points `[..., M, D]`; `of_pairs` brings arrays of the times' shape to pairs."""
  scale = 1.0 / (of_pairs(_c_out(times, f)) * y.shape[-1])
  active = of_pairs(times.active) > 0
  weight, t = of_pairs(w), of_pairs(times.t)
  return Clouds(y, z, scale=jnp.where(active, scale, 0.0), weight=weight, active=active, t=t)


def _check_times(
  rule: str, times: Times, *, whole: bool = False, per_particle: bool = False
) -> None:
  """Refuses times that the rule does not take: of tokens, or shared in a group or not."""
  if times.per_particle_times != per_particle:
    fix = f"{rule} needs {per_particle}; change it, or name another rule of core.particles."
    raise FieldError("sample_times.per_particle_times", times.per_particle_times, fix)
  if whole and any(size != 1 for size in times.t.shape[1:]):
    raise ValueError(
      f"particles.{rule} with times of shape {times.t.shape}: give one time an example; choose"
      " core.patterns.example, or particles of tokens."
    )


def _examples(a: Array, group_size: int) -> Array:
  """`[B, ...]` to `[G, M, D]`."""
  return a.reshape(-1, group_size, a[0].size)


def _of_tokens(a: Array, group_size: int, tokens: int) -> Array:
  """From the times' shape, with values equal within a group, to `[G, T]`."""
  first = a.reshape(-1, group_size, a.shape[1])[:, 0]
  return jnp.broadcast_to(first, (len(first), tokens))


def _c_out(times: Times, f: Parameterization) -> Array:
  """|c_out(s, t)|, the unit of a jump's output; 1 where nothing is active."""
  return jnp.where(times.active, jnp.abs(f.c_out(times.s, times.t)), 1.0)
