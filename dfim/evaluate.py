"""Scores of a run's averaged weights: `eval/<step>.json`, a table in the log, pictures.

Those are what training found; `--mode=eval` writes `eval/<step>_<n>.json`, n from 1 on, beside it.
"""

from collections.abc import Callable
import inspect
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from dfim import checks
from dfim import experiment as experiment_lib
from dfim import files
from dfim import pictures
from dfim import sample
from dfim.resolve import config_errors
from dfim.resolve import ConfigError
from dfim.resolve import resolve

Evaluator = Callable[[sample.Draw, Any], tuple[dict[str, Any], dict[str, np.ndarray]]]


def build(
  config: ml_collections.ConfigDict, shape: tuple[int, ...] | None = None
) -> dict[str, Evaluator]:
  """The evaluators that `config.evaluators` names: `(draw, params) -> (values, figures)`.

  Args:
    config: the whole.
    shape: of an example, if known, which what they compare with must have.

  Raises:
    ConfigError: naming the field.
  """
  with config_errors("evaluators", config.evaluators):
    built = resolve(config.evaluators, "evaluators")
  for name, evaluator in built.items():
    if not callable(evaluator):
      raise ConfigError(f"evaluators.{name}: give a dict with the name of an evaluator.")
    checks.takes(evaluator, 2, f"evaluators.{name}")
    given = getattr(evaluator, "keywords", {})
    _check_numbers(given, f"evaluators.{name}")
    _check_shapes(given, f"evaluators.{name}", shape)
    _check_steps(evaluator, f"evaluators.{name}.steps", config)
  return built


def _check_numbers(given: dict[str, Any], field: str) -> None:
  for name, value in given.items():
    low = 0 if name == "seed" else 1
    if isinstance(value, int) and value < low and not isinstance(value, bool):
      raise ConfigError(f"{field}.{name}={value}: give {low} or more.")
  if "limits" in given:
    checks.limits(f"{field}.limits", given["limits"])


def _check_shapes(given: dict[str, Any], field: str, shape: tuple[int, ...] | None) -> None:
  """Refuses references of other shapes than what is drawn; sequences may be longer, a rollout."""
  free = 1 if shape and len(shape) == 2 else 0
  for name, value in given.items() if shape else ():
    x = value.get("x") if isinstance(value, dict) and name != "images" else None  # FID's are RGB
    if x is not None and (x.ndim, x.shape[1 + free :]) != (1 + len(shape), shape[free:]):
      raise ConfigError(
        f"{field}.{name}: examples of shape {x.shape[1:]} beside samples of shape {shape}; name"
        " the same data."
      )


def _check_steps(evaluator: Evaluator, field: str, config: ml_collections.ConfigDict) -> None:
  """Refuses numbers of steps that the sampler's grid does not take."""
  wanted = inspect.signature(evaluator).parameters.get("steps")
  if wanted is None or wanted.default is wanted.empty:
    return
  steps = np.ravel(wanted.default)
  if steps.dtype.kind != "i" or np.min(steps, initial=np.size(steps)) < 1:
    raise ConfigError(f"{field}={steps.tolist()}: give 1 or more, each at least 1.")
  path, grid = resolve(config.objective.f.path), resolve(config.sampler.grid)
  for k in steps.tolist():
    with config_errors(field):
      jax.eval_shape(lambda k=k: sample.grid_of(grid, path, k))


def evaluate(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  step: int | None = None,
  devices: Any = None,
) -> dict[str, Any]:
  """Scores the newest checkpoint of `workdir`, or `step`'s (`--mode=eval`); values by name.

  Writes `eval/<step>_<n>.json`, n from 1 on so that nothing is overwritten, and figures.
  """
  experiment = experiment_lib.build(config, devices=devices)
  evaluators = build(experiment.config, experiment.batch["x"].shape[1:])
  if not evaluators:
    raise ConfigError(
      "evaluators={}: the config names none; add one, see configs/imm_digits.py,"
      " docs/scores.md for FID."
    )
  draw, state = sample.restored(experiment, workdir, ("model", "objective", "data"), step)
  return run(evaluators, draw, state, files.numbered(path_of(workdir, int(state.seen))))


def path_of(workdir: str, step: int) -> pathlib.Path:
  """Where the scores lie that training found after `step`."""
  return pathlib.Path(workdir) / "eval" / f"{step}.json"


def run(
  evaluators: dict[str, Evaluator], draw: sample.Draw, state: Any, path: pathlib.Path
) -> dict[str, Any]:
  """Runs all of `evaluators` on the averaged weights; writes what they found, figures beside it."""
  step = int(state.seen)
  found, figures = {}, {}
  for name, evaluator in evaluators.items():
    found[name], drawn = evaluator(draw, sample.averaged(state))
    figures |= {f"{path.stem}_{name}_{title}.png": figure for title, figure in drawn.items()}
    logging.info("%s at step %d\n%s", name, step, table(found[name]))
  if jax.process_index() == 0:
    for file_name, figure in figures.items():
      pictures.save_png(path.with_name(file_name), figure)
    files.replace_json(path, found)
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
