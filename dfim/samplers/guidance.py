"""Guidance wraps what a sampler calls, and gives the same kind of thing back."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.samplers import jump as jump_lib

Array = jax.Array


def classifier_free(model_of: jump_lib.ModelOf, weight: float) -> jump_lib.ModelOf:
  """x = x(null) + weight (x(cond) - x(null)), in one doubled batch (IMM eq. 14, appendix E).

  Both are affine in the network's output. Weight 1 is no guidance; weight 0 is unconditional. The
  two rows of an example are neighbours, so that both are on its device.
  """
  if weight == 1.0:
    return model_of
  rows = lambda u, v: jnp.stack([u, v], axis=1).reshape(-1, *u.shape[1:])
  twice = lambda a, b: jax.tree.map(rows, a, b)
  pair = lambda u: u if u.shape[0] == 1 else twice(u, u)  # a time shared by the batch stays so

  def mixed(both: Array) -> Array:
    without, given = both[0::2], both[1::2]
    return without + weight * (given - without)

  def guided(cond: conditioning.Condition) -> jump_lib.Model:
    model = model_of(twice(conditioning.null(cond), cond))
    return model._replace(
      jump=lambda x, s, t: mixed(model.jump(twice(x, x), pair(s), pair(t))),
      denoise=lambda x, t: mixed(model.denoise(twice(x, x), pair(t))),
    )

  return guided


def energy(
  model: jump_lib.Model, log_density: Callable[[Array], Array], scale: float = 1.0
) -> jump_lib.Model:
  """A model whose clean estimates are moved uphill on `scale log_density` of each example's.

  The estimate gains sigma^2 sigma_data^2 / alpha times the gradient of scale log_density(denoise(
  x_t)) by x_t, through the network, at the token's present level (Diffusion Forcing 3.4; the
  released program uses the next level, which gives no guidance on the last step).

  Of `model` jumps are refused; `log_density`, `[B, ...]` to `[B]`, may lack a constant.
  """

  def denoise(x_t: Array, t: Array) -> Array:
    def total(x_t):
      estimate = model.denoise(x_t, t)
      return scale * jnp.sum(log_density(estimate)), estimate

    slope, estimate = jax.grad(total, has_aux=True)(x_t)
    alpha = model.path.alpha(t)
    signal = alpha > 0.0  # without signal there is nothing to guide yet, and x = x_t / 0
    step = jnp.where(signal, jnp.square(model.path.sigma(t)) / jnp.where(signal, alpha, 1.0), 0.0)
    return estimate + step * model.sigma_data**2 * slope

  return model._replace(jump=_refuse_jump, denoise=denoise)


def _refuse_jump(*_: Array) -> Array:
  raise ValueError("energy: guides clean estimates; set sampler.step.name=samplers.jump.Ancestral.")


def near_point(x: Array, *, point: tuple[float, ...], token: int = -1, width: float) -> Array:
  """An energy, `[B, T, D]` to `[B]`: the log-density of a Gaussian about `point` at one token.

  `x` are the clean estimates of the tokens that are shown together, `point` is `[D]`, `width` the
  standard deviation. Samples overshoot if it is far below the error of the estimate.
  """
  if x.ndim != 3 or x.shape[2] != len(point) or not -x.shape[1] <= token < x.shape[1]:
    raise ValueError(f"near_point: point={point}, token={token} for [T, D]={x.shape[1:]}.")
  if width <= 0.0:
    raise FieldError("width", width, "set it above 0.")
  apart = (x[:, token] - jnp.asarray(point, x.dtype)[None]) / width
  return -0.5 * jnp.sum(jnp.square(apart), axis=1)
