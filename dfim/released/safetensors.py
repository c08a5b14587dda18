"""The safetensors format: arrays by name in one file, nothing that could run.

Eight bytes n, little-endian; n bytes of JSON: `{name: {dtype, shape, data_offsets}}`, and strings
under "__metadata__"; then the arrays, one after another without gaps. Source: the format's own
description, huggingface.co/docs/safetensors. The header is checked in full, against the size of
the file, before anything as large as it claims is allocated.
"""

from collections.abc import Mapping
import json
import math
import os
import pathlib
from typing import Any
from typing import IO

import ml_dtypes
import numpy as np

from dfim import files

DTYPES = {
  "BOOL": np.dtype(np.bool_),
  "U8": np.dtype("<u1"),
  "I8": np.dtype("<i1"),
  "U16": np.dtype("<u2"),
  "I16": np.dtype("<i2"),
  "U32": np.dtype("<u4"),
  "I32": np.dtype("<i4"),
  "U64": np.dtype("<u8"),
  "I64": np.dtype("<i8"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F32": np.dtype("<f4"),
  "F64": np.dtype("<f8"),
}
MOST_HEADER = 100_000_000  # bytes, the format's own limit
MOST_AXES = 32


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays of a file, by name.

  Raises:
    ValueError: one line, for a file that is cut short or whose header says what cannot be.
  """
  size = pathlib.Path(path).stat().st_size
  with open(path, "rb") as file:
    try:
      start, header = _header(file, size)
      places = {name: _place(name, entry, size - start) for name, entry in header.items()}
      _check_gapless(places, size - start)
      return {name: _array(file, start, *place) for name, place in places.items()}
    except ValueError as error:
      raise ValueError(f"{path} is no sound safetensors file: {error}") from None


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays` in the order of their names, in one move.

  Raises:
    ValueError: for a type that the format does not have.
  """
  names = {dtype: name for name, dtype in DTYPES.items()}
  header, end = {"__metadata__": {"format": "flax"}}, 0
  for name, a in sorted(arrays.items()):
    if a.dtype not in names:
      raise ValueError(f"{name} is {a.dtype}: safetensors has {', '.join(map(str, names))}.")
    begin, end = end, end + a.nbytes
    header[name] = dict(dtype=names[a.dtype], shape=list(a.shape), data_offsets=[begin, end])
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # the arrays start at a multiple of 8 bytes

  def write_all(file: IO[bytes]) -> None:
    file.write(len(text).to_bytes(8, "little") + text)
    for name in sorted(arrays):
      file.write(np.ascontiguousarray(arrays[name]).tobytes())

  files.replace(path, write_all)


def _header(file: IO[bytes], size: int) -> tuple[int, dict[str, Any]]:
  """Where the arrays start, and what the header says of them."""
  length = int.from_bytes(file.read(8), "little")
  if size < 8 or length > min(size - 8, MOST_HEADER):
    raise ValueError(f"a header of {length} bytes in a file of {size}.")
  try:
    header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
  except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f"its header is no JSON, {str(error)[:80]}.") from None
  if not isinstance(header, dict):
    raise ValueError("its header is no JSON object.")
  header.pop("__metadata__", None)
  return 8 + length, header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) != len(pairs):
    raise ValueError("its header has a name twice.")
  return found


def _place(name: str, entry: Any, size: int) -> tuple[np.dtype, tuple[int, ...], int]:
  """Type, shape and first byte of an array that lies within `size` bytes."""
  if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
    raise ValueError(f"{name[:80]!r} needs dtype, shape and data_offsets, and nothing else.")
  dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
  if not isinstance(dtype, str) or dtype not in DTYPES:
    raise ValueError(f"{name[:80]!r} is of type {str(dtype)[:40]}; known are {', '.join(DTYPES)}.")
  if not _counts(shape) or len(shape) > MOST_AXES:
    raise ValueError(f"{name[:80]!r} is of shape {str(shape)[:80]}.")
  if not _counts(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
    raise ValueError(f"{name[:80]!r} is at {str(offsets)[:80]} of {size} bytes.")
  if math.prod(shape) * DTYPES[dtype].itemsize != offsets[1] - offsets[0]:
    raise ValueError(f"{name[:80]!r}: {dtype} of shape {str(shape)[:80]} is not at {offsets}.")
  return DTYPES[dtype], tuple(shape), offsets[0]


def _counts(values: Any) -> bool:
  return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_gapless(places: dict[str, tuple[np.dtype, tuple[int, ...], int]], size: int) -> None:
  end = 0
  by_place = sorted(places.items(), key=lambda item: (item[1][2], math.prod(item[1][1])))
  for name, (dtype, shape, begin) in by_place:
    if begin != end:
      kind = "overlaps with another" if begin < end else "leaves a gap before it"
      raise ValueError(f"{name[:80]!r} at byte {begin} {kind}.")
    end = begin + math.prod(shape) * dtype.itemsize
  if end != size:
    raise ValueError(f"{size - end} bytes after the last array belong to none.")


def _array(
  file: IO[bytes], start: int, dtype: np.dtype, shape: tuple[int, ...], begin: int
) -> np.ndarray:
  file.seek(start + begin)
  return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
