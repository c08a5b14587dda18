"""Loss weights w(s, t), of the times' shape. `target` is the parameterization's prediction.

Sources: IMM equation 13; Min-SNR (arXiv 2303.09556); Diffusion Forcing (2407.01392) B.1 and its
program; Simple diffusion 2 (2410.19324); Dreamer 4 (2509.24527).
"""

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import interpolants

Array = jax.Array
Path = interpolants.Path
Target = str | None


def uniform(path: Path, s: Array, t: Array, *, target: Target = None) -> Array:
  """w = 1."""
  del path, s, target
  return jnp.ones_like(t)


def linear(
  path: Path, s: Array, t: Array, *, clean: float = 1.0, noise: float = 0.1, target: Target = None
) -> Array:
  """From `clean` at t = 0 to `noise` at t = 1; the defaults are Dreamer 4's ramp."""
  del path, s, target
  return clean + (noise - clean) * t


def imm(
  path: Path, s: Array, t: Array, *, a: float = 1.0, b: float = 4.0, target: Target = None
) -> Array:
  """IMM's (eq. 13): sigmoid(b - lambda) (-dlambda/dt) / 2 * alpha^a / (alpha^2 + sigma^2)."""
  del s, target
  one = jnp.ones_like(t)
  alpha, alpha_slope = jax.jvp(path.alpha, (t,), (one,))
  sigma, sigma_slope = jax.jvp(path.sigma, (t,), (one,))
  turn = sigma_slope * alpha - alpha_slope * sigma
  noise = jnp.square(sigma) + jnp.exp(-b) * jnp.square(alpha)
  norm = jnp.square(alpha) + jnp.square(sigma)
  return turn * sigma * alpha ** (a - 1.0) / (noise * norm)  # no logarithm: finite at t = 0


def min_snr(path: Path, s: Array, t: Array, *, clip: float = 5.0, target: Target = None) -> Array:
  """min(SNR, clip) of a clean sample's error, on a path that preserves variance."""
  del s
  signal, noise = _powers(path, t, clip)
  of_noise = clip * noise / jnp.maximum(signal, clip * noise)
  of_clean = clip * signal / jnp.maximum(signal, clip * noise)
  return _of(target, eps=of_noise, x0=of_clean, v=of_clean * noise)


def fused_snr(
  path: Path, s: Array, t: Array, *, clip: float = 5.0, decay: float = 0.96, target: Target = None
) -> Array:
  """Min-SNR that counts the signal in the tokens before, axis 1, as the released program does.

  With S = min(SNR, clip) / clip and its running mean c over the tokens before (decay g, starting at
  the first token's S), 1 - (1 - g c)(1 - S) takes the place of S. The paper's B.1 prints it without
  the factor g. The first token, and times that all tokens share, have no past: min-SNR.
  """
  del s
  if not 0.0 <= decay < 1.0:
    raise FieldError("decay", decay, "set it in [0, 1).")
  signal, noise = _powers(path, t, clip)
  clear = signal / jnp.maximum(signal, clip * noise)
  past = decay * _past_mean(clear, decay)
  fused = clear + past * (1.0 - clear)  # 1 - (1 - past)(1 - clear) without loss of digits
  total = clip * noise * past + (1.0 - past) * signal  # clip noise F, F being fused, unclipped
  limit = total <= 0.0  # a first token without signal
  of_noise = jnp.where(limit, 1.0, fused * clip * noise / jnp.where(limit, 1.0, total))
  return _of(target, eps=of_noise, x0=clip * fused, v=clip * fused * noise / (total + noise))


fused_snr.streams = 1  # two streams would take the context for the past


def sigmoid(path: Path, s: Array, t: Array, *, bias: float = -1.0, target: Target = None) -> Array:
  """sigmoid(bias - log SNR) of the noise's error."""
  del s
  signal, noise = jnp.square(path.alpha(t)), jnp.square(path.sigma(t))
  total = noise + jnp.exp(-bias) * signal
  return _of(target, eps=noise / total, x0=signal / total, v=signal * noise / total)


def _powers(path: Path, t: Array, clip: float) -> tuple[Array, Array]:
  if clip <= 0.0:
    raise FieldError("clip", clip, "set it above 0, to an SNR such as 5.")
  with jax.ensure_compile_time_eval():
    middle = jnp.full(1, 0.5)
    power = float((jnp.square(path.alpha(middle)) + jnp.square(path.sigma(middle)))[0])
  if abs(power - 1.0) >= 1e-3:
    fix = "a weight by SNR takes alpha^2 + sigma^2 = 1: DiscreteVP or Cosine; or name another."
    raise FieldError("path", path, fix)
  return jnp.square(path.alpha(t)), jnp.square(path.sigma(t))


def _past_mean(value: Array, decay: float) -> Array:
  tokens = jnp.moveaxis(value, 1, 0)
  update = lambda mean, new: (decay * mean + (1.0 - decay) * new, mean)
  _, before = jax.lax.scan(update, tokens[0], tokens)
  # The scan reads token 0 twice, as its start and as its first input: the mean stays tokens[0].
  return jnp.moveaxis(before.at[0].set(0.0), 0, 1)


def _of(target: Target, **by_target: Array) -> Array:
  """Of w for the noise's error: w SNR for a clean sample's, w alpha^2 for a velocity's."""
  if target not in by_target:
    raise FieldError("target", target, f"choose one of {', '.join(by_target)}.")
  return by_target[target]
