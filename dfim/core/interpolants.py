"""The path from data to noise: x_t = alpha(t) x + sigma(t) eps, with t in [0, 1].

Time arrays have the rank of `x`, with size 1 where a time is shared: `[B, 1, 1, 1]` for an image,
`[B, T, 1]` for tokens. `eps` has std sigma_data. Sources: IMM (2503.07565); DDIM (2010.02502).

An interpolant is a function `(path, eps, fresh, s, t) -> eps'`: the noise of x_s, s <= t, on the
path to the datum of x_t, whose noise is `eps`; `fresh` is noise of the same deviation.
"""

import dataclasses
import functools
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError

Array = jax.Array


class Path(Protocol):
  """alpha(0) = sigma(1) = 1, alpha(1) = sigma(0) = 0; eta = sigma / alpha grows with t."""

  def alpha(self, t: Array) -> Array:
    """The share of data in x_t."""

  def sigma(self, t: Array) -> Array:
    """The share of noise in x_t."""

  def time(self, eta: Array) -> Array:
    """The t at which sigma(t) / alpha(t) = eta; 1 at eta = inf."""


@dataclasses.dataclass(frozen=True)
class FlowMatching:
  """The straight path of flow matching: alpha = 1 - t, sigma = t."""

  def alpha(self, t: Array) -> Array:
    return 1.0 - t

  def sigma(self, t: Array) -> Array:
    return t

  def time(self, eta: Array) -> Array:
    return 1.0 / (1.0 + 1.0 / eta)  # eta / (1 + eta) is NaN at infinity


@dataclasses.dataclass(frozen=True)
class Cosine:
  """The variance-preserving cosine path: alpha^2 + sigma^2 = 1."""

  def alpha(self, t: Array) -> Array:
    return jnp.sin(0.5 * jnp.pi * (1.0 - t))  # cos(pi / 2) is negative in float32

  def sigma(self, t: Array) -> Array:
    return jnp.sin(0.5 * jnp.pi * t)

  def time(self, eta: Array) -> Array:
    return 2.0 / jnp.pi * jnp.arctan(eta)


@dataclasses.dataclass(frozen=True)
class DiscreteVP:
  """The variance-preserving path through discrete levels (Diffusion Forcing 2407.01392, B.4).

  Level i in 0 .. levels - 1 is at t = (i + 1) / levels; between levels alpha^2 is linear in t.
  """

  betas: Literal["linear", "cosine", "sigmoid"] = "cosine"
  levels: int = 1000

  def __post_init__(self):
    if self.betas not in ("linear", "cosine", "sigmoid"):
      raise FieldError("betas", self.betas, "choose linear, cosine or sigmoid.")
    if self.levels < 1:
      raise FieldError("levels", self.levels, "set it to 1 or more.")

  def alpha(self, t: Array) -> Array:
    return jnp.sqrt(self._at(t, alpha_bars(self.betas, self.levels)))

  def sigma(self, t: Array) -> Array:
    # Its own table: rounding would lose the first levels of 1 - alpha^2.
    return jnp.sqrt(self._at(t, 1.0 - alpha_bars(self.betas, self.levels)))

  def time(self, eta: Array) -> Array:
    # Looked up in 1 - alpha_bar at low noise and in alpha_bar at high noise, for precision.
    alpha_bar = alpha_bars(self.betas, self.levels)
    grid = np.linspace(0.0, 1.0, self.levels + 1)
    low = jnp.interp(1.0 / (1.0 + 1.0 / jnp.square(eta)), 1.0 - alpha_bar, grid)
    high = jnp.interp(1.0 / (1.0 + jnp.square(eta)), alpha_bar[::-1], grid[::-1])
    return jnp.where(eta < 1.0, low, high)

  def snap(self, t: Array) -> Array:
    """The first level at or above t, also where t * levels is rounded up."""
    return jnp.ceil(t * self.levels * (1.0 - 1e-6)) / self.levels

  def _at(self, t: Array, table: np.ndarray) -> Array:
    return jnp.interp(t, np.linspace(0.0, 1.0, self.levels + 1), table)


@functools.cache
def alpha_bars(betas: str, levels: int) -> np.ndarray:
  """alpha_bar at t = 0, 1 / levels, .. 1 as float64 `[levels + 1]`."""
  u = np.linspace(0.0, 1.0, levels + 1)
  rise = 1.0 / (1.0 + np.exp(-(-3.0 + u * 6.0)))  # the sigmoid schedule, before it is scaled
  if betas == "linear":
    beta = 1000.0 / levels * np.linspace(1e-4, 2e-2, levels)
  else:
    cosine, sigmoid = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2, rise[-1] - rise
    curve = cosine if betas == "cosine" else sigmoid / (rise[-1] - rise[0])
    beta = np.clip(1.0 - curve[1:] / curve[:-1], 0.0, 0.999)
  return np.concatenate([[1.0], np.cumprod(1.0 - beta)])


def noise_like(key: Array, x: Array) -> Array:
  """Standard normal noise like `x`; of `key` `[B]` or `[B, T]`, one for each example or token."""
  if key.ndim:
    draw = lambda k: jax.random.normal(k, x.shape[key.ndim :], x.dtype)
    for _ in range(key.ndim):
      draw = jax.vmap(draw)
    return draw(key)
  return jax.random.normal(key, x.shape, x.dtype, out_sharding=jax.typeof(x).sharding)


def eta(path: Path, t: Array) -> Array:
  """The noise-to-signal ratio sigma / alpha."""
  return path.sigma(t) / path.alpha(t)


def log_snr(path: Path, t: Array) -> Array:
  """lambda(t) = 2 log(alpha / sigma)."""
  return 2.0 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def interpolate(path: Path, x: Array, eps: Array, t: Array) -> Array:
  """x_t on the path between data `x` and noise `eps`."""
  return path.alpha(t) * x + path.sigma(t) * eps


def ddim(path: Path, x_t: Array, x: Array, s: Array, t: Array) -> Array:
  """x_s on the path through `x_t` and `x`, s <= t (IMM eq. 11); x_t itself where s = t."""
  ratio = noise_ratio(path, s, t)
  return jnp.where(s == t, x_t, (path.alpha(s) - ratio * path.alpha(t)) * x + ratio * x_t)


def ddpm_posterior(path: Path, x_t: Array, x: Array, s: Array, t: Array) -> tuple[Array, Array]:
  """Mean and deviation of x_s given `x_t` and `x` for a prior of unit variance (IMM eq. 97)."""
  jumps = s < t
  ratio = noise_ratio(path, s, t)
  signal = path.alpha(t) / jnp.where(jumps, path.alpha(s), 1.0)
  rho = jnp.where(jumps, jnp.square(signal * ratio), 1.0)
  mean = signal * jnp.square(ratio) * x_t + path.alpha(s) * (1.0 - rho) * x
  std = path.sigma(s) * jnp.sqrt(jnp.where(jumps, jnp.maximum(1.0 - rho, 0.0), 0.0))
  return jnp.where(jumps, mean, x_t), std


def same_noise(path: Path, eps: Array, fresh: Array, s: Array, t: Array) -> Array:
  """The interpolant of `ddim`: x_s keeps the noise of x_t (IMM eq. 11)."""
  del path, fresh, s, t
  return eps


def renewed_noise(path: Path, eps: Array, fresh: Array, s: Array, t: Array) -> Array:
  """The interpolant of `ddpm_posterior`: noise of correlation eta(s) / eta(t) (IMM eq. 97)."""
  signal = path.alpha(t) / jnp.where(s == t, 1.0, path.alpha(s))
  kept = jnp.where(s == t, 1.0, signal * noise_ratio(path, s, t))
  return kept * eps + jnp.sqrt(jnp.maximum(1.0 - jnp.square(kept), 0.0)) * fresh


def noise_ratio(path: Path, s: Array, t: Array) -> Array:
  """sigma(s) / sigma(t), and 1 at s = t = 0."""
  noisy = path.sigma(t) > 0.0
  return jnp.where(noisy, path.sigma(s) / jnp.where(noisy, path.sigma(t), 1.0), 1.0)
