"""The turning walk: endless sequences on a circle, `x [B, tokens, 2]`.

Every token alone is uniform on the circle: only its distribution given those before it matters.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfim.data import base
from dfim.data.synthetic import toys
from dfim.io import inputs

Array = jax.Array


def walk(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  tokens: int = 6,
  angle: float = 50.0,
  branches: int = 2,
  spread: float = 5.0,
  radius: float = 0.7,
  process: base.Process = (0, 1),
) -> toys.Batches:
  """Each token turns from the one before it by an angle; see `data.base`.

  `branches` angles are evenly spaced from -angle to angle, blurred by a std `spread`, in degrees.
  """
  shape = dict(tokens=tokens, angle=angle, branches=branches, spread=spread, radius=radius)
  return base.drawn(distribution(batch_size, **shape), batch_size, seed, start, process)


def distribution(
  count: int, *, tokens: int, angle: float, branches: int, spread: float, radius: float
) -> Callable[[Array], Array]:
  """A function from a key to `count` sequences `[count, tokens, 2]` of `walk`."""
  inputs.whole(branches, "data.branches", low=1)
  inputs.number(angle, "data.angle")
  check_path(tokens, spread, radius)
  means = np.linspace(-angle, angle, branches) if branches > 1 else np.zeros(1)

  def draw(key: Array) -> Array:
    k1, k2, k3 = jax.random.split(key, 3)
    mean = jax.random.choice(k2, jnp.asarray(means, jnp.float32), (count, tokens - 1))
    return path(k1, mean + spread * jax.random.normal(k3, mean.shape), radius)

  return draw


def path(key: Array, turns: Array, radius: float) -> Array:
  """Points `[B, T, 2]` on a circle: the first anywhere, others by `turns [B, T - 1]` degrees."""
  first = jax.random.uniform(key, (len(turns), 1), maxval=2 * jnp.pi)
  direction = jnp.cumsum(jnp.concatenate([first, jnp.deg2rad(turns)], axis=1), axis=1)
  return radius * jnp.stack([jnp.cos(direction), jnp.sin(direction)], axis=-1)


def check_path(tokens: int, spread: float, radius: float) -> None:
  """Refuses fields of which no points on a circle can be drawn."""
  inputs.whole(tokens, "data.tokens", low=1)
  inputs.number(spread, "data.spread", low=0)
  inputs.number(radius, "data.radius", above=0)


def load(split: str = "test", size: int = 20_000, **fields: Any) -> dict[str, np.ndarray]:
  """`size` fresh sequences, the same ones each time; `fields` are `walk`'s, such as tokens=60."""
  return toys.load(functools.partial(walk, **fields), split=split, size=size)
