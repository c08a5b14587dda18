"""Where the frozen model starts: on the path through x_t and what the data may be, given x_t.

A rule is `rule(x, eps, x_t, times, f) -> (x, eps)`: the datum and the noise that make x_r of x_t.
With an example's own datum x_r scatters, given x_t, over all data that x_t may be of. Moment
matching with many particles does not mind; with few, a pointed kernel draws each to the median of
where its partner may be, and branches lose their shares (docs/fusion.md). With the posterior mean
nothing scatters: x_r is a step of the flow that carries the law of x_t down, and its error is of
second order in t - r.
Source: the mean over a batch, Stable Target Field (Xu et al. 2023, arXiv 2302.00670); with
prefixes, and as a start for moment matching, ours.
"""

import jax
import jax.numpy as jnp

from dfim.core import parameterization
from dfim.core import times as times_lib

Array = jax.Array


def own(
  x: Array,
  eps: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
) -> tuple[Array, Array]:
  """Each example's own datum and noise (IMM algorithm 1)."""
  del x_t, times, f
  return x, eps


def batch_mean(
  x: Array,
  eps: Array,
  x_t: Array,
  times: times_lib.Times,
  f: parameterization.Parameterization,
  *,
  bandwidth: float,
  above: float = 0.0,
) -> tuple[Array, Array]:
  """The mean of the batch's data, token by token, by how likely x_t is to be of each.

  Given token i at x_t, after the context c, the datum x' of another sequence counts by
  N(x_t; alpha x', sigma^2) exp(-bandwidth sum_{l<i} |c^l - c'^l| / D): the batch stands for the law
  of the data after c. Where few prefixes are alike, or t is small, what is left is the own datum.

  Args:
    x: data, `[B, 2 T, ...]`: of two streams, the first of which is the context.
    eps: noise of the deviation f.sigma_data, of x's shape.
    x_t: of x's shape.
    times: `[B, 2 T, 1, ...]`, and their `streams`.
    f: gives the path and sigma_data.
    bandwidth: an inverse distance, 0 or more, as in `particles.likeness`. Sharper than there: it
      decides what the mean is of.
    above: from which t on; the own datum below it.

  Returns:
    Data and noise, as `x` and `eps`, on whose path x_t lies.

  Raises:
    ValueError: one stream, whose tokens move together, or values out of range.
  """
  if times.streams != 2:
    raise ValueError(
      f"posterior.batch_mean with streams={times.streams}: set objective.streams=2, or"
      " objective.datum.name=core.posterior.own."
    )
  if bandwidth < 0.0 or not 0.0 <= above < 1.0:
    raise ValueError(
      f"bandwidth={bandwidth}, above={above}: set bandwidth to 0 or more, above in [0, 1)."
    )
  tokens = x.shape[1] // 2
  flat = lambda a: jnp.moveaxis(a.reshape(len(a), tokens, -1), 1, 0)  # [T, B, D]
  moving = lambda a: flat(a[:, tokens:])
  alpha, sigma = f.path.alpha(times.t), f.path.sigma(times.t)

  def of_token(before: Array, token: tuple[Array, ...]) -> tuple[Array, Array]:
    c, datum, noised, alpha, deviation = token
    apart = jnp.sum(jnp.square(noised[:, None] - alpha[:, None] * datum[None]), axis=-1)
    weights = jax.nn.softmax(-apart / (2.0 * jnp.square(deviation)) - bandwidth * before, axis=1)
    each = jnp.sqrt(jnp.sum(jnp.square(c[:, None] - c[None]), axis=-1)) / c.shape[-1]
    return before + each, weights @ datum

  drawn = (flat(x_t[:, :tokens]), *map(moving, (x, x_t, alpha, sigma * f.sigma_data)))
  _, mean = jax.lax.scan(of_token, jnp.zeros((len(x), len(x)), x.dtype), drawn)
  mean = jnp.moveaxis(mean, 0, 1).reshape(len(x), tokens, *x.shape[2:])
  mean = jnp.concatenate([x[:, :tokens], mean], axis=1)
  here = times.active & (times.t > above)
  noise = (x_t - alpha * mean) / jnp.where(here, sigma, 1.0)
  return jnp.where(here, mean, x), jnp.where(here, noise, eps)
