"""Embeddings of times and labels: `[B, 1, 1, W]` for an image, `[B, T, W]` for tokens."""

from collections.abc import Mapping
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.models.layers import linear

Array = jax.Array
Cond = Mapping[str, Array] | None


def check_times(x: Array, s: Array, t: Array, shared: tuple[int, ...]) -> None:
  """Refuses times without the rank of `x`, or not of size 1 on the axes `shared`."""
  for name, u in (("s", s), ("t", t)):
    if u.ndim != x.ndim or any(u.shape[axis] != 1 for axis in shared):
      fix = f"give it rank {x.ndim} and size 1 on the axes {tuple(shared)}"
      raise ValueError(f"{name} of shape {u.shape} does not fit x of shape {x.shape}: {fix}")


def check_image(x: Array, s: Array, t: Array) -> None:
  """An image `[B, H, W, C]` has one time: `[B, 1, 1, 1]`, or `[1, 1, 1, 1]` for all."""
  if x.ndim != 4:
    raise ValueError(f"x of shape {x.shape} is no image: give it the axes [B, H, W, C]")
  check_times(x, s, t, (1, 2, 3))


def check_sequence(x: Array, s: Array, t: Array) -> None:
  """A sequence `[B, T, D]` has a time for each token, `[B, T, 1]`, or one for all."""
  if x.ndim != 3:
    raise ValueError(f"x of shape {x.shape} is no sequence: give it the axes [B, T, D]")
  check_times(x, s, t, (2,))


def network_times(s: Array, t: Array, second_time: str) -> tuple[Array, Array]:
  """t and the second time, in float32 at least: bfloat16 cannot tell r from t.

  Angles (`_angles`), products (`linear.time_dense`) and modulations keep r apart from t on every
  platform, in bfloat16 networks too.
  """
  if second_time not in ("s", "t-s"):
    raise FieldError("second_time", second_time, "is unknown: use 's' or 't-s'")
  s, t = (u.astype(linear.at_least_float32(u)) for u in (s, t))
  return t, s if second_time == "s" else t - s


def frequencies(count: int, *, endpoint: bool = False) -> np.ndarray:
  """`count` angular frequencies from 1 down to 1e-4, which is reached with `endpoint`."""
  return 1e-4 ** (np.arange(count) / max(count - endpoint, 1))


def dit_sinusoids(time: Array, scale: float, width: int) -> Array:
  """Of scale time, `[..., 1]` to `[..., width]`: cosines, then sines (DiT's convention)."""
  angle = _angles(time, scale * frequencies(width // 2))
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def ddpm_sinusoids(time: Array, scale: float, width: int) -> Array:
  """Of scale time, `[..., 1]` to `[..., width]`: sines, then cosines, 1e-4 reached (DDPM++'s)."""
  angle = _angles(time, scale * frequencies(width // 2, endpoint=True))
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _angles(time: Array, rate: np.ndarray) -> Array:
  """time rate `[..., n]` less whole turns, rounded once.

  A rounded product would lose r next to t: 1000 t has an ulp of 6e-5 where 1000 (t - r) may be
  4e-4. Two halves of mantissas have an exact product (Dekker 1971, doi 10.1007/BF01397083), from
  which whole turns are subtracted exactly.
  """
  time = time.astype(linear.at_least_float32(time))
  bits, turns_per_time = jnp.finfo(time.dtype), rate / (2 * np.pi)
  half = (bits.nmant + 1) // 2
  mantissa, exponent = np.frexp(turns_per_time)
  high = np.ldexp(np.rint(np.ldexp(mantissa, half)), exponent - half)
  aligned = lambda a: jnp.asarray(a, time.dtype).reshape((1,) * (time.ndim - 1) + (-1,))
  high, low = aligned(high), aligned(turns_per_time - high)
  time_high = jax.lax.reduce_precision(time, exponent_bits=bits.nexp, mantissa_bits=half - 1)
  turns = time_high * high
  turns = turns - jnp.round(turns) + ((time - time_high) * high + time * low)
  return 2 * np.pi * turns


class TimeMLP(nn.Module):
  """Dense, SiLU, Dense on the sinusoids of a time: in float32 in every network."""

  width: int
  init: nn.initializers.Initializer
  precision: Any = linear.HIGHEST

  @nn.compact
  def __call__(self, sinusoids: Array) -> Array:
    """`[..., F]` to `[..., width]`."""
    layer = functools.partial(linear.time_dense, self.width, self.init, precision=self.precision)
    return layer("layer1")(nn.silu(layer("layer0")(sinusoids)))


class LabelEmbedding(nn.Module):
  """A row for each class, and a last one for null: a negative label, or none at all.

  A label of `num_classes` or more reads NaN. Without classes labels are ignored.
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
    row = jnp.where(label < self.num_classes, label, self.num_classes + 1)  # no row of the table
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
  precision: Any = linear.HIGHEST

  @nn.compact
  def __call__(self, s: Array, t: Array, cond: Cond) -> Array:
    """Times `[..., 1]` to `[..., width]`, with size-1 axes where they have them."""
    first, second = network_times(s, t, self.second_time)
    sinusoids = lambda time: dit_sinusoids(time, self.time_scale, self.sinusoids)
    mlp = functools.partial(TimeMLP, self.width, self.init, self.precision)
    emb = mlp(name="t")(sinusoids(first)) + mlp(name="s")(sinusoids(second))
    label = LabelEmbedding(self.num_classes, self.width, self.init, name="label")
    return emb + label(cond, t.ndim)
