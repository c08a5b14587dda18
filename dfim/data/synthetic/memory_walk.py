"""A walk with a memory: each turn depends on the turn before last, `x [B, tokens, 2]`.

Two tokens alone do not tell which turn comes next: its distribution takes three of the past.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfim.config.errors import FieldError
from dfim.data import base
from dfim.data.synthetic import toys, walk
from dfim.io import inputs

Array = jax.Array


def memory_walk(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  tokens: int = 7,
  angles: tuple[float, float] = (60.0, -30.0),
  repeat: float = 0.8,
  spread: float = 5.0,
  radius: float = 0.7,
  process: base.Process = (0, 1),
) -> toys.Batches:
  """Each token turns by one of two `angles`, blurred by a std `spread`, in degrees.

  With probability `repeat` it is the angle of the turn before last, else the other one. The first
  two turns take either with probability 0.5.
  """
  walk.check_path(tokens, spread, radius)
  pair = inputs.numbers(angles, "data.angles", (2,), axes=("branch",), dtype=np.float32)
  if inputs.number(repeat, "data.repeat", low=0) > 1:
    raise FieldError("data.repeat", repeat, "a probability lies in [0, 1].")
  shape, other = (batch_size, tokens - 1), jnp.where(jnp.arange(tokens - 1) < 2, 0.5, 1 - repeat)

  def draw(key: Array) -> Array:
    k1, k2, k3 = jax.random.split(key, 3)
    changes = jax.random.bernoulli(k2, other[None], shape).astype(jnp.int32)
    even = 2 * (tokens // 2)  # turns, the last of which may be one too many
    by_two = jnp.pad(changes, [(0, 0), (0, even - tokens + 1)]).reshape(batch_size, even // 2, 2)
    branch = jnp.cumsum(by_two, axis=1).reshape(batch_size, even)[:, : tokens - 1] % 2
    mean = jnp.asarray(pair)[branch]
    return walk.path(k1, mean + spread * jax.random.normal(k3, shape), radius)

  return base.drawn(draw, batch_size, seed, start, process)


def load(split: str = "test", size: int = 20_000, **fields: Any) -> dict[str, Any]:
  """`size` fresh sequences, the same ones each time; `fields` are those of `memory_walk`."""
  return toys.load(functools.partial(memory_walk, **fields), split=split, size=size)
