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
  """`energy` of as many samples as fresh data `reference`, `x [N, D]`, and its standard error."""
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
