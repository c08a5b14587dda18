"""Batches read ahead of their use, by threads or by worker processes."""

import atexit
from collections.abc import Callable, Iterator
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from typing import Any
import weakref

from absl import flags
import jax
import numpy as np

from dfim.data import base
from dfim.io import inputs

Batches = Iterator[dict[str, Any]]
Read = Callable[[int], dict[str, Any]]  # from n to batch n
_RUNNING: weakref.WeakSet = weakref.WeakSet()  # iterators that have worker processes


def ahead(make: Callable[[], Read], start: int, *, threads: int = 0, workers: int = 0) -> Batches:
  """Batches `start`, `start + 1`, ... in this order, read ahead.

  `make` opens the data, here and in each worker (it must pickle), and returns the function that
  reads a batch. `threads` read ahead in this process or in each of `workers` processes, which never
  use an accelerator. A worker's failure is a RuntimeError while iterating.
  """
  for field, value in dict(threads=threads, workers=workers).items():
    inputs.whole(value, f"data.{field}", low=0)
  numbers = base.count_from(start)
  if workers:
    _import_grain()
    _close_at_exit()
    batches = _from_workers(_Remade(make), start, threads, workers)
    _RUNNING.add(batches)
    return batches
  read = make()
  return iter(_dataset(read, start, threads)) if threads else map(read, numbers)


def _dataset(read: Read, start: int, threads: int) -> Any:
  grain = _import_grain()
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  return grain.MapDataset.range(start, 2**62).map(read).to_iter_dataset(options)


def _from_workers(read: "_Remade", start: int, threads: int, workers: int) -> Batches:
  yield read(start)  # the first batch, all that building an experiment reads, needs no worker
  grain = _import_grain()
  for name in () if flags.FLAGS.is_parsed() else flags.FLAGS:
    if name.startswith("grain_"):
      flags.FLAGS[name].present = True  # use its default, in a notebook, a test or a script
  dataset = _dataset(read.or_report, start + 1, threads)
  options = grain.multiprocessing.MultiprocessingOptions(num_workers=workers)
  batches = iter(dataset.mp_prefetch(options, worker_init_fn=_set_up_worker))
  try:
    for batch in batches:
      yield jax.tree.map(np.array, batch)  # a copy: grain's arrays end with the shared memory
  except RuntimeError as error:
    raise _explained(error) from None
  finally:
    batches.close()


@functools.cache
def _close_at_exit() -> None:
  """Once grain is imported: its exit hooks are older than this one then, and run after it."""
  atexit.register(_close)


def _close() -> None:
  """Ends the workers while the modules are there that they need for it."""
  for batches in list(_RUNNING):
    batches.close()
  pool = getattr(_import_grain().multiprocessing.SharedMemoryArray, "_del_thread_pool", None)
  if pool is not None:
    pool.apply(int)  # returns once the pool has freed all memory given to it before


class _Remade:
  """`make()`, which pickles as `make`: open files do not pickle, mapped arrays would whole."""

  def __init__(self, make: Callable[[], Read]):
    self._make, self._read = make, make()

  def __call__(self, n: int) -> dict[str, Any]:
    return self._read(n)

  def or_report(self, n: int) -> dict[str, Any]:
    with _reporting(f"batch {n}"):
      return self._read(n)

  def __reduce__(self):
    return _remake, (self._make,)


def _remake(make: Callable[[], Read]) -> _Remade:
  with _reporting("opening the data"):
    return _Remade(make)


@contextlib.contextmanager
def _reporting(where: str) -> Iterator[None]:
  try:
    yield
  except Exception as error:
    line = " ".join(f"{type(error).__name__}: {error}".split())
    raise RuntimeError(f"data: {where}: {line}").with_traceback(error.__traceback__) from None


def _explained(error: RuntimeError) -> RuntimeError:
  """An error of `_reporting`, or the death of a worker with its exit code's meaning."""
  line = str(error).partition("\n")[0]  # grain adds lines about its tracebacks
  if not line.startswith("data"):
    fix = "-9: too little memory; -7: docker run --shm-size=8g; 1: see above, or guard __main__."
    line = f"data.workers: {line} Code {fix}"
  return RuntimeError(line).with_traceback(error.__traceback__)


def _set_up_worker(index: int, count: int) -> None:
  del index, count
  # Ctrl-C and a cluster's signals go to all processes; the parent decides, and may need a batch.
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
  # Code of a data set may use JAX; the accelerator's memory belongs to the parent.
  os.environ.update(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")
  jax.config.update("jax_platforms", "cpu")
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """grain's worker would wait for ever for room in the queue of a parent that was killed."""
  multiprocessing.parent_process().join()
  os._exit(1)


def _import_grain() -> Any:
  try:
    import grain  # heavy, and part of an extra
  except ImportError as error:
    raise ImportError(f"data: {error.name} is missing; pip install -e '.[tfds]'") from None
  return grain
