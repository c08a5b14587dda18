"""The manifest of a checkpoint: any alteration is found."""

import os
import subprocess
import sys

import jax
import pytest

import dfim
from dfim.checkpoints import checksums, manifest
from dfim.io import version


def test_a_manifest_knows_when_it_was_altered(key):
  state = dict(w=jax.random.normal(key, (2, 2)))
  made = manifest.make(7, state, checksums.checksums(state), dict(seed=0, ema=(0.9,)), pending=True)
  manifest.check(made, 7)
  manifest.check_arrays(made, state)
  assert made["config"]["ema"] == [0.9] and made["pending"]
  for altered in ({**made, "config": {}}, {**made, "pending": False}, {}):
    with pytest.raises(manifest.DamagedError, match="missing or altered"):
      manifest.check(altered, 7)
  with pytest.raises(manifest.DamagedError, match="saved as step 7"):
    manifest.check(made, 8)
  with pytest.raises(manifest.DamagedError, match="checksum of w"):
    manifest.check_arrays(made, dict(w=state["w"].at[0, 0].add(1e-6)))


def test_the_version_is_known_above_a_folder_that_has_the_packages_name(tmp_path):
  """Python takes such a folder, a clone's for one, for a package without `__init__`."""
  (tmp_path / "dfim").mkdir()
  env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  code = "from dfim.checkpoints import checkpoint, manifest; print(manifest.versions()['dfim'])"
  how = dict(cwd=tmp_path, env=env, capture_output=True, text=True)
  done = subprocess.run([sys.executable, "-c", code], **how)
  assert done.stdout.strip() == version.VERSION == dfim.__version__, done.stderr
