"""Signals that stop a run: SIGTERM, SIGUSR1 and the first Ctrl-C.

A single process stops after its current step. Of several, JAX distributes SIGTERM and chooses the
step; the other signals (SLURM sends SIGUSR1 before the end of a job) become SIGTERM. The second
Ctrl-C goes to the previous handler.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

Handler = Callable[[int, Any], None]
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not done, but worth another try


class PreemptedError(Exception):
  """Training stopped, saved, because of a signal."""


class Notice:
  """A request to stop; see `watch`."""

  def __init__(self):
    self._signals: list[int] = []

  def reached(self, step: int) -> bool:
    """Whether to save and stop after `step`; every process calls it after every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return bool(self._signals)

  def early(self, seen: int) -> bool:
    """Whether a signal came before the first step, `seen + 1`; called right before it.

    For such a signal JAX chooses step 1, which a run that resumes would never reach.
    """
    if jax.process_count() == 1:
      return bool(self._signals)
    # A barrier: JAX refuses processes that wait at barriers of different names.
    multihost_utils.sync_global_devices(f"step {seen + 1} is the first")
    early = multihost_utils.reached_preemption_sync_point(1)
    return multihost_utils.reached_preemption_sync_point(seen) or early

  def note(self, number: int, _: Any) -> None:
    """The handler of one process's signals."""
    self._signals.append(number)


def _interrupted_by(note: Handler) -> Handler:
  """The handler of the first Ctrl-C; Python's own may be lost in a callback from JAX's C++."""
  before = signal.getsignal(signal.SIGINT)

  def interrupted(number: int, frame: Any) -> None:
    # Not print, which may have been interrupted.
    os.write(2, b"dfim: Ctrl-C: stops after this step, and saves; once more leaves at once.\n")
    signal.signal(number, before)
    note(number, frame)

  return interrupted


@contextlib.contextmanager
def watch() -> Iterator[Notice]:
  """A `Notice` while the signals are handled; only the main thread can handle them."""
  notice = Notice()
  if threading.current_thread() is not threading.main_thread():
    yield notice
    return
  handlers = dict.fromkeys((signal.SIGTERM, signal.SIGUSR1), notice.note)
  handlers[signal.SIGINT] = _interrupted_by(notice.note)
  if jax.process_count() > 1:  # JAX handles SIGTERM
    terminate = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    handlers = {signal.SIGUSR1: terminate, signal.SIGINT: _interrupted_by(terminate)}
  before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
  try:
    yield notice
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
