"""Batches read before they are asked for, by threads or by processes of their own."""

import atexit
from collections.abc import Callable
from collections.abc import Iterator
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
  """Batches `start`, `start + 1`, ... in this order, read before they are asked for.

  Args:
    make: opens what is read and returns what reads it. It is called here, once, and in each worker,
      to which it must travel: functions and values, no open files.
    start: the number of the first batch.
    threads: that read ahead, of this process or of each worker; 0: none beside the one that asks.
    workers: processes that read ahead, batch n in worker n modulo `workers`; 0: none. They hand
      over arrays in shared memory, never use an accelerator, and end with the iterator and with
      this process, however it ends. Up to `2 threads + 4` batches of each are under way.

  Raises:
    ValueError: negative numbers.
    ImportError: grain, which reads ahead, is missing.
    RuntimeError: while iterating, once: what failed in a worker, or how a worker died.
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
  """grain's dataset of the batches from `start` on: n is all it keeps, so any start is exact."""
  grain = _import_grain()
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  return grain.MapDataset.range(start, 2**62).map(read).to_iter_dataset(options)


def _from_workers(read: "_Remade", start: int, threads: int, workers: int) -> Batches:
  yield read(start)  # who looks at one batch, as at the start of a run, waits for no process
  grain = _import_grain()
  _allow_unparsed_flags()
  dataset = _dataset(functools.partial(_read_or_tell, read), start + 1, threads)
  options = grain.multiprocessing.MultiprocessingOptions(num_workers=workers)
  batches = iter(dataset.mp_prefetch(options, worker_init_fn=_set_up_worker))
  try:
    for batch in batches:
      yield jax.tree.map(np.array, batch)  # a copy, for grain's own goes with the shared memory
  except RuntimeError as error:
    raise _explained(error) from None
  finally:
    batches.close()


@functools.cache
def _close_at_exit() -> None:
  """Once grain is there: its exit hooks are older than ours then, and run after it."""
  atexit.register(_close)


def _close() -> None:
  """Ends the workers while what they need to end is still there."""
  for batches in list(_RUNNING):
    batches.close()
  pool = getattr(_import_grain().multiprocessing.SharedMemoryArray, "_del_thread_pool", None)
  if pool is not None:
    pool.apply(int)  # returns after all that the pool had to free before: none is leaked


class _Remade:
  """`make()`, which another process is sent as `make` and makes anew.

  Open files cannot be sent, and mapped arrays would be sent whole.
  """

  def __init__(self, make: Callable[[], Read]):
    self._make, self._read = make, make()

  def __call__(self, n: int) -> dict[str, Any]:
    return self._read(n)

  def __reduce__(self):
    return _remake, (self._make,)


def _remake(make: Callable[[], Read]) -> _Remade:
  try:
    return _Remade(make)
  except Exception as error:
    raise _told(error, "opening the data") from None


def _read_or_tell(read: Read, n: int) -> dict[str, Any]:
  try:
    return read(n)
  except Exception as error:
    raise _told(error, f"batch {n}") from None


def _told(error: Exception, what: str) -> RuntimeError:
  """The error in one line; as it is it might not pickle, and the parent would wait for ever."""
  line = " ".join(f"{type(error).__name__}: {error}".split())
  return RuntimeError(f"data: {what}: {line}").with_traceback(error.__traceback__)


def _explained(error: RuntimeError) -> RuntimeError:
  """An error of `_told` in its line alone; that a worker died, with what its exit code means."""
  line = str(error).partition("\n")[0]  # grain adds some about its tracebacks
  if not line.startswith("data"):
    line = (
      f"data.workers: {line} Code -9: too little memory, take fewer workers; -7: too little of "
      "/dev/shm (docker run --shm-size=8g); 1: see above, or a script without the usual "
      "if __name__ == '__main__'."
    )
  return RuntimeError(line).with_traceback(error.__traceback__)


def _allow_unparsed_flags() -> None:
  """grain reads flags of its own, which nobody has parsed in a notebook, a test or a script."""
  if not flags.FLAGS.is_parsed():
    for name in flags.FLAGS:
      if name.startswith("grain_"):
        flags.FLAGS[name].present = True  # its default counts, and the others stay as they are


def _set_up_worker(index: int, count: int) -> None:
  """Runs first in each worker, with its number of how many."""
  del index, count
  # Ctrl-C and a cluster's warnings go to all processes: the parent decides, and may need a batch.
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
  # Whatever a set's own code does with JAX, the accelerator's memory is the parent's.
  os.environ.update(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")
  jax.config.update("jax_platforms", "cpu")
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """grain's worker would wait for ever for a place in the queue of a parent that was killed."""
  multiprocessing.parent_process().join()
  os._exit(1)


def _import_grain() -> Any:
  try:
    import grain  # heavy, and part of an extra
  except ImportError as error:
    raise ImportError(f"data: {error.name} is missing; pip install -e '.[tfds]'") from None
  return grain
