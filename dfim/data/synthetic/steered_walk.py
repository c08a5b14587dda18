"""A walk that conditions steer, `x [B, tokens, 2]`.

`cond.turn`, integers `[B, tokens]`, is the likely branch of the turn into each token, which the
first token does not have. `cond.gain`, floating `[B, 1]`, is the size of a sequence's turns, as a
multiple of the middle of `angles`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.data import base
from dfim.data.synthetic import toys, walk
from dfim.io import inputs

Array = jax.Array


def steered_walk(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  tokens: int = 6,
  angles: tuple[float, float] = (30.0, 80.0),
  obey: float = 0.9,
  spread: float = 5.0,
  radius: float = 0.7,
  process: base.Process = (0, 1),
) -> toys.Batches:
  """Turns of one size a sequence, uniform in `angles`, blurred by a std `spread`, in degrees.

  A turn is to the left where its condition is 1 and to the right where it is 0, with probability
  `obey`, else to the other side. Conditions are drawn as fair coins.
  """
  walk.check_path(tokens, spread, radius)
  low, high = inputs.numbers(angles, "data.angles", (2,), axes=("end",), low=0)
  if low > high or high <= 0:
    raise FieldError("data.angles", angles, "give the smallest turn, then the largest, above 0.")
  if inputs.number(obey, "data.obey", low=0) > 1:
    raise FieldError("data.obey", obey, "a probability lies in [0, 1].")
  unit = (low + high) / 2

  def draw(key: Array) -> dict[str, Any]:
    k1, k2, k3, k4, k5 = jax.random.split(key, 5)
    turn = jax.random.randint(k2, (batch_size, tokens), 0, 2)
    gain = jax.random.uniform(k3, (batch_size, 1), minval=low / unit, maxval=high / unit)
    side = 2 * turn[:, 1:] - 1
    side = jnp.where(jax.random.bernoulli(k4, obey, side.shape), side, -side)
    turns = unit * gain * side + spread * jax.random.normal(k5, side.shape)
    return dict(x=walk.path(k1, turns, radius), cond=dict(turn=turn, gain=gain))

  return base.drawn(draw, batch_size, seed, start, process)


def load(split: str = "test", size: int = 20_000, **fields: Any) -> dict[str, Any]:
  """`size` fresh sequences, the same ones each time; `fields` are those of `steered_walk`."""
  return toys.load(functools.partial(steered_walk, **fields), split=split, size=size)
