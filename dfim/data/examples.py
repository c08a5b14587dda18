"""What sampling needs to know of the data, kept in a run's folder: `examples.npz`."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

import jax
import numpy as np

from dfim.core import conditioning
from dfim.data.images import augment
from dfim.io import atomic, npz

FILE = "examples.npz"
_LABELS, _X, _COND = "labels", "x", "cond/"


@dataclasses.dataclass(frozen=True)
class Examples:
  """Shapes and dtypes of one global batch, classes to sample, and `shown` conditions by name."""

  batch: dict[str, Any]
  labels: tuple[int, ...] = ()
  cond: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def shown(cond: conditioning.Condition) -> dict[str, Any]:
  """The conditions that samples are drawn under if none are given: labels count, see `sample`."""
  return {k: a for k, a in (cond or {}).items() if k not in ("label", "augment")}


def of_batch(batch: dict[str, Any], labels: tuple[int, ...]) -> Examples:
  """The form of a whole first batch."""
  shaped = lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype))
  cond = conditioning.hide(batch.get("cond"), batch.get("mask"))  # padding may hold anything
  return Examples(jax.tree.map(shaped, batch), labels, shown(jax.device_get(cond)))


def of_shape(shape: Sequence[int], rows: int, classes: int, *, augmented: bool) -> Examples:
  """The form of `rows` examples of this shape, without data; all of `classes` occur."""
  form = lambda dims, dtype: jax.ShapeDtypeStruct((rows, *dims), dtype)
  cond = dict(label=form((), np.int32)) if classes else {}
  cond |= dict(augment=form((augment.LABELS,), np.float32)) if augmented else {}
  batch = dict(x=form(shape, np.float32)) | (dict(cond=cond) if cond else {})
  return Examples(batch, tuple(range(classes)))


def write(workdir: str | os.PathLike, examples: Examples, count: int) -> None:
  """Writes the form of an example, the labels and `count` conditions, in the first process."""
  if jax.process_index() != 0:
    return
  empty = lambda a: np.empty((0, *a.shape[1:]), a.dtype)
  arrays = {_X: empty(examples.batch["x"])}
  arrays |= {_COND + name: empty(a) for name, a in (examples.batch.get("cond") or {}).items()}
  arrays |= {_COND + name: np.asarray(a[:count]) for name, a in examples.cond.items()}
  arrays[_LABELS] = np.asarray(examples.labels, np.int32)
  atomic.replace(pathlib.Path(workdir) / FILE, lambda file: np.savez(file, **arrays))


def read(workdir: str | os.PathLike, batch_size: int) -> Examples | None:
  """What `write` wrote; None where there is no such file, and ValueError for a damaged one."""
  path = pathlib.Path(workdir) / FILE
  if not path.is_file():
    return None
  try:
    arrays = npz.read_npz(path)
    labels = tuple(map(int, arrays.pop(_LABELS)))
    shaped = lambda a: jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype)
    cond = {k.removeprefix(_COND): a for k, a in arrays.items() if k != _X}
    batch = dict(x=shaped(arrays[_X])) | (dict(cond=jax.tree.map(shaped, cond)) if cond else {})
    return Examples(batch, labels, {k: a for k, a in shown(cond).items() if len(a)})
  except (ValueError, KeyError) as error:
    raise ValueError(f"{path}: {error}; remove it to open the data instead.") from error
