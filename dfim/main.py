"""Trains, scores or samples what a config describes.

python -m dfim.main --config=configs/imm_digits.py
python -m dfim.main --config=configs/imm_digits.py --mode=sample --step=1000
python -m dfim.main --config=configs/imm_digits.py --mode=export --out=exported
python -m dfim.main --config=configs/imm_digits.py --mode=import --weights=exported --workdir=new
python -m dfim.main --mode=replay --workdir=runs/imm_digits/replay/120

Exit codes: 0 done, 2 refused before anything was written, 75 stopped by a signal and saved: run the
same command again, 1 anything else.
"""

import argparse
import ctypes
import json
import os
import pathlib
import signal
import sys
import traceback
from typing import Any

from absl import app
from absl import flags
import jax
import ml_collections
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from dfim import evaluate
from dfim import sample
from dfim import train
from dfim.checkpoints import checkpoint
from dfim.config import moved
from dfim.config.resolve import ConfigError
from dfim.interop import export
from dfim.training import nonfinite
from dfim.training import preemption
from dfim.training import progress
from dfim.training import replay

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The experiment: file.py[:mode].",
  lock_config=False,
  accept_new_attributes=True,  # any argument may be set; `resolve` refuses misspelt ones
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/<config> by default.")
_MODE = flags.DEFINE_enum(
  "mode", "train", ["train", "eval", "sample", "export", "import", "replay"], "What to do."
)
_STEP = flags.DEFINE_integer("step", None, "To eval, sample or export; the newest by default.")
_PROFILE = flags.DEFINE_string("profile", None, "First and last step to profile, as in 100:110.")
_OUT = flags.DEFINE_string("out", None, "With --mode=export: the new folder to write.")
_WEIGHTS = flags.DEFINE_string("weights", None, "With --mode=import: a file, or what export wrote.")
_PREFIX = flags.DEFINE_string("prefix", "", "What its parameters' names start with: ema.model.")
_PICKLE = flags.DEFINE_bool("allow_pickle", False, "Read the arrays of a pickle; runs no code.")
_NEW_DATA = flags.DEFINE_bool("new_data", False, "Train on, although the data are other ones.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of many processes: pod, SLURM, MPI.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port, where no cluster tells it.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator.")


def main(argv: list[str]) -> None:
  """Runs one mode; what cannot run ends in one line and exit code 2."""
  progress.show_log()
  _limit_arenas()
  if len(argv) > 1:
    sys.exit(_refuse(f"{argv[1]}: not a flag; flags look like --workdir=runs/mine."))
  if _CONFIG.value is None and _MODE.value != "replay":
    sys.exit(_refuse("--config: missing; pass for example --config=configs/imm_digits.py."))
  numbers = _NUM_PROCESSES.value, _PROCESS_ID.value
  if _COORDINATOR.value and None in numbers:
    sys.exit(_refuse("--coordinator: pass --num_processes and --process_id with it."))
  if not _COORDINATOR.value and numbers != (None, None):
    sys.exit(_refuse("--num_processes, --process_id: pass --coordinator=host:port with them."))
  if _DISTRIBUTED.value or _COORDINATOR.value:
    try:
      jax.distributed.initialize(_COORDINATOR.value, *numbers, heartbeat_timeout_seconds=30)
    except (RuntimeError, ValueError) as error:
      cause = " ".join(str(error).split())
      fix = "where no cluster tells it, pass --coordinator, --num_processes and --process_id"
      sys.exit(_refuse(f"--distributed: {cause}; {fix}."))
  try:
    _run(_CONFIG.value, _workdir())
  except (Exception, KeyboardInterrupt) as error:
    _leave(_exit_code(error))


def _limit_arenas() -> None:
  """Gives malloc an arena a core, where glibc has eight: fragments of a save stay behind in each.

  MALLOC_ARENA_MAX, if it is set, decides.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has one
  if mallopt and "MALLOC_ARENA_MAX" not in os.environ:
    mallopt(-8, os.cpu_count())  # M_ARENA_MAX in malloc.h


def _workdir() -> str:
  """The flag, or a folder named after the config."""
  if _WORKDIR.value:
    return _WORKDIR.value
  if _CONFIG.value is None:
    raise ConfigError("--workdir: missing; pass the bundle that a run which stopped has named.")
  name, _, mode = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  return f"runs/{pathlib.Path(name).stem}{'_' if mode else ''}{mode}"


def _run(config: ml_collections.ConfigDict | None, workdir: str) -> None:
  mode, profile, step = _MODE.value, _window(_PROFILE.value), _STEP.value
  if step is not None and mode not in ("eval", "sample", "export"):
    raise ConfigError(f"--step={step}: is for --mode=eval, sample and export; drop it.")
  if mode == "train":
    signal.signal(signal.SIGINT, _leave_at_once)  # on the second Ctrl-C, see `preemption`
    train.train(config, workdir, profile=profile, new_data=_NEW_DATA.value)
  elif mode == "replay":
    replay.replay(workdir)
  elif mode == "export":
    export.export_run(config, workdir, _OUT.value, step=step)
  elif mode == "import":
    given = dict(prefix=_PREFIX.value, allow_pickle=_PICKLE.value)
    export.import_weights(config, workdir, _WEIGHTS.value, **given)
  else:
    dict(eval=evaluate.evaluate, sample=sample.sample)[mode](config, workdir, step=step)


def _leave_at_once(*_: Any) -> None:
  """Handles Ctrl-C without an exception, which JAX's callbacks may swallow."""
  os.write(2, b"dfim: left at once; the same command goes on from the last checkpoint.\n")
  os._exit(1)


def _window(text: str | None) -> tuple[int, int] | None:
  """Steps from "100:110"."""
  if text is None:
    return None
  first, _, last = text.partition(":")
  if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
    raise ConfigError(f"--profile={text}: give the first and the last step, as in 100:110.")
  return int(first), int(last)


def _exit_code(error: BaseException) -> int:
  """Says in one line why a run ended, or shows where, if dfim did not expect it."""
  match error:
    case ConfigError():
      return _refuse(str(error))
    case preemption.PreemptedError():
      print(f"dfim: {error} The same command goes on from there.", file=sys.stderr)
      return preemption.EXIT_CODE
    case (
      nonfinite.NonFiniteError()
      | evaluate.ScoreError()
      | checkpoint.SaveError()
      | checkpoint.ReadError()
    ):
      print(f"dfim: {error}", file=sys.stderr)
    case KeyboardInterrupt():
      print(
        "dfim: stopped by Ctrl-C; what was not finished is not written.",
        file=sys.stderr,
      )
    case _:
      traceback.print_exception(error)
      if jax.distributed.is_initialized():
        print(
          "dfim: stopped by the error above, which may be that another process has ended. The same"
          " command in all of them goes on from the last checkpoint.",
          file=sys.stderr,
        )
  return 1


def _leave(code: int) -> None:
  """Ends this process; one of many that failed does so at once, for the others wait for it."""
  if code != preemption.EXIT_CODE and jax.distributed.is_initialized():
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def _parse(argv: list[str]) -> list[str]:
  """Reads the flags and loads the config; what cannot be read ends in one line and exit code 2."""
  path, mode = _config_file(argv)
  if path and not path.is_file():
    if now := moved.config_file(str(path)):
      sys.exit(_refuse(f"--config={path}: moved to {now}."))
    sys.exit(_refuse(f"--config={path}: no such file; pass one, as in configs/imm_digits.py."))
  try:
    rest = flags.FLAGS(argv)
    if path:
      _CONFIG.value.to_dict()  # absl keeps an OSError until the config is first looked at
      _refuse_flags_of_one_value(_CONFIG.value)
    return rest
  except (SyntaxError, ImportError, OSError) as error:
    cause = " ".join(str(error.__cause__ or error).split())
    sys.exit(_refuse(f"--config={path}: {cause}; mend that file."))
  except (KeyError, AttributeError) as error:
    if getattr(error, "name", None) == "get_config":
      sys.exit(_refuse(f"--config={path}: has no function get_config(mode); add it."))
    if mode and error.args == (mode,):
      sys.exit(_refuse(f"--config={path}:{mode}: no such mode; see get_config there."))
    sys.exit(_refuse(f"--config: no such field, {' '.join(str(error.args[0]).split())}"))
  except (flags.Error, TypeError, ValueError) as error:
    sys.exit(_refuse(" ".join(str(error).split())))
  except Exception as error:  # whatever a config file does
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    sys.exit(_refuse(f"--config={path}: {cause}; mend that file."))


def _config_file(argv: list[str]) -> tuple[pathlib.Path | None, str]:
  """The file and the mode of --config, which absl knows only once it has loaded it."""
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument("-config", "--config", nargs="?")
  given = parser.parse_known_args(argv[1:])[0].config
  path, _, mode = (given or "").partition(":")
  return pathlib.Path(path) if path else None, mode


def _refuse_flags_of_one_value(config: ml_collections.ConfigDict) -> None:
  """Ends where two fields are one value, such as a schedule's length, and flags want two."""
  for name in flags.FLAGS:
    if name.startswith("config.") and flags.FLAGS[name].present:
      given = flags.FLAGS[name].value
      now = config_path.get_value(name.removeprefix("config."), config)
      if json.dumps(given, default=str) != json.dumps(now, default=str):
        line = f"--{name}={given}: another flag sets what is the same value to {now}; give one."
        sys.exit(_refuse(line))


def _refuse(line: str) -> int:
  print(f"dfim: {line}", file=sys.stderr)
  return 2


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
