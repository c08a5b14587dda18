"""Patterns: which training times are drawn together, and which tokens are context.

A pattern is a function `(key, shape, *, t_max, t_min) -> (t, active)`, of the rank of `shape`, with
size 1 where a time is shared. One that draws a position takes `mask=None`, bool `[B, T, 1, ...]`,
False on padding. Sources: Diffusion Forcing (2407.01392); History-Guided Video Diffusion
(2502.06764) A.5.
"""

from collections.abc import Callable, Mapping
import inspect

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError

Array = jax.Array
Shape = tuple[int, ...]
Pattern = Callable[..., tuple[Array, Array]]


def example(key: Array, shape: Shape, *, t_max: float, t_min: float):
  """One t for each example, uniform on [t_min, t_max]."""
  return _uniform(key, _leading(shape, 1), t_max, t_min)


def token(key: Array, shape: Shape, *, t_max: float, t_min: float):
  """An independent t for each token, axis 1, uniform on [t_min, t_max]."""
  return _uniform(key, _leading(shape, 2), t_max, t_min)


def uniform_future(key: Array, shape: Shape, *, t_max: float, t_min: float, past: int):
  """An independent t for each of the first `past` tokens, one t for all that follow."""
  if not 0 <= past < shape[1]:
    raise FieldError("past", past, f"set it to 0 or more, below the {shape[1]} tokens.")
  key_past, key_future = jax.random.split(key)
  t, active = token(key_past, shape, t_max=t_max, t_min=t_min)
  shared, _ = example(key_future, shape, t_max=t_max, t_min=t_min)
  return jnp.where(_position(shape) < past, t, shared), active


def context(
  key: Array, shape: Shape, *, t_max: float, t_min: float, rate: float = 0.3, noisy: float = 0.5
):
  """Each token is context with probability `rate`, of any t for a share `noisy`, else clean."""
  if not (0.0 <= rate < 1.0 and 0.0 <= noisy <= 1.0):
    raise FieldError("rate", rate, f"with noisy={noisy}: set rate in [0, 1), noisy in [0, 1].")
  key_t, key_rate, key_noisy = jax.random.split(key, 3)
  t, _ = token(key_t, shape, t_max=t_max, t_min=t_min)
  active = ~jax.random.bernoulli(key_rate, rate, t.shape)
  return jnp.where(active | jax.random.bernoulli(key_noisy, noisy, t.shape), t, t_min), active


def pivot(key: Array, shape: Shape, *, t_max: float, t_min: float, mask: Array | None = None):
  """Clean context, at t_min, before a random position; from it on an independent t for each."""
  key_t, key_pivot = jax.random.split(key)
  t, _ = token(key_t, shape, t_max=t_max, t_min=t_min)
  active = _position(shape) >= _pivot(key_pivot, shape, mask)
  return jnp.where(active, t, t_min), active


def next_token(key: Array, shape: Shape, *, t_max: float, t_min: float, mask: Array | None = None):
  """Teacher forcing: a clean past, one noisy token at a random position, pure noise after it."""
  key_t, key_pivot = jax.random.split(key)
  t, _ = example(key_t, shape, t_max=t_max, t_min=t_min)
  position, at = _position(shape), _pivot(key_pivot, shape, mask)
  return jnp.where(position < at, t_min, jnp.where(position > at, t_max, t)), position == at


def two_stream(
  key: Array, shape: Shape, *, t_max: float, t_min: float, noisy: float = 0.0, past: int = 0
):
  """T tokens of context, of any t with probability `noisy`, else clean, then T active ones.

  The first `past` of these are never drawn, so that they do not move either: t_min, not active.
  """
  if shape[1] % 2:
    fix = "set objective.conditioning.name=core.two_stream.TwoStream, or objective.streams=2."
    raise ValueError(f"two_stream of {shape[1]} tokens: {fix}")
  if not 0.0 <= noisy <= 1.0:
    raise FieldError("noisy", noisy, "set it in [0, 1].")
  half = (shape[0], shape[1] // 2, *shape[2:])
  if not 0 <= past < half[1]:
    raise FieldError("past", past, f"set it to 0 or more, below the {half[1]} tokens.")
  key_active, key_noisy, key_level = jax.random.split(key, 3)
  t, active = token(key_active, half, t_max=t_max, t_min=t_min)
  level, _ = token(key_level, half, t_max=t_max, t_min=t_min)
  context = jnp.where(jax.random.bernoulli(key_noisy, noisy, t.shape), level, t_min)
  active &= _position(half) >= past
  t, fixed = jnp.where(active, t, t_min), jnp.zeros_like(active)
  return jnp.concatenate([context, t], axis=1), jnp.concatenate([fixed, active], axis=1)


two_stream.streams = 2  # that the network and the objective must have


def streams(pattern: Pattern) -> int:
  """The streams that a pattern, bound or not, is of."""
  return getattr(getattr(pattern, "func", pattern), "streams", 1)


def mixture(
  key: Array,
  shape: Shape,
  *,
  t_max: float,
  t_min: float,
  patterns: Mapping[str, Pattern],
  shares: Mapping[str, float],
  mask: Array | None = None,
):
  """Each example, or group, follows one of `patterns`, as often as `shares` says by name."""
  if any(streams(pattern) == 2 for pattern in patterns.values()):
    raise ValueError("mixture of two_stream: it has its own tokens; mix patterns of one stream.")
  odds = [shares.get(name, -1.0) for name in patterns]
  if set(patterns) != set(shares) or min(odds, default=-1.0) < 0.0 or sum(odds) <= 0.0:
    raise FieldError("shares", dict(shares), f"give one to each of {', '.join(patterns)}.")
  key_which, *keys = jax.random.split(key, 1 + len(patterns))
  logits = jnp.log(jnp.asarray(odds))
  which = jax.random.categorical(key_which, logits, shape=_leading(shape, 1))
  t, active = (jnp.zeros(_leading(shape, 2), dtype) for dtype in (float, bool))
  for n, (pattern, key_n) in enumerate(zip(patterns.values(), keys, strict=True)):
    drawn = draw(pattern, key_n, shape, mask, t_max=t_max, t_min=t_min)
    t, active = (jnp.where(which == n, new, a) for new, a in zip(drawn, (t, active), strict=True))
  return t, active


def draw(
  pattern: Pattern, key: Array, shape: Shape, mask: Array | None, **ends: float
) -> tuple[Array, Array]:
  """`t` and `active` of a pattern, which is given the mask if there is one and it takes one."""
  masked = mask is not None and "mask" in inspect.signature(pattern).parameters
  return pattern(key, shape, **ends, **(dict(mask=mask) if masked else {}))


def _leading(shape: Shape, axes: int) -> Shape:
  """`shape` with size 1 after its first `axes`."""
  return (*shape[:axes], *[1] * (len(shape) - axes))


def _uniform(key: Array, shape: Shape, t_max: float, t_min: float):
  return jax.random.uniform(key, shape, minval=t_min, maxval=t_max), jnp.ones(shape, bool)


def _position(shape: Shape) -> Array:
  return jnp.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))


def _pivot(key: Array, shape: Shape, mask: Array | None) -> Array:
  """A position for each example, `[B, 1, ...]`, of a real token unless all of it is padding."""
  each = _leading(shape, 1)
  if mask is None:
    return jax.random.randint(key, each, 0, shape[1])
  number = jnp.cumsum(mask, axis=1)  # of a real token among them, from 1
  drawn = jax.random.randint(key, each, 0, jnp.maximum(number[:, -1:], 1))
  return jnp.argmax(mask & (number == drawn + 1), axis=1, keepdims=True)
