"""Image sets of one's own: an .npz file, a folder of pictures, a prepared tfds set.

Batches are `x [B, H, W, C]`, uint8 pixels as x / 127.5 - 1, and `cond.label [B]` where the set has
labels; see `arrays` for the contract, and `pixels` for `flip` and `augment`. Nothing is ever
downloaded.
"""

import functools
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from dfim import archives
from dfim.data import arrays
from dfim.data import augment as augment_lib
from dfim.data import pixels
from dfim.data import workers as workers_lib

_SUFFIXES = {".png", ".jpg", ".jpeg"}


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
  """Batches of an .npz file with "x" or "images", and perhaps "y" or "labels"; see `load_npz`."""
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
  """Batches of the PNG and JPEG files under `path`; see `load_folder`."""
  how = dict(flip=flip, augment=augment)
  return pixels.in_memory(_read_folder(path, size), batch_size, seed, start, process, **how)


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
  return workers_lib.ahead(
    functools.partial(_open_tfds, *read), start, threads=threads, workers=workers
  )


def load_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """All of an .npz file: `x [N, H, W, C]` in [-1, 1], and `label [N]` if it has labels.

  Raises:
    FileNotFoundError: no such file.
    ValueError: no uint8 images `[N, H, W]` or `[N, H, W, C]`, or not as many labels; a pickle.
  """
  return pixels.scaled(_read_npz(path))


def load_folder(path: str | os.PathLike, size: int) -> dict[str, np.ndarray]:
  """All pictures under `path`, cut to a centred square and resized: `x [N, size, size, 3]`.

  Their order is that of the sorted names. Where `path` has subfolders, each is a class, and `label`
  counts them in sorted order.

  Raises:
    FileNotFoundError: no such folder, or no PNG or JPEG in it.
    ValueError: a file that is not a picture.
  """
  return pixels.scaled(_read_folder(path, size))


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
  return pixels.scaled(_decode(records, np.arange(len(records)), size))


def _read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """uint8 `x [N, H, W, C]` and, perhaps, int32 `label [N]`."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"data.path: no file {path}; numpy.savez one with uint8 images [N, H, W, C] as 'x'"
    )
  try:
    file = archives.read_npz(path, "x", "images", "y", "labels")
  except ValueError as error:
    raise ValueError(f"data.path: {path} is no .npz of plain arrays ({error})") from None
  images, labels = (
    next((file[name] for name in names if name in file), None)
    for names in (("x", "images"), ("y", "labels"))
  )
  return _checked(path, images, labels)


def _checked(
  path: pathlib.Path, images: np.ndarray | None, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
  """The arrays under our names, `[N, H, W]` with a channel added."""
  if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
    found = "none" if images is None else f"{images.dtype} {list(images.shape)}"
    raise ValueError(
      f"data.path: {path} needs uint8 [N, H, W] or [N, H, W, C] as 'x' or 'images', has {found}"
    )
  data = dict(x=images if images.ndim == 4 else images[..., None])
  if labels is None:
    return data
  if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
    raise ValueError(
      f"data.path: {path} needs {len(images)} integer labels, has {labels.dtype} "
      f"{list(labels.shape)}"
    )
  return data | dict(label=labels.astype(np.int32))


def _read_folder(path: str | os.PathLike, size: int) -> dict[str, np.ndarray]:
  """uint8 `x [N, size, size, 3]` and, with subfolders, int32 `label [N]`."""
  path = pathlib.Path(path)
  if size < 1:
    raise ValueError(f"data.size: {size} pixels; set it to 1 or more")
  if not path.is_dir():
    raise FileNotFoundError(f"data.path: no folder {path}; make it, with PNG or JPEG files in it")
  files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
  if not files:
    raise FileNotFoundError(f"data.path: no PNG or JPEG file in {path}; put some there")
  data = dict(x=np.stack([_read_picture(p, size) for p in files]))
  names = [p.relative_to(path).parts[0] for p in files]
  classes = sorted({n for n, p in zip(names, files, strict=True) if p.parent != path})
  if not classes:
    return data
  if loose := [p.name for p in files if p.parent == path]:
    raise ValueError(
      f"data.path: {path / loose[0]} lies beside the class folders; move it into one"
    )
  return data | dict(label=np.array([classes.index(n) for n in names], np.int32))


def _read_picture(path: pathlib.Path, size: int) -> np.ndarray:
  try:
    with Image.open(path) as image:
      return _square(image.convert("RGB"), size)
  except Exception as error:  # of a damaged or an absurdly large picture, whatever PIL raises
    line = " ".join(str(error).split())
    raise ValueError(f"data.path: {path} cannot be read ({line}); replace it") from None


def _square(image: Image.Image, size: int) -> np.ndarray:
  """The centred square `[size, size, C]`; cut first, or resizing would mix in what lies beside."""
  side = min(image.size)
  left, top = ((n - side) // 2 for n in image.size)
  square = image.crop((left, top, left + side, top + side))
  return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


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
  take = arrays.rows(len(records), batch_size, seed, process=process)
  finish = pixels.finish(batch_size, seed, process, **how)
  return lambda n: finish(n, _decode(records, take(n), size))


def _records(dataset: str, split: str, data_dir: str | os.PathLike | None) -> Any:
  """The records of a prepared set, in random access, decoded as they are asked for."""
  tensorflow_datasets = _import_tfds()
  core = tensorflow_datasets.core
  where = os.path.expanduser(data_dir or core.constants.DATA_DIR)
  try:  # from files alone: the set's own code would go and download it, for minutes if offline
    builder = core.read_only_builder.builder_from_files(dataset, data_dir=where)
  except core.registered.DatasetNotFoundError:
    raise FileNotFoundError(
      f"data.dataset: {dataset} is not prepared in {where}; {_command(dataset, where)}"
    ) from None
  except ValueError:
    raise ValueError(f"data.dataset: {dataset!r} is no name; give one such as cifar10") from None
  image = dict(builder.info.features.items()).get("image")
  if not isinstance(image, tensorflow_datasets.features.Image) or image.np_dtype != np.uint8:
    raise ValueError(f"data.dataset: {dataset} has no feature 'image' of uint8 pixels")
  try:
    return builder.as_data_source(split)
  except NotImplementedError:
    raise ValueError(
      f"data.dataset: {dataset} in {where} is in a format without random access; choose another "
      f"data_dir and {_command(dataset, 'THERE')}"
    ) from None
  except ValueError:
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


def _decode(records: Any, rows: np.ndarray, size: int | None) -> dict[str, np.ndarray]:
  """uint8 `x [n, H, W, C]` and, perhaps, int32 `label [n]` of the records at `rows`."""
  examples = records.__getitems__(rows.tolist())
  images = [e["image"] for e in examples]
  if size is not None:
    images = [_square(Image.fromarray(np.squeeze(i)), size) for i in images]
  if len({i.shape for i in images}) > 1:
    raise ValueError("data.size: the images differ in size; give the one to cut them to")
  data = dict(x=np.stack(images).reshape(len(images), *images[0].shape[:2], -1))
  if "label" not in examples[0]:
    return data
  return data | dict(label=np.array([e["label"] for e in examples], np.int32))
