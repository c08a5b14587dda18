"""Normalization of features."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dfim.models.layers import linear

Array = jax.Array


def modulated(h: Array, shift: Array, scale: Array) -> Array:
  """LayerNorm without parameters, scaled and shifted in the wider dtype; returned in that of h."""
  wide = jnp.promote_types(h.dtype, scale.dtype)
  norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=wide)
  return (norm(h) * (1 + scale) + shift).astype(h.dtype)


class GroupNorm(nn.Module):
  """`nn.GroupNorm`, each channel summed before the groups: two to three times as fast on a CPU."""

  groups: int
  dtype: str | None
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """`[B, H, W, C]` to the same, in `dtype`; moments in float32 at least."""
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    wide = x.astype(linear.at_least_float32(x))
    pooled = (jnp.mean(a, axis=(1, 2)) for a in (wide, jnp.square(wide)))
    of_groups = (jnp.mean(a.reshape(len(x), self.groups, -1), axis=-1) for a in pooled)
    mean, square = (jnp.repeat(a, channels // self.groups, axis=-1) for a in of_groups)
    variance = jnp.maximum(square - jnp.square(mean), 0.0)
    factor = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
    y = wide * factor[:, None, None] + (bias[None] - mean * factor)[:, None, None]
    return y.astype(self.dtype or y.dtype)
