"""Reading files of weights, by their suffix, and networks out of them."""

import os
import pathlib
from typing import Any

import numpy as np

from dfim.interop import names, pickles, safetensors
from dfim.io import inputs, npz

PICKLES = (".pkl", ".pickle", ".pt", ".pth")


def read(path: str | os.PathLike, *, allow_pickle: bool = False) -> dict[str, np.ndarray]:
  """The arrays of an `.npz`, a `.safetensors` file or, if allowed, a pickle, by name."""
  path = inputs.path(path, "weights")
  if not path.is_file():
    raise FileNotFoundError(f"weights={path}: no such file; pass one, or an exported folder.")
  if path.suffix in PICKLES and not allow_pickle:
    raise ValueError(
      f"weights={path}: a pickle; pass allow_pickle to read its arrays, not its code."
    )
  readers = {".npz": _npz, ".safetensors": safetensors.read, **dict.fromkeys(PICKLES, pickles.read)}
  if path.suffix not in readers:
    raise ValueError(f"weights={path}: give one of {', '.join(readers)}.")
  return readers[path.suffix](path)


def load(
  path: str | os.PathLike, wanted: Any, *, prefix: str = "", allow_pickle: bool = False
) -> Any:
  """The parameters of one of our networks, shaped like `wanted`, from a file of weights.

  Arguments as of `read` and `names.to_params`; most EDM-style pickles have prefix "ema.model.".
  """
  arrays = read(path, allow_pickle=allow_pickle)
  try:
    return names.to_params(arrays, wanted, prefix=prefix)
  except ValueError as error:
    raise ValueError(f"weights={path}: {error}") from None


def _npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return npz.read_npz(path)
  except ValueError as error:
    raise ValueError(f"{path} is no sound npz of arrays: {str(error)[:120]}.") from None
