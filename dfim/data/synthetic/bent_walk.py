"""The turning walk in more numbers than two: its circle, bent, `x [B, tokens, numbers]`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dfim.data import base
from dfim.data.synthetic import toys, walk
from dfim.io import inputs

Array = jax.Array
_HIDDEN, _SLOPE = 64, 2.0  # functions tanh(w x) that a number is a sum of; the deviation of w
_STD = 0.5  # of all numbers together, without noise


def bent_walk(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  numbers: int = 16,
  noise: float = 0.03,
  tokens: int = 6,
  angle: float = 50.0,
  branches: int = 2,
  spread: float = 5.0,
  process: base.Process = (0, 1),
) -> toys.Batches:
  """The points of `walk.walk`, carried over by `bend`, and `noise` of that std in each number."""
  inputs.whole(numbers, "data.numbers", low=3)
  inputs.number(noise, "data.noise", low=0)
  fields = dict(tokens=tokens, angle=angle, branches=branches, spread=spread, radius=1.0)
  points = walk.distribution(batch_size, **fields)

  def draw(key: Array) -> Array:
    k1, k2 = jax.random.split(key)
    x = bend(points(k1), numbers)
    return x + noise * jax.random.normal(k2, x.shape)

  return base.drawn(draw, batch_size, seed, start, process)


def bend(points: Array, numbers: int) -> Array:
  """A fixed smooth map of points `[..., 2]` to `[..., numbers]`, of std 0.5 on the unit circle."""
  rng = np.random.default_rng(numbers)
  inward = _SLOPE * rng.normal(size=(2, _HIDDEN)).astype(np.float32)
  outward = rng.normal(size=(_HIDDEN, numbers)).astype(np.float32)
  angle = np.linspace(0, 2 * np.pi, 1024, endpoint=False)
  circle = np.stack([np.cos(angle), np.sin(angle)], -1)
  scale = _STD / np.std(np.tanh(circle @ inward) @ outward)
  dot = functools.partial(jnp.dot, precision="highest")  # the same data on every device
  return dot(jnp.tanh(dot(points, inward)), scale * outward)


def load(split: str = "test", size: int = 20_000, **fields: Any) -> dict[str, Any]:
  """`size` fresh sequences, the same ones each time; `fields` are those of `bent_walk`."""
  return toys.load(functools.partial(bent_walk, **fields), split=split, size=size)
