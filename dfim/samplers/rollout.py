"""Sequences of any length: chunks of tokens, denoised one after the other given what came before.

The one scan of `jump` over a matrix of times, repeated. The past is shown to the network again in
a window of tokens, or kept in a cache of keys and values. Sources: Diffusion Forcing (arXiv
2407.01392) algorithm 2, sections 3.3, C.4 and C.8, and its released program.
"""

from collections.abc import Callable
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dfim.core import conditioning, interpolants, levels as levels_lib, parameterization
from dfim.samplers import jump

Array = jax.Array
Mode = Literal["none", "label", "scale", "scale_and_noise"]
StepOf = Callable[[Any, Any], jump.Step]  # (condition, cache) -> step
Remember = Callable[[Array, Array, Array, Any, Any], Any]  # (key, x, t, condition, cache) -> cache


def rollout(
  step_of: StepOf,
  key: Array,
  context: Array,
  cond: Any,
  levels: Any,
  times: Array,
  *,
  window: int,
  chunk: int,
  length: int | None = None,
  lengths: Array | None = None,
  position: Array | int = 0,
  sigma_data: float = 1.0,
  context_time: float | None = None,
  cache: Any = None,
  remember: Remember | None = None,
  report: Callable[[Any, int], None] | None = None,
) -> Array:
  """Draws `length` tokens after `context`, `chunk` at a time, as one XLA program under `jit`.

  Args:
    step_of: `(condition, cache) -> step`: how to step the tokens that it is shown; `condition` is
      `cond` cut to those tokens.
    key: one key, or `[B]` keys so that an example's noise does not depend on its batch. A token's
      noise depends on its example's key and on its position in the sequence alone: tokens drawn one
      call after another are those of one call.
    context: `[B, C, ...]`, observed tokens; C may be 0.
    cond: a dict of arrays or None; those per token (`core.conditions`) are `[B, C + length, ...]`.
    levels: the level matrix of a chunk, int `[rows, chunk]`, or a schedule `(steps, tokens) ->
      matrix` such as `levels.pyramid`.
    times: `[steps + 1]`, noisiest first; the last is that of finished tokens.
    window: the tokens shown to the network at once: the chunk and what comes before it. Places
      that are not drawn yet are pure noise. With a cache the network's own window takes its place.
    chunk: tokens denoised together; divides `length`.
    length: tokens to draw; None for one chunk.
    lengths: int `[B]`, how long each sequence is with its context, at most C + length. What lies
      beyond stays pure noise to a network that is shown it, as padding is in training (one with a
      cache is causal and sees none of it), and comes back as 0.
    position: of the first token of `context`, or the first drawn where there is none, in the whole
      sequence: 0, unless the context was cut.
    sigma_data: the standard deviation of pure noise.
    context_time: the level of noise of the observed tokens; None for clean, `times[-1]`.
    cache: an empty cache, or None to show the window again at each step.
    remember: `(key, x, t, condition, cache) -> cache` with finished tokens added.
    report: called on the host as `report(chunks done, chunks)`.

  Returns:
    `[B, C + length, ...]`, the context first and untouched.

  Raises:
    ValueError: for a matrix, window, chunk or length that does not fit, before anything runs.
  """
  if context_time is not None and not 0.0 <= context_time <= 1.0:
    raise ValueError(f"context_time={context_time}: a time lies in [0, 1]; None is clean.")
  times = jnp.asarray(times, context.dtype)
  length = chunk if length is None else length
  before = context.shape[1]
  _check(cond, window, chunk, length, before, cache, remember)
  matrix = levels(len(times) - 1, chunk) if callable(levels) else np.asarray(levels)
  levels_lib.check_levels(matrix, len(times) - 1, chunk)
  grid = levels_lib.at(matrix, times)
  seen_at = times[-1] if context_time is None else jnp.asarray(context_time, times.dtype)
  key_noise, key_steps, key_past = _three_keys(key, len(context))
  shape = (context.shape[0], length, *context.shape[2:])
  keys = _of_tokens(key_noise, position + before, length)
  noise = sigma_data * interpolants.noise_like(keys, jnp.zeros(shape, context.dtype))
  x = jnp.concatenate([context, noise], axis=1)
  exists = None
  if lengths is not None:  # what a caller gives for padding is never read
    exists = (jnp.arange(before + length)[None] < lengths[:, None])[..., None]
    cond = conditioning.hide(cond, exists)
  cut = functools.partial(_cut, cond)
  shared = lambda t: jnp.full((1,) * x.ndim, t)

  def in_window(x, n):
    size = min(window, before + length)
    at = before + n * chunk  # the chunk's first token
    start = jnp.maximum(at + chunk - size, 0)
    place = start + jnp.arange(size)
    still = jnp.where(place < before, seen_at, jnp.where(place < at, times[-1], times[0]))
    rows = _rows(grid, still, at - start, place, lengths)
    shown = jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
    keys = _of_tokens(jump.fold_in(key_steps, position + at), position + start, size)
    shown = jump.scan(step_of(cut(start, size), None), keys, shown, rows)
    return jax.lax.dynamic_update_slice_in_dim(x, shown, start, axis=1)

  def with_cache(x, cache, n):
    at = before + n * chunk
    keys = _of_tokens(jump.fold_in(key_steps, position + at), position + at, chunk)
    part = jax.lax.dynamic_slice_in_dim(x, at, chunk, axis=1)
    part = jump.scan(step_of(cut(at, chunk), cache), keys, part, grid)
    keys = _of_tokens(key_past, position + at, chunk)
    cache = remember(keys, part, shared(times[-1]), cut(at, chunk), cache)
    return jax.lax.dynamic_update_slice_in_dim(x, part, at, axis=1), cache

  chunks = length // chunk

  def body(carry, n):
    x, cache = carry
    carry = (in_window(x, n), None) if cache is None else with_cache(x, cache, n)
    if report is not None:
      jax.debug.callback(report, n + 1, chunks)
    return carry, None

  if cache is not None and before:
    keys = _of_tokens(key_past, position, before)
    cache = remember(keys, context, shared(seen_at), cut(0, before), cache)
  (x, _), _ = jax.lax.scan(body, (x, cache), jnp.arange(chunks))
  if exists is None:
    return x
  return jnp.where(exists.reshape(*exists.shape[:2], *[1] * (x.ndim - 2)), x, 0.0)


def of_network(
  apply: Callable[..., Any],
  params: Any,
  f: parameterization.Parameterization,
  make_step: Callable[..., jump.Step],
  *,
  t_context: float = 0.0,
  mode: Mode = "none",
) -> tuple[StepOf, Remember]:
  """What `rollout` asks for, `step_of` and `remember`, of one network and its weights.

  Args:
    apply: `(params, x_in, s, t, cond) -> G`; with `cache=` it returns the new cache too.
    params: its weights.
    f: its parameterization.
    make_step: `(jump=, clean=) -> step`, such as `jump.pushforward_step` of the first.
    t_context: see `shown`.
    mode: see `shown`.
  """
  _check_mode(mode, t_context)

  def step_of(cond: Any, cache: Any) -> jump.Step:
    net = apply if cache is None else lambda *args: apply(*args, cache=cache)[0]
    step = make_step(
      jump=lambda x, s, t: f(net, params, x, s, t, cond),
      clean=lambda x, t: f.clean(net, params, x, t, cond),
    )
    return stabilised(step, f.path, t_context, mode, sigma_data=f.sigma_data)

  def remember(key: Array, x: Array, t: Array, cond: Any, cache: Any) -> Any:
    x, t = shown(key, x, t, f.path, t_context, mode, sigma_data=f.sigma_data)
    return apply(params, f.c_in(t) * x, t, t, cond, cache=cache)[1]

  return step_of, remember


def stabilised(
  step: jump.Step,
  path: interpolants.Path,
  t_context: float,
  mode: Mode,
  *,
  sigma_data: float = 1.0,
) -> jump.Step:
  """A step that shows finished tokens to the network as `shown` does; they stay what they are."""
  _check_mode(mode, t_context)

  def stable(key, x, s, t):
    key_step, key_shown = jump.split(key)
    finished = s == t
    fed, told = shown(key_shown, x, t, path, t_context, mode, sigma_data=sigma_data)
    fed = jnp.where(finished, fed, x)
    told = jnp.where(finished, told, t)
    return jnp.where(finished, x, step(key_step, fed, jnp.where(finished, told, s), told))

  return stable


def shown(
  key: Array,
  x: Array,
  t: Array,
  path: interpolants.Path,
  t_context: float,
  mode: Mode,
  *,
  sigma_data: float,
) -> tuple[Array, Array]:
  """Tokens as the network is to see them, and the times that it is told: a little noisy.

  A model's own tokens are a little off, and a model that takes them for clean drifts away from
  its data. Where t < t_context, by `mode`:

    none: as they are.
    label: as they are, but told t_context (Diffusion Forcing C.8).
    scale: alpha(t_context) x, told t_context: the mean of the noised token (the released DDIM).
    scale_and_noise: noised to t_context and told so (C.4, and the released DDPM).
  """
  if mode == "none":
    return x, t
  level = jnp.full_like(t, t_context)
  fed = dict(
    label=lambda: x,
    scale=lambda: path.alpha(level) * x,
    scale_and_noise=lambda: interpolants.interpolate(
      path, x, sigma_data * interpolants.noise_like(key, x), level
    ),
  )[mode]()
  clean = t < t_context
  return jnp.where(clean, fed, x), jnp.where(clean, level, t)


def _three_keys(key: Array, count: int) -> tuple[Array, Array, Array]:
  """Three keys for each of `count` examples, of one key or of a key for each."""
  first, rest = jump.split(key if key.ndim else jax.random.split(key, count))
  return first, *jump.split(rest)


def _of_tokens(key: Array, first: Array | int, count: int) -> Array:
  """Keys `[B, count]` of the tokens at positions `first`, `first` + 1, .., of keys `[B]`."""
  of_example = jax.vmap(jax.random.fold_in, (None, 0))
  return jax.vmap(of_example, (0, None))(key, first + jnp.arange(count))


def _rows(grid: Array, still: Array, start: Array, place: Array, lengths: Array | None) -> Array:
  """The times of a window: `still` `[size]`, and from `start` on the chunk's `grid`."""
  rows = jnp.broadcast_to(still[None], (len(grid), len(still)))
  rows = jax.lax.dynamic_update_slice_in_dim(rows, grid, start, axis=1)
  if lengths is None:
    return rows
  return jnp.where(place[None, None] < lengths[None, :, None], rows[:, None], grid[0, 0])


def _cut(cond: Any, start: Array, size: int) -> Any:
  """What of the conditions belongs to `size` tokens from `start` on."""
  cut = lambda a: jax.lax.dynamic_slice_in_dim(a, start, size, axis=1)
  return jax.tree.map(lambda a: cut(a) if conditioning.is_per_token(a) else a, cond)


def _check(
  cond: Any, window: int, chunk: int, length: int, before: int, cache: Any, remember: Any
) -> None:
  if chunk < 1 or length < 1 or length % chunk:
    raise ValueError(f"chunk={chunk}, length={length}: give whole chunks of 1 token or more.")
  if window < chunk:
    raise ValueError(f"window={window}: must hold at least the chunk of {chunk} tokens.")
  if (cache is None) != (remember is None):
    raise ValueError("cache and remember: give both, or neither.")
  for array in jax.tree.leaves(cond):
    if conditioning.is_per_token(array) and array.shape[1] != before + length:
      raise ValueError(
        f"cond of {array.shape[1]} tokens: give it for context and length,"
        f" {before} + {length} tokens."
      )


def _check_mode(mode: str, t_context: float) -> None:
  modes = Mode.__args__
  if mode not in modes or not 0.0 <= t_context < 1.0:
    raise ValueError(
      f"mode={mode!r}, t_context={t_context}: choose one of {', '.join(modes)}, and a time in"
      " [0, 1)."
    )
