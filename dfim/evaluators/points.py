"""Scores of points of the plane, whose law can be drawn from at will."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dfim.metrics import distances


def scores(
  draw: Callable[..., np.ndarray],
  params: Any,
  *,
  reference: dict[str, np.ndarray],
  steps: tuple[int, ...] = (1, 2, 4, 8),
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Unbiased energy distance (Szekely and Rizzo 2013) of samples to as many points of `reference`.

  Args:
    draw: `sample.make_draw`'s.
    params: the weights to draw with.
    reference: fresh data, `x` `[N, D]`.
    steps: numbers of network calls.

  Returns:
    `energy` and its standard error for each number of steps, and between the halves of the
    reference, which is the floor. No figures.
  """
  pairs = beside(draw, params, reference["x"], steps)
  found = {name: distances.energy_distance(*pair) for name, pair in pairs.items()}
  return {name: dict(energy=value, energy_se=se) for name, (value, se) in found.items()}, {}


def beside(
  draw: Callable[..., np.ndarray], params: Any, x: np.ndarray, steps: tuple[int, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """What to compare: the halves of fresh data `x`, then as many samples of each number of steps."""
  half = len(x) // 2
  pairs = {"fresh data": (x[:half], x[half:])}
  return pairs | {f"{k} steps": (draw(params, len(x), k), x) for k in steps}
