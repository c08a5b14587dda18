"""Inductive moment matching: match f_{s,t}(x_t) under theta_n to f_{s,r}(x_r) under theta_{n-1}.

The consistency model is this loss with `group_size=1`, the energy kernel and s at t_min; the naive
objective is `mapping=core.mappings.to_target`. Source: IMM algorithms 1 and 3, equations 12 and 67.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dfim.core import conditioning
from dfim.core import grouping as groups_lib
from dfim.core import interpolants
from dfim.core import mmd
from dfim.core import parameterization
from dfim.core import posterior
from dfim.core import times as times_lib
from dfim.core import two_stream as streams_lib

Array = jax.Array


def loss(
  apply: parameterization.Apply,
  params: Any,
  frozen: Any,
  batch: dict[str, Any],
  key: Array,
  *,
  f: parameterization.Parameterization,
  sample_times: Callable[..., times_lib.Times],
  particles: Callable[..., tuple[Array, Callable[[Array], Array]]],
  kernel: mmd.Kernel,
  weight: Callable[..., Array],
  group_size: int,
  drop_rate: float = 0.0,
  drop_in_target: bool = True,
  streams: int = 1,
  groups: Callable[..., Array | None] = groups_lib.as_they_came,
  datum: Callable[..., tuple[Array, Array]] = posterior.own,
  reference: int = 1,
) -> tuple[Array, dict[str, Array]]:
  """Weighted MMD^2 of each group of particles, averaged over groups.

  Its value does not fall to 0 at the optimum: with M particles two clouds of the same law still
  differ. Judge a run by its samples.

  Args:
    apply: the network, `(params, x_in, s, t, cond, rngs=...) -> G`.
    params: theta_n, the only argument with a gradient.
    frozen: theta_{n-1}.
    batch: `x` `[B, ...]` and optionally `cond`, see `conditions`.
    key: one key for this step.
    f: the parameterization, which holds the path.
    sample_times: `times.sample` with a pattern and a mapping.
    particles: `core.particles.*`.
    kernel: `core.kernels.*`.
    weight: `core.weights.*`.
    group_size: M, particles of a group; they share (s, r, t), but for `particles.own_times`.
    drop_rate: probability that an example's condition is dropped, for guidance.
    drop_in_target: whether the frozen model sees the dropped conditions too, as the paper's
      algorithm has it, or the full ones, as the released trainer does.
    streams: 2 for a context that stands still beside what moves, see `core.streams`.
    groups: `core.groups.*`, who stands together.
    datum: `core.posterior.*`, what x_r is made of beside x_t.
    reference: examples in the batch for each that the network sees, the first of them; the others
      are data for `datum` alone (Stable Target Field's reference batch, Xu et al. 2023).

  Returns:
    The scalar loss, and metrics.
  """
  apply, whole = streams_lib.lay_out(apply, batch, streams)
  batch = jax.tree.map(lambda a: a.reshape(-1, reference, *a.shape[1:])[:, 0], whole)
  x, cond = batch["x"], batch.get("cond")
  key_times, key_noise, key_drop, key_net = jax.random.split(key, 4)
  places = sample_times(key_times, x.shape, path=f.path, group_size=group_size)
  order = groups(jax.random.fold_in(key, 4), x, group_size=group_size, streams=streams)
  places = places.replace(streams=streams, order=order)
  times = groups_lib.shared(places)  # of the examples
  s, r, t = times.s, times.r, times.t
  eps = f.sigma_data * interpolants.noise_like(key_noise, x)
  x_t = interpolants.interpolate(f.path, x, eps, t)
  # ddim(x_t, datum, r, t) is the same, but 0 / 0 where t is 0
  x_r = interpolants.interpolate(f.path, *datum(x, eps, x_t, times, f, whole), r)

  dropped = conditioning.drop(key_drop, cond, drop_rate)
  net = functools.partial(apply, rngs=dict(dropout=key_net))  # one mask for both passes
  y = f(net, params, x_t, s, t, dropped)
  z = f(net, jax.lax.stop_gradient(frozen), x_r, s, r, dropped if drop_in_target else cond)

  grams = []  # of y with y, z with z, y with z

  def kept(*args: Array) -> Array:
    grams.append(kernel(*args))
    return grams[-1]

  y, z = (groups_lib.at_places(a, order) for a in (y, jax.lax.stop_gradient(z)))
  distance, weight_of = particles(y, z, x_t, places, f, kernel=kept, group_size=group_size)
  w = jnp.where(places.active, weight(f.path, places.s, places.t, target=f.prediction), 0.0)
  value, mmd2 = (_mean(distance, weight_of, a, places.active) for a in (w, places.active))
  shared = group_size > 1 and not places.own
  alike = alike_by_time(grams[0], places, weight_of) if shared else {}
  return value, {"loss": value, "mmd2": mmd2, **alike}


def alike_by_time(
  gram: Array, times: times_lib.Times, weight_of: Callable[[Array], Array], bins: int = 4
) -> dict[str, Array]:
  """The mean kernel value of two different particles of a group, by bins of t.

  Relative to that of a particle with itself, where this is positive. Near 1 the kernel takes all
  particles for one, near 0 each is alone: in both cases nothing but its own pair pulls at a
  particle. It is the kernel by itself: what `particles.prefix` multiplies it by comes on top. A bin
  that no group falls into has infinity.

  Args:
    gram: `[..., M, M]` of a group's particles, `[...]` as the particle rule groups them.
    times: of the batch.
    weight_of: from the times' shape to `[...]`, as the particle rule returns it.
    bins: how many there are between t = 0 and 1.
  """
  m, dtype = gram.shape[-1], gram.dtype
  own = jnp.trace(gram, axis1=-1, axis2=-2) / m
  apart = (jnp.sum(gram, axis=(-1, -2)) / m - own) / (m - 1)
  apart = apart / jnp.where(own > 0.0, own, 1.0)
  t = weight_of(jnp.where(times.active, times.t, 0.0).astype(dtype))
  moving = weight_of(times.active.astype(dtype)) > 0.0
  place = jnp.minimum((t * bins).astype(jnp.int32), bins - 1)
  found = {}
  for n in range(bins):
    here = moving & (place == n)
    mean = jnp.sum(apart * here) / jnp.maximum(jnp.sum(here), 1)
    name = f"kernel_t_{n / bins:.2f}_to_{(n + 1) / bins:.2f}"
    found[name] = jnp.where(jnp.any(here), mean, jnp.inf)
  return found


def _mean(distance: Array, weight_of: Callable[[Array], Array], w: Array, active: Array) -> Array:
  """The weighted mean over what moves."""
  weights, moving = (weight_of(a.astype(distance.dtype)) for a in (w, active))
  return jnp.sum(weights * distance) / jnp.maximum(jnp.sum(moving), 1.0)
