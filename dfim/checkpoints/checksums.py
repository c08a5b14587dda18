"""Checksums of arrays, the same on any layout of devices and processes.

A checksum is a sum over the bits of an array's numbers, each mixed with its index. Integer sums do
not depend on their order, so each device adds up its part of the array. A change of one number
always changes the sum; a change of several goes unnoticed with probability 2^-64.
"""

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
_SALTS = (0x9E3779B9, 0x7F4A7C15)  # any two numbers


def named(tree: Any) -> dict[str, Any]:
  """The leaves of `tree` by path: "params/Dense_0/kernel"."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


@jax.jit
def checksums(state: Any) -> dict[str, Array]:
  """The checksum, uint32 `[2]`, of each array of `state`, by name."""
  return {name: _checksum(a) for name, a in named(state).items()}


@jax.jit  # so that arrays of one shape are traced once
def _checksum(a: Array) -> Array:
  words = _words(a)
  index = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):  # its index in row-major order, modulo 2^32
    index = index * (size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
  mixed = tuple(_mix(words ^ _mix(index ^ jnp.uint32(salt))) for salt in _SALTS)
  zeros = (jnp.uint32(0),) * len(mixed)
  add = lambda sums, more: tuple(a + b for a, b in zip(sums, more, strict=True))
  # One reduction, which XLA's CPU backend vectorizes: a quarter of the time of two.
  return jnp.stack(jax.lax.reduce(mixed, zeros, add, range(words.ndim)))


def _words(a: Array) -> Array:
  """The bits of `a` as uint32, with one more axis if a number has 64 of them."""
  if a.dtype == jnp.bool_:
    return a.astype(jnp.uint32)
  width = min(a.dtype.itemsize, 4)
  return jax.lax.bitcast_convert_type(a, f"uint{8 * width}").astype(jnp.uint32)


def _mix(x: Array) -> Array:
  """MurmurHash3's finalizer, a bijection: each bit of the result depends on all of `x`."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
