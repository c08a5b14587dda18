"""The log of a run: speed, waits, compilations, memory, and a profile of a few steps."""

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import functools
import os
import pathlib
import resource
import sys
import time
from typing import Any, Self

from absl import logging
import jax
import ml_collections
import numpy as np

from dfim.config.errors import ConfigError
from dfim.training import (
  chips,
  experiment as experiment_lib,
  step as step_lib,
  writer as writer_lib,
)

# Logged numbers that depend on the machine: no two runs agree in them.
MACHINE = frozenset(
  "steps_per_second flops_per_second share_of_peak waiting_for_data waiting_for_saving memory_bytes"
  " compilations".split()
)
_ALONE = 1.05  # particles of a group that count, or fewer: as good as one
_LONE_PARTICLES = (
  "At some token no two particles of a group are alike (particles_least), and the loss is that of"
  " objective.group_size=1: raise objective.particles.bandwidth_multiplier."
)
_LOGGED_WAIT = 0.1  # the smallest share of the time that the line mentions


def show_log() -> None:
  """Shows the log, without the lines of Orbax, of absent devices and of TensorBoard's numbers.

  And without tracebacks of TensorStore's threads that end the writes of a failed save.
  """
  logging.set_verbosity(logging.INFO)
  shown = lambda r: not any(name in r.pathname for name in ("orbax", "xla_bridge", "x2num"))
  logging.get_absl_handler().addFilter(shown)

  def show_unless_abandoned(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      sys.__unraisablehook__(unraisable)

  sys.unraisablehook = show_unless_abandoned


class Progress:
  """Rates since the last line, or since `start`."""

  def __init__(self, config: ml_collections.ConfigDict, skipped: int):
    """`skipped` steps precede this process."""
    self._config, self._skipped = config, skipped
    self._waited: dict[str, float] = {}
    self._watcher = futures.ThreadPoolExecutor(1, thread_name_prefix="progress")

  def start(self, step: int) -> None:
    """Starts the clock after `step`, the first, whose time is that of compilation."""
    self._last = (step, time.monotonic())
    self._waited.clear()

  @contextlib.contextmanager
  def waiting(self, cause: str, busy: jax.Array | None = None) -> Iterator[None]:
    """Counts the time inside as time that training waits for `cause`.

    Time until `busy`, a result of the last step, is ready belongs to the step and is not counted.
    """
    start, done = time.monotonic(), None
    if busy is not None and not busy.is_ready():
      done = self._watcher.submit(lambda: (busy.block_until_ready(), time.monotonic())[1])
    yield
    if done is not None:
      if not busy.is_ready():  # the device was busy all the time
        return
      start = max(start, done.result())
    seconds = max(time.monotonic() - start, 0.0)
    self._waited[cause] = self._waited.get(cause, 0.0) + seconds

  def line(self, step: int, metrics: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The line for `step`, and its rates and waits by name; `metrics` are those of the step."""
    then, before = self._last
    self._last = (step, time.monotonic())
    new, self._skipped = int(metrics["skipped"]) - self._skipped, int(metrics["skipped"])
    text = f"step {step}/{self._config.steps}  loss {float(metrics['loss']):.5g}"
    text += f"  skipped {new} not finite" if new else ""
    if step == then:
      return text, {}
    seconds = max(self._last[1] - before, 1e-9)
    rate = (step - then) / seconds
    left = int((self._config.steps - step) / rate)
    eta = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
    text += f"  {rate:.1f} it/s  {rate * self._config.batch_size:.0f} examples/s  ETA {eta}"
    waits = {cause: waited / seconds for cause, waited in self._waited.items()}
    self._waited.clear()
    for cause, share in waits.items():
      text += f"  waiting for {cause} {share:.0%} of the time" if share > _LOGGED_WAIT else ""
    rates = {f"waiting_for_{cause}": share for cause, share in waits.items()}
    return text, dict(steps_per_second=rate, **rates)


def make_log(
  experiment: experiment_lib.Experiment,
  writer: writer_lib.Writer,
  progress: Progress,
  compilations: "Compilations",
) -> Callable[[int, dict[str, Any]], None]:
  """Builds `log(step, metrics)`: the progress line, and all numbers to the writer."""
  device, count = experiment.mesh.local_devices[0], experiment.mesh.size
  flops = functools.cache(functools.partial(step_lib.flops, experiment))
  chip = chips.of(device)

  def log(n: int, metrics: dict[str, Any]) -> None:
    text, rates = progress.line(n, metrics)
    if metrics.get("particles_least", np.inf) < _ALONE:
      logging.log_first_n(logging.WARNING, _LONE_PARTICLES, 1)
    if rates:
      rates["flops_per_second"] = flops() * rates["steps_per_second"]
      if chip:
        rates["share_of_peak"] = rates["flops_per_second"] / (chip.flops * count)
        text += f"  {rates['share_of_peak']:.0%} of peak"
    logging.info("%s", text)
    machine = dict(memory_bytes=memory(device), compilations=compilations.count)
    writer.scalars(n, {**metrics, **rates, **machine})

  return log


def memory(device: jax.Device) -> int:
  """Bytes: the device's peak use or, of a CPU, the memory that this process holds."""
  if stats := device.memory_stats():
    return stats["peak_bytes_in_use"]
  try:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
  except OSError:  # no Linux: the process's peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Compilations:
  """Counts XLA programs compiled, or fetched from a cache, while it is open."""

  count = 0

  def __enter__(self) -> Self:
    jax.monitoring.register_event_duration_secs_listener(self._listen)
    return self

  def __exit__(self, *_: Any) -> None:
    jax.monitoring.unregister_event_duration_listener(self._listen)

  def _listen(self, event: str, duration: float, **_: Any) -> None:
    del duration
    self.count += event == "/jax/core/compile/backend_compile_duration"


def check_window(window: tuple[int, int] | None, steps: int) -> None:
  """Raises ConfigError for a `window` to profile, (first, last), that ends after `steps`."""
  if window and window[1] > steps:
    fix = f"the run ends at config.steps={steps}; choose steps up to there."
    raise ConfigError(f"--profile={window[0]}:{window[1]}: {fix}")


class Profile:
  """A profile of the steps from `first` to `last`, for TensorBoard's and xprof's trace viewer."""

  def __init__(self, folder: str | os.PathLike, window: tuple[int, int] | None, seen: int = 0):
    """Of `window`, (first, last), into `folder`; none if it begins among `seen` earlier steps."""
    self._folder, self._running = str(folder), False
    self._first, self._last = window or (0, -1)
    if window and self._first <= seen:
      logging.warning("No profile: step %d was taken before this run, which resumes.", self._first)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: Any) -> None:
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
