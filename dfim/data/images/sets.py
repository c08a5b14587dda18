"""Image sets of one's own: an .npz file, a folder of pictures, a prepared tfds set.

Nothing is downloaded. Batches are `x [B, H, W, C]`, uint8 pixels as x / 127.5 - 1, and `cond.label
[B]` where the set has labels; see `data.base`, and `pixels.finish` for `flip` and `augment`.
"""

from collections.abc import Callable
import functools
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np
from PIL import Image

from dfim.data import base, prefetch
from dfim.data.images import augment as augment_lib, decode, folders, pixels
from dfim.io import inputs, npz as npz_lib

Path = str | os.PathLike
Arrays = dict[str, np.ndarray]
_IMAGES, _LABELS = ("x", "images"), ("y", "labels", "label")


def npz(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  path: str | os.PathLike,
  flip: bool = False,
  augment: augment_lib.EDM | None = None,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches of an .npz of uint8 "x" or "images" and maybe "y", "labels" or "label"."""
  how = dict(flip=flip, augment=augment)
  return pixels.in_memory(_read_npz(path), batch_size, seed, start, process, **how)


def folder(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  path: str | os.PathLike,
  size: int,
  flip: bool = False,
  augment: augment_lib.EDM | None = None,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches of the pictures under `path`; see `load_folder`."""
  how = dict(flip=flip, augment=augment)
  return pixels.in_memory(folders.read(path, size), batch_size, seed, start, process, **how)


def tfds(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  dataset: str,
  split: str = "train",
  data_dir: str | os.PathLike | None = None,
  size: int | None = None,
  flip: bool = False,
  augment: augment_lib.EDM | None = None,
  threads: int = 4,
  workers: int = 0,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches of a prepared tfds set, read ahead (`prefetch.ahead`), without tensorflow."""
  how = dict(flip=flip, augment=augment)
  stored = functools.partial(_records, dataset, split, data_dir)
  read = functools.partial(_open_tfds, stored, size, batch_size, seed, process, how)
  batches = prefetch.ahead(read, start, threads=threads, workers=workers)
  records = stored()
  return base.Batches(batches, len(records), _decoder(records, size), _classes_of(records))


def load_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """All of an .npz file: `x [N, H, W, C]` in [-1, 1], and `label [N]` if it has labels."""
  return pixels.scaled(_read_npz(path))


def load_folder(path: str | os.PathLike, size: int) -> dict[str, np.ndarray]:
  """All pictures under `path`: `x [N, size, size, 3]` and maybe `label [N]`; see `folders`."""
  return pixels.scaled(folders.read(path, size))


def load_tfds(
  dataset: str, split: str = "test", data_dir: Path | None = None, size: int | None = None
) -> Arrays:
  """All of a split of a tfds set, perhaps cut to `size`: `x [N, H, W, C]`, maybe `label [N]`."""
  records = _records(dataset, split, data_dir)
  return pixels.scaled(_decoder(records, size)(np.arange(len(records))))


def _read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """uint8 `x [N, H, W, C]` and, perhaps, int32 `label [N]`."""
  fix = "numpy.savez uint8 [N, H, W, C] as 'x'"
  file = npz_lib.read_file(path, "data.path", fix, *_IMAGES, *_LABELS)
  path = inputs.path(path, "data.path")
  others = [name for name in npz_lib.names(path) if name not in file]
  (_, x), (name, labels) = (_one_of(path, file, names) for names in (_IMAGES, _LABELS))
  wanted = f"data.path: {path} needs uint8 [N, H, W] or [N, H, W, C] as 'x' or 'images', has"
  if x is None:
    raise ValueError(f"{wanted} none" + (f" but {folders.listed(others)}" if others else ""))
  if x.dtype != np.uint8 or x.ndim not in (3, 4):
    raise ValueError(f"{wanted} {x.dtype} {list(x.shape)}; convert or reshape it")
  data = dict(x=x if x.ndim == 4 else x[..., None])
  if labels is not None:
    data["label"] = pixels.labels(labels, f"data.path: {path}: {name}", len(x))
  if others:
    named = folders.listed(others), folders.listed(_LABELS)
    logging.warning("data.path: %s: ignored %s; labels are read as one of %s.", path, *named)
  return data


def _one_of(path: pathlib.Path, file: Arrays, names: tuple[str, ...]) -> tuple[str, Any]:
  """Name and value of the array that has one of `names`; of equal ones, of the first."""
  found = [(name, file[name]) for name in names if name in file]
  for name, other in found[1:]:
    if not np.array_equal(found[0][1], other):
      raise ValueError(f"data.path: {path}: {found[0][0]!r} and {name!r} differ; keep one of them.")
  return found[0] if found else ("", None)


def _open_tfds(
  stored: Callable[[], Any],
  size: int | None,
  batch_size: int,
  seed: int,
  process: base.Process,
  how: dict[str, Any],
) -> prefetch.Read:
  """Opens the set, in this process or in a worker; `how` is what `pixels.finish` takes."""
  records = stored()
  take = base.rows(len(records), batch_size, seed, process=process)
  finish = pixels.finish(batch_size, seed, process, **how)
  decoded = _decoder(records, size)
  return lambda n: finish(n, decoded(take(n)))


def _records(dataset: str, split: str, data_dir: str | os.PathLike | None) -> Any:
  """The records of a prepared set, in random access, decoded when they are read."""
  try:  # also modules that it imports late
    import array_record  # noqa: F401
    import grain  # noqa: F401
    import importlib_resources  # noqa: F401
    import tensorflow_datasets
  except ImportError as error:
    raise ImportError(f"data: {error.name} is missing; pip install -e '.[tfds]'") from None
  core = tensorflow_datasets.core
  where = data_dir or core.constants.DATA_DIR
  inputs.path(where, "data.data_dir")
  where = os.path.expanduser(where)  # not as a path, which would take a slash from gs://
  command = (
    "pip install -e '.[tfds,tensorflow]', then python -c \"import tensorflow_datasets as tfds; "
    f"tfds.builder('{dataset}', data_dir='{where}', file_format='array_record')"
    '.download_and_prepare()"'
  )
  try:  # from files alone: the set's own code would go and download it, for minutes if offline
    builder = core.read_only_builder.builder_from_files(dataset, data_dir=where)
  except core.registered.DatasetNotFoundError:
    line = f"data.dataset: {dataset} is not prepared in {where}; {command}"
    raise FileNotFoundError(line) from None
  except (ValueError, TypeError):
    raise ValueError(f"data.dataset: {dataset!r} is no name; give one such as cifar10") from None
  image = dict(builder.info.features.items()).get("image")
  if not isinstance(image, tensorflow_datasets.features.Image) or image.np_dtype != np.uint8:
    raise ValueError(f"data.dataset: {dataset} has no feature 'image' of uint8; choose another")
  try:
    records = builder.as_data_source(split)
    if isinstance(records, list | dict) or not len(records):
      raise ValueError("several splits, or one without an example")
    return records
  except NotImplementedError:
    line = (
      f"data.dataset: {dataset} in {where} is without random access; empty that, then {command}"
    )
    raise ValueError(line) from None
  except (ValueError, TypeError, AttributeError):  # those of a split that is no string
    splits = ", ".join(builder.info.splits)
    raise ValueError(f"data.split: {dataset} has {splits}, not {split!r}") from None


def _classes_of(records: Any) -> np.ndarray | None:
  feature = dict(records.dataset_info.features.items()).get("label")
  count = getattr(feature, "num_classes", None)
  return np.arange(count, dtype=np.int32) if count and _is_labelled(records) else None


def _is_labelled(records: Any) -> bool:
  """Whether a split has labels; where a set hides them, as of a test, all are -1."""
  return not np.array_equal(records[0].get("label", -1), -1)


def _decoder(records: Any, size: int | None) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
  """From rows `[n]` to uint8 `x [n, H, W, C]` and, perhaps, int32 `label [n]` of the records."""
  size = size if size is None else inputs.whole(size, "data.size", low=1)
  labelled = _is_labelled(records)

  def decoded(rows: np.ndarray) -> dict[str, np.ndarray]:
    examples = records.__getitems__(np.asarray(rows).tolist())
    x = _same_size([e["image"] for e in examples], size)
    if "label" not in examples[0]:
      return dict(x=x)
    field, labels = "data.dataset: label", [e["label"] for e in examples]
    if labelled:
      return dict(x=x, label=pixels.labels(labels, field, len(x), rows))
    fix = "example 0 has none, -1; choose a split where all have one, or none has"
    inputs.refuse_where(np.array(labels) != -1, np.array(labels), field, ("example",), fix, rows)
    return dict(x=x)

  return decoded


def _same_size(images: list[np.ndarray], size: int | None) -> np.ndarray:
  if size is not None:
    pil = lambda image: Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    images = [decode.square(pil(image), size) for image in images]
  if len({i.shape for i in images}) > 1:
    raise ValueError("data.size: the images differ in size; give the one to cut them to")
  return np.stack(images).reshape(len(images), *images[0].shape[:2], -1)
