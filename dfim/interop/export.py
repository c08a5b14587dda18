"""Runs from weights and weights from runs: `--mode=import` and `--mode=export`.

An exported folder is `model.safetensors`, the averaged parameters by our flat names, and
`config.json`: what a sampler needs to know of the run.
"""

import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dfim import parallel
from dfim.checkpoints import checkpoint, checksums, workdir as workdir_lib
from dfim.config import moved
from dfim.config.errors import config_errors, ConfigError, FieldError
from dfim.config.resolve import resolve
from dfim.core import parameterization
from dfim.data import examples as examples_lib
from dfim.interop import names, safetensors, weights as weights_lib
from dfim.io import atomic
from dfim.training import generator as generator_lib, nonfinite, state as train_state

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MOST_BLOCKS = 1000  # of a network that a config.json of others describes
# How a network is trained and computed, not what it is: these may differ from the weights' own.
FREE = {"parent", "name", "remat", "scan", "dtype", "time_precision", "dropout"}


def export_run(
  config: ConfigDict, workdir: str, out: str | None, *, step: int | None = None, devices: Any = None
) -> pathlib.Path:
  """Writes the newest averaged weights, or `step`'s, to a new folder `out` (`--mode=export`)."""
  if out is None:
    raise ConfigError("out: missing; pass the folder to write, such as --out=exported.")
  _check_new("out", out)
  generator = generator_lib.build(config, workdir, devices=devices)
  workdir_lib.check(workdir, generator.config, ("model", "objective"))
  average = generator.abstract_state()
  state = checkpoint.restore(workdir, average, step=step, partial=True)
  everywhere = jax.NamedSharding(generator.mesh, jax.P())
  params = jax.jit(lambda tree: tree, out_shardings=everywhere)(generator.ema_params(state))
  folder = pathlib.Path(out)
  bad = [name for name, a in checksums.named(params).items() if not bool(jnp.isfinite(a).all())]
  if bad:
    line = f"{bad[0]} of step {int(state.seen)} is not finite; nothing written."
    raise nonfinite.NonFiniteError(line)
  if jax.process_index() == 0:
    safetensors.write(folder / WEIGHTS, names.to_arrays(params))
    examples_lib.write(folder, generator.examples, generator.sampler.count)
    atomic.replace_json(folder / CONFIG, describe(generator, int(state.seen)))
  logging.info("Wrote %s and the files that sampling needs.", folder / WEIGHTS)
  return folder


def import_weights(
  config: ConfigDict,
  workdir: str,
  weights: str | None,
  *,
  prefix: str = "",
  allow_pickle: bool = False,
  devices: Any = None,
) -> train_state.TrainState:
  """Makes a new `workdir` whose checkpoint of step 0 has `weights` (`--mode=import`).

  They are the parameters and all their averages. `weights` is a file, see `weights.load`, or a
  folder that `export_run` wrote; those of another network are refused before anything is written.
  """
  if weights is None:
    raise ConfigError("weights: missing; pass a file or an exported folder, --weights=...")
  _check_new("workdir", workdir)
  path = pathlib.Path(weights)
  folder = path if path.is_dir() else path.parent
  generator = generator_lib.build(config, folder, devices=devices)
  config = generator.config
  workdir_lib.check(workdir, config)
  with config_errors():
    if path.is_dir():
      net, f, _ = network(path)
      _check_same(path, (net, f), (generator.net, generator.f))
      path /= WEIGHTS
    wanted = generator.param_shapes
    params = weights_lib.load(path, wanted, prefix=prefix, allow_pickle=allow_pickle)
  init = functools.partial(generator.state_of, tx=generator_lib.optimizer_of(config))
  places = parallel.of_state(jax.eval_shape(init, wanted), generator.mesh)
  state = jax.jit(init, out_shardings=places)(params)
  workdir_lib.write_config(workdir, config)
  examples_lib.write(workdir, generator.examples, generator.sampler.count)
  with checkpoint.Checkpoints(workdir, config) as checkpoints:
    checkpoints.save(0, state, force=True)
  logging.info("Imported %s: --mode=sample, eval and train go on from %s.", path, workdir)
  return state


def load(folder: str | os.PathLike) -> tuple[Any, parameterization.Parameterization, Any]:
  """The network, f and parameters of an exported folder: `f(net.apply, params, x_t, s, t)`."""
  net, f, wanted = network(folder)
  with config_errors():
    return net, f, weights_lib.load(pathlib.Path(folder) / WEIGHTS, wanted)


def network(folder: str | os.PathLike) -> tuple[Any, parameterization.Parameterization, Any]:
  """The network, f and parameter shapes that the config.json of an exported folder describes."""
  path = pathlib.Path(folder) / CONFIG
  if not path.is_file():
    raise FieldError("weights", folder, f"no {CONFIG} there; pass an exported folder or a file.")
  is_example = lambda node: isinstance(node, dict) and set(node) == {"shape", "dtype"}
  example = lambda node: jax.ShapeDtypeStruct((1, *node["shape"]), node["dtype"])  # a batch of one
  with config_errors(str(path)):
    try:
      described = moved.translated(json.loads(path.read_text()))
      net = resolve(_ours(described["model"], "models."), f"{path}: model")
      f = resolve(_ours(described["f"], "core."), f"{path}: f")
      inputs = jax.tree.map(example, described["inputs"], is_leaf=is_example)
    except (KeyError, AttributeError, RecursionError) as error:
      raise ValueError(f"not as an export writes it, {error!r}") from None
    if not hasattr(net, "init") or not isinstance(f, parameterization.Parameterization):
      raise ValueError("model is no network, or f no parameterization")
    if not 0 < getattr(net, "depth", 1) <= MOST_BLOCKS:  # each would be traced
      raise ValueError(f"model.depth={net.depth}: from 1 to {MOST_BLOCKS} blocks are read")
    t = jnp.ones((1,) * inputs["x"].ndim)
    init = jax.eval_shape(net.init, jax.random.key(0), inputs["x"], t, t, inputs.get("cond"))
    return net, f, init


def describe(generator: generator_lib.Generator, step: int) -> dict[str, Any]:
  """What config.json says: network, f, its times, the sampler, one example's shapes, the step."""
  config, batch = generator.config, generator.batch
  times = generator.loss.keywords["sample_times"].keywords
  plain = lambda spec: {
    field.name: getattr(spec, field.name)
    for field in dataclasses.fields(spec)
    if isinstance(getattr(spec, field.name), int | float | str | tuple | None)
    and field.name not in ("parent", "name")
  }
  given = {name: batch[name] for name in ("x", "cond") if batch.get(name) is not None}
  return dict(
    model={**plain(generator.net), **config.model.to_dict()},
    f={**plain(generator.f), **config.objective.f.to_dict()},
    t_max=times["t_max"],
    t_min=times["t_min"],
    sampler=config.sampler.to_dict(),
    inputs=jax.tree.map(lambda a: dict(shape=a.shape[1:], dtype=str(a.dtype)), given),
    step=step,
    ema=str(config.ema[0]),
  )


def _check_new(field: str, folder: str) -> None:
  path = pathlib.Path(folder)
  if path.is_file() or path.is_dir() and any(path.iterdir()):
    raise FieldError(field, folder, "already exists; pass a new folder.")


def _ours(spec: Any, package: str) -> Any:
  """A description of others, which may name only what is in `package` of dfim."""
  if isinstance(spec, list):
    return tuple(_ours(part, package) for part in spec)
  if not isinstance(spec, dict):
    return spec
  spec = {key: _ours(part, package) for key, part in spec.items()}
  if "name" in spec:
    name = str(spec["name"]).removeprefix("dfim.")
    if not name.startswith(package):
      fix = f"is not of dfim.{package}*; import its weights with your own config."
      raise FieldError("name", name[:80], fix)
    spec["name"] = f"dfim.{name}"
  return spec


def _check_same(folder: pathlib.Path, there: Any, here: Any) -> None:
  """Refuses weights of a network or f that would take them for something else."""
  for label, a, b in zip(("model", "objective.f"), there, here, strict=True):
    if type(a) is not type(b):
      here, there = type(b).__name__, type(a).__name__
      raise ValueError(f"{label}: {here} in this config, {there} in {folder}.")
    for field in (field.name for field in dataclasses.fields(b) if field.name not in FREE):
      if getattr(a, field) != getattr(b, field):
        fix = f"{getattr(a, field)!r} in {folder}; set it to that, or import the file alone."
        raise ValueError(f"{label}.{field}={getattr(b, field)!r} in this config, {fix}")
