"""Folders of pictures: which files are read, their classes, and all of their pixels.

Files of formats that PIL decodes (`decode`) are read, others named in a warning. Links are
followed, names that begin with a dot left out. Subfolders are the classes, sorted by code point.
"""

from collections.abc import Iterator, Sequence
import functools
import os
import pathlib
import stat
from typing import Any

from absl import logging
import numpy as np

from dfim.data.images import decode
from dfim.io import inputs

Path = pathlib.Path
Pictures = tuple[tuple[Path, int, int], ...]  # path below the folder, bytes, time of last change
_NAMED = 20  # names in one line


def read(path: str | os.PathLike, size: int) -> dict[str, np.ndarray]:
  """All pictures below `path`, decoded once: uint8 `x [N, size, size, 3]`, int32 `label [N]`."""
  path, size = inputs.path(path, "data.path"), inputs.whole(size, "data.size", low=1)
  if not path.is_dir():
    raise FileNotFoundError(f"data.path: no folder {path}; make it, with PNG or JPEG files in it")
  pictures, others = _list(path)
  if not pictures:
    found = f", but {listed(others)}" if others else ""
    raise FileNotFoundError(f"data.path: no picture that PIL reads in {path}{found}; add some")
  classes = _classes(path, [name for name, _, _ in pictures])
  data = dict(x=_decoded(path, size, pictures, others, classes))
  if not classes:
    return data
  number = {name: i for i, name in enumerate(classes)}
  return data | dict(label=np.array([number[name.parts[0]] for name, _, _ in pictures], np.int32))


def listed(names: Sequence[Any]) -> str:
  """The first names, in one line whatever they hold, and how many more there are."""
  more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
  return ", ".join(" ".join(str(name).split())[:80] for name in names[:_NAMED]) + more


@functools.lru_cache(maxsize=2)  # a training set, and one that it is compared with
def _decoded(
  root: Path, size: int, pictures: Pictures, others: tuple[Path, ...], classes: tuple[str, ...]
) -> np.ndarray:
  if others:
    line = "data.path: %s: skipped %d files that are no pictures which PIL reads: %s."
    logging.warning(line, root, len(others), listed(others))
  x = np.stack([decode.picture(root / name, size) for name, _, _ in pictures])
  x.flags.writeable = False  # it is handed out again
  of = f"of {len(classes)} classes: {listed(classes)}" if classes else "without classes"
  logging.info("data.path: %s: %d images %s.", root, len(x), of)
  return x


def _list(root: Path) -> tuple[Pictures, tuple[Path, ...]]:
  """The pictures and all other files below `root`, sorted by their paths from there."""
  pictures, others, suffixes = [], [], decode.suffixes()
  try:
    real = root.resolve()
    above = {(s.st_dev, s.st_ino) for s in map(os.stat, (real, *real.parents))}
    for path, status in _walk(root, above):
      name = path.relative_to(root)
      if stat.S_ISREG(status.st_mode) and name.suffix.lower() in suffixes:
        pictures.append((name, status.st_size, status.st_mtime_ns))
      else:
        others.append(name)
  except OSError as error:
    raise ValueError(f"data.path: {error.filename}: {error.strerror}; remove it") from None
  return tuple(sorted(pictures)), tuple(sorted(others))


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[tuple[Path, os.stat_result]]:
  """All that is not hidden below `folder`; a link to one of the folders `above` is not entered."""
  for path in folder.iterdir():
    if path.name.startswith("."):
      continue
    status = path.stat()
    here = (status.st_dev, status.st_ino)
    if stat.S_ISDIR(status.st_mode) and here not in above:
      yield from _walk(path, above | {here})
    else:
      yield path, status


def _classes(root: pathlib.Path, names: list[pathlib.Path]) -> tuple[str, ...]:
  """The classes of the pictures, sorted; none where all lie in `root` itself."""
  classes = {name.parts[0] for name in names if len(name.parts) > 1}
  if not classes:
    return ()
  if loose := [name for name in names if len(name.parts) == 1]:
    raise ValueError(f"data.path: {root / loose[0]} is in no class folder; move it into one")
  here = root.resolve()
  for path in sorted(root.iterdir()):
    hidden = path.name.startswith(".") or here.is_relative_to(path.resolve())  # see `_walk`
    if path.is_dir() and not hidden and path.name not in classes:
      raise ValueError(f"data.path: {path} is a class without a picture; add some or remove it")
  return tuple(sorted(classes))
