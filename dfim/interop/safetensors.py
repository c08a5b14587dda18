"""The safetensors format: arrays by name in one file, and nothing that could run.

The library checks all of a header against the size of the file before it makes room for arrays.
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
  """The arrays of a file, by name.

  Raises:
    ValueError: one line, for a file that is cut short or whose header says what cannot be.
  """
  try:
    arrays = safetensors.numpy.load_file(path)
    _refuse_twins(path)
    return arrays
  except Exception as error:  # whatever the library makes of a type that numpy has not
    line = " ".join(str(error).split())[:120]
    raise ValueError(f"{path} is no sound safetensors file: {line}.") from None


def _refuse_twins(path: str | os.PathLike) -> None:
  """Of two entries by one name the library takes the last, and others may take the first."""
  with open(path, "rb") as file:
    header = file.read(int.from_bytes(file.read(8), "little"))
  json.loads(header, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  if len(dict(pairs)) < len(pairs):
    raise ValueError("one name stands for two arrays")
  return dict(pairs)


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays`, in one move.

  Raises:
    ValueError: for a type that the format does not have.
  """
  try:
    content = safetensors.numpy.save({n: np.asarray(a, order="C") for n, a in arrays.items()})
  except (safetensors.SafetensorError, KeyError) as error:
    raise ValueError(f"{path}: an array of a type that safetensors has not ({error}).") from None
  atomic.replace(pathlib.Path(path), lambda file: file.write(content))
