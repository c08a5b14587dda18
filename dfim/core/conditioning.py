"""Conditions: a dict of arrays, batch first; their kinds, and the null of each.

| kind | array | null |
|---|---|---|
| class | `label`, integers `[B]` | -1 |
| vector, of each token or shared by all | floating `[B, T, C]` or `[B, C]` | zeros |
| value, of each token or shared by all | integers or booleans `[B, T]` or `[B]` | -1 |

One number a token is `[B, T, 1]`. A condition that is left out equals its null.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError

Array = jax.Array
Condition = dict[str, Array] | None
_NEVER_DROPPED = {"augment"}  # without it an augmented image would pass for a plain one
_KINDS = "floating [B, T, C] or [B, C], or integers [B, T] or [B]"


def is_discrete(array: Any) -> bool:
  """Whether a condition holds integers or booleans, which are embedded."""
  return jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.bool_)


def is_per_token(array: Any) -> bool:
  """Whether a condition has an entry for each token, on axis 1."""
  return len(array.shape) >= 3 or (len(array.shape) == 2 and is_discrete(array))


def per_token(cond: Condition) -> dict[str, Any]:
  """The conditions of which every token has one."""
  return {name: array for name, array in (cond or {}).items() if is_per_token(array)}


def as_index(array: Array) -> Array:
  """Discrete values as signed integers of 32 bits or more, which can hold the null, -1."""
  return array.astype(jnp.promote_types(array.dtype, jnp.int32))


def describe(array: Any) -> str:
  """Shape and dtype, in an error's words."""
  return f"shape {tuple(array.shape)} and dtype {array.dtype}"


def check(cond: Condition, shape: tuple[int, ...], *, reads: Collection[str] | None = None) -> None:
  """Refuses conditions of no kind, that do not fit x of `shape`, or that are not in `reads`."""
  if not isinstance(cond, Mapping | None):
    raise ValueError(f"cond of {type(cond).__name__}: give a dict of arrays by name.")
  for name, array in (cond or {}).items():
    if not hasattr(array, "dtype"):
      raise ValueError(f"cond.{name} of {type(array).__name__}: give an array, {_KINDS}.")
    if reads is not None and name not in {"label", *reads}:
      fix = f"the network reads {', '.join(['label', *reads])} alone; leave it out."
      raise ValueError(f"cond.{name} of {describe(array)}: {fix}")
    if name == "label" and not (is_discrete(array) and array.ndim == 1):
      raise ValueError(f"cond.label of {describe(array)}: give integers [B].")
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    vectors = floating and array.ndim in (2, 3) and array.shape[-1] > 0
    if not (vectors or (is_discrete(array) and array.ndim in (1, 2))):
      raise ValueError(f"cond.{name} of {describe(array)}: give {_KINDS}.")
    _check_size(name, array, shape)


def null(cond: Condition) -> Condition:
  """The absent condition, of the same shapes."""
  return jax.tree.map(_null_of, cond)


def drop(key: Array, cond: Condition, rate: float) -> Condition:
  """Each example's conditions, except `augment`, made absent with probability `rate` (IMM 4.3)."""
  return without(cond, absent(key, cond, rate))


def absent(key: Array, cond: Condition, rate: float) -> Array | None:
  """Of which examples conditions are dropped, bool `[B]`; None if of none."""
  if not 0.0 <= rate <= 1.0:
    raise FieldError("objective.drop_rate", rate, "a probability lies in [0, 1].")
  if not cond or rate == 0.0:
    return None
  batch = jax.tree.leaves(cond)[0].shape[0]  # the same of all
  return jax.random.bernoulli(key, rate, (batch,))


def without(cond: Condition, absent: Array | None) -> Condition:
  """The conditions, except `augment`, null where `absent`, bool `[B]`."""
  if absent is None:
    return cond
  of_rank = lambda a: absent.reshape(-1, *[1] * (a.ndim - 1))
  dropped = jax.tree.map(lambda a: jnp.where(of_rank(a), _null_of(a), a), cond)
  return dropped | {k: a for k, a in cond.items() if k in _NEVER_DROPPED}


def hide(cond: Condition, mask: Array | None) -> Condition:
  """The conditions of padding, where `mask` `[B, T, 1, ...]` is False, made absent."""
  if mask is None:
    return cond
  real = mask.reshape(mask.shape[:2])
  for name, a in (cond or {}).items():
    if is_per_token(a):
      _check_size(name, a, (a.shape[0], a.shape[1] if real.shape[1] == 1 else real.shape[1]))
  here = lambda a: real if is_per_token(a) else jnp.any(real, axis=1)
  of_rank = lambda here, a: here.reshape(*here.shape, *[1] * (a.ndim - here.ndim))
  return jax.tree.map(lambda a: jnp.where(of_rank(here(a), a), a, _null_of(a)), cond)


def _null_of(a: Array) -> Array:
  return jnp.full_like(as_index(a), -1) if is_discrete(a) else jnp.zeros_like(a)


def _check_size(name: str, array: Any, shape: tuple[int, ...]) -> None:
  axes = 2 if is_per_token(array) else 1
  if tuple(array.shape[:axes]) != tuple(shape[:axes]):
    tokens = f" of {shape[1]} tokens" if axes == 2 else ""
    raise ValueError(f"cond.{name} of {describe(array)}: x has {shape[0]} examples{tokens}.")
