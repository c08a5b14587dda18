"""Shared by feature spaces: a network over many images, and a name for its weights."""

from collections.abc import Callable
import functools
import hashlib
from typing import Any

import jax
import numpy as np

from dfim.io import inputs

Array = jax.Array
Network = Callable[[Any, Array], Array]  # (params, x [B, ...]) -> [B, D]

EXACT = jax.lax.Precision.HIGHEST  # or a GPU computes in TF32 and a TPU in bfloat16


def in_batches(network: Network, params: Any, x: np.ndarray, batch_size: int) -> np.ndarray:
  """`network` on all of x `[N, ...]`, in whole batches; compiled once for each function object."""
  batch_size = inputs.whole(batch_size, "batch_size", low=1)
  if not len(x):
    raise ValueError("images: there is none to take features of; give 1 or more.")
  parts = []
  for n in range(0, len(x), batch_size):
    batch = x[n : n + batch_size]
    padding = [(0, batch_size - len(batch))] + [(0, 0)] * (x.ndim - 1)
    parts.append(jax.device_get(_run(network, params, np.pad(batch, padding))))
  return np.concatenate(parts)[: len(x)]


@functools.partial(jax.jit, static_argnums=0)
def _run(network: Network, params: Any, x: Array) -> Array:
  return network(params, x)


def digest(arrays: dict[str, Any], digits: int = 6) -> str:
  """Hexadecimal digits of the sha256 of the names, shapes, types and bytes of arrays."""
  found = hashlib.sha256()
  for name, array in sorted(arrays.items()):
    array = np.ascontiguousarray(array)
    found.update(f"{name} {array.shape} {array.dtype}".encode())
    found.update(array.data)
  return found.hexdigest()[:digits]
