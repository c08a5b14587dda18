"""The metrics of a run, in `metrics.jsonl` and TensorBoard events, and its pictures.

`metrics.jsonl` holds an object a line, {"step": 10, "loss": 0.5}; NaN and infinity are null there.
"""

import importlib.util
import json
import math
import os
import pathlib
import time
from typing import Any, Self

from absl import logging
import numpy as np

from dfim.io import atomic
from dfim.viz import images as pictures


class Writer:
  """Writes scalars and images of a run into `workdir`; a context manager.

  Lines of steps after `start`, from where the run goes on, are removed: the log of a resumed run
  equals that of an unbroken one. An inactive writer, of later processes, does nothing.
  """

  def __init__(self, workdir: str | os.PathLike, start: int = 0, *, active: bool = True):
    self._workdir = pathlib.Path(workdir)
    self._active = active
    if not active:
      return
    self._workdir.mkdir(parents=True, exist_ok=True)
    path = self._workdir / "metrics.jsonl"
    _drop_lines(path, start)
    self._lines = path.open("a")
    self._events = _events(self._workdir, start + 1)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def scalars(self, step: int, values: dict[str, Any]) -> None:
    """Appends one line with `values`, numbers or arrays of one number, and flushes it."""
    if not self._active:
      return
    values = {name: _number(name, value) for name, value in values.items()}
    self._lines.write(atomic.to_json({"step": int(step), **values}) + "\n")
    self._lines.flush()
    self._events.write_scalars(step, values)

  def image(self, step: int, name: str, array: np.ndarray) -> None:
    """Saves uint8 `[H, W, 1 | 3]` as `<name>/<step>.png`, and as an event."""
    if not self._active:
      return
    folder = self._workdir / name
    folder.mkdir(exist_ok=True)
    pictures.save_png(folder / f"{step}.png", array)
    self._events.write_images(step, {name: array[None]})

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._active:
      self._lines.close()
      self._events.close()


def _drop_lines(path: pathlib.Path, last: int) -> None:
  """Keeps the whole lines of steps up to `last`."""
  if not path.exists():
    return
  lines = path.read_bytes().splitlines(keepends=True)
  valid = [line for line in lines if _step(line) <= last]
  if valid != lines:
    logging.info("%s: dropped %d lines after step %d", path, len(lines) - len(valid), last)
    atomic.replace(path, lambda file: file.writelines(valid))


def _step(line: bytes) -> float:
  """The step of a line; NaN, which compares False, if the line is torn."""
  try:
    return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.nan
  except (ValueError, KeyError, TypeError):
    return math.nan


def _number(name: str, value: Any) -> int | float:
  array = np.asarray(value)
  if array.size != 1:
    raise ValueError(f"{name}: a scalar is one number, not an array of shape {array.shape}")
  return int(array.item()) if array.dtype.kind in "iub" else float(array.item())


def _events(workdir: pathlib.Path, purge: int) -> Any:
  """clu's writer if tensorflow is installed, else `_TensorBoardX`; steps from `purge` on go."""
  if not (importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorboard")):
    return _TensorBoardX(workdir, purge)
  _TensorBoardX(workdir, purge).close()  # clu cannot write the mark
  from clu import metric_writers
  import tensorflow as tf

  tf.config.set_visible_devices([], "GPU")  # else it takes the memory that JAX needs
  return metric_writers.SummaryWriter(str(workdir))


class _TensorBoardX:
  """The two methods of clu's `SummaryWriter` that `Writer` calls, without tensorflow."""

  def __init__(self, workdir: pathlib.Path, purge: int):
    import tensorboardX

    suffix = f".0{time.time_ns()}"  # unique within a second, and before clu's ".<pid>"
    options = dict(purge_step=purge, flush_secs=10, filename_suffix=suffix)
    self._writer = tensorboardX.SummaryWriter(str(workdir), **options)

  def write_scalars(self, step: int, scalars: dict[str, int | float]) -> None:
    for name, value in scalars.items():
      self._writer.add_scalar(name, value, step)

  def write_images(self, step: int, images: dict[str, np.ndarray]) -> None:
    for name, (image,) in images.items():
      self._writer.add_image(name, image, step, dataformats="HWC")

  def close(self) -> None:
    self._writer.close()
