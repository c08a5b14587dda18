"""Where the frozen model starts: r(s, t) with s <= r < t (IMM sections 3.3, appendices B.3, C.6).

Each takes one small step down from t, of a fixed size in its own measure of noise, 2^-k of the
whole way from t_max to t_min, and never passes s. `path, s, t, t_max, t_min` come from
`times.sample`; a config gives `k` and `min_gap` alone.

End points are exact, eta(t_max) - eta(t_min), where the paper prints 160 for the difference.
`min_gap` keeps t - r above the resolution of low-precision networks (IMM appendix I.6).
"""

import jax
import jax.numpy as jnp

from dfim.core import interpolants

Array = jax.Array


def eta_decrement(
  path: interpolants.Path,
  s: Array,
  t: Array,
  *,
  t_max: float,
  t_min: float,
  k: float = 12.0,
  min_gap: float = 0.0,
) -> Array:
  """eta(r) = eta(t) - 2^-k (eta(t_max) - eta(t_min)): IMM's default. Needs t_max < 1."""
  if t_max >= 1.0:
    raise ValueError(f"eta_decrement with t_max={t_max}: eta(1) is infinite; set t_max < 1.")
  low, high = (interpolants.eta(path, jnp.asarray(u, t.dtype)) for u in (t_min, t_max))
  r = path.time(jnp.maximum(interpolants.eta(path, t) - (high - low) * _step(k), low))
  return _between(s, r, t, min_gap)


def log_snr_decrement(
  path: interpolants.Path,
  s: Array,
  t: Array,
  *,
  t_max: float,
  t_min: float,
  k: float = 12.0,
  min_gap: float = 0.0,
) -> Array:
  """lambda(r) = lambda(t) + 2^-k (lambda(t_min) - lambda(t_max)). Needs 0 < t_min, t_max < 1.

  The paper prints a minus, which would step towards noise: lambda falls with t.
  """
  if t_min <= 0.0 or t_max >= 1.0:
    raise ValueError(
      f"log_snr_decrement with t_min={t_min}, t_max={t_max}: log-SNR is infinite at 0 and 1;"
      " set 0 < t_min and t_max < 1."
    )
  # lambda = -2 log(eta)
  return shifted_log_decrement(
    path, s, t, t_max=t_max, t_min=t_min, k=k, shift=0.0, min_gap=min_gap
  )


def shifted_log_decrement(
  path: interpolants.Path,
  s: Array,
  t: Array,
  *,
  t_max: float,
  t_min: float,
  k: float = 6.0,
  shift: float = 0.2,
  min_gap: float = 0.0,
) -> Array:
  """log(eta + shift) falls by 2^-k of its whole range: ours. Needs t_max < 1, shift + t_min > 0.

  A step is proportional to eta + shift: equal steps of log-SNR where noise is much more than
  `shift`, steps of eta, the paper's, where it is much less. With steps of log-SNR down to the least
  noise the first levels of the induction take noise away that nobody sees, a little at a time, and
  what they leave is in every jump from above.
  """
  if t_max >= 1.0 or shift < 0.0 or shift + t_min <= 0.0:
    raise ValueError(
      f"shifted_log_decrement with t_max={t_max}, t_min={t_min}, shift={shift}: set t_max < 1, and"
      " t_min or shift above 0, neither below."
    )
  low, high = (interpolants.eta(path, jnp.asarray(u, t.dtype)) + shift for u in (t_min, t_max))
  eta_r = (interpolants.eta(path, t) + shift) * (low / high) ** _step(k) - shift
  return _between(s, path.time(jnp.maximum(eta_r, low - shift)), t, min_gap)


def time_decrement(
  path: interpolants.Path,
  s: Array,
  t: Array,
  *,
  t_max: float,
  t_min: float,
  k: float = 12.0,
  min_gap: float = 0.0,
) -> Array:
  """r = t - 2^-k (t_max - t_min). Allows t_max = 1 and t_min = 0."""
  del path
  return _between(s, t - (t_max - t_min) * _step(k), t, min_gap)


def inverse_eta_increment(
  path: interpolants.Path,
  s: Array,
  t: Array,
  *,
  t_max: float,
  t_min: float,
  k: float = 12.0,
  min_gap: float = 0.0,
) -> Array:
  """1 / eta(r) = 1 / eta(t) + 2^-k (1 / eta(t_min) - 1 / eta(t_max)). Needs t_min > 0."""
  if t_min <= 0.0:
    raise ValueError(
      f"inverse_eta_increment with t_min={t_min}: 1 / eta(0) is infinite; set t_min > 0."
    )
  inverse = lambda u: path.alpha(u) / path.sigma(u)
  low, high = (inverse(jnp.asarray(u, t.dtype)) for u in (t_max, t_min))
  r = path.time(1.0 / (inverse(t) + (high - low) * _step(k)))
  return _between(s, r, t, min_gap)


def to_target(path: interpolants.Path, s: Array, t: Array, *, t_max: float, t_min: float) -> Array:
  """r = s: the target is the data at time s, the naive objective of IMM eq. 7."""
  del path, t_max, t_min
  return jnp.broadcast_to(s, t.shape)


def _step(k: float) -> float:
  """The part of the whole way that a step takes."""
  if k <= 0.0:
    raise ValueError(f"k={k}: set it above 0; core.mappings.to_target goes the whole way at once.")
  return 2.0**-k


def _between(s: Array, r: Array, t: Array, min_gap: float) -> Array:
  """r, at least `min_gap` below t, and never below s."""
  if not 0.0 <= min_gap < 1.0:
    raise ValueError(f"min_gap={min_gap}: set it in [0, 1), to a small part of the times' range.")
  return jnp.maximum(jnp.minimum(r, t - min_gap), s)
