"""The benchmark of Moment Forcing trains the rows that it is asked for and shows what is there."""

import json
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
  flags = [
    "--rows=final moment_forcing,final forcing",
    "--seeds=0",
    "--quick",
    f"--workdir={tmp_path}",
  ]
  (tmp_path / "quick").mkdir()
  (tmp_path / "quick" / "speed.json").write_text(
    json.dumps({"moment_forcing": 2.0, "forcing": 1.0})
  )
  for n in range(2):
    run = command("moment_forcing", flags)
    assert run.returncode == 0, run.stderr
    assert ("step 6/6" in run.stderr) == (n == 0)  # the second time there is nothing to do
    (tmp_path / "quick/final_moment_forcing/0/eval/6_1.json").write_text(
      "{}"
    )  # what --mode=eval adds
  assert (tmp_path / "quick" / "table.md").read_text().strip() == run.stdout.strip()
  rows = [line.split(" | ")[0] for line in run.stdout.splitlines() if line[:2] == "| "]
  assert rows == ["| row", "| final moment_forcing", "| final forcing"]
  assert (tmp_path / "quick" / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_speeds_are_reported_for_every_rival(tmp_path):
  flags = ["--quick", "--speed_rounds=1", "--largest=2", f"--times={tmp_path}/speed.json"]
  run = command("moment_forcing_speed", flags)
  assert run.returncode == 0, run.stderr
  assert set(json.loads((tmp_path / "speed.json").read_text())) < set(moment_forcing.FINAL)
  assert run.stdout.count("\n| forcing |") == 4


@pytest.mark.parametrize("row", [*moment_forcing.ROWS])
def test_every_row_names_what_there_is_and_differs_from_the_default_as_it_says(row):
  config, default = moment_forcing.ROWS[row]("full"), moment_forcing_walk.get_config("full")
  default.steps = config.steps  # which the kernel's schedule follows
  assert resolve.resolve(config.objective, "objective").func
  defaults = [f"{kind} moment_forcing" for kind in ("final", *moment_forcing.WALKS)]
  same = row in (*defaults, "screen default") or "EMA" in row
  assert (config.objective == default.objective) == same
  shown = float(row.split("EMA ")[1]) if "EMA" in row else 0.0
  assert config.ema == ((shown,) if row.startswith("screen ") else default.ema)
  assert config.optimizer.learning_rate.decay_steps == config.steps
  elsewhere = row.split()[0] in moment_forcing.WALKS
  assert (config.data == default.data) != elsewhere
  kept = ("batch_size", "seed") if elsewhere else ("model", "data")
  for field in kept:
    assert config[field] == default[field]


def command(benchmark, flags):
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  line = [sys.executable, "-m", f"benchmarks.{benchmark}", *flags]
  return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
