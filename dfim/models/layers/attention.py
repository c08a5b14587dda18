"""Attention between tokens."""

import math

import jax
import jax.numpy as jnp

from dfim.models.layers import linear

Array = jax.Array


def queries_keys_values(h: Array, heads: int, dtype: str | None) -> tuple[Array, Array, Array]:
  """`[B, N, W]` to three of `[B, N, heads, W / heads]`, by one layer; call it in a module."""
  qkv = linear.dense(3 * h.shape[-1], dtype, "qkv")(h)
  qkv = qkv.reshape(*h.shape[:2], 3, heads, h.shape[-1] // heads)
  return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
  """`[B, N, heads, d]` each to `[B, N, heads d]`; the softmax is in float32 at least.

  `mask`, `[N, N]` or `[B | 1, 1, N, N]`, is true where a query may see a key; each must see one.
  """
  wide = linear.at_least_float32(q)
  logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide)
  logits /= math.sqrt(q.shape[-1])
  if mask is not None:
    logits = jnp.where(mask.reshape((1,) * (4 - mask.ndim) + mask.shape), logits, -jnp.inf)
  mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1).astype(v.dtype), v)
  return mixed.reshape(*mixed.shape[:2], -1)
