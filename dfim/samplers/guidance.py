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

  Jumps and clean estimates are affine in the network's output, so that guiding them is guiding
  that. weight 1 is no guidance and costs nothing; weight 0 is the unconditional model.
  """
  if weight == 1.0:
    return model_of
  twice = lambda a, b: jax.tree.map(lambda u, v: jnp.concatenate([u, v]), a, b)
  pair = lambda u: u if u.shape[0] == 1 else twice(u, u)  # a time shared by the batch stays so

  def mixed(both: Array) -> Array:
    without, given = jnp.split(both, 2)
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

  The score of x_t gains the gradient g of scale log_density(denoise(x_t)) by x_t, so the estimate
  gains sigma^2 sigma_data^2 / alpha g, at the token's present level (Diffusion Forcing 3.4; the
  released program uses the next level, which gives no guidance on the last step). The gradient runs
  through the network, so that an energy of one token moves the tokens that it depends on. The
  strength is the same in every batch.

  Args:
    model: a denoiser; its jumps are refused.
    log_density: `[B, ...]` to `[B]`, up to a constant; high for the samples wanted.
    scale: strength; 0 changes nothing.
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
  raise ValueError(
    "energy: guides a clean estimate, which this step does not use; set sampler.step.name="
    "samplers.jump.Ancestral."
  )


def near_point(x: Array, *, point: tuple[float, ...], token: int = -1, width: float) -> Array:
  """An energy, `[B, T, D]` to `[B]`: the log-density of a Gaussian about `point` at one token.

  Args:
    x: clean estimates of the tokens that are shown together: a window, or a cached sampler's chunk.
    point: `[D]`, where the token is wanted.
    token: which of them; the last by default.
    width: the Gaussian's standard deviation. Samples overshoot where it is far below the error of
      the estimate itself.

  Raises:
    ValueError: no such token, or a point of another D.
  """
  if x.ndim != 3 or x.shape[2] != len(point) or not -x.shape[1] <= token < x.shape[1]:
    raise ValueError(
      f"near_point: point={point}, token={token} for {x.shape[1:]} tokens and values."
    )
  if width <= 0.0:
    raise FieldError("width", width, "set it above 0.")
  apart = (x[:, token] - jnp.asarray(point, x.dtype)[None]) / width
  return -0.5 * jnp.sum(jnp.square(apart), axis=1)
