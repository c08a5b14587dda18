"""The safetensors format: arrays by name in one file, and no code.

The library compares the whole header with the size of the file before it allocates arrays.
"""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from dfim.io import atomic


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays of a file, by name; ValueError if it is cut short or its header is false."""
  try:
    arrays = safetensors.numpy.load_file(path)
    with open(path, "rb") as file:
      header = file.read(int.from_bytes(file.read(8), "little"))
    json.loads(header, object_pairs_hook=_without_twins)
    return arrays
  except Exception as error:  # the library raises many kinds
    line = " ".join(str(error).split())[:120]
    raise ValueError(f"{path} is no sound safetensors file: {line}.") from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Of two entries by one name the library takes the last, and others may take the first."""
  if len(dict(pairs)) < len(pairs):
    raise ValueError("two arrays have one name")
  return dict(pairs)


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays`, in one move."""
  try:
    content = safetensors.numpy.save({n: np.asarray(a, order="C") for n, a in arrays.items()})
  except (safetensors.SafetensorError, KeyError) as error:
    raise ValueError(f"{path}: an array of a type that safetensors lacks ({error}).") from None
  atomic.replace(pathlib.Path(path), lambda file: file.write(content))
