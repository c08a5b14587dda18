"""The process of a program: its memory, the other processes of the run, its exit code."""

from collections.abc import Iterator
import contextlib
import ctypes
import os
import signal
import sys
import traceback
from typing import Any

import jax

from dfim.checkpoints import checkpoint
from dfim.config.errors import ConfigError
from dfim.training import nonfinite, preemption

_FAILURES = checkpoint.SaveError, checkpoint.ReadError, nonfinite.NonFiniteError


def limit_arenas() -> None:
  """Limits malloc to one arena a core, for each keeps fragments of every save."""
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has one
  if mallopt and "MALLOC_ARENA_MAX" not in os.environ:
    mallopt(-8, os.cpu_count())  # M_ARENA_MAX in malloc.h


def leave_at_second_interrupt() -> None:
  """Lets the second Ctrl-C end the process at once, without an exception that JAX may swallow."""

  def leave(*_: Any) -> None:
    os.write(2, b"dfim: left at once; the same command goes on from the last checkpoint.\n")
    os._exit(1)

  signal.signal(signal.SIGINT, leave)


def join(
  distributed: bool, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins the other processes of a run, if the flags of these names ask for it."""
  numbers = num_processes, process_id
  if coordinator and None in numbers:
    raise ConfigError("--coordinator: pass --num_processes and --process_id with it.")
  if not coordinator and numbers != (None, None):
    raise ConfigError("--num_processes, --process_id: pass --coordinator=host:port with them.")
  if not distributed and not coordinator:
    return
  try:
    jax.distributed.initialize(coordinator, *numbers, heartbeat_timeout_seconds=30)
  except (RuntimeError, ValueError) as error:
    cause = " ".join(str(error).split())
    fix = "without a cluster that JAX knows, pass --coordinator, --num_processes and --process_id"
    raise ConfigError(f"--distributed: {cause}; {fix}.") from error


@contextlib.contextmanager
def exit_codes(*reported: type[Exception]) -> Iterator[None]:
  """Ends the process where the block raises, with an exit code and one line.

  The code is 2 for a ConfigError, 75 for a PreemptedError, else 1. Errors that are neither these,
  known failures of disks and numbers, nor `reported` show their traceback.
  """
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    code = _report(error, (*_FAILURES, *reported))
    if code != preemption.EXIT_CODE and jax.distributed.is_initialized():
      sys.stderr.flush()
      os._exit(code)  # the other processes wait for this one
    sys.exit(code)


def _report(error: BaseException, reported: tuple[type[Exception], ...]) -> int:
  """Prints the line of an error; returns the exit code."""
  line, code = str(error), 1
  match error:
    case ConfigError():
      code = 2
    case preemption.PreemptedError():
      line, code = f"{error} The same command goes on from there.", preemption.EXIT_CODE
    case KeyboardInterrupt():
      line = "stopped by Ctrl-C; unfinished files are not written."
    case _ if not isinstance(error, reported):
      traceback.print_exception(error)
      line = "stopped by the error above, or by another process; the same command goes on."
      if not jax.distributed.is_initialized():
        return code
  print(f"dfim: {line}", file=sys.stderr)
  return code
