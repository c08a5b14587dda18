"""Distances between sets of sequences `[N, T, D]`, without bias, each with its standard error.

Every token of the turning walk is uniform on one circle, so only the joint distribution of several
tokens tells a sample from the data: of whole sequences (`joint`), of the turns from token to token
(`turn`), of short stretches at each position of a long rollout (`local`).
"""

from typing import Any

import numpy as np

from dfim.io import inputs
from dfim.metrics import distances, subsets


def turning_angles(x: np.ndarray) -> np.ndarray:
  """The angle at the origin from each point of the plane to the next, in radians.

  Args:
    x: `[N, T, 2]`, T >= 2.

  Returns:
    `[N, T - 1]` in (-pi, pi], positive where the sequence turns left.

  Raises:
    ValueError: for other shapes, or numbers that are not finite.
  """
  x = inputs.examples(x, "turning_angles: x", 3)
  if x.shape[1] < 2 or x.shape[2] != 2:
    raise ValueError(f"turning_angles: x of shape {x.shape}: give [N, T, 2] with T >= 2.")
  (a, b), (c, d) = np.moveaxis(x[:, :-1], -1, 0), np.moveaxis(x[:, 1:], -1, 0)
  angle = np.arctan2(a * d - b * c, a * c + b * d)
  return np.where(angle == -np.pi, np.pi, angle)  # arctan2 tells -0.0 from 0.0


def joint(x: np.ndarray, y: np.ndarray, *, count: int = 20_000) -> tuple[float, float]:
  """Energy distance of whole sequences: of the `T D` numbers of each, at once.

  Args:
    x: `[N, T, D]`.
    y: `[M, T, D]`, fresh data.
    count: at most so many of either are compared, chosen by `subsets.choose`; 20,000 take 10
      seconds on a core, and the time goes as the square.

  Returns:
    The distance and its standard error, as `distances.energy_distance` defines them.

  Raises:
    ValueError: other shapes, fewer than three sequences, or numbers that are not finite.
  """
  x, y = (_part(a, f"joint: {name}", count) for name, a in dict(x=x, y=y).items())
  if x.shape[1:] != y.shape[1:]:
    raise ValueError(f"joint: y of {y.shape[1:]} numbers each, x of {x.shape[1:]}: give the same.")
  return distances.energy_distance(x, y)


def turn(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """Energy distance of all turning angles, taken as numbers in radians, exact by sorting.

  The angles of one sequence may depend on one another, so no pair comes from one sequence and the
  standard error leaves out whole sequences.

  Args:
    x: `[N, T, 2]`.
    y: `[M, T, 2]`, fresh data.

  Raises:
    ValueError: other shapes, fewer than three sequences, or numbers that are not finite.
  """
  x, y = turning_angles(x), turning_angles(y)
  if x.shape[1] != y.shape[1]:
    raise ValueError(f"turn: sequences of {x.shape[1] + 1} and of {y.shape[1] + 1} tokens")
  return distances.energy_distance(x.reshape(-1, 1), y.reshape(-1, 1), group=x.shape[1])


def local(
  x: np.ndarray, y: np.ndarray, *, tokens: int = 3, count: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
  """Energy distance of the stretch that ends at each position: the error along a long rollout.

  Neighbouring stretches share tokens and sequences, so their errors are not independent.

  Args:
    x: `[N, T, D]`.
    y: `[M, T, D]` or longer, fresh data, compared position by position.
    tokens: the length of a stretch.
    count: at most so many sequences of either are compared, chosen by `subsets.choose`; 0.1 s a
      position for 2,000.

  Returns:
    The distances and their standard errors, `[T - tokens + 1]` each; the first is of the stretch
    that ends at token number `tokens`.

  Raises:
    ValueError: sequences shorter than a stretch, fresh data shorter than x, fewer than three
      sequences, or numbers that are not finite.
  """
  tokens = inputs.whole(tokens, "local: tokens", low=1)
  x, y = (_part(a, f"local: {name}", count) for name, a in dict(x=x, y=y).items())
  if not tokens <= x.shape[1] <= y.shape[1]:
    raise ValueError(f"local: {x.shape[1]} tokens, {y.shape[1]} fresh ones, stretches of {tokens}.")
  stretches = (slice(k, k + tokens) for k in range(x.shape[1] - tokens + 1))
  found = [distances.energy_distance(x[:, k], y[:, k]) for k in stretches]
  values, errors = np.transpose(found)
  return values, errors


def _part(x: Any, field: str, count: int) -> np.ndarray:
  """At most `count` of the sequences, in float64."""
  count = inputs.whole(count, f"{field.partition(':')[0]}: count", low=3)
  x = inputs.examples(x, field, 3, least=3)
  return x[subsets.choose(x, count)]
