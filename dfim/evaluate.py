"""Scores of a run's averaged weights: `eval/<step>.json`, a table in the log, pictures."""

from collections.abc import Callable
import json
import pathlib
from typing import Any

from absl import logging
import ml_collections
import numpy as np

from dfim import checkpoint
from dfim import files
from dfim import experiment as experiment_lib
from dfim import pictures
from dfim import sample
from dfim.resolve import config_errors
from dfim.resolve import ConfigError
from dfim.resolve import resolve

Evaluator = Callable[[sample.Draw, Any], tuple[dict[str, Any], dict[str, np.ndarray]]]


def build(config: ml_collections.ConfigDict) -> dict[str, Evaluator]:
  """The evaluators that `config.evaluators` names: `(draw, params) -> (values, figures)`.

  Raises:
    ConfigError: naming the field.
  """
  with config_errors("evaluators"):
    built = resolve(config.evaluators, "evaluators")
  for name, evaluator in built.items():
    if not callable(evaluator):
      raise ConfigError(f"evaluators.{name}: give a dict with the name of an evaluator.")
  return built


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Scores the newest checkpoint of `workdir` (`--mode=eval`); returns values by name."""
  experiment = experiment_lib.build(config)
  evaluators = build(experiment.config)
  if not evaluators:
    raise ConfigError("evaluators={}: the config names none; add one, see configs/imm_digits.py.")
  draw = sample.make_draw(experiment)
  state = checkpoint.restore(workdir, experiment.abstract_state())
  return run(evaluators, draw, state, workdir)


def run(
    evaluators: dict[str, Evaluator], draw: sample.Draw, state: Any, workdir: str
) -> dict[str, Any]:
  """Runs all of `evaluators` on the averaged weights and writes what they found."""
  folder = pathlib.Path(workdir) / "eval"
  step = int(state.step)
  found = {}
  for name, evaluator in evaluators.items():
    values, figures = evaluator(draw, sample.averaged(state))
    found |= {f"{name}/{key}": value for key, value in values.items()}
    for title, figure in figures.items():
      pictures.save_png(folder / f"{step}_{name}_{title}.png", figure)
  text = json.dumps(found, indent=2) + "\n"
  files.replace(folder / f"{step}.json", lambda file: file.write(text.encode()))
  for key, value in found.items():
    logging.info("%-32s %s", key, f"{value:.5g}" if isinstance(value, float) else value)
  return found
