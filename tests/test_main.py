"""The command line: refusals are one line with exit code 2, and write nothing."""

import os
import pathlib
import subprocess
import sys

import jax

from configs import imm_digits
from dfim import train

ROOT = pathlib.Path(__file__).parents[1]
SMOKE = "--config=configs/imm_digits.py:smoke"


def run(*flags, workdir):
  command = [sys.executable, "-m", "dfim.main", *flags, f"--workdir={workdir}"]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def test_a_refusal_is_one_line_with_exit_code_2_and_writes_nothing(tmp_path):
  """Others, in one process: tests/training/test_checks.py and tests/config."""
  done = run(SMOKE, "--config.objective.group_size=3", workdir=tmp_path / "run")
  said = [line for line in done.stderr.splitlines() if line.startswith("dfim: ")]
  assert done.returncode == 2, done.stderr
  assert len(said) == 1 and "batch_size=64: not a multiple" in said[0], done.stderr
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "run").exists()


def test_sample_a_step(tmp_path):
  config = imm_digits.get_config("smoke")
  config.evaluators = {}
  train.train(config, str(tmp_path), devices=jax.devices()[:1])  # tests/trust has the command
  done = run(SMOKE, "--mode=sample", "--step=3", workdir=tmp_path)  # the newest is 6
  assert done.returncode == 0 and "samples/3_1.png" in done.stderr
  assert (tmp_path / "samples" / "3_1.npz").exists()
