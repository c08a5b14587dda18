"""Endless points in the plane, `x [B, 2]` with a std of about 0.5 (FFJORD, arXiv 1810.01367)."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.data import base
from dfim.io import inputs

Array = jax.Array
Batches = Iterator[dict[str, Any]]
_SEEDS = dict(train=2**31 - 2, test=2**31 - 1)  # of `load`; far from those that people train with


def ring(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  modes: int = 8,
  radius: float = 0.7,
  std: float = 0.02,
  process: base.Process = (0, 1),
) -> Batches:
  """A ring of `modes` Gaussians."""
  inputs.whole(modes, "data.modes", low=1)
  inputs.number(radius, "data.radius")
  inputs.number(std, "data.std", low=0)

  def draw(key: Array) -> Array:
    k1, k2 = jax.random.split(key)
    angle = 2 * jnp.pi * jax.random.randint(k1, (batch_size,), 0, modes) / modes
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    return radius * circle + std * jax.random.normal(k2, (batch_size, 2))

  return base.drawn(draw, batch_size, seed, start, process)


def checkerboard(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  squares: int = 4,
  half_width: float = 0.87,
  process: base.Process = (0, 1),
) -> Batches:
  """The black fields of a board of `squares` (an even number) times `squares`, each uniform."""
  inputs.number(half_width, "data.half_width")
  if inputs.whole(squares, "data.squares", low=2) % 2:
    raise FieldError("data.squares", squares, "give an even number, so that columns are alike")

  def draw(key: Array) -> Array:
    k1, k2 = jax.random.split(key)
    x, u = jax.random.uniform(k1, (2, batch_size), maxval=squares)
    field = 2 * jax.random.randint(k2, (batch_size,), 0, squares // 2)
    y = field + jnp.floor(x) % 2 + u / squares
    return half_width * (2 * jnp.stack([x, y], -1) / squares - 1)

  return base.drawn(draw, batch_size, seed, start, process)


def load(
  source: Callable[..., Batches] = ring, *, split: str = "test", size: int = 20_000
) -> dict[str, Any]:
  """One batch of `size` fresh examples of a source that is drawn, the same ones each time."""
  base.check_split(split, _SEEDS)
  return next(source(inputs.whole(size, "data.size", low=1), _SEEDS[split]))
