"""What the machine does: compilations, memory, the card's peak, a profile of a few steps."""

import os
import pathlib
import resource
from types import TracebackType
from typing import Any
from typing import Self

from absl import logging
import jax

# Dense bfloat16 FLOP/s of one device, by the start of its `device_kind`, as their makers print it.
PEAK = {
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
  "NVIDIA B200": 2250e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
}


def peak_flops(device: jax.Device) -> float | None:
  """FLOP/s of one device, None if it is not in `PEAK`."""
  return next((peak for kind, peak in PEAK.items() if device.device_kind.startswith(kind)), None)


def memory(device: jax.Device) -> int:
  """Bytes: the most that was in use on the device, or what this process holds of a CPU's."""
  if stats := device.memory_stats():
    return stats["peak_bytes_in_use"]
  try:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
  except OSError:  # no Linux: the most there ever was
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Compilations:
  """Counts XLA programs compiled, or fetched from a cache, while it is open."""

  _EVENT = "/jax/core/compile/backend_compile_duration"

  def __init__(self):
    self.count = 0

  def __enter__(self) -> Self:
    jax.monitoring.register_event_duration_secs_listener(self._listen)
    return self

  def __exit__(self, *_: Any) -> None:
    jax.monitoring.unregister_event_duration_listener(self._listen)

  def _listen(self, event: str, duration: float, **_: Any) -> None:
    del duration
    self.count += event == self._EVENT


class Profile:
  """A profile of the steps from `first` to `last`, for TensorBoard's and xprof's trace viewer."""

  def __init__(self, folder: str | os.PathLike, window: tuple[int, int] | None, seen: int = 0):
    """Writes into `folder`; nothing if `window`, (first, last), is None.

    Nor if it has begun with the `seen` steps that were taken already, which is told.
    """
    self._folder, self._running = str(folder), False
    self._first, self._last = window or (0, -1)
    if window and self._first <= seen:
      logging.warning("No profile: step %d was taken before this run, which resumes.", self._first)

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
  ) -> None:
    self._stop()

  def before(self, step: int, state: Any) -> None:
    """Starts or stops; waits for `state` there, so that the window holds whole steps."""
    if step == self._first and self._last >= step:
      jax.block_until_ready(state)
      jax.profiler.start_trace(self._folder)
      self._running = True
    elif step == self._last + 1:
      jax.block_until_ready(state)
      self._stop()

  def _stop(self) -> None:
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
      logging.info("Steps %d to %d are profiled in %s", self._first, self._last, self._folder)
