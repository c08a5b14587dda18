"""Training times: the triple s <= r <= t of one inductive step, and who shares it.

A *pattern* says which times are drawn together. It is a function
`(key, shape, *, t_max, t_min) -> (t, active)`, both with the rank of `shape` and size-1 axes where
a time is shared; a config names it, `pattern=dict(name="core.times.example")`. One that draws a
position among the tokens also takes `mask=None`: bool `[B, T, 1, ...]`, given only where there is
padding, which is False. The position is then uniform over an example's real tokens, if it has any.
A token that is not active is context: it conditions the others and is held fixed.
Sources: IMM sections 3.3, 4.2 and appendix C.7; Diffusion Forcing (arXiv 2407.01392) algorithm 1
for `token`; History-Guided Video Diffusion (2502.06764) A.5 for `uniform_future`; Shortcut Models
(2410.12557) and Dreamer 4 (2509.24527) for `dyadic`.
"""

from collections.abc import Callable, Mapping as Named
import inspect

import flax.struct
import jax
import jax.numpy as jnp

from dfim.core import interpolants

Array = jax.Array
Pattern = Callable[..., tuple[Array, Array]]
Mapping = Callable[..., Array]  # see `mappings`


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


def pivot(
  key: Array, shape: tuple[int, ...], *, t_max: float, t_min: float, mask: Array | None = None
):
  """Clean context, at t_min, before a random position; from it on an independent t for each."""
  key_t, key_pivot = jax.random.split(key)
  t, _ = token(key_t, shape, t_max=t_max, t_min=t_min)
  active = _position(shape) >= _pivot(key_pivot, shape, mask)
  return jnp.where(active, t, t_min), active


def next_token(
  key: Array, shape: tuple[int, ...], *, t_max: float, t_min: float, mask: Array | None = None
):
  """Teacher forcing: a clean past, one noisy token at a random position, pure noise after it."""
  key_t, key_pivot = jax.random.split(key)
  t, _ = example(key_t, shape, t_max=t_max, t_min=t_min)
  position, at = _position(shape), _pivot(key_pivot, shape, mask)
  return jnp.where(position < at, t_min, jnp.where(position > at, t_max, t)), position == at


def two_stream(
  key: Array,
  shape: tuple[int, ...],
  *,
  t_max: float,
  t_min: float,
  noisy: float = 0.0,
  highest: float = 1.0,
  moving: Pattern = token,
  mask: Array | None = None,
):
  """A sequence twice, `shape[1] = 2 T`: T tokens of context, held fixed, then T active tokens.

  See `core.two_stream`. A token of the context is at its own level, uniform on
  [t_min, min(t_max, highest)], with probability `noisy`, and clean, at t_min, otherwise. `moving`
  is the pattern of the active stream.
  """
  if shape[1] % 2:
    raise ValueError(
      f"two_stream of {shape[1]} tokens: set objective.conditioning.name=core.two_stream.TwoStream,"
      " or objective.streams=2 of other objectives; both double the tokens."
    )
  if not (0.0 <= noisy <= 1.0 and t_min < highest <= 1.0):
    raise ValueError(
      f"noisy={noisy}, highest={highest}: set noisy in [0, 1], highest in (t_min, 1]."
    )
  if getattr(moving, "func", moving) is two_stream:
    raise ValueError("moving=two_stream: active tokens have one stream; choose another pattern.")
  half = (shape[0], shape[1] // 2, *shape[2:])
  key_moving, key_noisy, key_level = jax.random.split(key, 3)
  real = None if mask is None else mask[:, half[1] :]
  drawn = _draw(moving, key_moving, half, real, t_max=t_max, t_min=t_min)
  t, active = (jnp.broadcast_to(a, (*half[:2], *a.shape[2:])) for a in drawn)
  level, _ = token(key_level, half, t_max=min(t_max, highest), t_min=t_min)
  context = jnp.where(jax.random.bernoulli(key_noisy, noisy, t.shape), level, t_min)
  still = jnp.zeros_like(active)
  return jnp.concatenate([context, t], axis=1), jnp.concatenate([still, active], axis=1)


def mixture(
  key: Array,
  shape: tuple[int, ...],
  *,
  t_max: float,
  t_min: float,
  patterns: Named[str, Pattern],
  shares: Named[str, float],
  mask: Array | None = None,
):
  """Each example, or group, follows one of `patterns`, as often as `shares` says by name."""
  if any(getattr(pattern, "func", pattern) is two_stream for pattern in patterns.values()):
    raise ValueError("mixture of two_stream: mix the patterns of its `moving` instead.")
  odds = [shares.get(name, -1.0) for name in patterns]
  if set(patterns) != set(shares) or min(odds, default=-1.0) < 0.0 or sum(odds) <= 0.0:
    raise ValueError(
      f"shares={dict(shares)}: give one, 0 or more, to each of {', '.join(patterns)}."
    )
  key_which, *keys = jax.random.split(key, 1 + len(patterns))
  ones = [1] * (len(shape) - 1)
  which = jax.random.categorical(key_which, jnp.log(jnp.asarray(odds)), shape=(shape[0], *ones))
  tokens = (*shape[:2], *[1] * (len(shape) - 2))
  t, active = jnp.zeros(tokens), jnp.zeros(tokens, bool)
  for n, (pattern, key_n) in enumerate(zip(patterns.values(), keys, strict=True)):
    drawn = _draw(pattern, key_n, shape, mask, t_max=t_max, t_min=t_min)
    t, active = (jnp.where(which == n, new, a) for new, a in zip(drawn, (t, active), strict=True))
  return t, active


def _uniform(key: Array, shape: tuple[int, ...], t_max: float, t_min: float):
  return jax.random.uniform(key, shape, minval=t_min, maxval=t_max), jnp.ones(shape, bool)


def _position(shape: tuple[int, ...]) -> Array:
  """0, 1, .. along the tokens, axis 1."""
  return jnp.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))


def _draw(
  pattern: Pattern, key: Array, shape: tuple[int, ...], mask: Array | None, **ends: float
) -> tuple[Array, Array]:
  """t and active of a pattern, which is given the mask if there is one and it takes one."""
  takes = mask is not None and "mask" in inspect.signature(pattern).parameters
  return pattern(key, shape, **ends, **(dict(mask=mask) if takes else {}))


def _pivot(key: Array, shape: tuple[int, ...], mask: Array | None) -> Array:
  """A position for each example, `[B, 1, ...]`, of a real token unless all of it is padding."""
  each = (shape[0], *[1] * (len(shape) - 1))
  if mask is None:
    return jax.random.randint(key, each, 0, shape[1])
  number = jnp.cumsum(mask, axis=1)  # of a real token among them, from 1
  drawn = jax.random.randint(key, each, 0, jnp.maximum(number[:, -1:], 1))
  return jnp.argmax(mask & (number == drawn + 1), axis=1, keepdims=True)


def _of_groups(mask: Array | None, shape: tuple[int, ...], size: int) -> Array | None:
  """Where all examples of a group have a real token, `[B / size, T, 1, ...]`."""
  if mask is None:
    return None
  mask = jnp.broadcast_to(mask, (*shape[:2], *mask.shape[2:]))
  return jnp.all(mask.reshape(-1, size, *mask.shape[1:]), axis=1)


def sample(
  key: Array,
  shape: tuple[int, ...],
  *,
  path: interpolants.Path,
  pattern: Pattern,
  mapping: Mapping | None = None,
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
  """Draws (s, r, t) for a batch of `shape`, as a rule the same within a group of `group_size`.

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
    per_particle_times: particles of a group have different times, see
      `particles.per_particle_times`.
    t_max: the highest time, in (0, 1].
    t_min: the lowest time, in [0, t_max).
    gap: the least t - s of an active token.
    p_endpoint: the probability of s = t_min: one-step sampling lands there, and a uniform s almost
      never does.
    p_one_step: the probability, among the remaining draws, of s = r. Such jumps have data as their
      target: the base case of the induction, which a uniform s rarely samples where steps are
      small. Without it the base case is learnt last, and every jump from above has its error.
    reach: the greatest t - s. A schedule may grow it, see `config.schedules.at_step`.
    mask: bool, of x's rank; False is padding: pure noise, at t_max, and not active. An example
      that is all padding has no active token.

  Raises:
    ValueError: naming the field, before anything is compiled.
  """
  _check(shape, group_size, t_max, t_min, gap)
  for name, rate in dict(p_endpoint=p_endpoint, p_one_step=p_one_step).items():
    if not 0.0 <= rate <= 1.0:
      raise ValueError(f"{name}={rate}: a probability lies in [0, 1].")
  if p_one_step and mapping is None:
    raise ValueError(f"p_one_step={p_one_step}: there is no r without a mapping; leave it at 0.")
  key_t, key_s, key_corner = jax.random.split(key, 3)
  sharing = 1 if per_particle_times else group_size
  rows = (shape[0] // sharing, *shape[1:])
  real = _of_groups(mask, shape, sharing)
  t, active = _draw(pattern, key_t, rows, real, t_max=t_max, t_min=t_min)
  span = gap + jnp.finfo(t.dtype).eps  # so that t - s >= gap also after rounding
  t = jnp.where(active, jnp.maximum(t, t_min + span), t)
  if isinstance(path, interpolants.DiscreteVP):
    t = jnp.minimum(path.snap(t), t_max)
  lowest = jnp.clip(t - reach, t_min, t - span)
  s = lowest + (t - span - lowest) * jax.random.uniform(key_s, t.shape)
  if p_one_step:
    one_step = mapping(path, jnp.full_like(t, t_min), t, t_max=t_max, t_min=t_min)
    base = jax.random.bernoulli(jax.random.fold_in(key_s, 1), p_one_step, t.shape)
    s = jnp.where(base, jnp.maximum(one_step, lowest), s)
  corner = jax.random.bernoulli(key_corner, p_endpoint, t.shape) & (lowest <= t_min)
  s = jnp.where(corner, t_min, jnp.clip(s, t_min, t - span))
  s = jnp.where(active, s, t)
  r = t if mapping is None else mapping(path, s, t, t_max=t_max, t_min=t_min)
  each = lambda a: jnp.repeat(a, sharing, axis=0)
  r = jnp.where(active, r, t)
  times = Times(s=each(s), r=each(r), t=each(t), active=each(active))
  times = times.replace(per_particle_times=per_particle_times)
  return times if mask is None else _padded(times, mask, t_max)


def dyadic(
  key: Array,
  shape: tuple[int, ...],
  *,
  path: interpolants.Path,
  pattern: Pattern,
  bootstrapped: int,
  finest: int = 32,
  t_max: float,
  t_min: float,
) -> Times:
  """Times of shortcut models: t on a grid of 1, 2, 4 .. `finest` steps, s the next point below it.

  The first `bootstrapped` examples have 1 .. finest / 2 steps, and r half-way between s and t. The
  others have the finest grid, and r = t: nothing is bootstrapped.

  Args:
    key: one key.
    shape: of the data, `[B, ...]`.
    path: unused.
    pattern: who shares a time; what it draws is rounded up to the grid.
    bootstrapped: how many examples.
    finest: steps of the finest grid, a power of 2.
    t_max: the highest time, in (0, 1].
    t_min: the lowest time, in [0, t_max).

  Raises:
    ValueError: naming the field, before anything is compiled.
  """
  del path
  check_ends(t_max, t_min)
  levels = finest.bit_length() - 1
  if finest < 2 or finest != 2**levels:
    raise ValueError(f"finest={finest}: set it to a power of 2, 2 or more.")
  key_t, key_steps = jax.random.split(key)
  drawn, active = pattern(key_t, shape, t_max=t_max, t_min=t_min)
  coarse = 2 ** jax.random.randint(key_steps, drawn.shape, 0, levels)
  first = (jnp.arange(shape[0]) < bootstrapped).reshape(-1, *[1] * (len(shape) - 1))
  steps = jnp.where(first, coarse, finest).astype(drawn.dtype)
  n = jnp.clip(jnp.ceil((drawn - t_min) / (t_max - t_min) * steps), 1.0, steps)
  at = lambda n: t_min + (t_max - t_min) * (n / steps)
  moved = lambda u: jnp.where(active, u, drawn)
  r = jnp.where(first, at(n - 0.5), at(n))
  return Times(s=moved(at(n - 1.0)), r=moved(r), t=moved(at(n)), active=active)


def _padded(times: Times, mask: Array, t_max: float) -> Times:
  noise = lambda u: jnp.where(mask, u, t_max)
  s, r, t = map(noise, (times.s, times.r, times.t))
  return times.replace(s=s, r=r, t=t, active=times.active & mask)


def _check(shape: tuple[int, ...], group_size: int, t_max: float, t_min: float, gap: float) -> None:
  check_ends(t_max, t_min)
  if not 0.0 < gap < t_max - t_min:
    raise ValueError(f"gap={gap}: set 0 < gap < t_max - t_min = {t_max - t_min:g}.")
  if group_size < 1 or shape[0] % group_size:
    raise ValueError(
      f"group_size={group_size} does not divide batch_size={shape[0]}: groups hold whole"
      " particles; change one of the two."
    )


def mean_of_active(values: Array, active: Array) -> Array:
  """The mean of `values` where `active`, of the same shape, is True; 0 where that is nowhere."""
  count = jnp.sum(active, dtype=jnp.promote_types(values.dtype, jnp.float32))
  return jnp.sum(values, where=active) / jnp.maximum(count, 1.0)


def check_ends(t_max: float, t_min: float) -> None:
  """Refuses times, of training or of sampling, that do not span a part of [0, 1].

  Raises:
    ValueError: naming both fields.
  """
  if not 0.0 <= t_min < t_max <= 1.0:
    raise ValueError(f"t_min={t_min}, t_max={t_max}: set 0 <= t_min < t_max <= 1.")
