"""The exit code and the line of each kind of error, and malloc's arenas."""

import ctypes
import os
import pathlib
import subprocess
import sys

import pytest

from dfim.checkpoints import checkpoint
from dfim.config.errors import ConfigError
from dfim.training import nonfinite, preemption, process

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  "error, code, line",
  [
    (ConfigError("steps=0: wrong"), 2, "dfim: steps=0: wrong"),
    (preemption.PreemptedError("saved."), 75, "dfim: saved. "),
    (checkpoint.SaveError("disk full"), 1, "dfim: disk full"),
    (nonfinite.NonFiniteError("step 3"), 1, "dfim: step 3"),
    (EOFError("of the caller"), 1, "dfim: of the caller"),
    (KeyboardInterrupt(), 1, "dfim: stopped by Ctrl-C"),
  ],
  ids=lambda value: type(value).__name__,
)
def test_an_expected_error_ends_in_its_code_and_one_line(error, code, line, capsys):
  with pytest.raises(SystemExit) as end, process.exit_codes(EOFError):
    raise error
  printed = capsys.readouterr().err
  assert end.value.code == code and printed.startswith(line) and printed.count("\n") == 1


def test_an_unexpected_error_shows_its_traceback(capsys):
  with pytest.raises(SystemExit) as end, process.exit_codes(EOFError):
    raise IndexError("a bug")
  printed = capsys.readouterr().err
  assert end.value.code == 1 and "Traceback" in printed and "IndexError: a bug" in printed
  assert "dfim: " not in printed


@pytest.mark.parametrize("flags", [dict(coordinator="a:1"), dict(process_id=1)])
def test_half_a_coordinator_is_refused(flags):
  absent = dict(distributed=True, coordinator=None, num_processes=None, process_id=None)
  with pytest.raises(ConfigError, match="--num_processes"):
    process.join(**absent | flags)


ARENAS = """
import ctypes, threading
from dfim.training import process
process.limit_arenas()
barrier = threading.Barrier(40)
def take():
  held = bytes(10_000)  # malloc's, not one of Python's small objects
  barrier.wait()
threads = [threading.Thread(target=take) for _ in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="malloc is not glibc's")
def test_malloc_has_an_arena_a_core_or_as_many_as_the_user_says():
  cores = os.cpu_count()
  for asked, expected in ({}, cores), ({"MALLOC_ARENA_MAX": str(cores + 1)}, cores + 1):
    env = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"} | asked
    done = subprocess.run([sys.executable, "-c", ARENAS], cwd=ROOT, env=env, capture_output=True)
    assert done.stdout.count(b"<heap nr") == expected, done.stderr
