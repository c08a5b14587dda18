"""Paths that form a cross: from a corner of a square through its centre to the opposite corner.

Diffusion Forcing, section 4.3 and appendix E.2 (arXiv 2407.01392): a model with memory of the whole
path reproduces the cross; one without it may turn at the centre and stitches parts of two paths.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.data import base
from dfim.data.synthetic import toys
from dfim.io import inputs

Array = jax.Array

HALF_WIDTH = 0.87  # of the square: coordinates have a std of 0.5


def cross(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  tokens: int = 21,
  corners: int = 4,
  spread: float = 0.02,
  process: base.Process = (0, 1),
) -> toys.Batches:
  """Paths `x [B, tokens, 2]` at even speed, blurred by a std `spread`; see `data.base`.

  Paths start in all four corners or, with `corners=2`, in the left ones alone: there, a position
  left of the centre tells by itself which way the path goes.
  """
  inputs.whole(tokens, "data.tokens", low=3)
  inputs.number(spread, "data.spread", low=0)
  if inputs.whole(corners, "data.corners") not in (2, 4):
    raise FieldError("data.corners", corners, "give 2 or 4.")
  along = jnp.linspace(1.0, -1.0, tokens)[None, :, None]  # from a corner to its opposite

  def draw(key: Array) -> Array:
    k1, k2 = jax.random.split(key)
    corner = jax.random.rademacher(k1, (batch_size, 1, 2), jnp.float32)
    if corners == 2:
      corner = corner.at[..., 0].set(-1.0)
    noise = spread * jax.random.normal(k2, (batch_size, tokens, 2))
    return HALF_WIDTH * corner * along + noise

  return base.drawn(draw, batch_size, seed, start, process)


def load(split: str = "test", size: int = 20_000, **fields: Any) -> dict[str, np.ndarray]:
  """`size` fresh paths, the same ones each time; `fields` are `cross`'s, such as tokens=11."""
  return toys.load(functools.partial(cross, **fields), split=split, size=size)
