"""Rules of x_r: a datum and noise given x_t, on whose path the frozen model starts.

A rule is `rule(x, eps, x_t, times, f, reference, scales) -> (x, eps)`. Sources:
docs/moment_forcing.md; Stable Target Field (arXiv 2302.00670).
"""

import flax.struct
import jax
import jax.numpy as jnp

from dfim.core import interpolants, parameterization, prefixes as prefixes_lib, times as times_lib
from dfim.core.scales import Scales

Array = jax.Array
Times = times_lib.Times
Parameterization = parameterization.Parameterization
Prefixes = prefixes_lib.Prefixes
_NEVER = -1e30  # a logarithm of a weight, finite, for rows that no example matches


@flax.struct.dataclass
class Reference:
  """The reference batch: all rows that are read, some of which the network sees."""

  x: Array  # data [N, ...]
  prefixes: Prefixes  # of all
  seen: Prefixes  # of the rows that the network sees
  conditioned: Array | bool  # bool [B], False where the network does not see the conditions


def conditional(
  x: Array,
  eps: Array,
  x_t: Array,
  times: Times,
  f: Parameterization,
  reference: Reference,
  scales: Scales,
) -> tuple[Array, Array]:
  """The example's datum and noise, a draw of x given x_t (IMM algorithm 1)."""
  del x_t, times, f, reference, scales
  return x, eps


def minibatch_mean(
  x: Array,
  eps: Array,
  x_t: Array,
  times: Times,
  f: Parameterization,
  reference: Reference,
  scales: Scales,
) -> tuple[Array, Array]:
  """E[x | x_t, prefix] estimated over the reference batch, token by token.

  Given token i at x_t after the prefix c, the datum x' of a sequence has the weight N(x_t; alpha
  x', (sigma f.sigma_data)^2) exp(-beta d(c, c')), with the distance of `core.prefixes`. The datum
  is the mean of two estimates, at x_t and at the x_r of the first: Heun's rule (Karras et al. 2022,
  arXiv 2206.00364, algorithm 1). `x` is data of two streams, `[B, 2 T, ...]`, context first.
  """
  tokens = x.shape[1] // 2
  log_prior = log_weights(reference, scales)
  active = lambda a: jnp.moveaxis(a[:, tokens:].reshape(len(a), tokens, -1), 1, 0)  # [T, B, D]

  def estimate(x_u: Array, u: Array) -> Array:
    alpha, deviation = f.path.alpha(u), f.path.sigma(u) * f.sigma_data
    data, noised, shrunk, deviation = map(active, (reference.x, x_u, alpha, deviation))
    error = noised[:, :, None] - shrunk[:, :, None] * data[:, None]
    nll = jnp.sum(jnp.square(error), axis=-1) / (2.0 * jnp.square(deviation))
    weights = jax.nn.softmax(log_prior - nll, axis=-1)
    mean = jnp.matmul(weights, data, precision=jax.lax.Precision.HIGHEST)
    mean = jnp.moveaxis(mean, 0, 1).reshape(len(x), tokens, *x.shape[2:])
    return jnp.concatenate([x[:, :tokens], mean], axis=1)

  here, below = (times.active & (u > 0.0) for u in (times.t, times.r))
  t, r = jnp.where(here, times.t, 1.0), jnp.where(below, times.r, 1.0)  # nothing is divided by 0
  datum = estimate(x_t, t)
  x_r = interpolants.ddim(f.path, x_t, datum, times.r, t)
  datum = jnp.where(below, 0.5 * (datum + estimate(x_r, r)), datum)
  noise = (x_t - f.path.alpha(t) * datum) / f.path.sigma(t)
  return jnp.where(here, datum, x), jnp.where(here, noise, eps)


minibatch_mean.clean_context = True  # which it compares


def log_weights(reference: Reference, scales: Scales) -> Array:
  """-beta d of the prefixes, `[T, B, N]`: how much a sequence counts, padding never."""
  apart = prefixes_lib.distance(
    reference.seen,
    reference.prefixes,
    scales.units,
    scales.discount,
    conditioned=reference.conditioned,
  )
  beta = jnp.asarray(scales.inverse_bandwidth, apart.dtype)[:, None, None]
  return jnp.where(reference.prefixes.real.T[:, None], -beta * apart, _NEVER)
