"""The benchmark of sequences names the rows that it leaves out and trains the others."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_rows_without_their_file_are_left_out_and_the_rest_makes_a_table(tmp_path):
  flags = ["--rows=walk full,ETTh1 forcing", "--seeds=0", "--quick", f"--runs={tmp_path}"]
  command = [sys.executable, "-m", "benchmarks.sequences", *flags]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
  assert run.returncode == 0, run.stderr
  assert "ETTh1 forcing: left out" in run.stderr
  assert (tmp_path / "quick" / "tables.md").read_text().strip() == run.stdout.strip()
  assert "## walk full (1 seeds)" in run.stdout and "| token 24 |" in run.stdout
