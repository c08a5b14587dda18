"""Shortcut forcing: match one jump to two jumps of half its length, for a (t, step) of each token.

`EulerFlow` with a uniform weight is Shortcut Models' velocity form (arXiv 2410.12557, equation 5);
`Identity` with `weights.linear` is Dreamer 4's x-prediction with its ramp (2509.24527, equation 7).
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

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
  weight: Callable[..., Array],
  share: float = 0.25,
  drop_rate: float = 0.0,
  streams: int = 1,
) -> tuple[Array, dict[str, Array]]:
  """Weighted squared error of the raw output, averaged over the scalars of active tokens.

  Arguments as in `moment_matching.loss`; a `share` of the batch is bootstrapped under `frozen`.
  """
  apply, batch = two_stream.lay_out(apply, batch, streams)
  x, cond = batch["x"], batch.get("cond")
  first = round(share * len(x))
  if not 0 < first < len(x):
    raise FieldError("share", share, f"of a batch of {len(x)}: bootstrap some of it, not all.")
  key_times, key_noise, key_drop, key_net = jax.random.split(key, 4)
  mask = batch.get("mask")
  times = sample_times(key_times, x.shape, path=f.path, bootstrapped=first, mask=mask)
  s, r, t = times.s, times.r, times.t
  eps = f.sigma_data * interpolants.noise_like(key_noise, x)
  x_t = interpolants.interpolate(f.path, x, eps, t)
  dropped = conditioning.drop(key_drop, cond, drop_rate)
  net = functools.partial(apply, rngs=dict(dropout=key_net))

  cut = lambda tree: jax.tree.map(lambda a: a[:first], tree)
  middle = f(net, frozen, *cut((x_t, r, t, dropped)))
  landed = f(net, frozen, middle, *cut((s, r, dropped)))
  direct = interpolants.interpolate(f.path, x, eps, s)
  x_s = jax.lax.stop_gradient(jnp.concatenate([landed, direct[first:]]))
  y = f(net, params, x_t, s, t, dropped)

  active = times.active
  error = jnp.square((y - x_s) / jnp.where(active, f.c_out(s, t), 1.0))  # of the raw output
  where = jnp.broadcast_to(active, x.shape)
  w = jnp.where(active, weight(f.path, s, t, target=f.prediction), 0.0)
  value, mse = (times_lib.mean_of_active(a, where) for a in (w * error, error))
  return value, {"loss": value, "mse": mse}


loss.jumps = True  # so that it needs signal at t_max
