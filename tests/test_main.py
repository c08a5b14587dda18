"""The command line: what is wrong is said in one line, with exit code 2, and nothing is written."""

import ctypes
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SMOKE = "--config=configs/imm_digits.py:smoke"


def run(*flags, workdir=None):
  command = [sys.executable, "-m", "dfim.main", *flags]
  if workdir is not None:
    command.append(f"--workdir={workdir}")
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


WRONG = {  # tests/trust/test_refusals.py has all kinds of them, in one process
  "M and the batch": ([SMOKE, "--config.objective.group_size=3"], "batch_size=64: not a multiple"),
  "no data": (["--config=configs/imm_cifar.py", "--config.data.data_dir=/no"], "cifar10"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(case, tmp_path):
  flags, message = WRONG[case]
  given = any(flag.startswith("--workdir") for flag in flags)
  done = run(*flags, workdir=None if given else tmp_path / "run")
  said = [line for line in done.stderr.splitlines() if line.startswith("dfim: ")]
  assert done.returncode == 2, done.stderr
  assert len(said) == 1 and message in said[0], done.stderr
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "run").exists()


def test_train_and_sample_a_step(tmp_path):
  assert run(SMOKE, "--config.evaluators={}", workdir=tmp_path).returncode == 0
  done = run(SMOKE, "--mode=sample", "--step=3", workdir=tmp_path)  # the newest is 6
  assert done.returncode == 0 and "samples/3_1.png" in done.stderr
  assert (tmp_path / "samples" / "3_1.npz").exists()


ARENAS = """
import ctypes, threading
from dfim import main
main._limit_arenas()
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
