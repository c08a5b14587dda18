"""Lagrangian self-distillation: a flow map learnt with the velocity that it has at s = t.

The map f(x_t; s, t) satisfies d f / ds = v(f, s) with f(x_t; t, t) = x_t, where v is the flow's
velocity. One part of the batch learns v by denoising, at s = t; the other the equation, with that v
as its target. Source: Boffi et al. 2025 (arXiv 2505.18825), whose times run the other way.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import conditioning, interpolants, parameterization, times as times_lib, two_stream

Array = jax.Array
Parameterization = parameterization.Parameterization


def loss(
  apply: parameterization.Apply,
  params: Any,
  frozen: Any,
  batch: dict[str, Any],
  key: Array,
  *,
  f: Parameterization,
  sample_times: Callable[..., times_lib.Times],
  weight: Callable[..., Array],
  share: float = 0.25,
  drop_rate: float = 0.0,
  streams: int = 1,
) -> tuple[Array, dict[str, Array]]:
  """Weighted squared error of the raw output, averaged over the scalars of active tokens.

  Arguments as in `denoising.loss`, with masks; a `share` of the batch is distilled from `frozen`,
  a quarter as in the paper's runs. Neither the target nor the point where it is taken has a
  gradient. `sample_times` is `core.times.sample` without a mapping. Times of tokens take two
  streams: one causal stream has no flow of tokens that move together.
  """
  apply, batch = two_stream.lay_out(apply, batch, streams)
  x, cond = batch["x"], batch.get("cond")
  first = round(share * len(x))
  if not 0 < first < len(x):
    raise FieldError("share", share, f"of a batch of {len(x)}: distil some of it, not all.")
  key_times, key_noise, key_drop, key_net = jax.random.split(key, 4)
  draw = functools.partial(sample_times, shape=x.shape, path=f.path)
  _check_times(jax.eval_shape(draw, key_times), streams)  # a mask would give each token its own
  times = draw(key_times, mask=batch.get("mask"))
  s, t = times.s, times.t
  eps = f.sigma_data * interpolants.noise_like(key_noise, x)
  x_t = interpolants.interpolate(f.path, x, eps, t)
  dropped = conditioning.drop(key_drop, cond, drop_rate)
  net = functools.partial(apply, rngs=dict(dropout=key_net))  # one mask for all passes

  head, tail = slice(first), slice(first, None)
  rows = lambda part, *tree: jax.tree.map(lambda a: a[part], tree)
  distilled = residual(net, params, frozen, *rows(head, x_t, s, t, times.active, dropped), f)
  raw = net(params, *rows(tail, f.c_in(t) * x_t, t, t, dropped))
  error = jnp.square(jnp.concatenate([distilled, raw - f.target(x, eps, t)[tail]]))

  landing = jnp.concatenate([s[head], t[tail]])
  w = jnp.where(times.active, weight(f.path, landing, t, target=f.prediction), 0.0)
  active = jnp.broadcast_to(times.active, x.shape)
  value = times_lib.mean_of_active(w * error, active)
  of_part = lambda part: times_lib.mean_of_active(error[part], active[part])
  return value, {"loss": value, "residual": of_part(head), "mse": of_part(tail)}


loss.jumps = True  # so that it needs signal at t_max


def residual(
  net: parameterization.Apply,
  params: Any,
  frozen: Any,
  x_t: Array,
  s: Array,
  t: Array,
  active: Array,
  cond: Any,
  f: Parameterization,
) -> Array:
  """d f(x_t; s, t) / ds less the velocity of `frozen` there, in units of the raw output at s.

  0 where not `active`. The gradient, of `params`, is that of the derivative alone.
  """
  jump = lambda s: f(net, params, x_t, s, t, cond)
  x_s, slope = jax.jvp(jump, (s,), (active.astype(s.dtype),))  # the context stays
  x_s = jax.lax.stop_gradient(x_s)
  of_x, of_raw = f.velocity(s)
  target = jax.lax.stop_gradient(net(frozen, f.c_in(s) * x_s, s, s, cond))
  found = (slope - of_x * x_s) / jnp.where(active, of_raw, 1.0)
  return jnp.where(active, found - target, 0.0)


def _check_times(times: times_lib.Times, streams: int) -> None:
  if streams == 1 and any(size != 1 for size in times.t.shape[1:]):
    fix = "choose core.patterns.example, or two streams."
    raise ValueError(f"self_distillation with times of shape {times.t.shape}: {fix}")
