"""Training times: the triple s <= r <= t of one inductive step, and who shares it.

A *pattern* says which times are drawn together. It is a function
`(key, shape, *, t_max, t_min) -> (t, active)`, both with the rank of `shape` and size-1 axes where
a time is shared; a config names it, `pattern=dict(name="core.times.example")`.
Source: IMM sections 3.3, 4.2 and appendix C.7; Diffusion Forcing algorithm 1 for `token`.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from dfim.core import interpolants

Array = jax.Array
Pattern = Callable[..., tuple[Array, Array]]
Mapping = Callable[..., Array]  # see `mappings`


@flax.struct.dataclass
class Times:
  """Each has the rank of `x`, size 1 where shared; see `interpolants` for the convention."""

  s: Array  # where both models land
  r: Array  # where the frozen model starts
  t: Array  # where the trained model starts
  active: Array  # bool; False is context, which stands still: s = r = t


def example(key: Array, shape: tuple[int, ...], *, t_max: float, t_min: float):
  """One t for each example, uniform on [t_min, t_max]."""
  return _uniform(key, (shape[0], *[1] * (len(shape) - 1)), t_max, t_min)


def token(key: Array, shape: tuple[int, ...], *, t_max: float, t_min: float):
  """An independent t for each token, axis 1, uniform on [t_min, t_max]."""
  return _uniform(key, (*shape[:2], *[1] * (len(shape) - 2)), t_max, t_min)


def _uniform(key: Array, shape: tuple[int, ...], t_max: float, t_min: float):
  return jax.random.uniform(key, shape, minval=t_min, maxval=t_max), jnp.ones(shape, bool)


def sample(
  key: Array,
  shape: tuple[int, ...],
  *,
  path: interpolants.Path,
  pattern: Pattern,
  mapping: Mapping | None = None,
  group_size: int = 1,
  t_max: float,
  t_min: float,
  gap: float = 1e-5,
  s_at_t_min: float = 0.0,
  reach: float | Array = 1.0,
) -> Times:
  """Draws (s, r, t) for a batch of `shape`, the same within each group of `group_size`.

  `s` is uniform on [max(t_min, t - reach), t - gap]. Drawn up to t, a float32 `s` now and then
  *equals* t, and the kernel's scale 1 / c_out(s, t) is infinite: one such draw ruins a run.

  Args:
    key: one key.
    shape: of the data, `[B, ...]`; groups are `group_size` consecutive examples.
    path: the path of the objective.
    pattern: who shares a time.
    mapping: `mappings.*`, r(s, t); None for objectives that have no r (r = t).
    group_size: particles of a group.
    t_max: the highest time, in (0, 1].
    t_min: the lowest time, in [0, t_max).
    gap: the least t - s of an active token.
    s_at_t_min: the probability that s is t_min itself: one-step sampling lands there, and under
      a uniform s it is a corner that is never trained.
    reach: the greatest t - s. A schedule may grow it, see `train.make_step`.

  Raises:
    ValueError: naming the field, before anything is compiled.
  """
  _check(shape, group_size, t_max, t_min, gap)
  key_t, key_s, key_corner = jax.random.split(key, 3)
  groups = (shape[0] // group_size, *shape[1:])
  t, active = pattern(key_t, groups, t_max=t_max, t_min=t_min)
  span = gap + jnp.finfo(t.dtype).eps  # so that t - s >= gap also after rounding
  t = jnp.where(active, jnp.maximum(t, t_min + span), t)
  lowest = jnp.clip(t - reach, t_min, t - span)
  s = lowest + (t - span - lowest) * jax.random.uniform(key_s, t.shape)
  corner = jax.random.bernoulli(key_corner, s_at_t_min, t.shape) & (lowest <= t_min)
  s = jnp.where(corner, t_min, jnp.clip(s, t_min, t - span))
  s = jnp.where(active, s, t)
  r = t if mapping is None else mapping(path, s, t, t_max=t_max, t_min=t_min)
  each = lambda a: jnp.repeat(a, group_size, axis=0)
  return Times(s=each(s), r=each(jnp.where(active, r, t)), t=each(t), active=each(active))


def _check(shape: tuple[int, ...], group_size: int, t_max: float, t_min: float, gap: float) -> None:
  check_ends(t_max, t_min)
  if not 0.0 < gap < t_max - t_min:
    raise ValueError(f"gap={gap}: set 0 < gap < t_max - t_min = {t_max - t_min:g}.")
  if group_size < 1 or shape[0] % group_size:
    raise ValueError(
      f"group_size={group_size} does not divide batch_size={shape[0]}: groups hold whole"
      " particles; change one of the two."
    )


def check_ends(t_max: float, t_min: float) -> None:
  """Refuses times, of training or of sampling, that do not span a part of [0, 1].

  Raises:
    ValueError: naming both fields.
  """
  if not 0.0 <= t_min < t_max <= 1.0:
    raise ValueError(f"t_min={t_min}, t_max={t_max}: set 0 <= t_min < t_max <= 1.")
