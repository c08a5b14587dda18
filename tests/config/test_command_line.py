"""Flags and config files that cannot be read are refused in one line, which names them."""

import sys

from absl.testing import flagsaver
import pytest

from dfim.config import command_line
from dfim.config.errors import ConfigError

SMOKE = "--config=configs/imm_digits.py:smoke"
NAMES = ("config", "workdir", "profile")
FILES = {  # config files, and the error in each
  "wrong.py": ("def get_config(:\n", "invalid syntax"),
  "empty.py": ("c = 3\n", r"get_config\(mode\)"),
  "imports.py": ("import nothere\n", "No module named 'nothere'"),
  "reads.py": ("def get_config():\n  open('/none')\n", "'/none'"),
}


@pytest.fixture
def read(monkeypatch):
  """The flags' values as a mode that trains gets them, by a command line."""

  def read(*flags):
    argv = ["dfim", *flags]
    monkeypatch.setattr(sys, "argv", argv)  # where overrides are looked for
    sys.modules.pop("config_config", None)  # a file is loaded on top of the last one
    with flagsaver.flagsaver():
      return command_line.values(command_line.parse(argv), NAMES)

  return read


def test_flags_set_fields_of_the_config_of_a_mode(read):
  found = read(SMOKE, "--config.batch_size=32", "--config.model.new_argument=3", "--profile=2:4")
  assert found["config"].batch_size == 32 and found["config"].model.new_argument == 3
  assert found["profile"] == (2, 4) and found["workdir"] == "runs/imm_digits_smoke"
  assert read(SMOKE, "--workdir=mine")["workdir"] == "mine"


@pytest.mark.parametrize(
  "flags, line",
  [
    ([], "^--config: missing"),
    (["--config=configs/imm_digit.py"], "^--config=configs/imm_digit.py: "),
    (["--config=configs/dfim_walk.py"], "^--config=.*: moved to configs/moment_forcing_walk.py"),
    ([SMOKE, "--workdri=x"], "'workdri'.*workdir"),
    ([SMOKE, "--config.steps=many"], "config.steps=many"),
    ([SMOKE, "--config.modl.width=3"], "^--config: no such field, .*modl"),
    ([SMOKE, "--profile=4:2"], "^--profile=4:2: "),
    (
      [SMOKE, "--config.steps=7", "--config.optimizer.learning_rate.decay_steps=9"],
      "^--config.steps=7: another flag sets .* to 9",
    ),
  ],
  ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_refused(flags, line, read):
  with pytest.raises(ConfigError, match=line) as error:
    read(*flags)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_config_file_that_cannot_be_read_is_named_with_its_error(name, read, tmp_path):
  text, line = FILES[name]
  (tmp_path / name).write_text(text)
  with pytest.raises(ConfigError, match=f"^--config={tmp_path / name}: .*{line}") as error:
    read(f"--config={tmp_path / name}")
  assert "\n" not in str(error.value)
