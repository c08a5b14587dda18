"""Scores of points of the plane, whose distribution can be sampled freely."""

from typing import Any

import numpy as np

from dfim.evaluators import references
from dfim.evaluators.references import Data, Draw, Found
from dfim.metrics import distances, subsets

LEAST_EXAMPLES = 6  # of fresh data: a distance takes three or more from each half


def scores(
  draw: Draw, params: Any, *, reference: Data, steps: tuple[int, ...] = (1, 2, 4, 8)
) -> Found:
  """Unbiased energy distance (Szekely and Rizzo 2013) of samples to as many points of `reference`.

  `draw` is `sample.make_draw`'s, `reference` is fresh data with `x [N, D]`.

  Returns:
    `energy` and its standard error for each number of `steps`, and between random halves of the
    reference, whose distance is 0 on average. No figures.
  """
  found = pairs(draw, params, reference["x"], steps)
  rows = {name: distances.energy_distance(*pair) for name, pair in found.items()}
  return {name: dict(energy=value, energy_se=se) for name, (value, se) in rows.items()}, {}


def check_scores(*, reference: Data, **_: Any) -> None:
  """Raises ValueError, naming the argument, for those that `scores` cannot take."""
  references.examples(reference, "reference", least=LEAST_EXAMPLES)


def pairs(
  draw: Draw, params: Any, x: np.ndarray, steps: tuple[int, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Sets to compare: random halves of fresh data `x`, then as many samples of each of `steps`."""
  half, order = len(x) // 2, subsets.shuffle(x)
  found = {"fresh data": (x[order[:half]], x[order[half:]])}
  return found | {f"{k} steps": (draw(params, len(x), k), x) for k in steps}
