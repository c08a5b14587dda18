"""What the networks share: what they are told of the times, labels, modulation, attention.

Embeddings keep the rank of the times they come from (`[B, 1, 1, W]` for an image, `[B, T, W]`
for tokens), so they broadcast against the features like the times against the data.
"""

from collections.abc import Mapping
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dfim.core import conditioning

Array = jax.Array
Cond = Mapping[str, Array] | None


def check_times(x: Array, s: Array, t: Array, shared: tuple[int, ...]) -> None:
  """Refuse times without the rank of `x`, or not of size 1 on the axes `shared`."""
  for name, u in (("s", s), ("t", t)):
    if u.ndim != x.ndim or any(u.shape[axis] != 1 for axis in shared):
      raise ValueError(
        f"{name} of shape {u.shape} does not fit x of shape {x.shape}: give it rank {x.ndim} and "
        f"size 1 on the axes {tuple(shared)} of this network, as core.times.example does"
      )


def check_image(x: Array, s: Array, t: Array) -> None:
  """An image `[B, H, W, C]` has one time: `[B, 1, 1, 1]`, or `[1, 1, 1, 1]` for all."""
  if x.ndim != 4:
    raise ValueError(f"x of shape {x.shape} is no image: give it the axes [B, H, W, C]")
  check_times(x, s, t, (1, 2, 3))


def network_times(s: Array, t: Array, second_time: str, time_scale: float) -> tuple[Array, Array]:
  """c_noise of t and of the second time, in float32 at least: bfloat16 cannot tell r from t."""
  if second_time not in ("s", "t-s"):
    raise ValueError(f"second_time={second_time!r} is unknown: use 's' or 't-s'")
  s, t = (u.astype(at_least_float32(u)) for u in (s, t))
  return time_scale * t, time_scale * (s if second_time == "s" else t - s)


def at_least_float32(a: Array) -> jnp.dtype:
  """What to compute with in spite of a narrower dtype of `a`; float64 stays what it is."""
  return jnp.promote_types(a.dtype, jnp.float32)


def frequencies(count: int, *, endpoint: bool = False) -> np.ndarray:
  """`count` angular frequencies from 1 down to 1e-4, which is reached with `endpoint`."""
  return 1e-4 ** (np.arange(count) / max(count - endpoint, 1))


def dit_sinusoids(time: Array, width: int) -> Array:
  """`[..., 1]` to `[..., width]`: cosines, then sines (DiT's convention)."""
  angle = _angles(time, frequencies(width // 2))
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def ddpm_sinusoids(time: Array, width: int) -> Array:
  """`[..., 1]` to `[..., width]`: sines, then cosines, 1e-4 reached (DDPM++'s convention)."""
  angle = _angles(time, frequencies(width // 2, endpoint=True))
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _angles(time: Array, freq: np.ndarray) -> Array:
  freq = jnp.asarray(freq, at_least_float32(time))
  return time * freq.reshape((1,) * (time.ndim - 1) + (-1,))


def xavier(gain: float = 1.0) -> nn.initializers.Initializer:
  """Glorot-uniform weights times `gain`."""
  return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


class TimeMLP(nn.Module):
  """Dense, SiLU, Dense on the sinusoids of a time: in float32 in every network."""

  width: int
  init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, sinusoids: Array) -> Array:
    """`[..., F]` to `[..., width]`."""
    linear = functools.partial(nn.Dense, self.width, kernel_init=self.init, dot_general=as_rows)
    return linear(name="layer1")(nn.silu(linear(name="layer0")(sinusoids)))


class LabelEmbedding(nn.Module):
  """A row for each class, and a last one for null: a negative label, or none at all.

  A label of `num_classes` or more reads NaN: those are refused where data are read. Without classes
  there is no table, labels are ignored and the embedding is 0.
  """

  num_classes: int
  width: int
  init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, cond: Cond, rank: int) -> Array:
    """`label [B]` to `[B, 1, ..., width]`, of `rank` axes."""
    if self.num_classes == 0:
      return jnp.zeros((1,) * rank)
    label = conditioning.as_index((cond or {}).get("label", jnp.full((1,), -1)))
    beyond = self.num_classes + 1  # no row: the last one is null's
    row = jnp.where(label < self.num_classes, label, beyond)
    row = jnp.where(label < 0, self.num_classes, row)
    table = nn.Embed(self.num_classes + 1, self.width, embedding_init=self.init, name="table")
    return table(row).reshape((-1,) + (1,) * (rank - 2) + (self.width,))


class Conditioning(nn.Module):
  """emb(t) + emb(second time) + emb(label), as DiT adds them."""

  width: int
  num_classes: int
  second_time: str
  time_scale: float
  sinusoids: int = 256
  init: nn.initializers.Initializer = nn.initializers.normal(0.02)

  @nn.compact
  def __call__(self, s: Array, t: Array, cond: Cond) -> Array:
    """Times `[..., 1]` to `[..., width]`, with size-1 axes where they have them."""
    first, second = network_times(s, t, self.second_time, self.time_scale)
    emb = TimeMLP(self.width, self.init, name="t")(dit_sinusoids(first, self.sinusoids))
    emb += TimeMLP(self.width, self.init, name="s")(dit_sinusoids(second, self.sinusoids))
    label = LabelEmbedding(self.num_classes, self.width, self.init, name="label")
    return emb + label(cond, t.ndim)


class Modulation(nn.Module):
  """Shifts, scales and gates of an embedding, zero at init (adaLN-Zero)."""

  count: int
  width: int
  dtype: Any = None

  @nn.compact
  def __call__(self, emb: Array) -> list[Array]:
    """`[..., E]` to `count` arrays `[..., width]`."""
    dense = nn.Dense(
      self.count * self.width,
      kernel_init=nn.initializers.zeros,
      dtype=self.dtype,
      dot_general=as_rows,
      name="linear",
    )
    return jnp.split(dense(nn.silu(emb)), self.count, axis=-1)


def modulated_norm(h: Array, shift: Array, scale: Array) -> Array:
  """LayerNorm without parameters of its own, then scale and shift."""
  norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=h.dtype)
  return norm(h) * (1 + scale) + shift


def as_rows(x: Array, kernel: Array, dimensions: Any, **kwargs: Any) -> Array:
  """`dot_general` of a linear layer, all tokens as rows of one matrix.

  The same numbers, but on a CPU the gradient of `kernel` is otherwise computed twice as slowly.
  """
  del dimensions  # the last axis with the first
  rows = jax.lax.dot(x.reshape(-1, x.shape[-1]), kernel, **kwargs)
  return rows.reshape(*x.shape[:-1], -1)


def dense(features: int, dtype: str | None, name: str) -> nn.Dense:
  """A linear layer as transformers start it."""
  return nn.Dense(features, kernel_init=xavier(), dtype=dtype, name=name, dot_general=as_rows)


def queries_keys_values(h: Array, heads: int, dtype: str | None) -> tuple[Array, Array, Array]:
  """`[B, N, W]` to three of `[B, N, heads, W / heads]`, by one layer; call it in a module."""
  qkv = dense(3 * h.shape[-1], dtype, "qkv")(h)
  qkv = qkv.reshape(*h.shape[:2], 3, heads, h.shape[-1] // heads)
  return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


def gelu_mlp(h: Array, ratio: int, dtype: str | None) -> Array:
  """`[B, N, W]` through a layer `ratio` times as wide; call it in a module."""
  wide = nn.gelu(dense(ratio * h.shape[-1], dtype, "fc1")(h), approximate=True)
  return dense(h.shape[-1], dtype, "fc2")(wide)


def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
  """`[B, N, heads, d]` each to `[B, N, heads d]`; the softmax is in float32 at least.

  `mask`, `[N, N]` or `[B, 1, N, N]` (a batch axis of 1 serves all), is true where a query (the
  axis before the last) may see a key; every query must see one.
  """
  wide = at_least_float32(q)
  logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide)
  logits /= math.sqrt(q.shape[-1])
  if mask is not None:
    logits = jnp.where(mask.reshape((1,) * (4 - mask.ndim) + mask.shape), logits, -jnp.inf)
  mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1).astype(v.dtype), v)
  return mixed.reshape(*mixed.shape[:2], -1)
