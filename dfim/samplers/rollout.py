"""Sequences of any length: chunks of tokens, denoised one after the other given what came before.

The past is shown to the network again in a window, or kept in a cache of keys and values. Sources:
Diffusion Forcing (arXiv 2407.01392) algorithm 2, sections 3.3, C.4, C.8, and its released program.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import conditioning, interpolants, levels as levels_lib
from dfim.samplers import jump
from dfim.samplers.jump import Model, ModelOf, Step

Array = jax.Array
Mode = Literal["none", "label", "scale", "scale_and_noise"]


@dataclasses.dataclass(frozen=True)
class Rollout:
  """How a sequence is drawn chunk by chunk: `config.sampler.rollout`."""

  # The level matrix of a chunk, int [rows, chunk], or (steps, tokens) -> matrix.
  levels: Callable[..., Any] | tuple[tuple[int, ...], ...]
  window: int  # tokens shown at once, the chunk last; with a cache the network's own instead
  chunk: int  # tokens denoised together
  length: int | None = None  # tokens to draw, whole chunks; None for those of the data
  cached: bool = False  # whether finished tokens go into the network's cache
  context_time: float | None = None  # of the observed tokens; None for clean
  t_context: float = 0.0  # this and mode: see `shown`
  mode: Mode = "none"

  def __post_init__(self):
    if self.chunk < 1:
      raise FieldError("chunk", self.chunk, "set it to 1 token or more.")
    if self.window < self.chunk:
      raise FieldError("window", self.window, f"must hold at least the chunk of {self.chunk}.")
    if self.context_time is not None and not 0.0 <= self.context_time <= 1.0:
      raise FieldError("context_time", self.context_time, "set it in [0, 1], or None for clean.")
    if self.mode not in Mode.__args__:
      raise FieldError("mode", self.mode, f"choose one of {', '.join(Mode.__args__)}.")
    if not 0.0 <= self.t_context < 1.0:
      raise FieldError("t_context", self.t_context, "set it in [0, 1).")

  def matrix(self, steps: int) -> np.ndarray:
    """The level matrix of a chunk, int `[rows, chunk]`."""
    matrix = self.levels(steps, self.chunk) if callable(self.levels) else np.asarray(self.levels)
    levels_lib.check_levels(matrix, steps, self.chunk)
    return matrix

  def shown(self, key: Array, x: Array, t: Array, model: Model) -> tuple[Array, Array]:
    """Finished tokens as the network sees them, and their times: a little noisy.

    Where t < t_context their time becomes t_context. By `mode`, the token is then x itself (label,
    Diffusion Forcing C.8), alpha x (scale, the released DDIM) or x with noise (scale_and_noise, C.4
    and the released DDPM). With "none" both stay.
    """
    if self.mode == "none":
      return x, t
    level = jnp.full_like(t, self.t_context)
    if self.mode == "label":
      fed = x
    elif self.mode == "scale":
      fed = model.path.alpha(level) * x
    else:
      eps = model.sigma_data * interpolants.noise_like(key, x)
      fed = interpolants.interpolate(model.path, x, eps, level)
    clean = t < self.t_context
    return jnp.where(clean, fed, x), jnp.where(clean, level, t)


def rollout(
  model_of: ModelOf,
  key: Array,
  context: Array,
  cond: Any,
  times: Array,
  how: Rollout,
  *,
  step: Step,
  length: int | None = None,
  lengths: Array | None = None,
  position: Array | int = 0,
  cache: Any = None,
  report: Callable[[Any, int], None] | None = None,
) -> Array:
  """Draws `length` tokens after `context`, one chunk by default: `[B, C + length, ...]`.

  Args:
    model_of: of the tokens with given conditions.
    key: one key, or `[B]`. A token's noise depends on its example's key and its position alone.
    context: `[B, C, ...]`, observed tokens, which come back untouched; C may be 0.
    cond: a dict of arrays or None; those per token (`core.conditioning`) are `[B, C + length, ..]`.
    times: `[steps + 1]`, noisiest first; the last is that of finished tokens.
    how, step, length: see `Rollout` and `jump`; tokens to draw.
    lengths: int `[B]`, with the context. Tokens beyond are shown as pure noise and come back as 0.
    position: of the first token of `context`, or the first drawn without one, in the sequence.
    cache: an empty cache, or None to show the window again at each step.
    report: called on the host as `report(chunks done, chunks)`.
  """
  times = jnp.asarray(times, context.dtype)
  before, length = context.shape[1], how.chunk if length is None else length
  if length < 1 or length % how.chunk:
    raise FieldError("chunk", how.chunk, f"with length={length}: give whole chunks.")
  for array in jax.tree.leaves(cond):
    if conditioning.is_per_token(array) and array.shape[1] != before + length:
      raise ValueError(f"cond of {array.shape[1]} tokens: give {before} + {length} tokens.")
  exists = None
  if lengths is not None:  # what a caller gives for padding is never read
    exists = (jnp.arange(before + length)[None] < lengths[:, None])[..., None]
    cond = conditioning.hide(cond, exists)
  key_noise, rest = jump.split(key if key.ndim else jax.random.split(key, len(context)))
  grid = levels_lib.at(how.matrix(len(times) - 1), times)
  keys = jump.split(rest)
  drawing = _Drawing(model_of, step, how, cond, times, grid, before, lengths, position, *keys)
  x = jnp.concatenate([context, drawing.noise(key_noise, context, length)], axis=1)
  if cache is not None and before:
    cache = drawing.remember(context, 0, drawing.context_time, cache)
  draw_chunk = drawing.in_window if cache is None else drawing.with_cache

  def body(carry: tuple[Array, Any], n: Array) -> tuple[tuple[Array, Any], None]:
    carry = draw_chunk(*carry, n)
    if report is not None:
      jax.debug.callback(report, n + 1, length // how.chunk)
    return carry, None

  (x, _), _ = jax.lax.scan(body, (x, cache), jnp.arange(length // how.chunk))
  if exists is None:
    return x
  return jnp.where(exists.reshape(*exists.shape[:2], *[1] * (x.ndim - 2)), x, 0.0)


@dataclasses.dataclass(frozen=True)
class _Drawing:
  """What is the same for every chunk of a rollout, see there."""

  model_of: ModelOf
  step: Step
  how: Rollout
  cond: Any
  times: Array
  grid: Array  # [rows, chunk]
  before: int
  lengths: Array | None
  position: Array | int
  key_steps: Array
  key_past: Array

  @property
  def context_time(self) -> Array:
    time = self.how.context_time
    return self.times[-1] if time is None else jnp.asarray(time, self.times.dtype)

  def noise(self, key: Array, context: Array, length: int) -> Array:
    """The pure noise that `length` tokens start from."""
    keys = _of_tokens(key, self.position + self.before, length)
    like = jnp.zeros((context.shape[0], length, *context.shape[2:]), context.dtype)
    return self.model(0, self.how.chunk).sigma_data * interpolants.noise_like(keys, like)

  def model(self, start: Array | int, size: int, cache: Any = None) -> Model:
    """The model of `size` tokens from `start` on."""
    cut = lambda a: jax.lax.dynamic_slice_in_dim(a, start, size, axis=1)
    cond = jax.tree.map(lambda a: cut(a) if conditioning.is_per_token(a) else a, self.cond)
    return self.model_of(cond) if cache is None else self.model_of(cond, cache)

  def in_window(self, x: Array, cache: None, n: Array) -> tuple[Array, None]:
    """Draws chunk n, the tokens before it shown again in a window."""
    chunk, total = self.how.chunk, x.shape[1]
    size = min(self.how.window, total)
    at = self.before + n * chunk  # the chunk's first token
    start = jnp.maximum(at + chunk - size, 0)
    token = start + jnp.arange(size)
    held = jnp.where(token < at, self.times[-1], self.times[0])
    held = jnp.where(token < self.before, self.context_time, held)
    rows = _rows(self.grid, held, at - start, token, self.lengths)
    keys = _of_tokens(jump.fold_in(self.key_steps, self.position + at), self.position + start, size)
    shown = jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
    shown = self.scan(self.model(start, size), keys, shown, rows)
    return jax.lax.dynamic_update_slice_in_dim(x, shown, start, axis=1), cache

  def with_cache(self, x: Array, cache: Any, n: Array) -> tuple[Array, Any]:
    """Draws chunk n from the cache of the tokens before it, and adds it to that."""
    chunk = self.how.chunk
    at = self.before + n * chunk
    keys = _of_tokens(jump.fold_in(self.key_steps, self.position + at), self.position + at, chunk)
    part = jax.lax.dynamic_slice_in_dim(x, at, chunk, axis=1)
    part = self.scan(self.model(at, chunk, cache), keys, part, self.grid)
    cache = self.remember(part, at, self.times[-1], cache)
    return jax.lax.dynamic_update_slice_in_dim(x, part, at, axis=1), cache

  def scan(self, model: Model, keys: Array, x: Array, rows: Array) -> Array:
    """Tokens stepped down their times, finished ones shown as `Rollout.shown` says."""
    step = functools.partial(stabilised, self.step, self.how)
    return jump.scan(model, keys, x, rows, step=step, end=self.times[-1])

  def remember(self, x: Array, at: Array | int, time: Array, cache: Any) -> Any:
    """The cache with tokens `x` of that time, the first of which is token `at`."""
    model = self.model(at, x.shape[1], cache)
    keys = _of_tokens(self.key_past, self.position + at, x.shape[1])
    return model.remember(*self.how.shown(keys, x, jnp.full((1,) * x.ndim, time), model))


def stabilised(
  step: Step, how: Rollout, model: Model, key: Array, x: Array, s: Array, t: Array, end: Array
) -> Array:
  """`step` with finished tokens shown to the network as `how` says; they stay what they are."""
  key_step, key_shown = jump.split(key)
  finished = s == t
  fed, level = how.shown(key_shown, x, t, model)
  fed, level = jnp.where(finished, fed, x), jnp.where(finished, level, t)
  moved = step(model, key_step, fed, jnp.where(finished, level, s), level, end)
  return jnp.where(finished, x, moved)


def _of_tokens(key: Array, first: Array | int, count: int) -> Array:
  """Keys `[B, count]` of the tokens at positions `first`, `first` + 1, .., of keys `[B]`."""
  of_example = jax.vmap(jax.random.fold_in, (None, 0))
  return jax.vmap(of_example, (0, None))(key, first + jnp.arange(count))


def _rows(grid: Array, held: Array, start: Array, token: Array, lengths: Array | None) -> Array:
  """The times of a window: `held` `[size]`, and from `start` on the chunk's `grid`."""
  rows = jnp.broadcast_to(held[None], (len(grid), len(held)))
  rows = jax.lax.dynamic_update_slice_in_dim(rows, grid, start, axis=1)
  if lengths is None:
    return rows
  return jnp.where(token[None, None] < lengths[None, :, None], rows[:, None], grid[0, 0])
