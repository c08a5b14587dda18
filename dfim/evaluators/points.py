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
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """Unbiased energy distance (Szekely and Rizzo 2013) of samples to as many points of `reference`.

  Args:
    draw: `sample.make_draw`'s.
    params: the weights to draw with.
    reference: fresh data, `x` `[N, D]`.
    steps: numbers of network calls.

  Returns:
    `energy_K` and its standard error for K steps, and `energy_floor`, between the two halves of
    the reference.
  """
  x = reference["x"]
  half = len(x) // 2
  values = {}
  for name, (a, b) in {
      "floor": (x[:half], x[half:]),
      **{str(k): (draw(params, len(x), k), x) for k in steps},
  }.items():
    values[f"energy_{name}"], values[f"energy_se_{name}"] = distances.energy_distance(a, b)
  return values, {}
