"""Drawing samples with the averaged weights of a run."""

from collections.abc import Callable
import functools
import inspect
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dfim import checkpoint
from dfim import experiment as experiment_lib
from dfim import files
from dfim import pictures
from dfim import workdir as workdir_lib
from dfim.core import interpolants
from dfim.resolve import config_errors
from dfim.resolve import ConfigError
from dfim.resolve import resolve
from dfim.samplers import guidance

Array = jax.Array
Draw = Callable[..., np.ndarray]

DEFAULTS = dict(guidance=1.0, seed=0, chunk=500, limits=(-1.0, 1.0), count=64)
FIELDS = {"method", "grid", "steps", *DEFAULTS}


def make_draw(experiment: experiment_lib.Experiment) -> Draw:
  """Builds `draw(params, count, steps, first=0) -> [count, ...]` from `config.sampler`.

  Sample i is a function of the weights, the sampler's seed and i alone: its noise is keyed by i,
  and its label is i modulo the number of classes. Each number of steps is one XLA program, for
  chunks of a fixed size.

  Raises:
    ConfigError: naming the field, before anything is compiled.
  """
  with config_errors("sampler"):
    sampler = _options(experiment.config.sampler)
    one_chunk = _one_chunk(experiment, sampler)
    for steps in sampler["steps"]:
      one = functools.partial(one_chunk, steps=steps)
      jax.eval_shape(one, experiment.shapes.params, jnp.arange(2))
  everywhere = jax.NamedSharding(experiment.mesh, jax.P())
  one_chunk = jax.jit(one_chunk, static_argnames="steps", out_shardings=everywhere)

  def draw(params: Any, count: int, steps: int, first: int = 0) -> np.ndarray:
    size = sampler["chunk"]
    starts = range(first, first + count, size)  # the last chunk is drawn whole, then cut
    chunks = [
      jax.device_get(one_chunk(params, np.arange(n, n + size), steps=steps)) for n in starts
    ]
    return np.concatenate(chunks)[:count]

  return draw


def _options(config: Any) -> dict[str, Any]:
  options = {**DEFAULTS, **resolve(config, "sampler")}
  if set(options) != FIELDS:
    wrong = sorted(set(options) ^ FIELDS)[0]
    raise ConfigError(
      f"sampler.{wrong}: {'missing' if wrong in FIELDS else 'no such field'};"
      f" a sampler has {', '.join(sorted(FIELDS))}."
    )
  if not options["steps"] or min(options["chunk"], options["count"]) < 1:
    raise ConfigError("sampler: steps must not be empty, chunk and count at least 1.")
  if not callable(options["grid"]):
    raise ConfigError("sampler.grid.steps: give the numbers of steps in sampler.steps instead.")
  return options


def _one_chunk(
  experiment: experiment_lib.Experiment, sampler: dict[str, Any]
) -> Callable[..., Array]:
  f = experiment.f
  shape = experiment.batch["x"].shape[1:]
  classes = getattr(experiment.net, "num_classes", 0)
  apply = guidance.classifier_free(experiment.apply, sampler["guidance"])
  rows = jax.NamedSharding(experiment.mesh, jax.P("data"))

  def one_chunk(params: Any, indices: Array, *, steps: int) -> Array:
    root = jax.random.key(sampler["seed"])
    if len(indices) % experiment.mesh.size == 0:  # each device draws its share
      indices = jax.lax.with_sharding_constraint(indices, rows)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(root, i)))(indices)
    x = jnp.zeros((len(indices), *shape))
    cond = dict(label=indices % classes) if classes else None
    grid = ask(sampler["grid"], path=f.path, steps=steps)
    if grid.ndim == 1 and len(grid) != steps + 1:
      raise ValueError(f"steps={steps}: the grid takes {len(grid) - 1}; set sampler.steps to that.")
    return ask(
      sampler["method"],
      jump=lambda x, s, t: f(apply, params, x, s, t, cond),
      clean=lambda x, t: f.clean(apply, params, x, t, cond),
      key=keys[:, 1],
      x=f.sigma_data * interpolants.noise_like(keys[:, 0], x),
      grid=grid,
      path=f.path,
      sigma_data=f.sigma_data,
    )

  return one_chunk


def ask(function: Callable[..., Any], **offered: Any) -> Any:
  """Calls `function` with those of the offered arguments that its signature names."""
  wanted = inspect.signature(function).parameters
  return function(**{name: value for name, value in offered.items() if name in wanted})


def averaged(state: Any) -> Any:
  """The weights to sample with: the first average."""
  return next(iter(state.ema.values()))


def draw_each(
  experiment: experiment_lib.Experiment, draw: Draw, state: Any
) -> dict[int, np.ndarray]:
  """`config.sampler.count` samples of the same noise in each number of steps."""
  sampler = experiment.config.sampler
  count = sampler.get("count", DEFAULTS["count"])
  return {steps: draw(averaged(state), count, steps) for steps in sampler.steps}


def sheet(experiment: experiment_lib.Experiment, drawn: dict[int, np.ndarray]) -> np.ndarray:
  """What `draw_each` drew as one picture."""
  limits = experiment.config.sampler.get("limits", DEFAULTS["limits"])
  return pictures.panels(
    {
      f"{steps} step{'s' if steps > 1 else ''}": pictures.picture(x, limits)
      for steps, x in drawn.items()
    }
  )


def restored(experiment: experiment_lib.Experiment, workdir: str) -> tuple[Draw, Any]:
  """How to draw, and the newest state of `workdir`.

  Raises:
    ConfigError: if there is none, or another network's or objective's.
  """
  draw = make_draw(experiment)
  workdir_lib.check(workdir, experiment.config, ("model", "objective"))
  return draw, checkpoint.restore(workdir, experiment.abstract_state())


def sample(config: ml_collections.ConfigDict, workdir: str, *, devices: Any = None) -> pathlib.Path:
  """Draws `config.sampler.count` samples from the newest checkpoint (`--mode=sample`).

  Writes `samples/<step>.png`, and `samples/<step>.npz` with an array `[count, ...]` for each number
  of steps; returns the picture's path.
  """
  experiment = experiment_lib.build(config, devices=devices)
  draw, state = restored(experiment, workdir)
  drawn = draw_each(experiment, draw, state)
  path = pathlib.Path(workdir) / "samples" / f"{int(state.seen)}.png"
  pictures.save_png(path, sheet(experiment, drawn))
  arrays = {f"steps_{steps}": x for steps, x in drawn.items()}
  files.replace(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
  logging.info("Wrote %s, and the samples themselves beside it.", path)
  return path
