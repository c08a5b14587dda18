"""The benchmark of Moment Forcing trains the rows that it is asked for, each once."""

import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import moment_forcing
from configs import moment_forcing_walk
from dfim.config import resolve

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_rows_are_trained_once_and_make_a_table_and_a_figure(tmp_path):
  rows = "final moment_forcing", "final forcing"
  flags = [f"--rows={','.join(rows)}", "--seeds=0", "--quick", f"--runs={tmp_path}"]
  command = [sys.executable, "-m", "benchmarks.moment_forcing", *flags]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  for n in range(2):
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    assert ("step 6/6" in run.stderr) == (n == 0)  # the second time there is nothing to do
    later = tmp_path / "quick/final_moment_forcing/0/eval/6_1.json"  # of --mode=eval
    later.write_text("{}")
  assert (tmp_path / "quick" / "table.md").read_text().strip() == run.stdout.strip()
  shown = [line.split(" | ")[0] for line in run.stdout.splitlines() if line[:2] == "| "]
  assert shown == ["| row", *(f"| {row}" for row in rows)]
  assert (tmp_path / "quick" / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize("row", [*moment_forcing.ROWS])
def test_every_row_names_what_there_is_and_differs_from_the_default_as_it_says(row):
  config, default = moment_forcing.ROWS[row]("full"), moment_forcing_walk.get_config("full")
  default.steps = config.steps  # which the kernel's schedule follows
  assert resolve.resolve(config.objective, "objective").func
  kinds = ("final", *moment_forcing.WALKS, *moment_forcing.FAMILIES)
  defaults = [f"{kind} moment_forcing" for kind in kinds]
  same = row in (*defaults, "screen default")
  assert (config.objective == default.objective) == same
  assert config.ema == default.ema
  assert config.optimizer.learning_rate.decay_steps == config.steps
  elsewhere = row.split()[0] in (*moment_forcing.WALKS, *moment_forcing.FAMILIES)
  assert (config.data == default.data) != elsewhere
  if "self-distillation" in row:
    default.model.time_scale = 10.0
  kept = ("batch_size", "seed") if elsewhere else ("model", "data")
  for field in kept:
    assert config[field] == default[field]
