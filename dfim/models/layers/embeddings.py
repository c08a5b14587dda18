"""Embeddings of times and labels: `[B, 1, 1, W]` for an image, `[B, T, W]` for tokens."""

from collections.abc import Callable, Mapping
import statistics

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.models.layers import linear

Array = jax.Array
Cond = Mapping[str, Array] | None
Features = Callable[[Array, int], Array]  # (time [..., 1], width) -> [..., width]


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


def network_times(s: Array, t: Array, second_time: str, time_scale: float) -> tuple[Array, Array]:
  """c_noise of t and of the second time, in float32 at least: bfloat16 cannot tell r from t."""
  if second_time not in ("s", "t-s"):
    raise FieldError("second_time", second_time, "is unknown: use 's' or 't-s'")
  s, t = (u.astype(linear.at_least_float32(u)) for u in (s, t))
  return time_scale * t, time_scale * (s if second_time == "s" else t - s)


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


def fourier(time: Array, width: int, *, scale: float = 16.0) -> Array:
  """Fourier features of NCSN++ and EDM, `[..., 1]` to `[..., width]`: cosines, then sines.

  Their frequencies are normal, of deviation `scale`; here its quantiles, which need no draw. They
  are of whole turns of time, so that 1 is the network's `time_scale`. Sources: Tancik et al. 2020
  (arXiv 2006.10739); Song et al. 2021 (2011.13456); IMM appendix I.1.
  """
  share = (np.arange(width // 2) + 0.5) / (width // 2)
  quantiles = [statistics.NormalDist().inv_cdf(0.5 + 0.5 * p) for p in share]  # +-f are one feature
  angle = _angles(time, 2.0 * np.pi * scale * np.array(quantiles))
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _angles(time: Array, freq: np.ndarray) -> Array:
  freq = jnp.asarray(freq, linear.at_least_float32(time))
  return time * freq.reshape((1,) * (time.ndim - 1) + (-1,))


class TimeMLP(nn.Module):
  """Dense, SiLU, Dense on the sinusoids of a time: in float32 in every network."""

  width: int
  init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, sinusoids: Array) -> Array:
    """`[..., F]` to `[..., width]`."""
    given = dict(features=self.width, kernel_init=self.init, dot_general=linear.as_rows)
    return nn.Dense(name="layer1", **given)(nn.silu(nn.Dense(name="layer0", **given)(sinusoids)))


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
  features: Features = dit_sinusoids

  @nn.compact
  def __call__(self, s: Array, t: Array, cond: Cond) -> Array:
    """Times `[..., 1]` to `[..., width]`, with size-1 axes where they have them."""
    first, second = network_times(s, t, self.second_time, self.time_scale)
    emb = TimeMLP(self.width, self.init, name="t")(self.features(first, self.sinusoids))
    emb += TimeMLP(self.width, self.init, name="s")(self.features(second, self.sinusoids))
    label = LabelEmbedding(self.num_classes, self.width, self.init, name="label")
    return emb + label(cond, t.ndim)
