"""The networks are of the paper's sizes (IMM, table 5), and the benchmark of them runs."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from benchmarks import networks
from dfim.models import dit

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", networks.PAPER)
@pytest.mark.parametrize("remat", [False, True], ids=["plain", "remat"])
def test_as_many_parameters_as_the_paper(name, remat):
  """But for the MLP of the second time, which its counts leave out; its 55 is 55.7 cut short."""
  scan = dict(scan=True) if remat and name in dit.SIZES else {}
  net = networks.network(name, remat=remat, **scan)
  total, second = networks.parameters(networks.shapes(net)[0])
  width = 512 if name == "DDPM++" else net.width
  assert second == (128 if name == "DDPM++" else 256) * width + width * width + 2 * width
  millions = (total - second) / 1e6
  assert (int(millions) if name == "DDPM++" else round(millions)) == networks.PAPER[name][1]


@pytest.mark.parametrize("name", ["S", "XL", "DDPM++"])
def test_multiply_adds_are_the_papers_gflops(name):
  """Within half a percent: norms, sums and activations are theirs but not ours."""
  net = networks.network(name)
  found = networks.multiply_adds(jax.make_jaxpr(net.apply)(*networks.shapes(net))) / 1e9
  assert 0.995 * networks.PAPER[name][0] < found < networks.PAPER[name][0]


def test_a_scan_is_counted_as_often_as_it_runs():
  counts = {
    networks.multiply_adds(jax.make_jaxpr(net.apply)(*networks.shapes(net)))
    for net in (networks.network("S"), networks.network("S", scan=True, remat=True))
  }
  assert len(counts) == 1


@pytest.mark.slow
def test_one_command_prints_the_counts_and_what_compiling_takes(tmp_path):
  command = [sys.executable, "-m", "benchmarks.networks", "--compile=S", f"--out={tmp_path}/t.md"]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
  assert run.returncode == 0, run.stderr
  assert (tmp_path / "t.md").read_text().strip() == run.stdout.strip()
  rows = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line[:2] == "| "]
  assert [row[0] for row in rows[1:6]] == list(networks.PAPER)
  assert [row[:2] for row in rows[7:]] == [["S", "yes"], ["S", "no"]]
