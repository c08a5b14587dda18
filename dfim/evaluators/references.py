"""Types of evaluators, and checks of the data that they compare samples with."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dfim.config.errors import FieldError
from dfim.io import inputs

Data = dict[str, Any]  # of a loader: arrays, and `cond`, a dict of them, if it has conditions
Draw = Callable[..., np.ndarray]  # `sample.make_draw`'s
Found = tuple[dict[str, Any], dict[str, np.ndarray]]  # values by name, and figures


def examples(data: Any, field: str, rank: int | None = None, *, least: int) -> np.ndarray:
  """The examples `x` `[N, ...]` of a loader's data, float32, as `inputs.examples` takes them."""
  x = part(data, field, "x")
  return inputs.examples(x, f"{field}.x", rank, least=least, dtype=np.float32)


def part(data: Any, field: str, name: str) -> Any:
  """One array of a loader's data."""
  if not isinstance(data, Mapping) or data.get(name) is None:
    raise FieldError(field, data, "name a loader that returns one.", f": has no {name}; ")
  return data[name]
