"""The diffusion transformer of IMM's latents: adaLN-Zero, fixed positions."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.models.layers import adaln, attention, embeddings, linear, norms, remat, stacking

Array = jax.Array
SIZES = {  # of the paper's ImageNet runs (table 5), with patch 2: DiT(**SIZES["XL"])
  "S": dict(depth=12, width=384, heads=6),
  "B": dict(depth=12, width=768, heads=12),
  "L": dict(depth=24, width=1024, heads=16),
  "XL": dict(depth=28, width=1152, heads=16),
}


class DiT(nn.Module):
  """(x, s, t, cond) -> G for images with one time each.

  `remat` is a name of `layers.remat`; `scan` compiles one block, with stacked parameters "blocks".
  """

  patch: int = 2
  width: int = 384
  depth: int = 12
  heads: int = 6
  mlp_ratio: int = 4
  num_classes: int = 0
  dropout: float = 0.0
  second_time: str = "s"
  time_scale: float = 1000.0
  time_features: embeddings.Features = embeddings.dit_sinusoids
  dtype: str | None = None
  remat: str = "none"
  scan: bool = False

  @nn.compact
  def __call__(
    self, x: Array, s: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
  ) -> Array:
    """`x [B, H, W, C]`, times `[B, 1, 1, 1]` -> G in float32; cond: `label [B]` alone."""
    embeddings.check_image(x, s, t)
    conditioning.check(cond, x.shape, reads=())
    if x.shape[1] % self.patch or x.shape[2] % self.patch:
      raise FieldError("patch", self.patch, f"does not divide x of shape {x.shape}")
    if self.width % self.heads or self.width % 4:
      raise FieldError("width", self.width, f"is no multiple of heads={self.heads} and of 4")
    grid = x.shape[1] // self.patch, x.shape[2] // self.patch
    fields = self.width, self.num_classes, self.second_time, self.time_scale
    given = dict(features=self.time_features, name="conditioning")
    emb = embeddings.Conditioning(*fields, **given)(s[:, 0], t[:, 0], cond)
    h = linear.dense(self.width, self.dtype, "input")(patchify(x, self.patch))
    h += jnp.asarray(positions(grid, self.width), h.dtype)
    h = self._blocks(h, emb, train)
    out = adaln.output(h, emb, self.patch**2 * x.shape[-1], self.dtype)
    return unpatchify(out, grid, self.patch).astype(jnp.float32)

  def _blocks(self, h: Array, emb: Array, train: bool) -> Array:
    policy = remat.Remat(self.remat, looped=self.scan)
    fields = self.heads, self.mlp_ratio, self.dropout, self.dtype, policy
    block = functools.partial(policy.block(Block, static=3), *fields)
    if not self.scan:
      for i in range(self.depth):
        h = block(name=f"block{i}")(h, emb, train)
      return h
    layer = stacking.scan(lambda block, h, _: (block(h, emb, train), None), self.depth)
    return layer(block(name="blocks"), h, None)[0]


class Block(nn.Module):
  """Self-attention and an MLP, each modulated and gated by the embedding `[B, 1, W]`."""

  heads: int
  mlp_ratio: int
  dropout: float
  dtype: str | None
  policy: remat.Remat

  @nn.compact
  def __call__(self, h: Array, emb: Array, train: bool) -> Array:
    """Tokens `[B, N, W]` to tokens."""
    modulation = remat.keep(adaln.Modulation(6, h.shape[-1], name="modulation")(emb))
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
    drop = lambda a: nn.Dropout(self.dropout, deterministic=not train)(a)
    modulated = norms.modulated(h, shift_a, scale_a)
    qkv = attention.queries_keys_values(modulated, self.heads, self.dtype)
    mixed = self.policy.attention(attention.attention)(*qkv)
    h = adaln.gated(h, gate_a, drop(linear.dense(h.shape[-1], self.dtype, "proj")(mixed)))
    modulated = norms.modulated(h, shift_m, scale_m)
    update = drop(linear.gelu_mlp(modulated, self.mlp_ratio, self.dtype, self.policy))
    return adaln.gated(h, gate_m, update)


def patchify(x: Array, patch: int) -> Array:
  """`[B, H, W, C]` to tokens `[B, H/p W/p, p p C]`, row by row."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, -1, patch * patch * c)


def unpatchify(tokens: Array, grid: tuple[int, int], patch: int) -> Array:
  """The inverse of `patchify` on a `grid` of tokens."""
  x = tokens.reshape(-1, *grid, patch, patch, tokens.shape[-1] // patch**2)
  h, w = grid[0] * patch, grid[1] * patch
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x.shape[-1])


def positions(grid: tuple[int, int], width: int) -> np.ndarray:
  """Fixed 2-D sin-cos positions `[1, N, width]`: the column, then the row."""
  row, column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
  angles = [axis[:, None] * embeddings.frequencies(width // 4)[None] for axis in (column, row)]
  return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=-1)[None]
