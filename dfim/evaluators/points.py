"""Scores of points of the plane, whose distribution can be drawn from at will."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dfim.evaluators import references
from dfim.metrics import distances, subsets

LEAST_EXAMPLES = 6  # of fresh data: a distance takes three or more from each half


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
    steps: numbers of steps of the sampler.

  Returns:
    `energy` and its standard error for each number of steps, and between random halves of the
    reference, which is the floor. No figures.
  """
  pairs = beside(draw, params, reference["x"], steps)
  found = {name: distances.energy_distance(*pair) for name, pair in pairs.items()}
  return {name: dict(energy=value, energy_se=se) for name, (value, se) in found.items()}, {}


def check_scores(
  *, reference: dict[str, np.ndarray], steps: tuple[int, ...] = (1, 2, 4, 8)
) -> None:
  """Refuses arguments of `scores` that it cannot take, before anything is trained.

  Raises:
    ValueError: naming the argument.
  """
  del steps  # which every evaluator's are checked for
  references.examples(reference, "reference", least=LEAST_EXAMPLES)


def beside(
  draw: Callable[..., np.ndarray], params: Any, x: np.ndarray, steps: tuple[int, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """What to compare: halves of fresh data `x`, then as many samples of each number of steps.

  The halves are random, and do not depend on the order of the data, see `metrics.subsets`.
  """
  half, order = len(x) // 2, subsets.shuffle(x)
  pairs = {"fresh data": (x[order[:half]], x[order[half:]])}
  return pairs | {f"{k} steps": (draw(params, len(x), k), x) for k in steps}
