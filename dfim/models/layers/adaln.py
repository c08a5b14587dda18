"""adaLN-Zero: shifts, scales and gates of an embedding of the times (DiT, arXiv 2212.09748)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dfim.models.layers import linear, norms

Array = jax.Array


class Modulation(nn.Module):
  """Shifts, scales and gates of an embedding, zero at init."""

  count: int
  width: int
  dtype: Any = None

  @nn.compact
  def __call__(self, emb: Array) -> list[Array]:
    """`[..., E]` to `count` arrays `[..., width]`."""
    given = dict(kernel_init=nn.initializers.zeros, dtype=self.dtype, dot_general=linear.as_rows)
    dense = nn.Dense(self.count * self.width, name="linear", **given)
    return jnp.split(dense(nn.silu(emb)), self.count, axis=-1)


def output(h: Array, emb: Array, features: int, dtype: str | None) -> Array:
  """A modulated norm and a linear layer that starts at 0; call it in a module."""
  shift, scale = Modulation(2, h.shape[-1], dtype, name="output_modulation")(emb)
  h = norms.modulated(h, shift, scale)
  return nn.Dense(features, kernel_init=nn.initializers.zeros, dtype=dtype, name="output")(h)
