"""Checks of what scores compare samples with, before anything is trained."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfim.io import inputs


def examples(
  data: Any, field: str, rank: int | None = None, *, least: int, dtype: Any = np.float32
) -> np.ndarray:
  """The examples `x` `[N, ...]` of a loader's data, as `inputs.examples` takes them.

  Raises:
    ValueError: there are none, fewer than `least`, of another rank than `rank`, or not finite.
  """
  return inputs.examples(part(data, field, "x"), f"{field}.x", rank, least=least, dtype=dtype)


def part(data: Any, field: str, name: str) -> Any:
  """One array of a loader's data.

  Raises:
    ValueError: it has none of that name.
  """
  if not isinstance(data, Mapping) or data.get(name) is None:
    raise ValueError(f"{field}: has no {name}; name a loader that returns one.")
  return data[name]
