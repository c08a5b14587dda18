"""Compiles a config's training step and sampler for chips that are not there, and says what fits.

python -m dfim.main --config=configs/imm_imagenet256.py:S --mode=compile --topology=v5e:16x16

Needs no device and, with `data.shape` in the config, no data. Memory and collectives are those of
the compiled programs; times are estimates by a roofline. Nothing is measured.
"""

import pathlib
import time
from typing import Any

from absl import logging
import jax
import ml_collections

from dfim import parallel, sample, train
from dfim.config import errors, schema
from dfim.config.errors import ConfigError, FieldError
from dfim.io import atomic
from dfim.pods import report, rows as rows_lib, topology as topology_lib
from dfim.training import chips, experiment as experiment_lib, generator

_OF_GPUS = dict(xla_gpu_enable_triton_gemm=False)  # which looks for tiles on a GPU, or fails


class DoesNotFitError(Exception):
  """A program needs more memory than a chip has."""


def compile_config(
  config: ml_collections.ConfigDict, topology: str | None, slices: int = 1, out: str | None = None
) -> list[dict[str, Any]]:
  """Compiles and prints a report (`--mode=compile`); returns a row of numbers for each program.

  The programs are the training step and the sampler, in its fewest and its most steps. `out` is a
  folder for the rows, `row.json`, and the optimized HLO of each program.

  Raises:
    ConfigError: the config, the topology or the installation is wrong; nothing was compiled.
    DoesNotFitError: after the report, if a program does not fit.
  """
  experiment = _build(config, topology_lib.devices(topology, slices))
  if slices > 1 and chips.of(experiment.mesh.devices.flat[0]).network_rate is None:
    raise FieldError("--slices", slices, "their network is not published; compile one slice.")
  print(report.heading(experiment, topology, slices))
  rows = []
  for steps in (None, *sorted({min(experiment.sampler.steps), max(experiment.sampler.steps)})):
    row, text = compile_program(experiment, steps)
    rows.append(dict(topology=topology, slices=slices, **row))
    print(report.program(row), flush=True)
    if out:
      path = pathlib.Path(out)
      path.mkdir(parents=True, exist_ok=True)
      (path / ("step.hlo" if steps is None else f"sampler_{steps}.hlo")).write_text(text)
      atomic.replace_json(path / "row.json", rows)
  if refused := [row["program"] for row in rows if not row["fits"]]:
    raise DoesNotFitError(f"{' and '.join(refused)}: more memory than a chip of {topology} has.")
  return rows


def _build(config: ml_collections.ConfigDict, devices: list[Any]) -> experiment_lib.Experiment:
  """The experiment, without its data where the config states the shape of an example."""
  complete = schema.complete(config)
  with errors.config_errors():
    schema.check_kinds(complete)
    examples = generator.stated_examples(complete)
  try:
    return experiment_lib.build(config, devices=devices, examples=examples)
  except ConfigError as error:
    if examples is not None or not str(error).startswith("data"):
      raise
    raise ConfigError(f"{error}; or do without: set data.shape, as (32, 32, 3).") from error


def compile_program(
  experiment: experiment_lib.Experiment, steps: int | None
) -> tuple[dict[str, Any], str]:
  """The row of the sampler in `steps` steps, or of the training step; and the program's text."""
  row = rows_lib.Row(experiment, steps)
  logging.info("Compiling: %s. It takes minutes.", row.program)
  lowered = lower_step(experiment) if steps is None else sample.lower_draw(experiment, steps)
  gpu = experiment.mesh.devices.flat[0].platform == "gpu"
  start = time.monotonic()
  try:
    compiled = lowered.compile(compiler_options=_OF_GPUS if gpu else None)
  except jax.errors.JaxRuntimeError as error:
    if (memory := rows_lib.refusal(str(error))) is None:
      raise
    return row.refused(memory), str(error)
  seconds, text = time.monotonic() - start, compiled.as_text()
  return row.compiled(compiled.memory_analysis(), text) | dict(compile_seconds=seconds), text


def lower_step(experiment: experiment_lib.Experiment) -> jax.stages.Lowered:
  """The training step, of shapes alone."""
  place = lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where)
  rows = parallel.of_rows(experiment.mesh)
  batch = jax.tree.map(lambda a: place(a, rows), experiment.batch)
  root = place(jax.eval_shape(experiment.root), jax.NamedSharding(experiment.mesh, jax.P()))
  return train.step_of(experiment).lower(experiment.abstract_state(), batch, root)
