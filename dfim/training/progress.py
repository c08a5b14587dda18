"""One line that says how far a run is: step, loss, it/s, examples/s, ETA, and what it waits for."""

from collections.abc import Iterator
from concurrent import futures
import contextlib
import sys
import time
from typing import Any

from absl import logging
import jax
import ml_collections

SLOW = 0.1  # a share of the time that is worth a word
MACHINE = {  # what is logged of the machine: no two runs have it alike
  "steps_per_second",
  "flops_per_second",
  "share_of_peak",
  "waiting_for_data",
  "waiting_for_saving",
  "memory_bytes",
  "compilations",
}


def show_log() -> None:
  """Shows what is logged, but for what libraries tell of every save, number and absent device.

  What Orbax has to say of a failure it raises as well, and not a thousand lines of it.
  """
  logging.set_verbosity(logging.INFO)
  told = lambda r: not any(name in r.pathname for name in ("orbax", "xla_bridge", "x2num"))
  logging.get_absl_handler().addFilter(told)
  sys.unraisablehook = _tell_unless_abandoned


def _tell_unless_abandoned(unraisable: Any) -> None:
  """Leaves out the writes of a save that has failed, each of which finds that nobody waits for it.

  TensorStore ends them in threads of its own, whose tracebacks would cut other lines in pieces.
  """
  if str(unraisable.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


class Progress:
  """Rates since the last line, or since `start`."""

  def __init__(self, config: ml_collections.ConfigDict, skipped: int):
    """A run that has skipped so many steps."""
    self._config, self._skipped = config, skipped
    self._spent: dict[str, float] = {}
    self._watcher = futures.ThreadPoolExecutor(1, thread_name_prefix="progress")

  def start(self, step: int) -> None:
    """Starts the clock after `step`, the first, which the compiler makes slow."""
    self._last = (step, time.monotonic())
    self._spent.clear()

  @contextlib.contextmanager
  def spent(self, what: str, busy: jax.Array | None = None) -> Iterator[None]:
    """Counts the time inside as time that training waits for `what`.

    `busy` is a result of the last step: time until it is there is the step's, and not counted. Data
    that are generated on the device, for one, come after the steps that were given to it before.
    """
    start, done = time.monotonic(), None
    if busy is not None and not busy.is_ready():
      done = self._watcher.submit(_time_when_ready, busy)
    yield
    if done is not None:
      if not busy.is_ready():  # the device has not waited at all
        return
      start = max(start, done.result())
    waited = max(time.monotonic() - start, 0.0)
    self._spent[what] = self._spent.get(what, 0.0) + waited

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
    text += (
      f"  {rate:.1f} it/s  {rate * self._config.batch_size:.0f} examples/s  ETA {self._eta(rate)}"
    )
    waits = {what: spent / seconds for what, spent in self._spent.items()}
    self._spent.clear()
    for what, share in waits.items():
      text += f"  waiting for {what} {share:.0%} of the time" if share > SLOW else ""
    rates = {f"waiting_for_{what}": share for what, share in waits.items()}
    return text, dict(steps_per_second=rate, **rates)

  def _eta(self, rate: float) -> str:
    left = int((self._config.steps - self._last[0]) / rate)
    return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"


def _time_when_ready(result: jax.Array) -> float:
  result.block_until_ready()
  return time.monotonic()
