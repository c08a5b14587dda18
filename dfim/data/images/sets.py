"""Image sets of one's own: an .npz file, a folder of pictures, a prepared tfds set.

In an .npz the images are uint8 "x" or "images", and labels, if there are any, "y", "labels" or
"label". Folders are read as `folders` says, and their pictures as `decode` says.

Batches are `x [B, H, W, C]`, uint8 pixels as x / 127.5 - 1, and `cond.label [B]` where the set has
labels; see `arrays` for the contract, and `pixels` for `flip` and `augment`. Nothing is ever
downloaded.
"""

from collections.abc import Callable
import functools
import os
import pathlib
from typing import Any

from absl import logging
import numpy as np
from PIL import Image

from dfim.data import base, prefetch as workers_lib
from dfim.data.images import augment as augment_lib, decode, folders, pixels
from dfim.io import inputs, npz as npz_lib

_IMAGES, _LABELS = ("x", "images"), ("y", "labels", "label")


def npz(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  path: str | os.PathLike,
  flip: bool = False,
  augment: augment_lib.EDM | None = None,
  process: tuple[int, int] = (0, 1),
) -> pixels.Batches:
  """Batches of an .npz file; see `load_npz`."""
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
  process: tuple[int, int] = (0, 1),
) -> pixels.Batches:
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
  process: tuple[int, int] = (0, 1),
) -> pixels.Batches:
  """Batches of a prepared tfds set, read ahead of time, without tensorflow.

  Batch n is the same as that of the set in memory, and depends on (seed, n) alone, whatever the
  number of threads, workers and processes: the order comes from `arrays.rows`, and grain only maps
  n to a batch. So starting at n is exact, and a checkpoint needs to hold no iterator, only n.

  Args:
    batch_size, seed, start, process: see `arrays`.
    dataset, split, data_dir, size: see `load_tfds`.
    flip, augment: see `pixels.finish`.
    threads: that read ahead, of this process or of each worker.
    workers: processes that read ahead, where one interpreter is too slow; 0: none. What they
      promise, and what their errors are: `workers.ahead`.

  Raises:
    ValueError, FileNotFoundError, ImportError: at once; see `load_tfds`.
  """
  how = dict(flip=flip, augment=augment)
  read = (dataset, split, data_dir, size, batch_size, seed, process, how)
  batches = workers_lib.ahead(
    functools.partial(_open_tfds, *read), start, threads=threads, workers=workers
  )
  records = _records(dataset, split, data_dir)
  return base.Batches(batches, len(records), _decoder(records, size), _classes_of(records))


def load_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """All of an .npz file: `x [N, H, W, C]` in [-1, 1], and `label [N]` if it has labels.

  Arrays by other names are left out with a warning.

  Raises:
    FileNotFoundError: no such file.
    ValueError: no uint8 images `[N, H, W]` or `[N, H, W, C]`, or not as many labels from 0 on; two
      different arrays of either; a pickle.
  """
  return pixels.scaled(_read_npz(path))


def load_folder(path: str | os.PathLike, size: int) -> dict[str, np.ndarray]:
  """All pictures under `path`, cut to a centred square and resized: `x [N, size, size, 3]`.

  Their order is that of the names, folder by folder. Where `path` has subfolders with pictures,
  each is a class, and `label [N]` is its number in that order. The pictures are decoded once in a
  process, unless one changes, and stay in memory as uint8. Files that are no pictures are left out
  with a warning.

  Raises:
    FileNotFoundError: no such folder, or no picture in it.
    ValueError: a picture that cannot be read, or one outside the classes; a class without any.
  """
  return pixels.scaled(folders.read(path, size))


def load_tfds(
  dataset: str,
  split: str = "test",
  data_dir: str | os.PathLike | None = None,
  size: int | None = None,
) -> dict[str, np.ndarray]:
  """All of a split of a prepared tfds set: `x [N, H, W, C]`, and `label [N]` if it has labels.

  Args:
    dataset: such as "cifar10", "imagenet2012:5.*.*" or "my_set/config".
    split: such as "train" or "train[:10%]".
    data_dir: where sets are prepared; ~/tensorflow_datasets, or $TFDS_DATA_DIR, by default.
    size: cut images to a centred square of this size; needed where they differ in size.

  Raises:
    FileNotFoundError: the set is not prepared there.
    ValueError: no such split, no images in it, or a file format that needs tensorflow.
    ImportError: the packages that read it are missing.
  """
  records = _records(dataset, split, data_dir)
  return pixels.scaled(_decoder(records, size)(np.arange(len(records))))


def _read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """uint8 `x [N, H, W, C]` and, perhaps, int32 `label [N]`."""
  path = inputs.path(path, "data.path")
  if not path.is_file():
    raise FileNotFoundError(
      f"data.path: no file {path}; numpy.savez one with uint8 images [N, H, W, C] as 'x'"
    )
  try:
    file = npz_lib.read_npz(path, *_IMAGES, *_LABELS)
    others = [name for name in npz_lib.names(path) if name not in file]
  except ValueError as error:
    raise ValueError(f"data.path: {path} is no .npz of plain arrays ({error})") from None
  images, labels = (_one_of(path, file, names) for names in (_IMAGES, _LABELS))
  data = _checked(path, images, labels, others)
  if others:
    named = folders.listed(others), folders.listed(_LABELS)
    logging.warning("data.path: %s: ignored %s; labels are read as one of %s.", path, *named)
  return data


def _one_of(
  path: pathlib.Path, file: dict[str, np.ndarray], names: tuple[str, ...]
) -> tuple[str, np.ndarray] | None:
  """Name and value of the array that has one of `names`; of equal ones, of the first."""
  found = [(name, file[name]) for name in names if name in file]
  for name, other in found[1:]:
    if not np.array_equal(found[0][1], other):
      raise ValueError(f"data.path: {path}: {found[0][0]!r} and {name!r} differ; keep one of them.")
  return found[0] if found else None


def _checked(
  path: pathlib.Path,
  images: tuple[str, np.ndarray] | None,
  labels: tuple[str, np.ndarray] | None,
  others: list[str],
) -> dict[str, np.ndarray]:
  """The arrays under our names, `[N, H, W]` with a channel added."""
  wanted = f"data.path: {path} needs uint8 [N, H, W] or [N, H, W, C] as 'x' or 'images', has"
  if images is None:
    raise ValueError(f"{wanted} none" + (f" but {folders.listed(others)}" if others else ""))
  x = images[1]
  if x.dtype != np.uint8 or x.ndim not in (3, 4):
    fix = "save np.rint(255 * x / white).astype(np.uint8)" if x.ndim in (3, 4) else "reshape it"
    raise ValueError(f"{wanted} {x.dtype} {list(x.shape)}; {fix}")
  data = dict(x=x if x.ndim == 4 else x[..., None])
  if labels is None:
    return data
  name, array = labels
  return data | dict(label=pixels.labels(array, f"data.path: {path}: {name}", len(x)))


def _open_tfds(
  dataset: str,
  split: str,
  data_dir: str | os.PathLike | None,
  size: int | None,
  batch_size: int,
  seed: int,
  process: tuple[int, int],
  how: dict[str, Any],
) -> workers_lib.Read:
  """Opens the set, in this process or in a worker; `how` is what `pixels.finish` takes."""
  records = _records(dataset, split, data_dir)
  take = base.rows(len(records), batch_size, seed, process=process)
  finish = pixels.finish(batch_size, seed, process, **how)
  decoded = _decoder(records, size)
  return lambda n: finish(n, decoded(take(n)))


def _records(dataset: str, split: str, data_dir: str | os.PathLike | None) -> Any:
  """The records of a prepared set, in random access, decoded as they are asked for."""
  tensorflow_datasets = _import_tfds()
  core = tensorflow_datasets.core
  where = data_dir or core.constants.DATA_DIR
  inputs.path(where, "data.data_dir")
  where = os.path.expanduser(where)  # not as a path, which would take a slash from gs://
  try:  # from files alone: the set's own code would go and download it, for minutes if offline
    builder = core.read_only_builder.builder_from_files(dataset, data_dir=where)
  except core.registered.DatasetNotFoundError:
    raise FileNotFoundError(
      f"data.dataset: {dataset} is not prepared in {where}; {_command(dataset, where)}"
    ) from None
  except (ValueError, TypeError):
    raise ValueError(f"data.dataset: {dataset!r} is no name; give one such as cifar10") from None
  image = dict(builder.info.features.items()).get("image")
  if not isinstance(image, tensorflow_datasets.features.Image) or image.np_dtype != np.uint8:
    raise ValueError(
      f"data.dataset: {dataset} has no feature 'image' of uint8 pixels; choose a set that has one"
    )
  try:
    records = builder.as_data_source(split)
    if isinstance(records, list | dict) or not len(records):
      raise ValueError("several splits, or one without an example")
    return records
  except NotImplementedError:
    raise ValueError(
      f"data.dataset: {dataset} in {where} is in a format without random access; choose another "
      f"data_dir and {_command(dataset, 'THERE')}"
    ) from None
  except (ValueError, TypeError, AttributeError):  # those of a split that is no string
    splits = ", ".join(builder.info.splits)
    raise ValueError(f"data.split: {dataset} has {splits}, not {split!r}") from None


def _import_tfds() -> Any:
  """The module, once all that it imports late is known to be there too."""
  try:
    import array_record  # noqa: F401
    import grain  # noqa: F401
    import importlib_resources  # noqa: F401
    import tensorflow_datasets
  except ImportError as error:
    raise ImportError(f"data: {error.name} is missing; pip install -e '.[tfds]'") from None
  return tensorflow_datasets


def _command(dataset: str, where: str) -> str:
  return (
    "pip install -e '.[tfds,tensorflow]', then python -c \"import tensorflow_datasets as tfds; "
    f"tfds.builder('{dataset}', data_dir='{where}', file_format='array_record')"
    '.download_and_prepare()"'
  )


def _classes_of(records: Any) -> np.ndarray | None:
  """The labels of a split, as its set declares them; None without labels or a number of them."""
  feature = dict(records.dataset_info.features.items()).get("label")
  count = getattr(feature, "num_classes", None)
  return np.arange(count, dtype=np.int32) if count and _is_labelled(records) else None


def _is_labelled(records: Any) -> bool:
  """Whether a split has labels; where a set hides those of a split, as of a test, all are -1."""
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
  """uint8 `[n, H, W, C]`, cut to squares of `size` if that is given."""
  if size is not None:
    images = [decode.square(_picture(image), size) for image in images]
  if len({i.shape for i in images}) > 1:
    raise ValueError("data.size: the images differ in size; give the one to cut them to")
  return np.stack(images).reshape(len(images), *images[0].shape[:2], -1)


def _picture(image: np.ndarray) -> Image.Image:
  """Of `[H, W, C]`; PIL takes a single channel without its axis."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
