"""Which data a run is of: a few facts and a hash, compared when the run goes on."""

from collections.abc import Callable, Iterator
import hashlib
from typing import Any

import jax
import numpy as np

LOOKED_AT = 64  # examples that are hashed


def identity(source: Callable[[], Iterator[dict[str, Any]]]) -> dict[str, Any]:
  """`examples` (None for a stream), `shape`, `dtype` and `sha256` of `LOOKED_AT` examples, as JSON.

  Floating numbers are hashed coarsely, so that CPUs and accelerators agree.
  """
  stream = source()
  x, size = next(stream)["x"], getattr(stream, "size", None)
  evenly = lambda: np.unique(np.linspace(0, size - 1, min(LOOKED_AT, size)).astype(int))
  examples = _first(source()) if size is None else stream.examples(evenly())
  return dict(examples=size, shape=list(x.shape[1:]), dtype=str(x.dtype), sha256=_digest(examples))


def describe(found: dict[str, Any]) -> str:
  """One line of what `identity` returns."""
  size = "a stream" if found["examples"] is None else f"{found['examples']} examples"
  return f"{size} of {found['dtype']} {found['shape']}, hash {found['sha256'][:8]}"


def _first(stream: Iterator[dict[str, Any]]) -> Any:
  parts = [next(stream)]
  while len(parts) * len(parts[0]["x"]) < LOOKED_AT:
    parts.append(next(stream))
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
  a = np.where(np.isfinite(a), a, 0.0)
  std = a.std()
  unit = 2.0 ** np.round(np.log2(std)) / 16 if std > 0 else 1.0
  return np.rint(a / unit).clip(-(2**62), 2**62).astype(np.int64)
