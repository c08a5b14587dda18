"""Rules of x_r: a datum and noise given x_t, on whose path the frozen model starts.

A rule is `rule(x, eps, x_t, times, f, reference) -> (x, eps)`; `reference` is the whole batch.
Sources: docs/moment_forcing.md; Stable Target Field (arXiv 2302.00670).
"""

from typing import Any

import jax
import jax.numpy as jnp

from dfim.core import interpolants, parameterization, prefix_kernel, times as times_lib

Array = jax.Array
Times = times_lib.Times
Parameterization = parameterization.Parameterization


def conditional(
  x: Array, eps: Array, x_t: Array, times: Times, f: Parameterization, reference: dict[str, Any]
) -> tuple[Array, Array]:
  """The example's datum and noise, a draw of x given x_t (IMM algorithm 1)."""
  del x_t, times, f, reference
  return x, eps


def minibatch_mean(
  x: Array,
  eps: Array,
  x_t: Array,
  times: Times,
  f: Parameterization,
  reference: dict[str, Any],
  *,
  inverse_bandwidth: float,
  discount: float = 1.0,
) -> tuple[Array, Array]:
  """E[x | x_t, context] estimated over the reference batch, token by token.

  Given token i at x_t after the clean context c, the datum x' of a sequence has the weight N(x_t;
  alpha x', (sigma f.sigma_data)^2) exp(-inverse_bandwidth |c - c'|), with the distance of
  `prefix_kernel.prefix_distance`. The datum is the mean of two estimates, at x_t and at the x_r of
  the first: Heun's rule (Karras et al. 2022, arXiv 2206.00364, algorithm 1). `x` is data of two
  streams, `[B, 2 T, ...]`, context first; `reference`, `[N, 2 T, ...]`, contains it.
  """
  if reference.get("cond") is not None:
    fix = "set objective.conditioning.posterior.name=core.posterior.conditional."
    raise ValueError(f"minibatch_mean with conditions: the mean would be over them; {fix}")
  prefix_kernel.check_inverse_bandwidth(inverse_bandwidth)
  tokens, others = x.shape[1] // 2, reference["x"]
  distance = prefix_kernel.prefix_distance(x[:, :tokens], others[:, :tokens], discount)
  active = lambda a: jnp.moveaxis(a[:, tokens:].reshape(len(a), tokens, -1), 1, 0)  # [T, B, D]

  def estimate(x_u: Array, u: Array) -> Array:
    alpha, deviation = f.path.alpha(u), f.path.sigma(u) * f.sigma_data
    data, noised, shrunk, deviation = map(active, (others, x_u, alpha, deviation))
    error = noised[:, :, None] - shrunk[:, :, None] * data[:, None]
    nll = jnp.sum(jnp.square(error), axis=-1) / (2.0 * jnp.square(deviation))
    weights = jax.nn.softmax(-inverse_bandwidth * distance - nll, axis=-1)
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
