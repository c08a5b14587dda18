"""Linear layers, their initial weights, and the precision to compute with."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
HIGHEST = jax.lax.Precision.HIGHEST


def at_least_float32(a: Array) -> jnp.dtype:
  """The dtype to compute with where that of `a` may be narrower; float64 stays float64."""
  return jnp.promote_types(a.dtype, jnp.float32)


def xavier(gain: float = 1.0) -> nn.initializers.Initializer:
  """Glorot-uniform weights times `gain`."""
  return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def as_rows(x: Array, kernel: Array, dimensions: Any, **kwargs: Any) -> Array:
  """`dot_general` of a linear layer, tokens as rows of one matrix: a faster gradient on a CPU."""
  del dimensions  # the last axis with the first
  rows = jax.lax.dot(x.reshape(-1, x.shape[-1]), kernel, **kwargs)
  return rows.reshape(*x.shape[:-1], -1)


def dense(features: int, dtype: str | None, name: str) -> nn.Dense:
  """A linear layer as transformers start it."""
  return nn.Dense(features, kernel_init=xavier(), dtype=dtype, name=name, dot_general=as_rows)


def time_dense(
  features: int, init: nn.initializers.Initializer, name: str, **given: Any
) -> nn.Dense:
  """A linear layer of the time path, whose input depends on times or conditions and not on x.

  It computes in float32 at least and in a stated precision, by default the highest: a TPU's own
  default, one bfloat16 pass, and a GPU's, TF32, lose emb(t) - emb(r).
  """
  given = dict(precision=HIGHEST) | given
  return nn.Dense(features, kernel_init=init, name=name, dot_general=as_rows, **given)


def gelu_mlp(h: Array, ratio: int, dtype: str | None) -> Array:
  """`[B, N, W]` through a layer `ratio` times as wide; call it in a module."""
  wide = nn.gelu(dense(ratio * h.shape[-1], dtype, "fc1")(h), approximate=True)
  return dense(h.shape[-1], dtype, "fc2")(wide)
