"""adaLN-Zero: shifts, scales and gates of an embedding of the times (DiT, arXiv 2212.09748)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dfim.models.layers import linear, norms

Array = jax.Array


class Modulation(nn.Module):
  """Shifts, scales and gates of an embedding, zero at init; float32 in every network."""

  count: int
  width: int
  precision: Any = linear.HIGHEST

  @nn.compact
  def __call__(self, emb: Array) -> list[Array]:
    """`[..., E]` to `count` arrays `[..., width]`."""
    features, zeros = self.count * self.width, nn.initializers.zeros
    dense = linear.time_dense(features, zeros, "linear", precision=self.precision)
    return jnp.split(dense(nn.silu(emb)), self.count, axis=-1)


def gated(h: Array, gate: Array, update: Array) -> Array:
  """h + gate update in the wider dtype; returned in that of h."""
  return (h + gate * update).astype(h.dtype)


def output(
  h: Array, emb: Array, features: int, dtype: str | None, precision: Any = linear.HIGHEST
) -> Array:
  """A modulated norm and a linear layer that starts at 0; call it in a module."""
  shift, scale = Modulation(2, h.shape[-1], precision, name="output_modulation")(emb)
  h = norms.modulated(h, shift, scale)
  return nn.Dense(features, kernel_init=nn.initializers.zeros, dtype=dtype, name="output")(h)
