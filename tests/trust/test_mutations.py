"""No damage to a checkpoint's files is restored: it is found, or it changed nothing.

Twenty mutations here, two hundred with `make trust`.
"""

import logging
import pathlib
import shutil

import jax
import numpy as np
import pytest

from configs import imm_digits
from dfim import train
from dfim.checkpoints import checkpoint
from dfim.training import experiment as experiment_lib
from tests import trust
from tests.data.helpers import assert_equal

# Each damaged array's thread would have pages to say, on top of what `restore` raises.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
COUNT = trust.scaled(20, 200)
KINDS = ("truncate", "zero", "flip", "missing")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run with checkpoints of steps 2 and 4, and its states."""
  logging.getLogger("asyncio").disabled = True  # which would say it again at exit
  workdir = tmp_path_factory.mktemp("run")
  config = trust.small(imm_digits.get_config("smoke"), steps=4, every=2)
  with jax.debug_key_reuse(False):
    train.train(config, str(workdir), devices=jax.devices()[:1])
    experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  abstract = experiment.abstract_state()
  newest = checkpoint.restore(str(workdir), abstract)
  older = tmp_path_factory.mktemp("older")
  shutil.copytree(workdir, older, dirs_exist_ok=True)
  shutil.rmtree(older / "checkpoints" / "4")
  return workdir, abstract, newest, checkpoint.restore(str(older), abstract)


def damage(path: pathlib.Path, kind: str, random: np.random.Generator) -> bool:
  """Whether anything changed: an empty file cannot be cut, and zeros may be zero already."""
  data = bytearray(path.read_bytes())
  if kind == "missing":
    path.unlink()
    return True
  if not data:
    return False
  before, at = bytes(data), int(random.integers(len(data)))
  if kind == "truncate":
    del data[at:]
  elif kind == "zero":
    data[at : at + 64] = bytes(len(data[at : at + 64]))
  else:
    data[at] ^= 1 << int(random.integers(8))
  path.write_bytes(data)
  return bytes(data) != before


def test_damage_is_found_or_harmless(run, tmp_path, record_property):
  workdir, abstract, newest, older = run
  found = (workdir / "checkpoints" / "4").rglob("*")
  files = sorted(p.relative_to(workdir) for p in found if p.is_file())
  found = 0
  for n in range(COUNT):
    random = np.random.default_rng(n)
    name, kind = files[n % len(files)], KINDS[n // len(files) % len(KINDS)]
    copy = tmp_path / str(n)
    shutil.copytree(workdir, copy)
    if not damage(copy / name, kind, random):
      continue
    restored = checkpoint.restore(str(copy), abstract, set_aside=True)
    if (copy / "damaged" / "4").exists():
      assert_equal(restored, older)
      assert checkpoint.steps(str(copy)) == [2], (name, kind)
      found += 1
    else:
      assert_equal(restored, newest)
      assert checkpoint.steps(str(copy)) == [2, 4], (name, kind)
    shutil.rmtree(copy)
  record_property("found", found)
  assert found > COUNT / 4, "the mutations must matter"


def test_when_all_are_damaged_nothing_is_changed(run, tmp_path):
  workdir, abstract, _, _ = run
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  for step in "24":
    (copy / "checkpoints" / step / "_CHECKPOINT_METADATA").unlink()
  with pytest.raises(checkpoint.ConfigError, match="every checkpoint is damaged"):
    checkpoint.restore(str(copy), abstract, set_aside=True)
  assert checkpoint.steps(str(copy)) == [2, 4] and not (copy / "damaged").exists()
