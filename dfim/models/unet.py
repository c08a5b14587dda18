"""The DDPM++ U-Net of IMM's CIFAR-10 runs (arXiv 2503.07565, appendix I.1), channels last.

Blocks have released names: "enc.16x16_conv" is "enc_16x16_conv", "map_layer0_s" "map_s.layer0".
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.models.layers import (
  attention as attention_lib,
  embeddings,
  linear,
  norms,
  remat,
  stacking,
)

Array = jax.Array
SKIP_SCALE = math.sqrt(0.5)


class UNet(nn.Module):
  """(x, s, t, cond) -> G for images with one time each; the paper's has augment_dim 9, dropout 0.2.

  `attention_resolutions` are heights of feature maps. `remat` is a name of `layers.remat`; `scan`
  compiles one of equal consecutive blocks, with stacked parameters such as "enc_8x8_blocks1to3".
  A loop slows gradients of convolutions 30 times on a CPU, and keeps more activations on a TPU.
  """

  channels: int = 128
  multipliers: tuple[int, ...] = (2, 2, 2)
  blocks: int = 4
  attention_resolutions: tuple[int, ...] = (16,)
  heads: int = 1
  embed_multiplier: int = 4
  num_classes: int = 0
  augment_dim: int = 0
  dropout: float = 0.0
  second_time: str = "s"
  time_scale: float = 1000.0
  time_features: embeddings.Features = embeddings.ddpm_sinusoids
  dtype: str | None = None
  remat: str = "none"
  scan: bool = False

  @nn.compact
  def __call__(
    self, x: Array, s: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
  ) -> Array:
    """`x [B, H, W, C]`, times `[B, 1, 1, 1]` -> G in float32; cond: label, augment `[B, A]`."""
    embeddings.check_image(x, s, t)
    conditioning.check(cond, x.shape, reads=("augment",))
    emb = self._embed(s, t, cond)
    sizes = self._sizes(x)
    h, skips = self._encode(x, emb, sizes, train)
    h = self._decode(h, skips, emb, sizes, train)
    h = nn.silu(_norm(h.shape[-1], self.dtype, f"dec_{sizes[0]}_aux_norm")(h))
    out = _conv(x.shape[-1], 3, self.dtype, f"dec_{sizes[0]}_aux_conv", gain=0.0)(h)
    return out.astype(jnp.float32)

  def _sizes(self, x: Array) -> list[str]:
    if min(self.multipliers, default=0) < 1:
      raise FieldError("multipliers", self.multipliers, "give one a level, each 1 or more")
    if any(self.channels * m % self.heads for m in self.multipliers):
      raise FieldError("heads", self.heads, "does not divide the channels of every level")
    levels = range(len(self.multipliers))
    if x.shape[1] % 2 ** levels[-1] or x.shape[2] % 2 ** levels[-1]:
      fix = f"halve x of shape {x.shape} too often: give fewer, or pad x"
      raise FieldError("multipliers", self.multipliers, fix)
    return [f"{x.shape[1] >> level}x{x.shape[2] >> level}" for level in levels]

  def _embed(self, s: Array, t: Array, cond: embeddings.Cond) -> Array:
    """`[B, 1, 1, E]`; labels and augmentation join the sinusoids of t, before its MLP."""
    first, second = embeddings.network_times(s, t, self.second_time)
    features = self.time_features(first, self.time_scale, self.channels)
    init = nn.initializers.normal(0.5)  # about the size of the sinusoids
    labels = embeddings.LabelEmbedding(self.num_classes, self.channels, init, name="map_label")
    features += labels(cond, t.ndim) + self._augment(cond)
    width = self.embed_multiplier * self.channels
    emb = embeddings.TimeMLP(width, linear.xavier(), name="map_t")(features)
    features = self.time_features(second, self.time_scale, self.channels)
    return nn.silu(emb + embeddings.TimeMLP(width, linear.xavier(), name="map_s")(features))

  def _augment(self, cond: embeddings.Cond) -> Array:
    """`cond["augment"]` `[B, A]` to `[B, 1, 1, channels]`; no bias, so that zeros mean none."""
    label = (cond or {}).get("augment", jnp.zeros((1, self.augment_dim)))
    if label.shape[1:] != (self.augment_dim,):
      fix = f"cond.augment of shape {label.shape} is not [B, augment_dim]; change either."
      raise FieldError("model.augment_dim", self.augment_dim, fix)
    if self.augment_dim == 0:
      return jnp.zeros((1, 1, 1, 1))
    dense = linear.time_dense(self.channels, linear.xavier(), "map_augment", use_bias=False)
    return dense(label.astype(jnp.float32))[:, None, None]

  def _encode(self, x: Array, emb: Array, sizes: list[str], train: bool):
    """The coarsest features, and the list of those of every block, for the decoder."""
    h = _conv(self.channels, 3, self.dtype, f"enc_{sizes[0]}_conv")(x)
    skips = [h]
    for level, (size, multiplier) in enumerate(zip(sizes, self.multipliers, strict=True)):
      if level > 0:
        h = self._block(f"enc_{size}_down", h.shape[-1], resample="down")(h, emb, train)
        skips.append(h)
      attention = [h.shape[1] in self.attention_resolutions] * self.blocks
      level = f"enc_{size}", multiplier * self.channels, attention
      h, features = self._blocks(*level, h, [None] * self.blocks, emb, train)
      skips += features
    return h, skips

  def _decode(self, h: Array, skips: list[Array], emb: Array, sizes: list[str], train: bool):
    h = self._block(f"dec_{sizes[-1]}_in0", h.shape[-1], attention=True)(h, emb, train)
    h = self._block(f"dec_{sizes[-1]}_in1", h.shape[-1])(h, emb, train)
    for size, multiplier in list(zip(sizes, self.multipliers, strict=True))[::-1]:
      if size != sizes[-1]:
        h = self._block(f"dec_{size}_up", h.shape[-1], resample="up")(h, emb, train)
      # The released decoder attends in the last block of a level only.
      attention = [False] * self.blocks + [h.shape[1] in self.attention_resolutions]
      level = f"dec_{size}", multiplier * self.channels, attention
      h, _ = self._blocks(*level, h, [skips.pop() for _ in attention], emb, train)
    return h

  def _blocks(
    self,
    level: str,
    channels: int,
    attention: list[bool],
    h: Array,
    skips: list[Array | None],
    emb: Array,
    train: bool,
  ) -> tuple[Array, list[Array | None]]:
    """`h` through the numbered blocks of a level; the features after each that has no skip."""

    def layer(block: Block, h: Array, skip: Array | None) -> tuple[Array, Array | None]:
      joined = h if skip is None else jnp.concatenate([h, skip], axis=-1)
      h = block(joined, emb, train)
      return h, h if skip is None else None

    def make(run: range) -> Block:
      name = f"{level}_{stacking.name(run)}"
      return self._block(name, channels, attention[run[0]], looped=len(run) > 1)

    widths = [h.shape[-1]] + [channels] * (len(skips) - 1)
    joined = [0 if skip is None else skip.shape[-1] for skip in skips]
    forms = zip(widths, joined, attention, strict=True) if self.scan else range(len(skips))
    return stacking.through(layer, make, list(forms), h, skips)

  def _block(
    self,
    name: str,
    channels: int,
    attention: bool = False,
    resample: str | None = None,
    looped: bool = False,
  ) -> "Block":
    heads, policy = self.heads if attention else 0, remat.Remat(self.remat, looped)
    block = policy.block(Block, static=3)
    return block(channels, heads, resample, self.dropout, self.dtype, policy, name=name)


class Block(nn.Module):
  """A residual block, then attention if it has heads."""

  channels: int
  heads: int
  resample: str | None
  dropout: float
  dtype: str | None
  policy: remat.Remat

  @nn.compact
  def __call__(self, x: Array, emb: Array, train: bool) -> Array:
    """`x [B, H, W, C]` and `emb [B, 1, 1, E]` to `channels`, resampled."""
    silu = self.policy.module_activation(lambda norm, h: nn.silu(norm(h)))
    h = _resample(silu(_norm(x.shape[-1], self.dtype, "norm0"), x), self.resample)
    h = _conv(self.channels, 3, self.dtype, "conv0")(h)
    affine = linear.time_dense(self.channels, linear.xavier(), "affine")
    h = (h + affine(emb)).astype(h.dtype)
    h = silu(_norm(self.channels, self.dtype, "norm1"), h)
    h = nn.Dropout(self.dropout, deterministic=not train)(h)
    h = _conv(self.channels, 3, self.dtype, "conv1", gain=1e-5)(h)
    if self.resample is not None or x.shape[-1] != self.channels:
      x = _conv(self.channels, 1, self.dtype, "skip")(_resample(x, self.resample))
    h = SKIP_SCALE * (h + x)
    return SKIP_SCALE * (h + self._attend(h)) if self.heads else h

  def _attend(self, h: Array) -> Array:
    b, height, width, c = h.shape
    h = _norm(c, self.dtype, "norm2")(h)
    qkv = _conv(3 * c, 1, self.dtype, "qkv", gain=math.sqrt(0.2))(h)
    # q, k, v alternate in the channels of the released weights.
    qkv = qkv.reshape(b, height * width, self.heads, c // self.heads, 3)
    attention = self.policy.attention(attention_lib.attention)
    mixed = attention(qkv[..., 0], qkv[..., 1], qkv[..., 2])
    return _conv(c, 1, self.dtype, "proj", gain=1e-5)(mixed.reshape(b, height, width, c))


def _conv(features: int, size: int, dtype: str | None, name: str, gain: float = 1.0) -> nn.Conv:
  how = dict(conv_general_dilated=_pointwise) if size == 1 else {}
  init = linear.xavier(gain)
  return nn.Conv(features, (size, size), kernel_init=init, dtype=dtype, name=name, **how)


def _pointwise(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
  """A 1 x 1 convolution as a linear layer: its gradient is four times as fast on a CPU."""
  del args, kwargs  # strides, padding and layout, of which there is one
  return linear.as_rows(x, kernel[0, 0], None)


def _norm(channels: int, dtype: str | None, name: str) -> norms.GroupNorm:
  """Of four channels a group or more, in at most 32 groups."""
  largest = max(1, min(32, channels // 4))
  groups = next(n for n in range(largest, 0, -1) if channels % n == 0)
  return norms.GroupNorm(groups, dtype, name=name)


def _resample(h: Array, how: str | None) -> Array:
  """Half the size by the mean of 2 x 2, or twice by repetition (the filter [1, 1])."""
  if how == "down":
    return nn.avg_pool(h, (2, 2), (2, 2))
  if how == "up":
    return h.repeat(2, axis=1).repeat(2, axis=2)
  return h
