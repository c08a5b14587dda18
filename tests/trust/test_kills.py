"""A run that is killed again and again ends like an unbroken one, bit for bit.

One kill here, during a save, forty with `make trust`, half of them so.
"""

import signal

import jax
import numpy as np
import pytest

from dfim import train
from dfim.checkpoints import checkpoint
from dfim.training import experiment as experiment_lib
from tests import trust
from tests.data.helpers import assert_equal
from tests.trust import config as config_lib

KILLS = trust.scaled(1, 40)
SAVES = 5  # steps between them


def lines(workdir):
  path = workdir / "metrics.jsonl"
  return path.read_text().splitlines() if path.exists() else []


def saving(workdir):
  """Whether a save is under way: Orbax writes into a folder of another name and renames it."""
  return any(not p.name.isdigit() for p in (workdir / "checkpoints").glob("*"))


def kill(command, workdir, random, during_save):
  """Lets the run go on for some steps, then kills it; whether a save was cut off."""
  before = len(lines(workdir))
  process = trust.start(command)
  after = before + int(random.integers(1, 2 * SAVES))
  trust.until(lambda: len(lines(workdir)) != before and len(lines(workdir)) >= after, process)
  if during_save:
    trust.until(lambda: saving(workdir), process)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return saving(workdir)


@pytest.mark.usefixtures("keys_unchecked")
def test_every_kill_is_made_good(tmp_path, record_property):
  steps = 4 * SAVES * KILLS + 10
  flags = f"--config.steps={steps}", f"--config.checkpoint_every={SAVES}"
  command = trust.trainer(tmp_path / "killed", *flags)
  random = np.random.default_rng(0)
  kills = cut = 0
  while kills < KILLS or cut < (KILLS + 1) // 2:
    cut += kill(command, tmp_path / "killed", random, during_save=kills % 2 == 0)
    kills += 1
    assert kills < 2 * KILLS + 4, "kills keep missing the saves"
    assert checkpoint.steps(str(tmp_path / "killed"))[-1:] < [steps], "it ended before"
  record_property("kills", kills)
  record_property("of them during a save", cut)
  trust.finish([trust.start(command)])
  config, one = config_lib.get_config(), jax.devices()[:1]
  config.steps, config.checkpoint_every = steps, SAVES
  train.train(config, str(tmp_path / "unbroken"), devices=one)
  assert trust.metrics(tmp_path / "killed") == trust.metrics(tmp_path / "unbroken")
  abstract = experiment_lib.build(config, devices=one).abstract_state()
  states = (checkpoint.restore(str(tmp_path / n), abstract) for n in ("killed", "unbroken"))
  assert_equal(*states)
  assert not saving(tmp_path / "killed") and not (tmp_path / "killed" / "damaged").exists()
