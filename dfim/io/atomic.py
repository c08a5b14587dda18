"""Files that a reader sees in their old or their whole new version, also after a kill."""

from collections.abc import Callable
import itertools
import json
import math
import os
import pathlib
import tempfile
from typing import Any, IO

import numpy as np


def replace(path: str | os.PathLike, write: Callable[[IO[bytes]], Any]) -> None:
  """Replaces `path`, in one move, by the output of `write(file)`; makes its folder if needed."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  new = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)
  try:
    with new as file:
      write(file)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(new.name, 0o644)  # temporary files are private by default
    os.replace(new.name, path)
  except BaseException:
    os.unlink(new.name)
    raise


def numbered(path: pathlib.Path) -> pathlib.Path:
  """`<stem>_<n><suffix>` in the folder of `path`, with the smallest free n from 1 on."""
  names = (path.with_stem(f"{path.stem}_{n}") for n in itertools.count(1))
  return next(name for name in names if not name.exists())


def free(path: pathlib.Path) -> pathlib.Path:
  """`path`, or `<path>.<n>` with the smallest free n from 1 on if `path` exists."""
  names = (path.name if n == 0 else f"{path.name}.{n}" for n in itertools.count())
  return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def check_writable(path: pathlib.Path) -> None:
  """Makes the folder of `path`; raises OSError where `replace` could not write `path`."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
    pass


def replace_json(path: str | os.PathLike, value: Any) -> None:
  """Replaces `path` by `value` as indented JSON, see `to_json`."""
  text = to_json(value, indent=2) + "\n"
  replace(path, lambda file: file.write(text.encode()))


def to_json(value: Any, *, indent: int | None = None) -> str:
  """`value`, with numbers and arrays of NumPy and JAX, as JSON; NaN and infinity become null."""
  return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _plain(each) for key, each in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(each) for each in value]
  if hasattr(value, "__array__"):
    array = np.asarray(value)
    floating = array.dtype.kind in "fV"  # V: bfloat16 and the like
    return _plain((array.astype(float) if floating else array).tolist())
  return None if isinstance(value, float) and not math.isfinite(value) else value
