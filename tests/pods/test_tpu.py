"""The mode with a TPU's own compiler, of which no TPU is needed; `make full` installs it apart."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MISSING = importlib.util.find_spec("libtpu") is None
pytestmark = pytest.mark.skipif(MISSING, reason="libtpu is absent: pip install -e '.[tpu]'")


def compiled(*flags, out):
  command = [sys.executable, "-m", "dfim.main", "--mode=compile", f"--out={out}", *flags]
  kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
  return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=1500)


@pytest.mark.timeout(1600)
def test_the_smallest_imagenet_network_fits_four_chips_of_v5e(tmp_path):
  """16 examples a chip, as of 4,096 on 256: the program of a chip is the same, its numbers too."""
  flags = "--config=configs/imm_imagenet256.py:S", "--config.batch_size=64", "--topology=v5e:2x2"
  done = compiled(*flags, out=tmp_path)
  assert done.returncode == 0, done.stderr
  step, *samplers = json.loads((tmp_path / "row.json").read_text())
  assert step["chips"] == 4 and step["chip"] == "TPU v5 lite" and step["fits"]
  assert 2.0 < step["memory_gib"]["total"] < 4.5
  assert 0.7 < step["compiled_tflop"] < 0.9, "4 x 2 x 6.06e9 multiply-adds x 16 examples are 0.776"
  assert step["collectives"]["all-reduce"][1] < 0.2, "GB: the gradient"
  assert step["cycles"] > 1e7 and not step["warnings"]
  assert samplers and all(row["fits"] for row in samplers)
  assert all("compile.py" in line for line in done.stderr.splitlines()), "libtpu is quiet"


def test_a_slice_that_does_not_exist_is_one_line_with_exit_code_2(tmp_path):
  done = compiled("--config=configs/imm_imagenet256.py:S", "--topology=v5e:3x5", out=tmp_path)
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert "--topology" in line and "v5e:3x5" in line
