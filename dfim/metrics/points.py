"""Sets of points as all metrics take them: checked, and flattened to `[N, D]`."""

import math
from typing import Any

import numpy as np

from dfim.io import inputs

Array = np.ndarray
LARGEST = 1e37  # float32 holds it, and float64 its eighth power


def pair(x: Any, y: Any, fields: tuple[str, str], *, least: int = 1) -> tuple[Array, Array]:
  """`least` or more examples `[N, ...]` and `[M, ...]` as float64 `[N, D]` and `[M, D]`."""
  how = dict(least=least, largest=LARGEST)
  x, y = (inputs.examples(a, field, **how) for a, field in zip((x, y), fields, strict=True))
  x, y = (a.reshape(len(a), math.prod(a.shape[1:])) for a in (x, y))
  if x.shape[1] != y.shape[1]:
    sizes = f"{y.shape[1]} numbers each, {fields[0]} of {x.shape[1]}"
    raise ValueError(f"{fields[1]} of {sizes}: give the same.")
  return x, y
