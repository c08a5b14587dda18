"""Guidance wraps what a sampler calls, and gives the same kind of thing back.

`classifier_free` wraps the network, `energy` a denoiser's clean estimate.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dfim.core import conditioning, interpolants, parameterization

Array = jax.Array


def classifier_free(apply: parameterization.Apply, weight: float) -> parameterization.Apply:
  """G = G(null) + weight (G(cond) - G(null)), in one doubled batch (IMM eq. 14, appendix E).

  On the raw output, which for IMM's parameterizations is the same as guiding the jump. weight 1
  is no guidance and costs nothing; weight 0 is the unconditional model.
  """
  if weight == 1.0:
    return apply

  def guided(params: Any, x: Array, s: Array, t: Array, cond: conditioning.Condition, **kwargs):
    twice = lambda a, b: jax.tree.map(lambda u, v: jnp.concatenate([u, v]), a, b)
    pair = lambda u: u if u.shape[0] == 1 else twice(u, u)  # a time shared by the batch stays so
    both = twice(conditioning.null(cond), cond)
    raw = apply(params, twice(x, x), pair(s), pair(t), both, **kwargs)
    without, given = jnp.split(raw, 2)
    return without + weight * (given - without)

  return guided


def energy(
  clean: Callable[[Array, Array], Array],
  log_density: Callable[[Array], Array],
  scale: float = 1.0,
  *,
  path: interpolants.Path,
  sigma_data: float,
) -> Callable[[Array, Array], Array]:
  """Clean estimates moved uphill on `scale log_density`, of the clean estimate of each example.

  The score of x_t gains the gradient g of scale log_density(clean(x_t)) by x_t, so the estimate
  gains sigma^2 sigma_data^2 / alpha g, at the token's present level (Diffusion Forcing 3.4, the
  released program's use of the next level gives no guidance on the last step). The gradient runs
  through the network: what is asked of a token moves the tokens that it depends on. Examples do
  not touch: the strength is the same in every batch.

  Args:
    clean: `(x_t, t) -> x`.
    log_density: `[B, ...]` to `[B]`, up to a constant; what is asked for is where it is high.
    scale: strength; 0 changes nothing.
    path: of the denoiser.
    sigma_data: of the denoiser.
  """

  def guided(x_t: Array, t: Array) -> Array:
    def total(x_t):
      estimate = clean(x_t, t)
      return scale * jnp.sum(log_density(estimate)), estimate

    slope, estimate = jax.grad(total, has_aux=True)(x_t)
    alpha = path.alpha(t)
    signal = alpha > 0.0  # without signal there is nothing to guide yet, and x = x_t / 0
    step = jnp.where(signal, jnp.square(path.sigma(t)) / jnp.where(signal, alpha, 1.0), 0.0)
    return estimate + step * sigma_data**2 * slope

  return guided


def near(x: Array, *, point: tuple[float, ...], token: int = -1, width: float) -> Array:
  """An energy, `[B, T, D]` to `[B]`: the log-density of a Gaussian about `point` at one token.

  Args:
    x: clean estimates of the tokens that are shown together: a window, or a cached sampler's chunk.
    point: `[D]`, where the token is wanted.
    token: which of them; the last by default.
    width: the Gaussian's standard deviation. Far below what the estimate itself is unsure by it
      asks for more than a step can do, and samples overshoot.

  Raises:
    ValueError: no such token, or a point of another D.
  """
  if x.ndim != 3 or x.shape[2] != len(point) or not -x.shape[1] <= token < x.shape[1]:
    raise ValueError(f"near: point={point}, token={token} for {x.shape[1:]} tokens and values.")
  if width <= 0.0:
    raise ValueError(f"width={width}: set it above 0.")
  apart = (x[:, token] - jnp.asarray(point, x.dtype)[None]) / width
  return -0.5 * jnp.sum(jnp.square(apart), axis=1)
