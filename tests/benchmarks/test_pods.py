"""The table of compiled recipes: rows come once, and one that takes too long is written as that."""

import csv
import json
import pathlib
import subprocess

from absl.testing import flagsaver
import pytest

from benchmarks import pods

STEP = dict(
  program="training step",
  fits=True,
  memory_gib=dict(total=3.5312, available=16.0),
  state_gib=0.49,
  whole_gib=0.49,
  collectives={"all-reduce": [15, 0.1324]},
  seconds=dict(compute=0.004, memory=0.012, links=0.001, largest=0.012, sum=0.017),
  share_of_peak=0.348,
  chip_hours=dict(largest=1024.0, sum=1450.6),
  warnings=["a"],
  fixes=[],
)
REFUSED = dict(
  program="training step",
  fits=False,
  memory_gib=dict(total=32.0, available=15.75),
  warnings=[],
  fixes=["less", "more"],
)


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
  """Runs rows whose command writes `found` and ends with `code`, or too late; returns the table."""
  monkeypatch.setattr(pods, "TABLE", tmp_path / "pods.csv")
  monkeypatch.setattr(pods, "commit", lambda: "abc")

  def benchmark(rows, found=(), code=0, late=False):
    def run(command, timeout, env):
      folder = next(flag for flag in command if flag.startswith("--out=")).removeprefix("--out=")
      if found:
        (pathlib.Path(folder) / "row.json").write_text(json.dumps(found))
      if late:
        raise subprocess.TimeoutExpired(command, timeout)
      return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    with flagsaver.as_parsed(rows=rows, minutes="20"):
      pods.main(None)
    return list(csv.DictReader(pods.TABLE.open()))

  return benchmark


def test_a_row_has_its_numbers_command_and_commit(benchmark):
  (line,) = benchmark("S v5e:16x16", [STEP])
  assert (line["verdict"], line["memory_gib"], line["largest_ms"]) == ("fits", "3.531", "12.0")
  assert line["collectives"] == "15 all-reduce 0.132 GB" and line["chip_hours_sum"] == "1451.0"
  assert "--topology=v5e:16x16" in line["command"] and line["commit"] == "abc"


def test_rows_that_are_there_are_not_compiled_again(benchmark):
  before = benchmark("S v5e:16x16", [STEP])
  after = benchmark("S v5e:16x16,B v5e:16x16", [REFUSED], code=1)
  assert after[:1] == before
  assert (after[1]["verdict"], after[1]["notes"]) == ("refused", "try less; try more")
  assert len(after) == 2


def test_a_row_that_takes_too_long_is_written_as_that(benchmark):
  step, rest = benchmark("L v5e:16x16", [STEP], late=True)
  assert step["verdict"] == "fits" and rest["verdict"] == "not done in 20 minutes"


@pytest.mark.parametrize("code", [1, 2])
def test_an_error_ends_the_benchmark_and_writes_nothing(benchmark, code):
  with pytest.raises(SystemExit):
    benchmark("S v5e:16x16", code=code)
  assert not pods.TABLE.exists()


def test_the_table_has_a_line_for_each_training_step(benchmark):
  benchmark("S v5e:16x16", [STEP, dict(STEP, program="sampler, steps 1")])
  table = benchmark("B v5e:16x16", [REFUSED], code=1)
  fits, refused = pods.markdown(table)[2:]
  cells = "S | v5e:16x16 | fits | 3.53 of 16 | 0.49 | 0.132 | 4 / 12 / 1 | 12 to 17 | 35%"
  assert fits == f"| {cells} | 1,024 to 1,451 |"
  assert refused.startswith("| B | v5e:16x16 | refused | 32.00 of 16 |")
