"""Where the frozen model starts: on the path through x_t and what the data may be, given x_t.

A rule is `rule(x, eps, x_t, times, f, reference) -> (x, eps)`: the datum and the noise that make
x_r of x_t; `reference` is the whole batch, which x is part of. With an example's own datum x_r
scatters, given x_t, over all data that x_t may be of. Moment matching with many particles does not
mind; with few, a pointed kernel draws each to the median of where its partner may be, and branches
lose their shares (docs/moment_forcing.md). With the posterior mean nothing would scatter, with that
of a batch little does, the less the larger it is: x_r is a step of the flow that carries the law of
x_t down. Source: the mean over a batch, Stable Target Field (Xu et al. 2023, arXiv 2302.00670);
with prefixes, and as a start for moment matching, ours.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dfim.core import interpolants
from dfim.core import parameterization
from dfim.core import particles
from dfim.core import times as times_lib

Array = jax.Array


def own(
  x: Array,
  eps: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  reference: dict[str, Any],
) -> tuple[Array, Array]:
  """Each example's own datum and noise (IMM algorithm 1)."""
  del x_t, times, f, reference
  return x, eps


def batch_mean(
  x: Array,
  eps: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  reference: dict[str, Any],
  *,
  bandwidth: float,
  discount: float = 1.0,
) -> tuple[Array, Array]:
  """The mean of the reference batch, token by token, by how likely x_t is to be of each example.

  Given token i at x_t, after the clean context c, the datum x' of a sequence counts by
  N(x_t; alpha x', (sigma f.sigma_data)^2) exp(-bandwidth |c - c'|), the distance being that of
  `particles.apart_before`: the batch stands for the law of the data after c. Where few prefixes are
  alike, or t is small, what is left is the own datum. It is the mean over one (micro-)batch, which
  should be large.

  What comes back is half the mean at x_t, half that at the x_r which the first alone would give:
  Heun's rule, of second order in t - r (Karras et al. 2022, arXiv 2206.00364, algorithm 1). The
  first alone is Euler's, whose errors add up: Gaussian data shrink by 4 % down 64 steps.

  Args:
    x: data, `[B, 2 T, ...]`: of two streams, the first of which is the context.
    eps: noise of the deviation f.sigma_data, of x's shape.
    x_t: of x's shape.
    times: `[B, 2 T, 1, ...]`, and their `streams`.
    f: gives the path and sigma_data.
    reference: its `x`, `[N, 2 T, ...]`, holds all of `x`; without conditions, over which the mean
      would be.
    bandwidth: an inverse distance, 0 or more, as in `particles.likeness`. Set it larger than there:
      it decides what the mean is of.
    discount: see `particles.apart_before`. Below 1 more prefixes are alike, by their latest tokens.

  Returns:
    Data and noise, as `x` and `eps`, on whose path x_t lies.

  Raises:
    ValueError: one stream, whose tokens move together, conditions, a bandwidth below 0, or a
      discount outside [0, 1].
  """
  _check(times, reference)
  particles.check_bandwidth(bandwidth)
  tokens, among = x.shape[1] // 2, reference["x"]
  far_before = bandwidth * particles.apart_before(x[:, :tokens], among[:, :tokens], discount)
  moving = lambda a: jnp.moveaxis(a[:, tokens:].reshape(len(a), tokens, -1), 1, 0)  # [T, B, D]

  def mean(x_u: Array, u: Array) -> Array:
    alpha, deviation = f.path.alpha(u), f.path.sigma(u) * f.sigma_data
    data, noised, shrunk, deviation = map(moving, (among, x_u, alpha, deviation))
    apart = noised[:, :, None] - shrunk[:, :, None] * data[:, None]
    far = jnp.sum(jnp.square(apart), axis=-1) / (2.0 * jnp.square(deviation))
    weights = jax.nn.softmax(-far_before - far, axis=-1)
    found = jnp.matmul(weights, data, precision=jax.lax.Precision.HIGHEST)
    found = jnp.moveaxis(found, 0, 1).reshape(len(x), tokens, *x.shape[2:])
    return jnp.concatenate([x[:, :tokens], found], axis=1)

  here, below = (times.active & (u > 0.0) for u in (times.t, times.r))
  t, r = jnp.where(here, times.t, 1.0), jnp.where(below, times.r, 1.0)  # nothing is divided by 0
  datum = mean(x_t, t)
  x_r = interpolants.ddim(f.path, x_t, datum, times.r, t)
  datum = jnp.where(below, 0.5 * (datum + mean(x_r, r)), datum)
  noise = (x_t - f.path.alpha(t) * datum) / f.path.sigma(t)
  return jnp.where(here, datum, x), jnp.where(here, noise, eps)


def _check(times: times_lib.Times, reference: dict[str, Any]) -> None:
  if times.streams != 2:
    raise ValueError(
      f"posterior.batch_mean with streams={times.streams}: set objective.streams=2, or"
      " objective.datum.name=core.posterior.own."
    )
  if reference.get("cond") is not None:
    raise ValueError(
      "posterior.batch_mean of data with conditions, over which it would average: set"
      " objective.datum.name=core.posterior.own."
    )
