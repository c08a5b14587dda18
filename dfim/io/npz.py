"""Reading .npz and .npy files of others: plain arrays alone, in no more memory than they hold."""

import math
import os
import zipfile

import numpy as np

from dfim.io import inputs

_MAX_DEFLATION = 1032  # to one: no deflated data are smaller
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: str | os.PathLike, *names: str) -> dict[str, np.ndarray]:
  """The arrays of a file by name: those of `names` that it has, or all without `names`.

  Sizes are checked before memory is allocated. Any fault is a ValueError without the path.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
      if len(infos) < len(archive.infolist()):
        raise ValueError("two arrays have one name")
      wanted = {name: info for name, info in infos.items() if not names or name in names}
      for info in wanted.values():
        _check(archive, info, os.path.getsize(path))
      return {name: _array(archive, info) for name, info in wanted.items()}
  except Exception as error:  # a damaged file may raise anything; nothing of it was run
    raise ValueError(_line(error)) from None


def read_file(path: str | os.PathLike, field: str, fix: str, *names: str) -> dict[str, np.ndarray]:
  """As `read_npz`, of a path from outside: errors say `field`, the path and `fix`."""
  path = inputs.path(path, field)
  if not path.is_file():
    raise FileNotFoundError(f"{field}: no file {path}; {fix}")
  try:
    return read_npz(path, *names)
  except ValueError as error:
    raise ValueError(f"{field}: {path} is no .npz of plain arrays ({error}); {fix}") from None


def names(path: str | os.PathLike) -> list[str]:
  """The names of the arrays of a file, in its order, without reading any; raises as above."""
  try:
    with zipfile.ZipFile(path) as archive:
      return [name.removesuffix(".npy") for name in archive.namelist()]
  except Exception as error:  # as above
    raise ValueError(_line(error)) from None


def map_npy(path: str | os.PathLike) -> np.ndarray:
  """The array of an .npy file, mapped and not read into memory; raises as above."""
  try:
    with open(path, "rb") as file:
      head = file.read(12)
    if head[6:7] != b"\1" and int.from_bytes(head[8:12], "little") > 2**16:
      raise ValueError("its header says that it is longer than any")
    return np.lib.format.open_memmap(path, "r")
  except Exception as error:  # as above
    raise ValueError(_line(error)) from None


def _line(error: Exception) -> str:
  return " ".join(str(error).split())[:200] or type(error).__name__


def _check(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> None:
  """Refuses an entry whose headers disagree with each other or with the file's size."""
  name = info.filename[:40]
  ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _MAX_DEFLATION
  if not info.compress_size <= size or info.file_size > ratio * info.compress_size:
    raise ValueError(f"{name} says that it is larger than the file")
  with archive.open(info) as file:
    kind = np.lib.format.read_magic(file)
    if kind not in _HEADERS:
      raise ValueError(f"version {kind} of numpy's format, not 1 or 2")
    shape, _, dtype = _HEADERS[kind](file)
    if dtype.hasobject:
      raise ValueError(f"{name} holds Python objects, which are not read")
    length = info.file_size - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != length:
      raise ValueError(f"{name} is not of the shape {str(shape)[:80]} that it says")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
  with archive.open(info) as file:
    return np.lib.format.read_array(file, allow_pickle=False)
