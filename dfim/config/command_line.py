"""The flags of `python -m dfim.main`: their values, and refusals of those that cannot be read."""

import argparse
from collections.abc import Sequence
import json
import pathlib
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from dfim.config import moved
from dfim.config.errors import ConfigError, FieldError

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The experiment: file.py[:mode].",
  lock_config=False,
  accept_new_attributes=True,  # any argument may be set; `resolve` refuses misspelt ones
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/<config> by default.")
_STEP = flags.DEFINE_integer("step", None, "To eval, sample or export; the newest by default.")
_PROFILE = flags.DEFINE_string("profile", None, "First and last step to profile, as in 100:110.")
flags.DEFINE_string("out", None, "With --mode=export or compile: the folder to write.")
flags.DEFINE_string("topology", None, "With --mode=compile: chips such as v5e:16x16.")
flags.DEFINE_integer("slices", 1, "With --mode=compile: slices of that topology.")
flags.DEFINE_string("weights", None, "With --mode=import: a file or an exported folder.")
flags.DEFINE_string("prefix", "", "The start of its parameters' names, such as ema.model.")
flags.DEFINE_bool("allow_pickle", False, "Read the arrays of a pickle; runs no code.")
flags.DEFINE_bool("new_data", False, "Train on with other data than before.")
flags.DEFINE_bool("distributed", False, "One of many processes: pod, SLURM, MPI.")
flags.DEFINE_string("coordinator", None, "host:port, without a cluster that JAX knows.")
flags.DEFINE_integer("num_processes", None, "With --coordinator.")
flags.DEFINE_integer("process_id", None, "With --coordinator.")


def parse(argv: list[str]) -> list[str]:
  """Reads the flags and loads the config; returns the arguments that are not flags."""
  path, mode = _config_file(argv)
  if path and not path.is_file():
    now = moved.config_file(str(path))
    fix = f"moved to {now}" if now else "no such file; pass one, as in configs/imm_digits.py"
    raise ConfigError(f"--config={path}: {fix}.")
  try:
    rest = flags.FLAGS(argv)
    if path:
      _CONFIG.value.to_dict()  # absl raises an OSError of the config only when it is used
      _check_shared_values(_CONFIG.value)
    return rest
  except Exception as error:  # a config file may raise anything
    raise ConfigError(" ".join(_refusal(error, path, mode).split())) from error


def _config_file(argv: list[str]) -> tuple[pathlib.Path | None, str]:
  """The file and the mode of --config, which absl gives only once the file is loaded."""
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument("-config", "--config", nargs="?")
  path, _, mode = (parser.parse_known_args(argv[1:])[0].config or "").partition(":")
  return pathlib.Path(path) if path else None, mode


def _refusal(error: Exception, path: pathlib.Path | None, mode: str) -> str:
  """The line for an error of the flags, or of the config file."""
  match error:
    case flags.Error() | TypeError() | ValueError():
      return str(error)
    case AttributeError(name="get_config"):
      return f"--config={path}: has no function get_config(mode); add it."
    case KeyError() | AttributeError() if mode and error.args == (mode,):
      return f"--config={path}:{mode}: no such mode; see get_config there."
    case KeyError() | AttributeError():
      name = str(error.args[0]).split("'")[1:2]
      now = moved.anywhere(*name) if name else None
      return f"--config: no such field, {error.args[0]}" + (f"; moved to {now}." if now else "")
    case SyntaxError() | ImportError() | OSError():
      cause = error.__cause__ or error
    case _:
      cause = f"{type(error).__name__}: {error}"
  return f"--config={path}: {cause}; fix that file."


def _check_shared_values(config: ml_collections.ConfigDict) -> None:
  """Refuses two values of fields that share one, such as the steps and a schedule's length."""
  for name in flags.FLAGS:
    if name.startswith("config.") and flags.FLAGS[name].present:
      given = flags.FLAGS[name].value
      now = config_path.get_value(name.removeprefix("config."), config)
      if len({json.dumps(_plain(value), default=str) for value in (given, now)}) > 1:
        fix = f"another flag sets the same value to {now}; give one."
        raise FieldError(f"--{name}", given, fix)


def _plain(value: Any) -> Any:
  return value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value


def values(arguments: list[str], names: Sequence[str]) -> dict[str, Any]:
  """The values of the flags `names`, all that a mode takes; `arguments` are without the flags."""
  if len(arguments) > 1:
    raise ConfigError(f"{arguments[1]}: not a flag; flags look like --workdir=runs/mine.")
  if _CONFIG.value is None and "config" in names:
    raise ConfigError("--config: missing; pass for example --config=configs/imm_digits.py.")
  if _STEP.value is not None and "step" not in names:
    raise FieldError("--step", _STEP.value, "is for --mode=eval, sample and export; drop it.")
  found = {name: flags.FLAGS[name].value for name in names}
  computed = dict(workdir=_workdir(), profile=_window(_PROFILE.value))
  return found | {name: value for name, value in computed.items() if name in names}


def processes() -> dict[str, Any]:
  """The values of the flags of a run with several processes."""
  names = "distributed", "coordinator", "num_processes", "process_id"
  return {name: flags.FLAGS[name].value for name in names}


def _workdir() -> str:
  """The flag, or a folder named after the config."""
  if _WORKDIR.value:
    return _WORKDIR.value
  if _CONFIG.value is None:
    raise ConfigError("--workdir: missing; pass the bundle that a stopped run has named.")
  name, _, mode = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  return f"runs/{pathlib.Path(name).stem}{'_' if mode else ''}{mode}"


def _window(text: str | None) -> tuple[int, int] | None:
  """Steps from "100:110"."""
  if text is None:
    return None
  first, _, last = text.partition(":")
  if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
    raise ConfigError(f"--profile={text}: give the first and the last step, as in 100:110.")
  return int(first), int(last)
