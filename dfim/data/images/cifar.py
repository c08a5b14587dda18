"""CIFAR-10 in one file: an .npz of lossless WebP pictures, made by `pack`.

Of each split it holds `<split>_bytes`, uint8, all pictures end to end; `<split>_offsets` `[N + 1]`;
`<split>_labels` `[N]`. Source: A. Krizhevsky, Learning Multiple Layers of Features, 2009.
"""

import functools
import io
import os
import pathlib

import numpy as np
from PIL import Image

from dfim.data import base
from dfim.data.images import augment as augment_lib, pixels, sets
from dfim.io import atomic, inputs, npz

SPLITS = ("train", "test")
_FETCH = (
  "python -c \"from dfim.data.images import cifar; cifar.pack('{path}', '~/tensorflow_datasets')\""
)


def cifar10(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  path: str | os.PathLike,
  split: str = "train",
  flip: bool = False,
  augment: augment_lib.EDM | None = None,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches `x [B, 32, 32, 3]` and `cond.label [B]`; see `data.base` and `pixels.finish`."""
  data, how = _read(path, split), dict(flip=flip, augment=augment)
  return pixels.in_memory(data, batch_size, seed, start, process, **how)


def load(path: str | os.PathLike, split: str = "test") -> dict[str, np.ndarray]:
  """All of a split, `x [N, 32, 32, 3]` float32 in [-1, 1] and `label [N]` int32; decoded once."""
  return pixels.scaled(_read(path, split))


def pack(path: str | os.PathLike, data_dir: str | os.PathLike, dataset: str = "cifar10") -> None:
  """Writes the file from a set that tfds has prepared in `data_dir`."""
  path, data = inputs.path(path, "path"), {}
  for split in SPLITS:
    found = sets.load_tfds(dataset, split, data_dir)
    if "label" not in found:
      raise ValueError(f"dataset: {dataset} has no labels of split {split!r}; pack another set")
    x, labels = found["x"], found["label"]
    field = f"dataset: {dataset}, split {split!r}: label"
    labels = inputs.numbers(labels, field, (len(x),), axes=("example",), dtype=np.uint8)
    files = [io.BytesIO() for _ in x]
    for one, file in zip(x, files, strict=True):
      image = Image.fromarray(np.rint(127.5 * (one + 1)).astype(np.uint8))
      image.save(file, "WEBP", lossless=True)
    raw = [file.getvalue() for file in files]
    data[f"{split}_bytes"] = np.frombuffer(b"".join(raw), np.uint8)
    data[f"{split}_offsets"] = np.cumsum([0, *map(len, raw)])
    data[f"{split}_labels"] = labels
  atomic.replace(path, lambda file: np.savez(file, **data))


def _read(path: str | os.PathLike, split: str) -> dict[str, np.ndarray]:
  path = inputs.path(path, "data.path")
  base.check_split(split, SPLITS)
  if not path.is_file():
    raise FileNotFoundError(f"data.path: no file {path}; {_FETCH.format(path=path)}")
  return _decoded(path, split, path.stat().st_mtime_ns, path.stat().st_size)


@functools.lru_cache(maxsize=len(SPLITS))
def _decoded(path: pathlib.Path, split: str, changed: int, size: int) -> dict[str, np.ndarray]:
  """Of the file that was `changed` then and has this size, read only."""
  del changed, size
  names = [f"{split}_{name}" for name in ("bytes", "offsets", "labels")]
  try:
    file = npz.read_npz(path, *names)
    raw, offsets, labels = (file[name] for name in names)
    ends = zip(offsets[:-1], offsets[1:], strict=True)
    x = np.stack([_decode(raw[i:j].tobytes()) for i, j in ends])
    labels = pixels.labels(labels, f"{split}_labels", len(x))
  except Exception as error:  # of a damaged picture, whatever PIL raises
    line, fix = " ".join(str(error).split()), _FETCH.format(path=path)
    raise ValueError(f"data.path: {path} is damaged ({line}); make it anew: {fix}") from None
  data = dict(x=x, label=labels)
  for array in data.values():
    array.flags.writeable = False  # it is handed out again
  return data


def _decode(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as image:
    if image.size != (32, 32) or image.mode != "RGB":
      raise ValueError(f"a picture of {image.size} {image.mode}, not of 32 x 32 RGB")
    return np.asarray(image)
