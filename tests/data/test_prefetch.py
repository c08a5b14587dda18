"""Reading ahead: the order, where the workers may not go, and how they and their errors end."""

import functools
import importlib.util
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
from jax._src import xla_bridge
import numpy as np
import pytest

from dfim.data import prefetch
from tests.data.helpers import alive, all_end, refused

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("grain"), reason="-e '.[tfds]'")


class Odd(Exception):
  """Pickles, and cannot be made again: an argument is missing then."""

  def __init__(self, a, b):
    super().__init__(f"{a}{b}")


def make(bad=None, error=None):
  def read(n):
    if n == bad:
      raise error("a\n b") if error is ValueError else error("a\n", " b")
    facts = [os.getpid(), xla_bridge.backends_are_initialized(), jax.config.jax_platforms == "cpu"]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return dict(x=np.full((2, 3), n, np.float32), cond=dict(facts=np.array([*facts, hidden])))

  return read


def make_here_only():
  if multiprocessing.parent_process() is not None:
    raise Odd("no disk", " there")
  return make()


def numbers(batches):
  return [int(b["x"][0, 0]) for b in batches]


def running():
  return [p.pid for p in multiprocessing.active_children()]


@pytest.mark.parametrize("how", [dict(), dict(threads=3), dict(workers=2, threads=2)])
def test_batches_come_in_order_from_any_start(how):
  assert numbers(itertools.islice(prefetch.ahead(make, 7, **how), 6)) == [7, 8, 9, 10, 11, 12]


def test_workers_stay_off_the_accelerator_and_leave_signals_to_their_parent():
  batches = prefetch.ahead(make, 0, workers=2)
  next(batches)
  assert not running()  # who wants one batch waits for none
  read = list(itertools.islice(batches, 3))
  for pid in running():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
      os.kill(pid, number)
  read += itertools.islice(batches, 9)
  pids, initialized, on_cpu, hidden = np.array([b["cond"]["facts"] for b in read]).T
  assert set(pids) == set(running()) and len(set(pids)) == 2
  assert list(pids[::2]) == 6 * [pids[0]] and not initialized.any() and on_cpu.all()
  assert hidden.all()
  assert all(type(b["x"]) is np.ndarray and b["x"].flags.owndata for b in read)
  del batches
  assert not running()


@pytest.mark.parametrize("error", [ValueError, Odd])
def test_an_error_of_a_worker_is_raised_once_in_one_line(error):
  batches = prefetch.ahead(functools.partial(make, 2, error), 0, workers=1)
  assert numbers(itertools.islice(batches, 2)) == [0, 1]
  with pytest.raises(RuntimeError, match=f"^data: batch 2: {error.__name__}: a b$"):
    next(batches)
  assert not running() and not list(batches)


def test_data_that_only_a_worker_cannot_open_are_an_error_too():
  batches = prefetch.ahead(make_here_only, 0, workers=1)
  next(batches)
  with pytest.raises(RuntimeError, match="^data: opening the data: Odd: no disk there$"):
    next(batches)


def test_the_death_of_a_worker_is_raised_with_the_meaning_of_its_exit_code():
  batches = prefetch.ahead(make, 0, workers=2)
  list(itertools.islice(batches, 3))
  time.sleep(1)  # until they wait: killed while handing over they would leave shared memory behind
  for pid in running():
    os.kill(pid, signal.SIGKILL)
  with pytest.raises(RuntimeError, match="^data.workers: .* exit code -9.*too little memory"):
    list(itertools.islice(batches, 20))
  assert not running()


KILLED = """
import itertools, multiprocessing
from dfim.data import prefetch
from tests.data import test_prefetch
batches = prefetch.ahead(test_prefetch.make, 0, workers=2)
list(itertools.islice(batches, 5))
print(*(p.pid for p in multiprocessing.active_children()), flush=True)
{last}
"""


def start(last):
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-c", KILLED.format(last=last)]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  process = subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes)
  return process, [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="no /proc")
def test_workers_end_with_a_parent_that_is_killed():
  process, pids = start("batches = iter(input, None)")
  process.kill()
  process.wait()
  assert len(pids) == 2
  assert all_end(pids)


@pytest.mark.parametrize(
  "last, code", [("", 0), pytest.param("raise SystemExit(3)", 3, marks=pytest.mark.slow)]
)
def test_a_program_may_leave_with_workers_running(last, code):
  process, pids = start(last)
  _, log = process.communicate(timeout=60)
  assert (process.returncode, log) == (code, "") and len(pids) == 2
  assert not any(map(alive, pids))


@pytest.mark.parametrize("how", [dict(workers=1), dict(threads=1)])
def test_without_grain_the_extra_is_named(monkeypatch, how):
  with refused(f"data.{next(iter(how))}=-1"):
    prefetch.ahead(make, 0, **dict.fromkeys(how, -1))
  monkeypatch.setitem(sys.modules, "grain", None)
  with refused("grain", "pip install -e '.[tfds]'", kind=ImportError):
    prefetch.ahead(make, 0, **how)
  assert numbers(itertools.islice(prefetch.ahead(make, 0), 2)) == [0, 1]
