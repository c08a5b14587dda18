"""The speed benchmark runs and reports every row; how fast is for a quiet machine to say."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
ROWS = [
  ("IMM step", "flow-matching step"),
  ("IMM, value and gradient", "two forwards, value and gradient"),
  ("IMM step", "two forwards, value and gradient"),
  ("IMM step", "two forwards, value and gradient, `train_state.advance`"),
  ("50 x MMD, its weight and gradient, in one program", "IMM step"),
  *(
    (f"{what}, K = {k}", f"forwards, K = {k}")
    for what in ("steps", "sampling")
    for k in (1, 2, 4, 8)
  ),
]


@pytest.mark.slow
def test_one_command_one_table(tmp_path):
  out = tmp_path / "new" / "table.md"
  command = [sys.executable, "-m", "benchmarks.speed", "--quick", f"--out={out}"]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
  assert run.returncode == 0, run.stderr
  assert out.read_text().strip() == run.stdout.strip()
  cells = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line[:2] == "| "]
  assert [(row[0], row[2]) for row in cells[1:]] == ROWS
  assert all(float(row[1]) > 0 and float(row[3]) > 0 for row in cells[1:])
  assert all(f"K = {k}: 1, then 0" in run.stdout for k in (1, 2, 4, 8))  # one XLA program each
