"""A run that is killed again and again ends like an unbroken one, bit for bit.

One kill here, during a save, forty with `make trust`, half of them so.
"""

import json
import signal

import jax
import numpy as np

from dfim.checkpoints import checkpoint
from dfim.training import experiment as experiment_lib, monitor
from tests import trust
from tests.trust import config as config_lib

KILLS = trust.scaled(1, 40)
SAVES = 5  # steps between them


def lines(workdir):
  path = workdir / "metrics.jsonl"
  return path.read_text().splitlines() if path.exists() else []


def metrics(workdir):
  """All that was logged except times, memory and compilations, which differ between runs."""
  values = [json.loads(line) for line in lines(workdir)]
  return [{k: v for k, v in line.items() if k not in monitor.MACHINE} for line in values]


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
  trust.finish([trust.start(trust.trainer(tmp_path / "unbroken", *flags))])
  assert metrics(tmp_path / "killed") == metrics(tmp_path / "unbroken")
  experiment = experiment_lib.build(config_lib.get_config(), devices=jax.devices()[:1])
  abstract = experiment.abstract_state()
  states = (checkpoint.restore(str(tmp_path / n), abstract) for n in ("killed", "unbroken"))
  for a, b in zip(*map(jax.tree.leaves, states), strict=True):
    np.testing.assert_array_equal(a, b)
  assert not saving(tmp_path / "killed") and not (tmp_path / "killed" / "damaged").exists()
