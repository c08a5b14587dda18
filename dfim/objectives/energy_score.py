"""Energy score: several samples in one evaluation from pure noise, scored against the datum.

The score is strictly proper (Gneiting and Raftery 2007, section 4.3): its mean is least where
samples have the distribution of the data, so one datum a prefix is enough. With two streams it is
that of each token given those before it, as in EAR (arXiv 2505.07812) and CALM; with one, that of
the active part of an example. `samplers` draw with one step from t_max to t_min.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import conditioning, interpolants, parameterization, times as times_lib, two_stream

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
  samples: int = 2,
  beta: float = 1.0,
  drop_rate: float = 0.0,
  streams: int = 1,
) -> tuple[Array, dict[str, Array]]:
  """The energy score of `samples` jumps from pure noise, averaged over active tokens or examples.

  Arguments as in `denoising.loss`, with masks; `sample_times` is `core.times.from_noise`. Metrics
  are the two parts of `parts`, equal where the samples have the data's distribution.
  """
  del frozen
  _check(samples, beta)
  apply, batch = two_stream.lay_out(apply, batch, streams)
  x, cond = batch["x"], batch.get("cond")
  key_times, key_noise, key_drop, key_net = jax.random.split(key, 4)
  times = sample_times(key_times, x.shape, path=f.path, mask=batch.get("mask"))
  key_context, *keys = jax.random.split(key_noise, 1 + samples)
  eps = f.sigma_data * interpolants.noise_like(key_context, x)
  context = interpolants.interpolate(f.path, x, eps, times.t)
  dropped = conditioning.drop(key_drop, cond, drop_rate)
  net = functools.partial(apply, rngs=dict(dropout=key_net))  # one mask for all samples

  noise = f.sigma_data * jnp.stack([interpolants.noise_like(k, x) for k in keys])
  start = lambda noise: jnp.where(times.active, noise, context)  # of no datum, at any t_max
  jump = lambda noise: f(net, params, start(noise), times.s, times.t, dropped)
  y = jax.vmap(jump)(noise)

  active = jnp.broadcast_to(times.active, x.shape)
  axes = tuple(range(streams, x.ndim))  # of a point: a token of two streams, or an example
  error, spread = parts(y / f.sigma_data, x / f.sigma_data, active, axes=axes, beta=beta)
  some = jnp.any(active, axis=axes)
  error, spread = (times_lib.mean_of_active(a, some) for a in (error, spread))
  value = error - 0.5 * spread
  return value, {"loss": value, "error": error, "spread": spread}


loss.jumps = True  # so that it needs signal at t_max


def parts(
  y: Array, x: Array, active: Array, *, axes: tuple[int, ...], beta: float, floor: float = 1e-8
) -> tuple[Array, Array]:
  """E|X - x|^beta and E|X - X'|^beta of points, unbiased: X' is another of the samples `y`.

  `y` is `[m, ...]`, m >= 2, of data `x` `[...]`; a point is `axes` of x where `active`, and |.| is
  the root mean square over its numbers, whose square is at least `floor`.
  """
  count = jnp.maximum(jnp.sum(active, axis=axes), 1)

  def distance(a: Array, b: Array) -> Array:
    squared = jnp.sum(jnp.square(a - b), axis=axes, where=active) / count
    return jnp.maximum(squared, floor) ** (beta / 2.0)

  first, second = np.triu_indices(len(y), 1)
  error = jax.vmap(distance, (0, None))(y, x)
  spread = jax.vmap(distance)(y[first], y[second])
  return jnp.mean(error, axis=0), jnp.mean(spread, axis=0)


def _check(samples: int, beta: float) -> None:
  if samples < 2:
    raise FieldError("samples", samples, "set it to 2 or more: the score compares pairs.")
  if not 0.0 < beta < 2.0:
    raise FieldError("beta", beta, "set it in (0, 2): at 2 the mean alone is scored.")
