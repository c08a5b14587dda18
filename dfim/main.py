"""Trains, scores or samples what a config describes.

python -m dfim.main --config=configs/imm_digits.py
python -m dfim.main --config=configs/imm_digits.py --mode=sample --step=1000
python -m dfim.main --config=configs/imm_digits.py --mode=export --out=exported
python -m dfim.main --config=configs/imm_digits.py --mode=import --weights=exported --workdir=new
python -m dfim.main --mode=replay --workdir=runs/imm_digits/replay/120
python -m dfim.main --config=configs/imm_imagenet256.py:S --mode=compile --topology=v5e:16x16

Exit codes: 0 done, 2 refused before anything was written, 75 stopped by a signal and saved: run the
same command again, 1 anything else, such as a program compiled for chips that it does not fit.
"""

from absl import app, flags

from dfim import evaluate, sample, train
from dfim.config import command_line
from dfim.interop import export
from dfim.pods import compile as compile_lib
from dfim.training import monitor, process, replay

MODES = {  # a function, and the flags that are its arguments
  "train": (train.train, "config workdir profile new_data"),
  "eval": (evaluate.evaluate, "config workdir step"),
  "sample": (sample.sample, "config workdir step"),
  "export": (export.export_run, "config workdir step out"),
  "import": (export.import_weights, "config workdir weights prefix allow_pickle"),
  "replay": (replay.replay, "workdir"),
  "compile": (compile_lib.compile_config, "config topology slices out"),
}
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
flags.adopt_module_key_flags(command_line)


def main(argv: list[str]) -> None:
  """Runs one mode."""
  monitor.show_log()
  process.limit_arenas()
  with process.exit_codes(evaluate.ScoreError, compile_lib.DoesNotFitError):
    function, names = MODES[_MODE.value]
    arguments = command_line.values(argv, names.split())
    process.join(**command_line.processes())
    if _MODE.value == "train":
      process.leave_at_second_interrupt()
    function(**arguments)


def parse(argv: list[str]) -> list[str]:
  """Reads the flags; returns the other arguments."""
  with process.exit_codes():
    return command_line.parse(argv)


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
