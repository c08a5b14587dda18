"""Which data a run is of: a few facts and a hash, compared when the run goes on."""

from collections.abc import Callable, Iterator
import hashlib
from typing import Any

import jax
import numpy as np

LOOKED_AT = 64  # examples that are hashed


def identity(source: Callable[[], Iterator[dict[str, Any]]]) -> dict[str, Any]:
  """`examples` (None for a stream), `shape` and `dtype` of one, and `sha256` of some, as JSON.

  The hash is of `LOOKED_AT` evenly spaced examples as they are stored, or of the first of a stream.
  Integers enter exactly, floating numbers coarsely, so that the same data have the same hash on a
  CPU and on an accelerator. `source` is as `data.base` says, its batch size and seed bound.
  """
  stream = source()
  batch = next(stream)
  size = getattr(stream, "size", None)
  evenly = lambda: np.unique(np.linspace(0, size - 1, min(LOOKED_AT, size)).astype(int))
  examples = _first(source()) if size is None else stream.examples(evenly())
  x = batch["x"]
  return dict(examples=size, shape=list(x.shape[1:]), dtype=str(x.dtype), sha256=_digest(examples))


def describe(found: dict[str, Any]) -> str:
  """One line of what `identity` returns."""
  size = "a stream" if found["examples"] is None else f"{found['examples']} examples"
  return f"{size} of {found['dtype']} {found['shape']}, hash {found['sha256'][:8]}"


def _first(stream: Iterator[dict[str, Any]]) -> Any:
  """The first `LOOKED_AT` examples of a stream."""
  parts, count = [], 0
  while count < LOOKED_AT:
    parts.append(next(stream))
    count += len(parts[-1]["x"])
  return jax.tree.map(lambda *a: np.concatenate(a)[:LOOKED_AT], *parts)


def _digest(examples: Any) -> str:
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_flatten_with_path(examples)[0]:
    leaf = np.asarray(leaf)
    exact = leaf if leaf.dtype.kind in "iub" else _coarse(leaf.astype(np.float64))
    found.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
    found.update(np.ascontiguousarray(exact).data)
  return found.hexdigest()


def _coarse(a: np.ndarray) -> np.ndarray:
  """int64 `[...]`: sixteenths of the standard deviation, rounded to a power of 2."""
  a = np.where(np.isfinite(a), a, 0.0)
  std = a.std()
  unit = 2.0 ** np.round(np.log2(std)) / 16 if std > 0 else 1.0
  return np.rint(a / unit).clip(-(2**62), 2**62).astype(np.int64)
