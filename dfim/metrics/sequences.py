"""Distances between sets of sequences `[N, T, D]`, without bias, each with its standard error."""

from typing import Any

import numpy as np

from dfim.io import inputs
from dfim.metrics import distances, subsets

_JOINT, _LOCAL = 20_000, 2000  # sequences compared at most: 10 s on a core, 0.1 s a position


def turning_angles(x: np.ndarray) -> np.ndarray:
  """Angles `[N, T - 1]` at the origin from each point of `[N, T, 2]` to the next, in (-pi, pi]."""
  x = inputs.examples(x, "turning_angles: x", 3)
  if x.shape[1] < 2 or x.shape[2] != 2:
    raise ValueError(f"turning_angles: x of shape {x.shape}: give [N, T, 2] with T >= 2.")
  (a, b), (c, d) = np.moveaxis(x[:, :-1], -1, 0), np.moveaxis(x[:, 1:], -1, 0)
  angle = np.arctan2(a * d - b * c, a * c + b * d)
  return np.where(angle == -np.pi, np.pi, angle)  # of -0.0


def joint(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """`distances.energy_distance` of whole sequences to fresh data `[M, T, D]`, of 20,000 at most."""
  x, y = (_part(a, f"joint: {name}", _JOINT) for name, a in dict(x=x, y=y).items())
  if x.shape[1:] != y.shape[1:]:
    raise ValueError(f"joint: y of {y.shape[1:]} numbers each, x of {x.shape[1:]}: give the same.")
  return distances.energy_distance(x, y)


def turn(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """`distances.energy_distance` of turning angles `[N, T, 2]`; no pair comes from one sequence."""
  x, y = turning_angles(x), turning_angles(y)
  if x.shape[1] != y.shape[1]:
    raise ValueError(f"turn: sequences of {x.shape[1] + 1} and of {y.shape[1] + 1} tokens")
  return distances.energy_distance(x.reshape(-1, 1), y.reshape(-1, 1), group=x.shape[1])


def local(x: np.ndarray, y: np.ndarray, *, tokens: int = 3) -> tuple[np.ndarray, np.ndarray]:
  """Energy distance of the stretch of `tokens` that ends at each position, and its standard error.

  Of `x` `[N, T, D]`, to fresh data `y` `[M, T, D]` or longer: `[T - tokens + 1]` each.
  """
  tokens = inputs.whole(tokens, "local: tokens", low=1)
  x, y = (_part(a, f"local: {name}", _LOCAL) for name, a in dict(x=x, y=y).items())
  if not tokens <= x.shape[1] <= y.shape[1]:
    raise ValueError(f"local: {x.shape[1]} tokens, {y.shape[1]} fresh ones, stretches of {tokens}.")
  stretches = (slice(k, k + tokens) for k in range(x.shape[1] - tokens + 1))
  return tuple(np.transpose([distances.energy_distance(x[:, k], y[:, k]) for k in stretches]))


def _part(x: Any, field: str, count: int) -> np.ndarray:
  x = inputs.examples(x, field, 3, least=3)
  return x[subsets.choose(x, count)]
