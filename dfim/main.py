"""Trains, scores or samples what a config describes.

python -m dfim.main --config=configs/imm_digits.py
python -m dfim.main --config=configs/imm_digits.py --mode=sample
python -m dfim.main --config=configs/imm_digits.py --mode=export --out=exported
python -m dfim.main --config=configs/imm_digits.py --mode=import --weights=exported --workdir=new
"""

import pathlib
import sys

from absl import app
from absl import flags
import jax
import ml_collections
from ml_collections import config_flags

from dfim import evaluate
from dfim import exchange
from dfim import progress
from dfim import sample
from dfim import train
from dfim.resolve import ConfigError

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The experiment: file.py[:mode].",
  lock_config=False,
  accept_new_attributes=True,  # any argument may be set; `resolve` refuses misspelt ones
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/<config> by default.")
_MODE = flags.DEFINE_enum(
  "mode", "train", ["train", "eval", "sample", "export", "import"], "What to do."
)
_OUT = flags.DEFINE_string("out", None, "With --mode=export: the new folder to write.")
_WEIGHTS = flags.DEFINE_string("weights", None, "With --mode=import: a file, or what export wrote.")
_PREFIX = flags.DEFINE_string("prefix", "", "What its parameters' names start with: ema.model.")
_PICKLE = flags.DEFINE_bool("allow_pickle", False, "Read the arrays of a pickle; runs no code.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of many processes: pod, SLURM, MPI.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port, where no cluster tells it.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator.")


def main(argv: list[str]) -> None:
  """Runs one mode; what cannot run ends in one line and exit code 2."""
  progress.show_log()
  if len(argv) > 1:
    sys.exit(_refuse(f"{argv[1]}: not a flag; flags look like --workdir=runs/mine."))
  if _CONFIG.value is None:
    sys.exit(_refuse("--config: missing; pass for example --config=configs/imm_digits.py."))
  if _COORDINATOR.value and None in (_NUM_PROCESSES.value, _PROCESS_ID.value):
    sys.exit(_refuse("--coordinator: pass --num_processes and --process_id with it."))
  if _DISTRIBUTED.value or _COORDINATOR.value:
    jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  name, _, mode = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  workdir = _WORKDIR.value or f"runs/{pathlib.Path(name).stem}{'_' if mode else ''}{mode}"
  try:
    _run(_CONFIG.value, workdir)
  except ConfigError as error:
    sys.exit(_refuse(str(error)))
  except FloatingPointError as error:
    sys.exit(f"dfim: {error} The last checkpoint is in {workdir}.")
  except KeyboardInterrupt:
    sys.exit(f"dfim: stopped. The same command goes on from the last checkpoint in {workdir}.")


def _run(config: ml_collections.ConfigDict, workdir: str) -> None:
  if _MODE.value == "export":
    exchange.export_run(config, workdir, _OUT.value)
  elif _MODE.value == "import":
    given = dict(prefix=_PREFIX.value, allow_pickle=_PICKLE.value)
    exchange.import_weights(config, workdir, _WEIGHTS.value, **given)
  else:
    run = dict(train=train.train, eval=evaluate.evaluate, sample=sample.sample)[_MODE.value]
    run(config, workdir)


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
    if _CONFIG.value is not None:
      _CONFIG.value.to_dict()  # a file that failed to load raises when it is first looked at
    return rest
  except (KeyError, AttributeError) as error:
    sys.exit(_refuse(f"--config: no such field or mode, {' '.join(str(error.args[0]).split())}"))
  except (flags.Error, TypeError, ValueError, OSError, SyntaxError) as error:
    sys.exit(_refuse(" ".join(str(error).split())))


def _refuse(line: str) -> int:
  print(f"dfim: {line}", file=sys.stderr)
  return 2


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
