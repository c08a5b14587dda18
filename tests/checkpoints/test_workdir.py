"""What a run's folder refuses, and which of two fields it names."""

import subprocess
import sys

import ml_collections
import pytest

from dfim.checkpoints import checkpoint, workdir
from dfim.config.errors import ConfigError


def config(tokens, **model):
  given = dict(
    steps=9, data=dict(name="data.synthetic.walk.walk", tokens=tokens), model=dict(**model)
  )
  return ml_collections.ConfigDict(given)


@pytest.mark.parametrize(
  "tokens, model, fields, message",
  [
    (8, dict(window=8, width=3), ("data", "model"), "data.tokens=6, and this config has 8: pass"),
    (8, dict(window=8, width=3), ("model",), "model.window=6, .* has 8 .it follows data.tokens.: "),
    (6, dict(window=8, width=3), ("model",), "model.window=6, and this config has 8: pass another"),
    (6, dict(window=6), ("model",), "model.width=3, and this config has 'absent': pass"),
    (6, dict(window=6, width=3, depth=2), ("model",), "model.depth='absent', .* has 2: pass"),
  ],
)
def test_the_first_difference_is_named_and_what_it_follows(
  tokens, model, fields, message, tmp_path, monkeypatch
):
  monkeypatch.setattr(checkpoint, "steps", lambda _: [9])
  before = config(6, window=6, width=3)
  workdir.write_config(str(tmp_path), before)
  workdir.check(str(tmp_path), before, fields)
  with pytest.raises(ConfigError, match=message):
    workdir.check(str(tmp_path), config(tokens, **model), fields)
  workdir.check(str(tmp_path), config(8, window=6, width=3), ("data", "model"), ("data.tokens",))


def test_a_schedule_that_follows_the_steps_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, "steps", lambda _: [9])
  before, now = config(6, warmup=3), config(6, warmup=4)
  now.steps = 12
  workdir.write_config(str(tmp_path), before)
  with pytest.raises(ConfigError, match="warmup=3, .* has 4 .steps=9 there and 12 here, which it"):
    workdir.check(str(tmp_path), now, ("model",))


def test_a_folder_without_a_checkpoint_takes_any_run(tmp_path):
  workdir.write_config(str(tmp_path), config(6, window=6))
  workdir.check(str(tmp_path), config(8, window=8))


def test_data_may_have_moved_and_be_read_in_another_way(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, "steps", lambda _: [9])
  before, now = config(6), config(6)
  before.data.update(path="old", workers=4)
  now.data.update(path="new", workers=0)
  workdir.write_config(str(tmp_path), before)
  workdir.check(str(tmp_path), now)


def test_a_field_that_is_none_may_be_absent(tmp_path, monkeypatch):
  """A run from before a field was there goes on, if the field is left at None."""
  monkeypatch.setattr(checkpoint, "steps", lambda _: [9])
  workdir.write_config(str(tmp_path), config(6, window=6))
  workdir.check(str(tmp_path), config(6, window=6, dtype=None), ("model",))


HOLD = """
import sys
from dfim.checkpoints import workdir
with workdir.lock(sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def trainer(tmp_path):
  """Another process that holds the folder."""
  command = [sys.executable, "-c", HOLD, str(tmp_path)]
  process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert process.stdout.readline() == b"held\n"
  yield process
  process.kill()
  process.communicate()


def test_one_trainer_at_a_time_and_a_killed_one_holds_nothing(tmp_path, trainer):
  with pytest.raises(ConfigError, match="a process trains there"), workdir.lock(str(tmp_path)):
    pass
  trainer.kill()
  trainer.wait()
  with workdir.lock(str(tmp_path)):
    pass


def test_a_lock_of_another_machine_stops_nobody(tmp_path, trainer, caplog):
  (tmp_path / "lock").write_text("elsewhere\n")
  with workdir.lock(str(tmp_path)):
    assert "is locked from elsewhere" in caplog.text


def test_a_run_goes_on_with_its_own_data_alone(tmp_path, monkeypatch, caplog):
  before = dict(examples=9, shape=[2], dtype="float32", sha256="1" * 64)
  monkeypatch.setattr(checkpoint, "manifest", lambda _: dict(data=before))
  workdir.check_data(str(tmp_path), dict(before))
  now = before | dict(examples=10)
  with pytest.raises(ConfigError, match="9 examples of .* 10 examples .*--new_data"):
    workdir.check_data(str(tmp_path), now)
  assert not caplog.text
  workdir.check_data(str(tmp_path), now, accept=True)
  assert "10 examples" in caplog.text


def test_a_run_that_noted_no_data_goes_on_with_a_line(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(checkpoint, "manifest", lambda _: {})
  with caplog.at_level("INFO"):
    workdir.check_data(str(tmp_path), dict(examples=10))
  assert "does not say which data" in caplog.text
