"""Scores of a run's averaged weights: `eval/<step>.json`, a table in the log, pictures.

`--mode=eval` writes `eval/<step>_<n>.json`, the smallest free n. A score is null if it has no value
or is not finite; the latter ends the run with an error.
"""

from collections.abc import Callable, Iterable
import functools
import inspect
import json
import pathlib
import sys
import typing
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from dfim import sample
from dfim.config.errors import config_errors, ConfigError, FieldError
from dfim.config.resolve import check_call, resolve
from dfim.io import atomic, inputs
from dfim.samplers import given as given_lib
from dfim.training import generator as generator_lib
from dfim.viz import images as pictures

Evaluator = Callable[[sample.Draw, Any], tuple[dict[str, Any], dict[str, np.ndarray]]]


class ScoreError(RuntimeError):
  """Evaluators that failed, or found scores that are not finite, in one line."""

  def __init__(self, message: str, found: dict[str, Any]):
    super().__init__(message)
    self.found = found


def build(generator: generator_lib.Generator) -> dict[str, Evaluator]:
  """The evaluators that `config.evaluators` names: `(draw, params) -> (values, figures)`.

  If the module of an evaluator `scores` has a function `check_scores`, that is called with the
  evaluator's keyword arguments, to raise ValueError for those that cannot work. It may also ask for
  `shape`, of an example, `labels`, of the samples, `any_length`, whether the sampler draws
  sequences of any length, and `check_cond(cond, count)`, which refuses conditions of samples.
  """
  config, sampler = generator.config, generator.sampler
  shape = generator.batch["x"].shape[1:]
  any_length = sampler.rollout is not None and sampler.rollout.length is None
  labels = generator.examples.labels
  check_cond = lambda cond, count: given_lib.check(
    generator.batch, generator.net, count, labels=labels, cond=cond
  )
  offered = dict(shape=shape, labels=labels, any_length=any_length, check_cond=check_cond)
  with config_errors("evaluators", config.evaluators):
    built = resolve(config.evaluators, "evaluators")
  for name, evaluator in built.items():
    if not callable(evaluator):
      raise ConfigError(f"evaluators.{name}: give a dict with the name of an evaluator.")
    check_call(evaluator, 2, f"evaluators.{name}")
    given = getattr(evaluator, "keywords", {})
    _check_numbers(evaluator, f"evaluators.{name}")
    _check_shapes(given, f"evaluators.{name}", shape)
    _check_steps(evaluator, f"evaluators.{name}.steps", generator)
    with config_errors(f"evaluators.{name}", config.evaluators[name]):
      _check_arguments(evaluator, offered)
  return built


def _check_arguments(evaluator: Evaluator, offered: dict[str, Any]) -> None:
  """Calls the check of an evaluator's own module, if it has one; see `build`."""
  function = getattr(evaluator, "func", evaluator)
  name = f"check_{getattr(function, '__name__', '')}"
  check = getattr(sys.modules.get(getattr(function, "__module__", None)), name, None)
  if check is None:
    return
  given = getattr(evaluator, "keywords", {})
  wanted = set(inspect.signature(check).parameters) - set(given)
  check(**given, **{name: value for name, value in offered.items() if name in wanted})


def _check_numbers(evaluator: Evaluator, field: str) -> None:
  """Refuses counts that are no whole numbers or too small, and limits out of order."""
  parameters = inspect.signature(getattr(evaluator, "func", evaluator)).parameters
  given = getattr(evaluator, "keywords", {})
  for name, value in given.items():
    low = _least(parameters.get(name), 0 if name == "seed" else 1, value)
    if low is not None:
      inputs.whole(value, f"{field}.{name}", low=low)
  if "limits" in given:
    inputs.limits(given["limits"], f"{field}.limits")


def _least(parameter: inspect.Parameter | None, least: int, value: Any) -> int | None:
  """The smallest that `value` may be, which is a count; None where it is none."""
  annotation = getattr(parameter, "annotation", inspect.Parameter.empty)
  default = getattr(parameter, "default", None)
  if annotation not in (int, inspect.Parameter.empty) and int not in typing.get_args(annotation):
    return None
  if type(default) is int:
    return min(default, least)
  return least if type(value) is int else None


def _check_shapes(given: dict[str, Any], field: str, shape: tuple[int, ...]) -> None:
  """Refuses references of other shapes than what is drawn; sequences may be longer, a rollout."""
  free = 1 if len(shape) == 2 else 0
  for name, value in given.items():
    x = value.get("x") if isinstance(value, dict) and name != "images" else None  # FID's are RGB
    found = getattr(x, "shape", None)
    if found and (len(found), found[1 + free :]) != (1 + len(shape), shape[free:]):
      there = f"examples of shape {found[1:]}, samples of shape {shape}"
      raise ConfigError(f"{field}.{name}: {there}; name the same data.")


def _check_steps(evaluator: Evaluator, field: str, generator: generator_lib.Generator) -> None:
  """Refuses numbers of steps that the sampler's grid does not take."""
  wanted = inspect.signature(evaluator).parameters.get("steps")
  if wanted is None or wanted.default is wanted.empty:
    return
  steps = wanted.default
  steps = list(steps) if isinstance(steps, list | tuple) else [steps]
  if not steps or any(type(k) is not int or k < 1 for k in steps):
    raise FieldError(field, steps, "give 1 or more, each at least 1.")
  for k in steps:
    with config_errors(field):
      jax.eval_shape(functools.partial(generator.sampler.times, generator.f.path, k))


def evaluate(
  config: ml_collections.ConfigDict, workdir: str, *, step: int | None = None, devices: Any = None
) -> dict[str, Any]:
  """Scores the newest checkpoint of `workdir`, or `step`'s (`--mode=eval`); values by name.

  Writes `eval/<step>_<n>.json`, with the smallest free n, and figures. Raises as `run`.
  """
  generator = generator_lib.build(config, workdir, devices=devices)
  evaluators = build(generator)
  if not evaluators:
    raise ConfigError("evaluators={}: name one, as configs/imm_digits.py; docs/scores.md has FID.")
  draw, state = sample.restore(generator, workdir, ("model", "objective", "data"), step)
  seen, params = int(state.seen), generator.ema_params(state)
  return run(evaluators, draw, params, atomic.numbered(path_of(workdir, seen)), seen)


def path_of(workdir: str, step: int) -> pathlib.Path:
  """Where the scores lie that training found after `step`."""
  return pathlib.Path(workdir) / "eval" / f"{step}.json"


def is_complete(path: pathlib.Path, evaluators: Iterable[str]) -> bool:
  """Whether `path` holds scores of all `evaluators`, by name: none raised or is yet to run."""
  try:
    return set(json.loads(path.read_text())) >= set(evaluators)
  except (OSError, ValueError):
    return False


def run(
  evaluators: dict[str, Evaluator], draw: sample.Draw, params: Any, path: pathlib.Path, step: int
) -> dict[str, Any]:
  """Runs all `evaluators` on `params`, the averaged weights of `step`; returns their values.

  Writes `path`, which is replaced after each evaluator, and its figures in the same folder. An
  evaluator that fails is logged, and the others follow, except of several processes, which wait.
  Failures, and scores that are not finite, are a ScoreError at the end.
  """
  found, failures, first = {}, {}, jax.process_index() == 0
  for name, evaluator in evaluators.items():
    try:
      values, figures = evaluator(draw, params)
      if first:
        atomic.replace_json(path, found | {name: values})
      found[name] = values
      failures |= _not_finite(name, values)
      logging.info("%s at step %d\n%s", name, step, table(values))
      for title, figure in figures.items() if first else ():
        pictures.save_png(path.with_name(f"{path.stem}_{name}_{title}.png"), figure)
    except Exception as error:
      logging.exception("The evaluator %s failed at step %d.", name, step)
      failures[name] = " ".join(f"{type(error).__name__}: {error}".split())
      if jax.process_count() > 1:
        break
  if failures:
    lines = "; ".join(f"{name} ({fault})" for name, fault in failures.items())
    written = f"{path} holds the other scores" if found else "no score was found"
    raise ScoreError(f"evaluators failed at step {step}: {lines}; {written}.", found)
  return found


def _not_finite(name: str, values: dict[str, Any]) -> dict[str, str]:
  """Which of an evaluator's values are not finite, by its name; also logged."""
  leaves = jax.tree_util.tree_leaves_with_path({name: values})
  paths = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, leaf in leaves
    if not isinstance(leaf, str) and not np.isfinite(np.asarray(leaf, float)).all()
  ]
  for path in paths:
    logging.error("The score %s is not finite, and null in the file.", path)
  return {name: f"not finite: {', '.join(paths)}"} if paths else {}


def table(values: dict[str, Any]) -> str:
  """Single values a line each, then the rows of scores under their names; "-" is no value."""
  rows = {name: row for name, row in values.items() if isinstance(row, dict)}
  lines = [f"{name}: {value}" for name, value in values.items() if name not in rows]
  if rows:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = {name: [_cell(row, column) for column in columns] for name, row in rows.items()}
    margin = max(map(len, rows)) + 2
    widths = [
      max(11, len(column) + 2, *(len(row[n]) + 1 for row in cells.values()))
      for n, column in enumerate(columns)
    ]
    line = lambda texts: "".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True))
    lines.append(" " * margin + line(columns))
    lines += [f"{name:<{margin}}{line(row)}" for name, row in cells.items()]
  return "\n".join(lines)


def _cell(row: dict[str, Any], column: str) -> str:
  """A number in four digits, "-" for None, nothing where the row has no such column."""
  value = row.get(column, "")
  if value is None:
    return "-"
  is_number = not isinstance(value, str | list | tuple | dict) and np.ndim(value) == 0
  return f"{float(value):.4g}" if is_number else str(value)


def flat(found: dict[str, Any], prefix: str = "") -> dict[str, float]:
  """The numbers among `found`, by path as TensorBoard takes it: "images/2_steps/frechet".

  Text, lists and None, which is no value, are left out.
  """
  numbers = {}
  for name, value in found.items():
    path = prefix + name.replace(" ", "_")
    if isinstance(value, dict):
      numbers |= flat(value, f"{path}/")
    elif not isinstance(value, str | list | tuple | None) and np.size(value) == 1:
      numbers[path] = value
  return numbers
