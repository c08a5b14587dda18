"""The PyTorch step computes what ours does, and both are timed, where torch is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.skipif(
  importlib.util.find_spec("torch") is None,
  reason="torch is absent: pip install -e '.[torch]', for this benchmark alone",
)
def test_one_command_checks_and_times_both():
  command = [sys.executable, "-m", "benchmarks.torch_step", "--quick"]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
  assert run.returncode == 0, run.stderr
  cells = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line[:2] == "| "]
  assert [row[1] for row in cells[1:]] == ["dfim", "PyTorch", "PyTorch, channels last"]
  assert all(float(row[2]) > 0 for row in cells[1:])
