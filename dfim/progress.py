"""One line that says how far a run is: step, loss, it/s, img/s, ETA."""

import time

from absl import logging


def show_log() -> None:
  """Shows what is logged, but for the dozens of details that Orbax tells of each save."""
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(lambda r: r.levelno > 20 or "orbax" not in r.pathname)


class Progress:
  """Rates since the last line; the first line after a start includes compilation."""

  def __init__(self, step: int, steps: int, batch_size: int):
    """A run that stands at `step` of `steps`."""
    self._steps, self._batch_size = steps, batch_size
    self._last = (step, time.monotonic())

  def line(self, step: int, loss: float) -> tuple[str, dict[str, float]]:
    """The line for `step`, and its numbers by name."""
    then, before = self._last
    self._last = (step, time.monotonic())
    rate = (step - then) / max(self._last[1] - before, 1e-9)
    left = int((self._steps - step) / rate)
    eta = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
    text = (
      f"step {step}/{self._steps}  loss {loss:.5g}  {rate:.1f} it/s"
      f"  {rate * self._batch_size:.0f} img/s  ETA {eta}"
    )
    return text, dict(steps_per_second=rate)
