"""Scores of a run's averaged weights: `eval/<step>.json`, a table in the log, pictures."""

from collections.abc import Callable
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from dfim import experiment as experiment_lib
from dfim import files
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
    steps = np.ravel(getattr(evaluator, "keywords", {}).get("steps", 1))
    if np.size(steps) == 0 or np.min(steps) < 1:
      raise ConfigError(
        f"evaluators.{name}.steps={steps.tolist()}: give 1 or more, each at least 1."
      )
  return built


def evaluate(
  config: ml_collections.ConfigDict, workdir: str, *, devices: Any = None
) -> dict[str, Any]:
  """Scores the newest checkpoint of `workdir` (`--mode=eval`); returns values by name."""
  experiment = experiment_lib.build(config, devices=devices)
  evaluators = build(experiment.config)
  if not evaluators:
    raise ConfigError("evaluators={}: the config names none; add one, see configs/imm_digits.py.")
  draw, state = sample.restored(experiment, workdir)
  return run(evaluators, draw, state, workdir)


def run(
  evaluators: dict[str, Evaluator], draw: sample.Draw, state: Any, workdir: str
) -> dict[str, Any]:
  """Runs all of `evaluators` on the averaged weights and writes what they found."""
  step = int(state.seen)
  found, figures = {}, {}
  for name, evaluator in evaluators.items():
    found[name], drawn = evaluator(draw, sample.averaged(state))
    figures |= {f"{step}_{name}_{title}.png": figure for title, figure in drawn.items()}
    logging.info("%s at step %d\n%s", name, step, table(found[name]))
  if jax.process_index() == 0:
    folder = pathlib.Path(workdir) / "eval"
    for file_name, figure in figures.items():
      pictures.save_png(folder / file_name, figure)
    files.replace_json(folder / f"{step}.json", found)
  return found


def table(values: dict[str, Any]) -> str:
  """Single values a line each, then the rows of scores under their names."""
  rows = {name: row for name, row in values.items() if isinstance(row, dict)}
  lines = [f"{name}: {value}" for name, value in values.items() if name not in rows]
  if rows:
    columns = {name: max(len(name) + 2, 11) for name in next(iter(rows.values()))}
    margin = max(map(len, rows)) + 2
    lines.append(" " * margin + "".join(f"{name:>{width}}" for name, width in columns.items()))
    lines += [
      f"{name:<{margin}}" + "".join(f"{row[c]:{width}.4g}" for c, width in columns.items())
      for name, row in rows.items()
    ]
  return "\n".join(lines)


def flat(found: dict[str, Any], prefix: str = "") -> dict[str, float]:
  """The numbers among `found`, by path as TensorBoard takes it: "images/2_steps/frechet"."""
  numbers = {}
  for name, value in found.items():
    path = prefix + name.replace(" ", "_")
    if isinstance(value, dict):
      numbers |= flat(value, f"{path}/")
    elif not isinstance(value, str):
      numbers[path] = value
  return numbers
