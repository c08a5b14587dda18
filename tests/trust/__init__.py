"""Experiments that try to break the promises of docs/trust.md; `make trust` runs all of them."""

import argparse
from collections.abc import Callable, Mapping
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import ml_collections

from dfim.training import monitor

ROOT = pathlib.Path(__file__).parents[2]
FULL = bool(os.environ.get("TRUST_FULL"))  # `make trust` sets it


def scaled(quick: int, full: int) -> int:
  """The number of an experiment's trials: `quick` in every test run, `full` in `make trust`."""
  return full if FULL else quick


def small(
  config: ml_collections.ConfigDict, *, steps: int, every: int
) -> ml_collections.ConfigDict:
  """A run of `steps` that saves after every `every`, and draws and scores next to nothing."""
  config.steps = steps
  config.optimizer = dict(name="optax.adam", learning_rate=1e-3)  # not of the number of steps
  config.evaluators = {}
  config.sampler.steps = (1,)
  config.sampler.count = 4
  config.sample_every = 0
  config.checkpoint_every = every
  config.log_every = 1
  return config


def trainer(workdir: os.PathLike, *flags: str) -> list[str]:
  """The command of a run of `tests/trust/config.py`, which lasts until it is stopped."""
  config = "--config=tests/trust/config.py"
  return [sys.executable, "-m", "dfim.main", config, f"--workdir={workdir}", *flags]


def arguments(**own: str | int) -> argparse.Namespace:
  """The flags of a process: its own, with their defaults, and those of `start_all`."""
  parser = argparse.ArgumentParser()  # absl's flags would be dfim.main's too, in one test process
  for name, default in dict(coordinator="", num_processes=1, process_id=0, **own).items():
    parser.add_argument(f"--{name}", type=type(default), default=default)
  return parser.parse_args()


def start(
  command: list[str], *, devices: int = 1, env: Mapping[str, str] | None = None, **kwargs
) -> subprocess.Popen:
  """Starts a process of its own with `devices` CPU devices; `env` is added to this one's."""
  ours = dict(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES=str(devices), PYTHONPATH=str(ROOT))
  kwargs = dict(stderr=subprocess.PIPE, text=True, cwd=ROOT) | kwargs
  return subprocess.Popen(command, env={**os.environ, **ours, **(env or {})}, **kwargs)


def start_all(count: int, command: list[str], *, devices: int = 1) -> list[subprocess.Popen]:
  """Starts `command` in `count` processes of one distributed run.

  All of them compile: the first alone would find a program of an earlier run in the cache, and Gloo
  gives up on the others after 30 s.
  """
  with socket.socket() as s:  # a port that is free now
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
  where = f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"
  each = [[*command, *where, f"--process_id={i}"] for i in range(count)]
  env = dict(JAX_ENABLE_COMPILATION_CACHE="false")
  return [start(one, devices=devices, env=env) for one in each]


def outputs(processes: list[subprocess.Popen], seconds: float) -> list[str]:
  """The output of each, once all have ended."""
  try:
    return [p.communicate(timeout=seconds)[1] for p in processes]
  finally:
    for p in processes:
      p.kill()


def finish(processes: list[subprocess.Popen], seconds: float = 300) -> list[str]:
  """The output of each, once all have ended well."""
  printed = outputs(processes, seconds)
  for process, text in zip(processes, printed, strict=True):
    assert process.returncode == 0, text
  return printed


def until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 300) -> None:
  """Waits until `process` has done something, on a busy machine for minutes."""
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline, "it takes too long"
    time.sleep(0.005)


def metrics(workdir: pathlib.Path) -> list[dict]:
  """All that was logged except times, memory and compilations, which differ between runs."""
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [{k: v for k, v in line.items() if k not in monitor.MACHINE} for line in lines]
