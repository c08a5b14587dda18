"""Where the frozen model starts: r(s, t) with s <= r < t (IMM sections 3.3, appendices B.3, C.6).

Each steps down from t, 2^-k of the way from t_max to t_min in its own measure of noise, by
`min_gap` or more (I.6). The ends are exact, where the paper prints 160 for the difference of eta.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import interpolants

Array = jax.Array
Path = interpolants.Path


def eta_decrement(
  path: Path, s: Array, t: Array, *, t_max: float, t_min: float, k: float = 12.0, min_gap: float = 0
) -> Array:
  """eta(r) = eta(t) - 2^-k (eta(t_max) - eta(t_min)): IMM's default. Needs t_max < 1."""
  if t_max >= 1.0:
    raise FieldError("t_max", t_max, "eta(1) is infinite; set it below 1, or name another mapping.")
  eta = functools.partial(interpolants.eta, path)
  return _decrement(eta, path.time, s, t, (t_max, t_min), k, min_gap)


def log_snr_decrement(
  path: Path, s: Array, t: Array, *, t_max: float, t_min: float, k: float = 12.0, min_gap: float = 0
) -> Array:
  """lambda(r) = lambda(t) + 2^-k (lambda(t_min) - lambda(t_max)); the paper prints a minus."""
  if t_min <= 0.0 or t_max >= 1.0:
    wrong = ("t_max", t_max) if t_max >= 1.0 else ("t_min", t_min)
    raise FieldError(*wrong, "log-SNR is infinite at 0 and 1; set 0 < t_min and t_max < 1.")
  eta = functools.partial(interpolants.eta, path)  # through log and exp r would round to t
  return _decrement(eta, path.time, s, t, (t_max, t_min), k, min_gap, geometric=True)


def time_decrement(
  path: Path, s: Array, t: Array, *, t_max: float, t_min: float, k: float = 12.0, min_gap: float = 0
) -> Array:
  """r = t - 2^-k (t_max - t_min). Allows t_max = 1 and t_min = 0."""
  del path
  return _decrement(lambda t: t, lambda t: t, s, t, (t_max, t_min), k, min_gap)


def inverse_eta_increment(
  path: Path, s: Array, t: Array, *, t_max: float, t_min: float, k: float = 12.0, min_gap: float = 0
) -> Array:
  """1 / eta(r) = 1 / eta(t) + 2^-k (1 / eta(t_min) - 1 / eta(t_max)). Needs t_min > 0."""
  if t_min <= 0.0:
    raise FieldError("t_min", t_min, "1 / eta(0) is infinite; set it above 0.")
  inverse_eta = lambda t: path.alpha(t) / path.sigma(t)
  return _decrement(inverse_eta, lambda u: path.time(1.0 / u), s, t, (t_max, t_min), k, min_gap)


def to_target(path: Path, s: Array, t: Array, *, t_max: float, t_min: float) -> Array:
  """r = s: the target is the data at time s, the naive objective of IMM eq. 7."""
  del path, t_max, t_min
  return jnp.broadcast_to(s, t.shape)


def _decrement(
  measure: Callable[[Array], Array],
  inverse: Callable[[Array], Array],
  s: Array,
  t: Array,
  ends: tuple[float, float],
  k: float,
  min_gap: float,
  *,
  geometric: bool = False,
) -> Array:
  """The r below t by 2^-k of the measure's range, or of its ratio where `geometric`; at least s."""
  if k <= 0.0:
    raise FieldError("k", k, "set it above 0; core.mappings.to_target goes the whole way at once.")
  if not 0.0 <= min_gap < 1.0:
    raise FieldError("min_gap", min_gap, "set it in [0, 1), to a small part of the times' range.")
  first, last = (measure(jnp.asarray(u, t.dtype)) for u in ends)
  u = measure(t)
  u = u * (last / first) ** 2.0**-k if geometric else u + (last - first) * 2.0**-k
  r = inverse(jnp.clip(u, jnp.minimum(first, last), jnp.maximum(first, last)))
  return jnp.maximum(jnp.minimum(r, t - min_gap), s)
