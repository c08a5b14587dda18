"""A residual MLP: for points `[B, D]`, small images as one vector, tokens each by itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dfim.core import conditioning
from dfim.models.layers import adaln, embeddings, norms

Array = jax.Array


class MLP(nn.Module):
  """(x, s, t, cond) -> G, the shape of x; a vector, or with `flatten` an example, has one time."""

  width: int = 256
  depth: int = 3
  num_classes: int = 0
  dropout: float = 0.0
  second_time: str = "s"
  time_scale: float = 1000.0
  dtype: str | None = None
  flatten: bool = False

  @nn.compact
  def __call__(
    self, x: Array, s: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
  ) -> Array:
    """`x [B, ..., D]`, times `[B, ..., 1]` -> G in float32; cond: `label [B]` alone."""
    if self.flatten and x.ndim > 2:
      embeddings.check_times(x, s, t, range(1, x.ndim))
      flat = lambda a: a.reshape(a.shape[0], -1)
      return self(flat(x), flat(s), flat(t), cond, train=train).reshape(x.shape)
    embeddings.check_times(x, s, t, (-1,))
    conditioning.check(cond, x.shape, reads=())
    init = nn.initializers.lecun_normal()  # DiT's 0.02 would silence a narrow network's times
    fields = self.width, self.num_classes, self.second_time, self.time_scale, 64, init
    emb = embeddings.Conditioning(*fields, name="conditioning")(s, t, cond)
    h = nn.Dense(self.width, dtype=self.dtype, name="input")(x)
    for i in range(self.depth):
      h = Block(self.width, self.dropout, self.dtype, name=f"block{i}")(h, emb, train)
    return adaln.output(h, emb, x.shape[-1], self.dtype).astype(jnp.float32)


class Block(nn.Module):
  """h + Dense(SiLU(Dense(norm(h) modulated by the embedding)))."""

  width: int
  dropout: float
  dtype: str | None

  @nn.compact
  def __call__(self, h: Array, emb: Array, train: bool) -> Array:
    """`h [..., W]`, `emb` broadcasting against it -> `[..., W]`."""
    shift, scale = adaln.Modulation(2, self.width, name="modulation")(emb)
    y = norms.modulated(h, shift, scale)
    y = nn.silu(nn.Dense(self.width, dtype=self.dtype, name="dense0")(y))
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return h + nn.Dense(self.width, dtype=self.dtype, name="dense1")(y)
