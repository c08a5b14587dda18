"""Training times: the triple s <= r <= t of one inductive step, and who shares it.

A *pattern* says which times are drawn together. It is a function
`(key, shape, *, t_max, t_min) -> (t, active)`, both with the rank of `shape` and size-1 axes where
a time is shared; a config names it, `pattern=dict(name="core.times.example")`.
A token that is not active is context: it conditions the others and stands still.
Sources: IMM sections 3.3, 4.2 and appendix C.7; Diffusion Forcing (arXiv 2407.01392) algorithm 1
for `token`; History-Guided Video Diffusion (2502.06764) A.5 for `uniform_future`.
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


def uniform_future(key: Array, shape: tuple[int, ...], *, t_max: float, t_min: float, past: int):
  """An independent t for each of the first `past` tokens, one t for all that follow."""
  if not 0 <= past < shape[1]:
    raise ValueError(f"past={past}: set it to 0 or more, below the {shape[1]} tokens.")
  key_past, key_future = jax.random.split(key)
  t, active = token(key_past, shape, t_max=t_max, t_min=t_min)
  shared, _ = example(key_future, shape, t_max=t_max, t_min=t_min)
  return jnp.where(_position(shape) < past, t, shared), active


def context(
  key: Array,
  shape: tuple[int, ...],
  *,
  t_max: float,
  t_min: float,
  rate: float = 0.3,
  noisy: float = 0.5,
):
  """Each token is context with probability `rate`, the others have an independent t.

  A share `noisy` of the context is at any level of noise, the rest is clean, at t_min.
  """
  if not (0.0 <= rate < 1.0 and 0.0 <= noisy <= 1.0):
    raise ValueError(f"rate={rate}, noisy={noisy}: set rate in [0, 1), noisy in [0, 1].")
  key_t, key_rate, key_noisy = jax.random.split(key, 3)
  t, _ = token(key_t, shape, t_max=t_max, t_min=t_min)
  active = ~jax.random.bernoulli(key_rate, rate, t.shape)
  return jnp.where(active | jax.random.bernoulli(key_noisy, noisy, t.shape), t, t_min), active


def pivot(key: Array, shape: tuple[int, ...], *, t_max: float, t_min: float):
  """Clean context, at t_min, before a random position; from it on an independent t for each."""
  key_t, key_pivot = jax.random.split(key)
  t, _ = token(key_t, shape, t_max=t_max, t_min=t_min)
  active = _position(shape) >= _pivot(key_pivot, shape)
  return jnp.where(active, t, t_min), active


def next_token(key: Array, shape: tuple[int, ...], *, t_max: float, t_min: float):
  """Teacher forcing: a clean past, one noisy token at a random position, pure noise after it."""
  key_t, key_pivot = jax.random.split(key)
  t, _ = example(key_t, shape, t_max=t_max, t_min=t_min)
  position, at = _position(shape), _pivot(key_pivot, shape)
  return jnp.where(position < at, t_min, jnp.where(position > at, t_max, t)), position == at


def _uniform(key: Array, shape: tuple[int, ...], t_max: float, t_min: float):
  return jax.random.uniform(key, shape, minval=t_min, maxval=t_max), jnp.ones(shape, bool)


def _position(shape: tuple[int, ...]) -> Array:
  """0, 1, .. along the tokens, axis 1."""
  return jnp.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))


def _pivot(key: Array, shape: tuple[int, ...]) -> Array:
  """A position for each example, `[B, 1, ...]`."""
  return jax.random.randint(key, (shape[0], *[1] * (len(shape) - 1)), 0, shape[1])


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
  mask: Array | None = None,
) -> Times:
  """Draws (s, r, t) for a batch of `shape`, the same within each group of `group_size`.

  `s` is uniform on [max(t_min, t - reach), t - gap]. Drawn up to t, a float32 `s` now and then
  *equals* t, and the kernel's scale 1 / c_out(s, t) is infinite: one such draw ruins a run. On a
  `DiscreteVP` path t is one of its levels.

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
    mask: bool, of x's rank; False is padding: pure noise, at t_max, and not active.

  Raises:
    ValueError: naming the field, before anything is compiled.
  """
  _check(shape, group_size, t_max, t_min, gap)
  key_t, key_s, key_corner = jax.random.split(key, 3)
  groups = (shape[0] // group_size, *shape[1:])
  t, active = pattern(key_t, groups, t_max=t_max, t_min=t_min)
  span = gap + jnp.finfo(t.dtype).eps  # so that t - s >= gap also after rounding
  t = jnp.where(active, jnp.maximum(t, t_min + span), t)
  if isinstance(path, interpolants.DiscreteVP):
    t = jnp.minimum(path.snap(t), t_max)
  lowest = jnp.clip(t - reach, t_min, t - span)
  s = lowest + (t - span - lowest) * jax.random.uniform(key_s, t.shape)
  corner = jax.random.bernoulli(key_corner, s_at_t_min, t.shape) & (lowest <= t_min)
  s = jnp.where(corner, t_min, jnp.clip(s, t_min, t - span))
  s = jnp.where(active, s, t)
  r = t if mapping is None else mapping(path, s, t, t_max=t_max, t_min=t_min)
  each = lambda a: jnp.repeat(a, group_size, axis=0)
  times = Times(s=each(s), r=each(jnp.where(active, r, t)), t=each(t), active=each(active))
  return times if mask is None else _padded(times, mask, t_max)


def _padded(times: Times, mask: Array, t_max: float) -> Times:
  noise = lambda u: jnp.where(mask, u, t_max)
  s, r, t = map(noise, (times.s, times.r, times.t))
  return Times(s=s, r=r, t=t, active=times.active & mask)


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
