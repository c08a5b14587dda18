"""From network output G to sample: f(x_t; s, t) = c_skip(s, t) x_t + c_out(s, t) G(c_in(t) x_t).

G is a clean sample, the noise or a velocity, and the jump is its DDIM step from t to s.
Coefficients have the times' shape. Source: IMM section 4.2, appendix C.5.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import interpolants

Array = jax.Array
Apply = Callable[..., Array]  # (params, x_in, s, t, cond) -> G


@dataclasses.dataclass(frozen=True)
class Parameterization:
  """The input's scale, the jump and the clean estimate, which all four share."""

  path: interpolants.Path
  sigma_data: float = 0.5
  prediction: ClassVar[Literal["x0", "eps", "v"]]

  def __post_init__(self):
    if not self.sigma_data > 0.0:
      raise FieldError("sigma_data", self.sigma_data, "set it above 0, to the data's own.")

  def c_in(self, t: Array) -> Array:
    """Scales x_t to unit variance for data of standard deviation sigma_data."""
    return 1.0 / (self.sigma_data * _norm(self.path, t))

  def c_skip(self, s: Array, t: Array) -> Array:
    """The share of x_t that a jump from t to s keeps."""
    raise NotImplementedError

  def c_out(self, s: Array, t: Array) -> Array:
    """The factor of G in a jump from t to s; 0 where s = t."""
    raise NotImplementedError

  def target(self, x: Array, eps: Array, t: Array) -> Array:
    """The G with which a jump from t lands on the path of `x` and `eps`, for every s."""
    raise NotImplementedError

  def velocity(self, t: Array) -> tuple[Array, Array]:
    """The factors of x_t and G in dx_t / dt, at t > 0: the slopes in s of a jump's, at s = t."""
    coefficients = lambda s: (self.c_skip(s, t), self.c_out(s, t))
    return jax.jvp(coefficients, (t,), (jnp.ones_like(t),))[1]

  def __call__(
    self, apply: Apply, params: Any, x_t: Array, s: Array, t: Array, cond: Any = None
  ) -> Array:
    """x_s; `x_t` untouched where s = t."""
    raw = apply(params, self.c_in(t) * x_t, s, t, cond)
    return jnp.where(s == t, x_t, self.c_skip(s, t) * x_t + self.c_out(s, t) * raw)

  def clean(self, apply: Apply, params: Any, x_t: Array, t: Array, cond: Any = None) -> Array:
    """The clean estimate of a denoiser: coefficients of s = 0, the network's output at s = t."""
    return self.to_clean(x_t, apply(params, self.c_in(t) * x_t, t, t, cond), t)

  def to_clean(self, x_t: Array, raw: Array, t: Array) -> Array:
    """The clean sample of the raw output; `x_t` where t = 0."""
    zero = jnp.zeros_like(t)
    return jnp.where(t == 0.0, x_t, self.c_skip(zero, t) * x_t + self.c_out(zero, t) * raw)


@dataclasses.dataclass(frozen=True)
class Identity(Parameterization):
  """G is the clean sample."""

  prediction = "x0"

  def c_skip(self, s: Array, t: Array) -> Array:
    return interpolants.noise_ratio(self.path, s, t)

  def c_out(self, s: Array, t: Array) -> Array:
    ratio = interpolants.noise_ratio(self.path, s, t)
    return self.path.alpha(s) - ratio * self.path.alpha(t)

  def target(self, x: Array, eps: Array, t: Array) -> Array:
    del eps, t
    return x


@dataclasses.dataclass(frozen=True)
class Noise(Parameterization):
  """G is the noise in units of sigma_data. Needs alpha(t) > 0, so t_max < 1."""

  prediction = "eps"

  def c_skip(self, s: Array, t: Array) -> Array:
    return self.path.alpha(s) / self.path.alpha(t)

  def c_out(self, s: Array, t: Array) -> Array:
    return self.sigma_data * (self.path.sigma(s) - self.path.sigma(t) * self.c_skip(s, t))

  def target(self, x: Array, eps: Array, t: Array) -> Array:
    del x, t
    return eps / self.sigma_data


@dataclasses.dataclass(frozen=True)
class SimpleEDM(Parameterization):
  """G is the unit-variance velocity (alpha eps - sigma x) / norm; v-prediction on a VP path."""

  prediction = "v"

  def c_skip(self, s: Array, t: Array) -> Array:
    path = self.path
    overlap = path.alpha(s) * path.alpha(t) + path.sigma(s) * path.sigma(t)
    return overlap / jnp.square(_norm(path, t))

  def c_out(self, s: Array, t: Array) -> Array:
    path = self.path
    turn = path.alpha(s) * path.sigma(t) - path.alpha(t) * path.sigma(s)
    return -self.sigma_data * turn / _norm(path, t)

  def target(self, x: Array, eps: Array, t: Array) -> Array:
    velocity = self.path.alpha(t) * eps - self.path.sigma(t) * x
    return velocity / (self.sigma_data * _norm(self.path, t))


@dataclasses.dataclass(frozen=True)
class EulerFlow(Parameterization):
  """G is the velocity eps - x in units of sigma_data: one Euler step of the straight path."""

  prediction = "v"

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.path, interpolants.FlowMatching):
      fix = "use core.interpolants.FlowMatching, or core.parameterization.SimpleEDM."
      raise FieldError("path", self.path, fix)

  def c_skip(self, s: Array, t: Array) -> Array:
    return jnp.ones_like(t - s)

  def c_out(self, s: Array, t: Array) -> Array:
    return -(t - s) * self.sigma_data

  def target(self, x: Array, eps: Array, t: Array) -> Array:
    del t
    return (eps - x) / self.sigma_data


def _norm(path: interpolants.Path, t: Array) -> Array:
  """The deviation of x_t in units of sigma_data, sqrt(alpha^2 + sigma^2)."""
  return jnp.sqrt(jnp.square(path.alpha(t)) + jnp.square(path.sigma(t)))
