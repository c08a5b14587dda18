"""Inductive moment matching: match f_{s,t}(x_t) under theta_n to f_{s,r}(x_r) under theta_{n-1}.

The consistency model is this loss with `group_size=1`, the energy kernel and s at t_min; the naive
objective is `mapping=core.mappings.to_target`. Source: IMM algorithms 1 and 3, equations 12 and 67.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dfim.core import (
  grouping,
  interpolants,
  mmd,
  prefixes as prefixes_lib,
  two_stream,
)
from dfim.core.parameterization import Apply, Parameterization
from dfim.core.particles import Clouds
from dfim.core.times import mean_of_active, Times

Array = jax.Array


def loss(
  apply: Apply,
  params: Any,
  frozen: Any,
  batch: dict[str, Any],
  key: Array,
  *,
  f: Parameterization,
  sample_times: Callable[..., Times],
  particles: Callable[..., Clouds],
  kernel: mmd.Kernel,
  weight: Callable[..., Array],
  group_size: int,
  drop_rate: float = 0.0,
  drop_in_target: bool = True,
  conditioning: two_stream.TwoStream | None = None,
) -> tuple[Array, dict[str, Array]]:
  """Weighted MMD^2 of each group of particles, averaged over groups: the loss, and metrics.

  It does not fall to 0 at the optimum, for two clouds of M particles differ. `params` are theta_n,
  the only argument with a gradient, `frozen` theta_{n-1}. `batch` has `x` `[B, ...]` and optionally
  `cond` (`core.conditioning`), dropped with probability `drop_rate`, for guidance, and a `mask`,
  bool `[B, T, 1, ...]`, False on padding, for particles that are tokens. `sample_times`
  is `core.times.sample` with a pattern and a mapping; `group_size` is M. With `drop_in_target` the
  frozen model sees the dropped conditions too, as in the paper's algorithm, otherwise all, as in
  the released trainer. `conditioning` says how groups and x_r are made: `core.two_stream.OneStream`
  by default; sequences have a `TwoStream`, with the scales of `two_stream.fitted`.
  """
  spec = conditioning or two_stream.OneStream()
  apply, whole = two_stream.lay_out(apply, batch, spec.streams)
  key_times, key_noise, key_drop, key_net = jax.random.split(key, 4)
  given = two_stream.given(spec, whole, key_drop, drop_rate)
  _check_mask(particles, given.mask)
  x = given.x
  assignment = two_stream.assign(spec, jax.random.fold_in(key, 4), given.prefixes, group_size)
  real = grouping.gather_slots(given.mask, assignment)
  times = sample_times(key_times, x.shape, path=f.path, group_size=group_size, mask=real)
  times = grouping.scatter_slots(times, assignment)
  s, r, t = times.s, times.r, times.t
  eps = f.sigma_data * interpolants.noise_like(key_noise, x)
  x_t = interpolants.interpolate(f.path, x, eps, t)
  datum, noise = spec.posterior(x, eps, x_t, times, f, given.reference, spec.scales)
  fresh = f.sigma_data * interpolants.noise_like(jax.random.fold_in(key, 5), x)
  noise = spec.interpolant(f.path, noise, fresh, r, t)
  x_r = interpolants.interpolate(f.path, datum, noise, r)

  net = functools.partial(apply, rngs=dict(dropout=key_net))  # one mask for both passes
  y = f(net, params, x_t, s, t, given.dropped)
  z = f(net, frozen, x_r, s, r, given.dropped if drop_in_target else given.cond)

  of_examples = (y, jax.lax.stop_gradient(z), times)
  y, z, times = grouping.gather_slots(of_examples, assignment)
  times = times.replace(streams=spec.streams, assignment=assignment)
  w = jnp.where(times.active, weight(f.path, times.s, times.t, target=f.prediction), 0.0)
  prefixes = prefixes_lib.at(given.prefixes, x_t)  # as the network sees them
  c = particles(y, z, prefixes, w, times, f, group_size=group_size)
  k_yy, k_zz, k_yz = mmd.grams(c.y, c.z, kernel, c.scale)
  terms = c.similarity * (k_yy + k_zz - 2.0 * k_yz)
  active = jnp.broadcast_to(c.active, terms.shape)
  value, mmd2 = (mean_of_active(a, active) for a in (c.weight * terms, terms))
  metrics = particles_that_count(c) | kernel_by_time(k_yy, c)
  return value, {"loss": value, "mmd2": mmd2, **metrics}


loss.jumps = True  # so that it needs signal at t_max
loss.inductive = True  # so that it needs a mapping, r(s, t)


def _check_mask(particles: Callable[..., Any], mask: Array | None) -> None:
  rule = getattr(particles, "func", particles)
  if mask is not None and not getattr(rule, "padded", False):
    fix = "set objective.particles.name=core.particles.prefix, or core.particles.token."
    raise ValueError(f"data: a batch with a mask, and particles {rule.__name__}; {fix}")


def particles_that_count(clouds: Clouds) -> dict[str, Array]:
  """1 + (M - 1) times the mean similarity of two particles, over groups, as metrics.

  The mean over tokens, and the least of any token; where it is 1 the loss is that of M = 1. No
  metrics for M = 1, and for rules without a similarity of tokens.
  """
  m, pairs = clouds.y.shape[-2], _others(clouds)
  if m == 1 or jnp.ndim(clouds.similarity) != 4:
    return {}
  number = jnp.sum(pairs, axis=(0, 2, 3))
  each = jnp.sum(clouds.similarity * pairs, axis=(0, 2, 3)) / jnp.maximum(number, 1)
  count, some = 1.0 + (m - 1) * each, number > 0
  mean = jnp.sum(count * some) / jnp.maximum(jnp.sum(some), 1)
  return dict(particles=mean, particles_least=jnp.min(jnp.where(some, count, jnp.inf)))


def kernel_by_time(gram: Array, clouds: Clouds, bins: int = 4) -> dict[str, Array]:
  """The mean kernel value of two different particles of a group, by bins of t, as metrics.

  Relative to that of a particle with itself, where positive, and without the similarity: near 1 the
  kernel does not separate particles, near 0 each is alone. Infinity in a bin without an active
  pair; no metrics for M = 1 or per-particle times. `gram` is `[..., M, M]`.
  """
  m = gram.shape[-1]
  if m == 1 or clouds.t is None:
    return {}
  diagonal = jnp.trace(gram, axis1=-1, axis2=-2)[..., None, None] / m
  relative = gram / jnp.where(diagonal > 0.0, diagonal, 1.0)
  number = jnp.minimum((clouds.t * bins).astype(jnp.int32), bins - 1)
  metrics, others = {}, _others(clouds)
  for n in range(bins):
    here = others & (number == n)
    mean = jnp.sum(relative * here) / jnp.maximum(jnp.sum(here), 1)
    name = f"kernel_t_{n / bins:.2f}_to_{(n + 1) / bins:.2f}"
    metrics[name] = jnp.where(jnp.any(here), mean, jnp.inf)
  return metrics


def _others(clouds: Clouds) -> Array:
  """The active pairs of two different particles, bool `[..., M, M]`."""
  different = ~jnp.eye(clouds.y.shape[-2], dtype=bool)
  return clouds.active & different.reshape(*[1] * (clouds.y.ndim - 2), *different.shape)
