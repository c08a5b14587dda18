"""Training times: the triple s <= r <= t of one inductive step, and who shares it.

`patterns` decides which times are drawn together. Sources: IMM sections 3.3, 4.2 and appendix C.7;
Shortcut Models (arXiv 2410.12557) and Dreamer 4 (2509.24527) for `dyadic`.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import interpolants, patterns

Array = jax.Array
Mapping = Callable[..., Array]  # see `mappings`
Distribution = Callable[..., Array]  # (path, t, *, t_max, t_min) -> t, of a uniform t


@flax.struct.dataclass
class Times:
  """Each time has the rank of `x`, size 1 where shared; see `interpolants` for the convention."""

  s: Array  # where both models land
  r: Array  # where the frozen model starts
  t: Array  # where the trained model starts
  active: Array  # bool; False is context, which is held fixed: s = r = t
  streams: int = flax.struct.field(pytree_node=False, default=1)  # see `two_stream`
  per_particle_times: bool = flax.struct.field(pytree_node=False, default=False)  # not of groups
  assignment: Array | None = None  # int [B, T], the example in each slot, see `grouping`


def sample(
  key: Array,
  shape: tuple[int, ...],
  *,
  path: interpolants.Path,
  pattern: patterns.Pattern,
  mapping: Mapping | None = None,
  distribution: Distribution | None = None,
  group_size: int = 1,
  per_particle_times: bool = False,
  t_max: float,
  t_min: float,
  gap: float = 1e-5,
  p_endpoint: float = 0.0,
  p_one_step: float = 0.0,
  reach: float | Array = 1.0,
  mask: Array | None = None,
) -> Times:
  """Draws (s, r, t) for a batch of `shape`, as a rule the same in a group of consecutive examples.

  Args:
    mapping: `mappings.*`, r(s, t); None for objectives that have no r (r = t).
    distribution: of an active t, such as `log_normal`; None for the pattern's own.
    per_particle_times: draw times for each particle, see `particles.per_particle_times`.
    gap: the least t - s of an active token; at t = s the kernel's scale would be infinite.
    p_endpoint: probability of s = t_min, where one-step sampling lands.
    p_one_step: probability, among the remaining draws, of s = r, whose target is the data.
    reach: the greatest t - s; a schedule may grow it.
    mask: bool, of x's rank; False is padding, at t_max and not active.
  """
  ends, rates = dict(t_max=t_max, t_min=t_min), dict(p_endpoint=p_endpoint, p_one_step=p_one_step)
  _check(gap, reach, ends, rates)
  if group_size < 1 or shape[0] % group_size:
    fix = f"does not divide batch_size={shape[0]}: change one of the two."
    raise FieldError("group_size", group_size, fix)
  if p_one_step and mapping is None:
    raise FieldError("p_one_step", p_one_step, "there is no r without a mapping; leave it at 0.")
  key_t, *keys = jax.random.split(key, 3)
  sharing = 1 if per_particle_times else group_size
  rows, real = (shape[0] // sharing, *shape[1:]), mask
  if mask is not None:  # real tokens of all examples of a group
    real = jnp.broadcast_to(mask, (*shape[:2], *mask.shape[2:]))
    real = jnp.all(real.reshape(-1, sharing, *real.shape[1:]), axis=1)
  t, active = patterns.draw(pattern, key_t, rows, real, **ends)
  if distribution is not None:
    t = jnp.where(active, distribution(path, t, **ends), t)
  span = gap + jnp.finfo(t.dtype).eps  # so that t - s >= gap also after rounding
  t = jnp.where(active, jnp.maximum(t, t_min + span), t)
  if isinstance(path, interpolants.DiscreteVP):  # whose t are levels
    t = jnp.minimum(path.snap(t), t_max)
  to_r = None if mapping is None else functools.partial(mapping, path, **ends)
  s = jnp.where(active, _draw_s(keys, t, to_r, t_min, span, reach, **rates), t)
  r = jnp.where(active, t if to_r is None else to_r(s, t), t)
  s, r, t, active = (jnp.repeat(a, sharing, axis=0) for a in (s, r, t, active))
  times = Times(s, r, t, active, per_particle_times=per_particle_times)
  return _padded(times, mask, t_max)


def _padded(times: Times, mask: Array | None, t_max: float) -> Times:
  """Padding, where `mask` is False, at t_max and not active."""
  if mask is None:
    return times
  s, r, t = (jnp.where(mask, u, t_max) for u in (times.s, times.r, times.t))
  return times.replace(s=s, r=r, t=t, active=times.active & mask)


def _draw_s(
  keys: list[Array], t: Array, to_r: Any, t_min: float, span: float, reach: Any, **rates: float
) -> Array:
  """Uniform on [max(t_min, t - reach), t - span], but t_min or one step below t at their rates."""
  (key_s, key_endpoint), p_one_step = keys, rates["p_one_step"]
  lowest = jnp.clip(t - reach, t_min, t - span)
  s = lowest + (t - span - lowest) * jax.random.uniform(key_s, t.shape)
  if p_one_step:
    one_step = to_r(jnp.full_like(t, t_min), t)
    base = jax.random.bernoulli(jax.random.fold_in(key_s, 1), p_one_step, t.shape)
    s = jnp.where(base, jnp.maximum(one_step, lowest), s)
  endpoint = jax.random.bernoulli(key_endpoint, rates["p_endpoint"], t.shape) & (lowest <= t_min)
  return jnp.where(endpoint, t_min, jnp.clip(s, t_min, t - span))


def log_normal(
  path: interpolants.Path,
  t: Array,
  *,
  t_max: float,
  t_min: float,
  mean: float = -1.1,
  std: float = 2.0,
) -> Array:
  """The t whose log eta is normal, conditioned on [t_min, t_max], of a uniform t of the same rank.

  `mean` and `std` are of the released IMM trainer, whose configs are uniform all the same.
  """
  if std <= 0.0:
    raise FieldError("std", std, "set it above 0.")
  ends = jnp.asarray([t_min, t_max], t.dtype)
  low, high = jax.scipy.special.ndtr((jnp.log(interpolants.eta(path, ends)) - mean) / std)
  share = (t - t_min) / (t_max - t_min)
  z = jax.scipy.special.ndtri(low + (high - low) * share)
  return jnp.clip(path.time(jnp.exp(mean + std * z)), t_min, t_max)


def dyadic(
  key: Array,
  shape: tuple[int, ...],
  *,
  path: interpolants.Path,
  pattern: patterns.Pattern,
  bootstrapped: int,
  finest: int = 32,
  t_max: float,
  t_min: float,
  mask: Array | None = None,
) -> Times:
  """Times of shortcut models: t on a grid of 1, 2, 4 .. `finest` steps, s the next point below it.

  The first `bootstrapped` examples have 1 .. finest / 2 steps, and r half-way between s and t; the
  others the finest grid, and r = t. The t of `pattern` are rounded up. `mask` as in `sample`.
  """
  del path
  check_ends(t_max, t_min)
  levels = finest.bit_length() - 1
  if finest < 2 or finest != 2**levels:
    raise FieldError("finest", finest, "set it to a power of 2, 2 or more.")
  key_t, key_steps = jax.random.split(key)
  drawn, active = patterns.draw(pattern, key_t, shape, mask, t_max=t_max, t_min=t_min)
  coarse = 2 ** jax.random.randint(key_steps, drawn.shape, 0, levels)
  first = (jnp.arange(shape[0]) < bootstrapped).reshape(-1, *[1] * (len(shape) - 1))
  steps = jnp.where(first, coarse, finest).astype(drawn.dtype)
  n = jnp.clip(jnp.ceil((drawn - t_min) / (t_max - t_min) * steps), 1.0, steps)
  at = lambda n: t_min + (t_max - t_min) * (n / steps)
  or_context = lambda u: jnp.where(active, u, drawn)
  r = jnp.where(first, at(n - 0.5), at(n))
  s, r, t = (or_context(u) for u in (at(n - 1.0), r, at(n)))
  return _padded(Times(s, r, t, active), mask, t_max)


def from_noise(
  key: Array,
  shape: tuple[int, ...],
  *,
  path: interpolants.Path,
  pattern: patterns.Pattern,
  t_max: float,
  t_min: float,
  mask: Array | None = None,
) -> Times:
  """Times of one evaluation a sample: s = t_min and t = t_max where `pattern` is active.

  Context has the pattern's times; `mask` as in `sample`.
  """
  del path
  check_ends(t_max, t_min)
  t, active = patterns.draw(pattern, key, shape, mask, t_max=t_max, t_min=t_min)
  t = jnp.where(active, t_max, t)
  return _padded(Times(jnp.where(active, t_min, t), t, t, active), mask, t_max)


def mean_of_active(values: Array, active: Array) -> Array:
  """The mean of `values` where `active`, of the same shape, is True; 0 where that is nowhere."""
  count = jnp.sum(active, dtype=jnp.promote_types(values.dtype, jnp.float32))
  return jnp.sum(values, where=active) / jnp.maximum(count, 1.0)


def check_ends(t_max: float, t_min: float) -> None:
  """Refuses times, of training or of sampling, that do not span a part of [0, 1]."""
  if not 0.0 <= t_min < t_max <= 1.0:
    raise FieldError("t_min", t_min, f"with t_max={t_max}: set 0 <= t_min < t_max <= 1.")


def _check(gap: float, reach: Any, ends: dict[str, float], rates: dict[str, float]) -> None:
  check_ends(**ends)
  length = ends["t_max"] - ends["t_min"]
  if not 0.0 < gap < length:
    raise FieldError("gap", gap, f"set 0 < gap < t_max - t_min = {length:g}.")
  if isinstance(reach, int | float) and not 0.0 < reach <= 1.0:
    raise FieldError("reach", reach, "set it in (0, 1], or to a schedule.")
  for name, rate in rates.items():
    if not 0.0 <= rate <= 1.0:
      raise FieldError(name, rate, "a probability lies in [0, 1].")
