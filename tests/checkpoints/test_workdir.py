"""A run's folder refuses other runs, data and trainers; errors name the field that differs."""

import subprocess
import sys

import ml_collections
import pytest

from dfim.checkpoints import checkpoint, workdir
from dfim.config.errors import ConfigError


def config(*, steps=9, data=(), **model):
  data = dict(name="data.synthetic.walk.walk", tokens=6) | dict(data)
  return ml_collections.ConfigDict(dict(steps=steps, data=data, model=model))


@pytest.fixture
def check(tmp_path, monkeypatch):
  """`check(before, now, fields)` for a folder whose run has the config `before`."""
  monkeypatch.setattr(checkpoint, "steps", lambda _: [9])

  def check(before, now, *fields):
    workdir.write_config(str(tmp_path), before)
    workdir.check(str(tmp_path), now, fields or workdir.FIXED)

  return check


BOTH = dict(data=dict(tokens=8), window=8)


@pytest.mark.parametrize(
  "now, fields, named",
  [
    (config(**BOTH), ("data", "model"), "data.tokens=6, .* 8: "),
    (config(**BOTH), ("model",), "model.window=6, .* 8 .*follows data.tokens"),
    (config(), ("model",), "model.window=6, .* 'absent'"),
    (config(window=6, depth=2), ("model",), "model.depth='absent', .* 2: "),
    (config(steps=12, window=7), ("model",), "model.window=6, .* 7 .steps=9 there and 12 here"),
  ],
)
def test_the_first_difference_is_named_and_the_field_that_it_follows(now, fields, named, check):
  with pytest.raises(ConfigError, match=named):
    check(config(window=6), now, *fields)


def test_a_run_goes_on_with_moved_data_and_with_absent_fields_at_none(check):
  check(config(window=6), config(window=6, dtype=None))
  check(config(window=6), config(window=6, remat="block", time_precision="high"))
  read = lambda **how: config(data=how)
  check(read(path="old", workers=4), read(path="new", workers=0))


HOLD = """
import sys
from dfim.checkpoints import workdir
with workdir.lock(sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def trainer(tmp_path):
  command = [sys.executable, "-c", HOLD, str(tmp_path)]
  process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert process.stdout.readline() == b"held\n"
  yield process
  process.kill()
  process.communicate()


def test_one_trainer_at_a_time_and_a_killed_one_holds_nothing(tmp_path, trainer):
  with pytest.raises(ConfigError, match=f"^workdir='?{tmp_path}"), workdir.lock(str(tmp_path)):
    pass
  trainer.kill()
  trainer.wait()
  with workdir.lock(str(tmp_path)):
    pass


def test_a_lock_of_another_machine_stops_nobody(tmp_path, trainer, caplog):
  (tmp_path / "lock").write_text("elsewhere\n")
  with workdir.lock(str(tmp_path)):
    assert "is locked from elsewhere" in caplog.text


def test_a_url_and_a_file_are_no_folders(tmp_path):
  (tmp_path / "file").touch()
  workdir.write_config(str(tmp_path), config(window=6))
  workdir.check(str(tmp_path), config(window=8))  # without a checkpoint
  for path in ("gs://bucket/run", str(tmp_path / "file")):
    with pytest.raises(ConfigError, match=f"^workdir='?{path}'?: "):
      workdir.check(path, config())


def test_a_run_goes_on_with_its_own_data_alone(tmp_path, monkeypatch, caplog):
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "manifest", lambda _: {})
    workdir.check_data(str(tmp_path), dict(examples=10))  # a run without an identity goes on
  before = dict(examples=9, shape=[2], dtype="float32", sha256="1" * 64)
  monkeypatch.setattr(checkpoint, "manifest", lambda _: dict(data=before))
  workdir.check_data(str(tmp_path), dict(before))
  now = before | dict(examples=10)
  with pytest.raises(ConfigError, match="9 examples of .* 10 examples .*--new_data"):
    workdir.check_data(str(tmp_path), now)
  assert not caplog.text
  workdir.check_data(str(tmp_path), now, accept=True)
  assert "10 examples" in caplog.text
