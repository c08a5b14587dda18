"""Denoising: regress the network's output at s = t on the parameterization's target.

With a t for each token this is Diffusion Forcing (arXiv 2407.01392, algorithm 1).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

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
  weight: Callable[..., Array],
  drop_rate: float = 0.0,
  streams: int = 1,
) -> tuple[Array, dict[str, Array]]:
  """Weighted squared error of the raw output, averaged over the scalars of active tokens.

  Arguments as in `moment_matching.loss`; `frozen` is unused. Where the batch's `mask`, bool `[B, T,
  1, ...]`, is False, neither `x` nor conditions are read. Without an active token the loss is 0.
  """
  del frozen
  apply, batch = two_stream.lay_out(apply, batch, streams)
  x, cond, mask = batch["x"], batch.get("cond"), batch.get("mask")
  key_times, key_noise, key_drop, key_net = jax.random.split(key, 4)
  times = sample_times(key_times, x.shape, path=f.path, mask=mask)
  t, active = times.t, jnp.broadcast_to(times.active, x.shape)
  eps = f.sigma_data * interpolants.noise_like(key_noise, x)
  x_t = interpolants.interpolate(f.path, x, eps, t)
  dropped = conditioning.drop(key_drop, cond, drop_rate)
  raw = apply(params, f.c_in(t) * x_t, t, t, dropped, rngs=dict(dropout=key_net))
  error = jnp.square(raw - f.target(x, eps, t))
  w = jnp.where(times.active, weight(f.path, t, t, target=f.prediction), 0.0)
  value, mse = (times_lib.mean_of_active(a, active) for a in (w * error, error))
  return value, {"loss": value, "mse": mse}
