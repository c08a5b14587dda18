"""What one particle of the discrepancy is: from a batch to groups of particles.

A rule is `rule(y, z, x_t, times, f, *, kernel, group_size, ...) -> (mmd2, weight_of)`: the
discrepancy of each group, or its terms, and how a weight w(s, t) of the times' shape is brought to
that shape.
A group is `group_size` rows one after another, token by token (`groups`).
What its zero means: `example`, the law of a whole example is right, and `own_times` the same where
the examples of a group have different times; `token`, each token's marginal law, which is blind to
how tokens depend on one another; `sequence`, the joint law of the tokens that move, together with
those that do not; `prefix`, the law of each token given those before it, where they stand still.
Source: IMM equation 67; docs/results.md for `own_times`, docs/moment_forcing.md for the last three.
"""

from collections.abc import Callable
import math

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
  _check_times("example", times, whole=True)
  one_per_group = lambda a: a.reshape(-1, group_size)[:, 0]
  unit = 1.0 / (_c_out(times, f, one_per_group) * y[0].size)
  scale = jnp.where(one_per_group(times.active), unit, 0.0)
  clouds = (_examples(a, group_size) for a in (y, z))
  return mmd.mmd2(*clouds, kernel, scale), one_per_group


def own_times(
  y: Array,
  z: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  *,
  kernel: mmd.Kernel,
  group_size: int,
  bandwidth: float = 10.0,
) -> tuple[Array, Callable[[Array], Array]]:
  """A particle is a whole example at times of its own, compared where times are alike: ours.

  A step sees as many times as examples, not as groups. Times are conditioned on as a prefix is
  (`prefix`): they are the same in both branches, so the gradient of all pairs but the own ones is 0
  on average where laws agree at all times. A pair counts by
  exp(-bandwidth (|u(t) - u(t')| + |u(s) - u(s')| / 2)), u = log(t + .05), by the geometric mean of
  its weights and in units of that of its |c_out|. As these units differ, the sum is no MMD^2 in the
  strict sense, and may be negative. At a large `bandwidth` it is the loss of M = 1; if all times
  were one it would be M times `example`'s.

  Args:
    y: see `example` for all but times, which differ within a group (`times.sample`, `own_times`).
    bandwidth: 0 or more.

  Returns:
    The terms of all pairs of each group times M, `[G, M, M]`, and a function from `[B, 1, ...]`,
    for weights of 0 or more.
  """
  del x_t
  _check_times("own_times", times, whole=True, own=True)
  check_bandwidth(bandwidth)
  in_groups = lambda a: a.reshape(-1, group_size)

  def of_pair(w: Array) -> Array:
    w = in_groups(w)
    return jnp.sqrt(w[:, :, None] * w[:, None, :])

  def apart(u: Array) -> Array:
    log = jnp.log(in_groups(u) + 0.05)
    return jnp.abs(log[:, :, None] - log[:, None, :])

  scale = 1.0 / (of_pair(_c_out(times, f, in_groups)) * y[0].size)
  alike = jnp.exp(-bandwidth * (apart(times.t) + apart(times.s) / 2))
  clouds = (_examples(a, group_size) for a in (y, z))
  return group_size * alike * mmd.pairs(*clouds, kernel, scale), of_pair


def token(
  y: Array,
  z: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  *,
  kernel: mmd.Kernel,
  group_size: int,
) -> tuple[Array, Callable[[Array], Array]]:
  """A particle is one token: `[G, T]` discrepancies, each token's by itself.

  Arguments as in `example`; `y` `[B, T, ...]`, times `[B, T, 1, ...]` or shared by all tokens.
  """
  _check_times("token", times)
  return _each_token(y, z, times, f, kernel, group_size, None)


def sequence(
  y: Array,
  z: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  *,
  kernel: mmd.Kernel,
  group_size: int,
  bandwidth: float = 1.0,
) -> tuple[Array, Callable[[Array], Array]]:
  """A particle is all tokens of a sequence: `[G]` discrepancies.

  Each active token counts in units of its own |c_out|, a context token in units of
  1 / `bandwidth`: without the context the loss would not see how what moves depends on it.
  Weights are averaged over active tokens. Takes one stream: beside the data of the tokens that
  move, the right outputs are not what the frozen model's look like.

  Args:
    y: `[B, T, ...]`; see `example` for the others.
    bandwidth: of the context; 0 leaves it out.
  """
  _check_times("sequence", times)
  if times.streams == 2:
    raise ValueError(
      "sequence with streams=2: takes one stream, for the context of two holds the very tokens that"
      " move; set objective.particles.name=core.particles.prefix, or one stream and its pattern."
    )
  check_bandwidth(bandwidth)
  per_token = _per_token(y.shape[1], group_size)
  active, size = per_token(times.active), math.prod(y.shape[2:])
  unit = 1.0 / _c_out(times, f, per_token)
  counted = size * jnp.sum(active | (bandwidth > 0.0), axis=-1)

  def cloud(a: Array) -> Array:
    moved, still = (_tokens(b, group_size) for b in (a, x_t))
    scaled = jnp.where(active[..., None, None], unit[..., None, None] * moved, bandwidth * still)
    return jnp.moveaxis(scaled, 1, 2).reshape(len(a) // group_size, group_size, -1)

  def weight_of(w: Array) -> Array:
    return jnp.sum(per_token(w) * active, axis=-1) / jnp.maximum(jnp.sum(active, axis=-1), 1)

  return mmd.mmd2(cloud(y), cloud(z), kernel, 1.0 / jnp.maximum(counted, 1)), weight_of


def prefix(
  y: Array,
  z: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  *,
  kernel: mmd.Kernel,
  group_size: int,
  bandwidth: float = 3.0,
  averaged: bool = False,
) -> tuple[Array, Callable[[Array], Array]]:
  """A particle is one token, compared where the tokens before it are alike: `[G, T]`.

  Each Gram matrix is multiplied by `likeness` of the prefixes in x_t, the same for both branches.
  A large `bandwidth` compares a particle with itself alone, as M = 1 does; at 0 it is `token`.

  Args:
    y: `[B, T, ...]`; see `example` for the others. `times.order` says whose these are; `x_t` is
      as it came.
    bandwidth: see `likeness`.
    averaged: see `likeness`.
  """
  _check_times("prefix", times)
  factor = likeness(
    x_t,
    group_size=group_size,
    bandwidth=bandwidth,
    averaged=averaged,
    streams=times.streams,
    order=times.order,
  )
  return _each_token(y, z, times, f, kernel, group_size, factor)


def likeness(
  x_t: Array,
  *,
  group_size: int,
  bandwidth: float,
  averaged: bool = False,
  streams: int = 1,
  order: Array | None = None,
) -> Array:
  """How alike the prefixes of a group's particles are, `[G, T, M, M]`, in (0, 1].

  exp(-bandwidth sum_{j<i} |x^j - x'^j| / D) with D numbers to a token. It falls with the length of
  the prefix, so that long ones are told apart altogether, unless the sum is made a mean; and it
  rises with D, for a distance grows as sqrt(D) alone: give wide tokens a larger bandwidth.
  Conditions (labels, actions) are not compared: laws are matched as mixed over them.

  Args:
    x_t: `[B, T, ...]`; of two `streams` the first is the prefix of the second.
    group_size: M.
    bandwidth: an inverse distance, 0 or more.
    averaged: whether to take the mean over the prefix.
    streams: see `streams`.
    order: `[B, T]`, who stands where, see `groups`; None: as they came.
  """
  check_bandwidth(bandwidth)
  tokens = x_t.shape[1] // streams
  context = jax.lax.stop_gradient(jnp.asarray(x_t))[:, :tokens]
  number = jnp.arange(tokens).reshape(1, -1, 1, 1)

  def of_token(drawn: tuple[Array, Array]) -> Array:
    i, members = drawn
    cloud = _tokens(context[members], group_size)
    return jnp.sum(jnp.where(number < i, _apart(cloud, cloud), 0.0), axis=1)

  if order is None:
    groups = context.reshape(-1, group_size, *context.shape[1:])
    before = jax.vmap(apart_before)(groups, groups)
  else:  # every token has a group of its own
    moving = jax.lax.map(of_token, (jnp.arange(tokens), order[:, -tokens:].T))
    before = jnp.moveaxis(moving, 0, 1)
  if averaged:
    before = before / jnp.maximum(number, 1)
  return jnp.tile(jnp.exp(-bandwidth * before), (1, streams, 1, 1))


def apart_before(x: Array, others: Array, discount: float = 1.0) -> Array:
  """How far apart the prefixes of two batches are.

  Args:
    x: `[M, T, ...]`.
    others: `[N, T, ...]`.
    discount: how much less each token counts than the one after it, in [0, 1].

  Returns:
    sum_{j<i} discount^(i-1-j) |x^j - x'^j| / D, `[T, M, N]`.

  Raises:
    ValueError: a discount outside [0, 1].
  """
  if not 0.0 <= discount <= 1.0:
    raise ValueError(f"discount={discount}: set it in [0, 1].")
  each = _apart(*(_tokens(a, len(a))[0] for a in (x, others)))
  age = jnp.arange(len(each))[:, None] - 1 - jnp.arange(len(each))[None]
  share = jnp.where(age < 0, 0.0, discount ** jnp.maximum(age, 0)).astype(each.dtype)
  return jnp.tensordot(share, each, axes=1, precision=jax.lax.Precision.HIGHEST)


def _apart(a: Array, b: Array) -> Array:
  """|x - x'| / D of all pairs, `[..., M, N]` of `[..., M, D]` and `[..., N, D]`."""
  apart = a[..., :, None, :] - b[..., None, :, :]
  return jnp.sqrt(jnp.sum(jnp.square(apart), axis=-1)) / a.shape[-1]


def _each_token(
  y: Array,
  z: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  kernel: mmd.Kernel,
  group_size: int,
  factor: Array | None,
) -> tuple[Array, Callable[[Array], Array]]:
  """MMD^2 of each token of each group, `[G, T]`; context has none."""
  per_token = _per_token(y.shape[1], group_size)
  clouds = (_tokens(a, group_size) for a in (y, z))
  unit = 1.0 / (_c_out(times, f, per_token) * math.prod(y.shape[2:]))
  scale = jnp.where(per_token(times.active), unit, 0.0)
  return mmd.mmd2(*clouds, kernel, scale, factor=factor), per_token


def _check_times(
  rule: str, times: times_lib.Times, *, whole: bool = False, own: bool = False
) -> None:
  """Refuses times that the rule is not for: of tokens, or shared in a group or not."""
  if times.own != own:
    raise ValueError(
      f"particles.{rule} with own_times={times.own}: True is for particles.own_times, and that rule"
      " for True; change one of the two."
    )
  if whole and any(size != 1 for size in times.t.shape[1:]):
    raise ValueError(
      f"particles.{rule} with times of shape {times.t.shape}: one time for each example; choose"
      " core.times.example, or particles of tokens."
    )


def check_bandwidth(bandwidth: float) -> None:
  """Refuses one below 0, by which what is unlike would count most."""
  if bandwidth < 0.0:
    raise ValueError(f"bandwidth={bandwidth}: set it to 0 or more.")


def _examples(a: Array, group_size: int) -> Array:
  """`[B, ...]` to `[G, M, D]`."""
  return a.reshape(-1, group_size, a[0].size)


def _tokens(a: Array, group_size: int) -> Array:
  """`[B, T, ...]` to `[G, T, M, D]`."""
  split = a.reshape(-1, group_size, a.shape[1], math.prod(a.shape[2:]))
  return jnp.moveaxis(split, 1, 2)


def _per_token(tokens: int, group_size: int) -> Callable[[Array], Array]:
  """From what has the times' shape, equal within a group, to `[G, T]`."""

  def per_token(a: Array) -> Array:
    first = a.reshape(-1, group_size, a.shape[1])[:, 0]
    return jnp.broadcast_to(first, (len(first), tokens))

  return per_token


def _c_out(
  times: times_lib.Times, f: parameterization.Parameterization, per_group: Callable[[Array], Array]
) -> Array:
  """|c_out(s, t)|, the unit of what a jump moves; 1 where nothing moves."""
  return per_group(jnp.where(times.active, jnp.abs(f.c_out(times.s, times.t)), 1.0))
