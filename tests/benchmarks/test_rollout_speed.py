"""The benchmark of rollouts runs and reports both ways; how fast is for a quiet machine to say."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_both_ways_are_timed_at_both_lengths():
  flags = ["--rollout_rounds=1", "--short=2", "--long=4", "--batch=1"]
  command = [sys.executable, "-m", "benchmarks.rollout_speed", *flags]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
  assert run.returncode == 0, run.stderr
  cells = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line[:2] == "| "]
  assert [row[0] for row in cells[1:]] == ["cache", "whole sequence shown"]
  assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in cells[1:])
