"""Sets of points as all metrics take them: checked, and flattened to `[N, D]`."""

import math
from typing import Any

import numpy as np

from dfim.io import inputs

LARGEST = 1e37  # float32 holds it, and float64 its eighth power: scores square and cube


def flat(value: Any, field: str, *, least: int = 1) -> np.ndarray:
  """Examples `[N, ...]` as float64 `[N, D]`.

  Raises:
    ValueError: fewer than `least`, no numbers, or some that are not finite; with their place.
  """
  array = inputs.examples(value, field, least=least, largest=LARGEST)
  return array.reshape(len(array), math.prod(array.shape[1:]))


def pair(
  x: Any, y: Any, fields: tuple[str, str], *, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
  """Both sets as `flat` returns them.

  Raises:
    ValueError: examples of different sizes; otherwise as `flat`.
  """
  x, y = (flat(a, field, least=least) for a, field in zip((x, y), fields, strict=True))
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      f"{fields[1]} of {y.shape[1]} numbers each, {fields[0]} of {x.shape[1]}: give the same."
    )
  return x, y
