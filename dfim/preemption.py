"""Notices that the machine is to be taken away: SIGTERM and SIGUSR1.

One process notes the signal and stops after the step that it is in. Several must stop after the
same step, whichever of them was told: JAX's distributed runtime passes SIGTERM on and names the
step, and SIGUSR1, which SLURM sends before the end of a job, is turned into it.
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not done, but worth another try


class PreemptedError(Exception):
  """Training stopped, saved, because a signal asked for it."""


class Notice:
  """Whether to stop; see `watch`."""

  def __init__(self):
    self._signals: list[int] = []

  def reached(self, step: int) -> bool:
    """Whether to save and stop after `step`; to be asked in every process after every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return bool(self._signals)

  def early(self, seen: int) -> bool:
    """Whether a signal came before the first step, that after `seen`; to be asked right before it.

    Of a signal that comes before JAX was told of any step it says "after step 1", which a run that
    goes on from step 100 would never reach.
    """
    if jax.process_count() == 1:
      return bool(self._signals)
    # All ask within a moment, and of one step: a name that differs is an error.
    multihost_utils.sync_global_devices(f"step {seen + 1} is the first")
    early = multihost_utils.reached_preemption_sync_point(1)
    return multihost_utils.reached_preemption_sync_point(seen) or early

  def note(self, number: int, _: Any) -> None:
    """The handler of one process's signals."""
    self._signals.append(number)


@contextlib.contextmanager
def watch() -> Iterator[Notice]:
  """A `Notice` while the signals are handled; a thread beside the main one cannot handle any."""
  notice = Notice()
  if threading.current_thread() is not threading.main_thread():
    yield notice
    return
  handlers = {signal.SIGTERM: notice.note, signal.SIGUSR1: notice.note}
  if jax.process_count() > 1:  # JAX handles SIGTERM
    handlers = {signal.SIGUSR1: lambda *_: os.kill(os.getpid(), signal.SIGTERM)}
  before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
  try:
    yield notice
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
