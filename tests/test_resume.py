"""What a run does once, whatever stops it; tests/trust/test_kills.py has SIGKILL, bit for bit."""

import jax
import pytest

from configs import imm_digits
from dfim import train
from dfim.checkpoints import checkpoint
from dfim.training import experiment as experiment_lib
from tests import trust
from tests.data.helpers import assert_equal
from tests.trust import metrics

pytestmark = pytest.mark.usefixtures("keys_unchecked")


def small(steps):
  config = trust.small(imm_digits.get_config("smoke"), steps=steps, every=4)
  config.sample_every, config.log_every = 4, 2
  return config


def run(config, workdir):
  return train.train(config, str(workdir), devices=jax.devices()[:1])


def test_what_is_due_is_done_once_whatever_stops_it_and_a_finished_run_is_left_alone(
  tmp_path, monkeypatch
):
  config, drawn = small(8), []
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
    run(small(12), tmp_path)


def test_a_score_that_fails_is_told_and_training_goes_on_to_its_end(tmp_path, monkeypatch, caplog):
  config, tried = small(8), []

  def fails(experiment, draw, state):
    tried.append(int(state.seen))
    raise ZeroDivisionError("of the picture")

  monkeypatch.setattr(train.sample, "draw_samples", fails)
  with pytest.raises(ZeroDivisionError):
    run(config, tmp_path)
  assert tried == [4, 8] and checkpoint.steps(str(tmp_path)) == [4, 8]
  assert "Not all samples after step 4 were made." in caplog.text
  assert "of the picture" in caplog.text
