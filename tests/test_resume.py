"""The same command again goes on where the last one stood, bit for bit, also after SIGKILL."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import imm_digits
from dfim import train
from dfim.checkpoints import checkpoint
from dfim.training import experiment as experiment_lib, monitor

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def relaxed():
  with jax.debug_key_reuse(False):  # the same seed starts several runs
    yield


def small(steps=12):
  config = imm_digits.get_config("smoke")
  config.steps = steps
  # A learning rate that does not depend on the number of steps.
  config.optimizer = dict(name="optax.adam", learning_rate=1e-3)
  config.evaluators = {}
  config.sampler.steps = (1,)
  config.checkpoint_every = 4
  config.log_every = 2
  return config


def run(config, workdir):
  return train.train(config, str(workdir), devices=jax.devices()[:1])


def metrics(workdir):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [{k: v for k, v in line.items() if k not in monitor.MACHINE} for line in lines]


def assert_equal(one, two):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_array_equal(a, b)


def stop_at(monkeypatch, step):
  """Lets training fail right after `step`, with a save of an earlier step behind it."""
  make_log = train.monitor.make_log

  def failing(*args, **kwargs):
    log = make_log(*args, **kwargs)

    def then_stop(n, values):
      log(n, values)
      if n == step:
        raise KeyboardInterrupt

    return then_stop

  monkeypatch.setattr(train.monitor, "make_log", failing)


@pytest.mark.slow  # as tests/trust/test_kills.py has it, by SIGKILL
def test_an_interrupted_run_equals_an_unbroken_one(tmp_path, monkeypatch):
  unbroken = run(small(), tmp_path / "unbroken")
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    stop_at(patch, 6)
    run(small(), tmp_path / "broken")
  assert checkpoint.steps(str(tmp_path / "broken")) == [4]
  resumed = run(small(), tmp_path / "broken")
  assert_equal(unbroken, resumed)
  assert metrics(tmp_path / "unbroken") == metrics(tmp_path / "broken")


def test_what_is_due_is_done_once_whatever_stops_it_and_a_finished_run_is_left_alone(
  tmp_path, monkeypatch
):
  config, drawn = small(8), []
  config.sample_every = 4
  draw_samples = train.sample.draw_samples

  def draws(experiment, draw, state):
    drawn.append(int(state.seen))
    if len(drawn) == 1:
      raise KeyboardInterrupt
    return draw_samples(experiment, draw, state)

  monkeypatch.setattr(train.sample, "draw_samples", draws)
  with pytest.raises(KeyboardInterrupt):
    run(config, tmp_path)
  assert checkpoint.steps(str(tmp_path)) == [4], "saved before it drew"
  first, logged = run(config, tmp_path), metrics(tmp_path)
  assert drawn == [4, 4, 8]
  assert_equal(first, run(config, tmp_path))
  assert drawn == [4, 4, 8] and metrics(tmp_path) == logged


def test_nothing_is_touched_while_another_trainer_is_there(tmp_path, monkeypatch):
  def taken(workdir):
    raise experiment_lib.ConfigError("a process trains there")

  monkeypatch.setattr(train.workdir_lib, "lock", taken)
  monkeypatch.setattr(train, "start_state", lambda *_: pytest.fail("it sets damage aside"))
  with pytest.raises(experiment_lib.ConfigError, match="a process trains there"):
    run(small(), tmp_path)


def test_a_score_that_fails_is_told_and_training_goes_on_to_its_end(tmp_path, monkeypatch, caplog):
  config, tried = small(8), []
  config.sample_every = 4

  def fails(experiment, draw, state):
    tried.append(int(state.seen))
    raise ZeroDivisionError("of the picture")

  monkeypatch.setattr(train.sample, "draw_samples", fails)
  with pytest.raises(ZeroDivisionError):
    run(config, tmp_path)
  assert tried == [4, 8] and checkpoint.steps(str(tmp_path)) == [4, 8]
  assert "Not all samples after step 4 were made." in caplog.text
  assert "of the picture" in caplog.text


@pytest.mark.slow
def test_killed_by_the_system_and_started_again(tmp_path):
  """A SIGKILL once the first checkpoint is there: nothing is flushed, nothing is closed."""
  command = [
      sys.executable, "-m", "dfim.main", "--config=configs/imm_digits.py:smoke",
      f"--workdir={tmp_path / 'killed'}", "--config.steps=400", "--config.checkpoint_every=20",
      "--config.evaluators={}", "--config.log_every=10", "--config.sampler.steps=(1,)",
  ]  # fmt: skip
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
  deadline = time.monotonic() + 120
  while not checkpoint.steps(str(tmp_path / "killed")) and time.monotonic() < deadline:
    assert process.poll() is None, "the run ended before its first checkpoint"
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert checkpoint.steps(str(tmp_path / "killed"))[-1] < 400
  subprocess.run(command, cwd=ROOT, env=env, check=True, stderr=subprocess.DEVNULL)
  command[4] = f"--workdir={tmp_path / 'unbroken'}"
  subprocess.run(command, cwd=ROOT, env=env, check=True, stderr=subprocess.DEVNULL)
  assert metrics(tmp_path / "killed") == metrics(tmp_path / "unbroken")
  experiment = experiment_lib.build(imm_digits.get_config("smoke"), devices=jax.devices()[:1])
  abstract = experiment.abstract_state()
  assert_equal(*(checkpoint.restore(str(tmp_path / n), abstract) for n in ("killed", "unbroken")))
