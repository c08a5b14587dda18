"""The transformer of the released Diffusion Forcing (arXiv 2407.01392, v1.5 of 2024).

Planning has width 128, depth 12, 4 heads.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.models.layers import attention, embeddings, linear

Array = jax.Array


class ReleasedTransformer(nn.Module):
  """(x, s, t, cond) -> G for sequences with a time per token; G does not depend on s.

  The network sees time_scale t - 1, a level's index if time_scale is the levels of `DiscreteVP`.
  """

  width: int = 128
  depth: int = 12
  heads: int = 4
  mlp_width: int = 512
  causal: bool = False
  time_scale: float = 1000.0
  dtype: str | None = None

  @nn.compact
  def __call__(
    self, x: Array, s: Array, t: Array, cond: embeddings.Cond = None, *, train: bool = False
  ) -> Array:
    """`x [B, T, D]`, times `[B, T, 1]` -> G; all conditions, `[B, T, A]` each, or none."""
    del train
    embeddings.check_sequence(x, s, t)
    conditioning.check(cond, x.shape)
    for name, a in (cond or {}).items():
      if a.ndim != 3:
        raise ValueError(f"cond.{name} of {conditioning.describe(a)}: give floating [B, T, C].")
    if self.width % self.heads or self.width % 4:
      raise FieldError("width", self.width, f"is no multiple of heads={self.heads} and of 4")
    level = self.time_scale * embeddings.network_times(s, t, "s")[0] - 1.0
    level = embeddings.ddpm_sinusoids(level, 1.0, self.width // 2)
    level = jnp.broadcast_to(level, (*x.shape[:2], self.width // 2))
    parts = jnp.concatenate([x, level, *self._vectors(x, cond)], axis=-1)
    h = nn.relu(_linear(self.width, None, "input0", precision=linear.HIGHEST)(parts))
    h = _linear(self.width, self.dtype, "input1")(h)
    position = jnp.arange(x.shape[1], dtype=level.dtype).reshape(1, -1, 1)
    h += embeddings.ddpm_sinusoids(position, 1.0, self.width).astype(h.dtype)
    mask = jnp.tri(x.shape[1], dtype=bool) if self.causal else None
    for i in range(self.depth):
      h = Block(self.heads, self.mlp_width, self.dtype, name=f"block{i}")(h, mask)
    zeros = nn.initializers.zeros
    out = nn.Dense(x.shape[-1], kernel_init=zeros, dtype=self.dtype, name="output")(h)
    return out.astype(linear.at_least_float32(out))

  def _vectors(self, x: Array, cond: embeddings.Cond) -> list[Array]:
    given = [array for _, array in sorted((cond or {}).items())]
    if self.is_initializing():
      return given
    inputs = self.variables["params"]["input0"]["kernel"].shape[0]
    size = inputs - x.shape[-1] - self.width // 2
    if given and sum(a.shape[-1] for a in given) != size:
      shapes = ", ".join(f"cond.{name} of shape {a.shape}" for name, a in sorted(cond.items()))
      fix = f"the network was initialised with {max(size, 0)} numbers a token; give all, or none."
      raise ValueError(f"{shapes}: {fix}")
    return given if given or size <= 0 else [jnp.zeros((*x.shape[:2], size), x.dtype)]


class Block(nn.Module):
  """norm(h + attention(h)), then norm(h + MLP(h))."""

  heads: int
  mlp_width: int
  dtype: str | None

  @nn.compact
  def __call__(self, h: Array, mask: Array | None) -> Array:
    """Tokens `[B, T, W]` to tokens; `mask` as `attention.attention` takes it."""
    width = h.shape[-1]
    norm = lambda name: nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)
    mixed = attention.attention(*attention.queries_keys_values(h, self.heads, self.dtype), mask)
    h = norm("norm1")(h + _linear(width, self.dtype, "proj")(mixed))
    mlp = nn.relu(_linear(self.mlp_width, self.dtype, "fc1")(h))
    return norm("norm2")(h + _linear(width, self.dtype, "fc2")(mlp))


def _linear(features: int, dtype: str | None, name: str, **how: Any) -> nn.Dense:
  """Weights uniform within 1 / sqrt(inputs), as the released program starts."""
  init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
  return nn.Dense(features, kernel_init=init, dtype=dtype, name=name, **how)
