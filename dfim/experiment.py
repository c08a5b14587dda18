"""What a config describes, built and checked: nothing is compiled and nothing written here."""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import inspect
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from dfim import resolve as resolve_lib
from dfim import sharding
from dfim import train_state
from dfim.core import parameterization
from dfim.core import times
from dfim.core import weights

Array = jax.Array
ConfigError = resolve_lib.ConfigError

FIELDS = dict(  # every top-level field of a config, with its type
  seed=int,
  steps=int,
  batch_size=int,
  data=dict,
  model=dict,
  objective=dict,
  optimizer=dict,
  reach=(dict, float),
  ema=tuple,
  refresh_every=int,
  accumulate=int,
  fsdp=int,
  sampler=dict,
  evaluators=dict,
  log_every=int,
  checkpoint_every=int,
  keep_checkpoints=int,
  sample_every=int,
  eval_every=int,
)
DEFAULTS = dict(reach=1.0, refresh_every=1, accumulate=1, fsdp=1, evaluators={}, keep_checkpoints=3)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The functions that a config names; hyper-parameters and callables, no arrays."""

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  net: Any  # the linen module
  apply: parameterization.Apply
  loss: Callable[..., tuple[Array, dict[str, Array]]]
  f: parameterization.Parameterization
  tx: optax.GradientTransformation
  reach: Callable[[Array], Array] | float
  source: Callable[..., Iterator[dict[str, Any]]]
  batch: dict[str, Any]  # shapes and dtypes of one global batch

  def init(self, key: Array) -> train_state.TrainState:
    """The state at step 0."""
    one = jax.tree.map(lambda a: jnp.zeros((1, *a.shape[1:]), a.dtype), self.batch)
    t = jnp.ones((1,) * one["x"].ndim)
    params = self.net.init(key, one["x"], t, t, one.get("cond"))
    config = self.config
    return train_state.init(params, self.tx, ema=config.ema, refresh_every=config.refresh_every)

  @functools.cached_property
  def shapes(self) -> train_state.TrainState:
    """Shapes and dtypes of the state; allocates nothing."""
    return jax.eval_shape(self.init, jax.random.key(0))

  def places(self) -> train_state.TrainState:
    """The sharding of every array of the state."""
    return sharding.of_state(self.shapes, self.mesh)

  def abstract_state(self) -> train_state.TrainState:
    """Shapes, dtypes and shardings of the state; allocates nothing."""
    return jax.tree.map(
      lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place),
      self.shapes,
      self.places(),
    )

  def first_state(self) -> train_state.TrainState:
    """The state at step 0, made in its places."""
    key = jax.random.key(self.config.seed)
    return jax.jit(self.init, out_shardings=self.places())(key)

  def root(self) -> Array:
    """The key of training; each step folds its number into it."""
    return jax.random.fold_in(jax.random.key(self.config.seed), 1)

  def batches(self, start: int) -> Iterator[dict[str, Any]]:
    """This process's share of the training batches from number `start` on, on the devices."""
    process = (jax.process_index(), jax.process_count())
    for batch in self.source(start=start, process=process):
      yield sharding.put_batch(batch, self.mesh)


def build(config: ml_collections.ConfigDict, *, devices: Any = None) -> Experiment:
  """Resolves `config` and traces one training step, so that what is wrong is said here.

  Raises:
    ConfigError: one line with the field, its value and the fix.
  """
  config = _completed(config)
  with resolve_lib.config_errors():
    experiment = _resolved(config, sharding.make_mesh(devices, config.fsdp))
    _check_step(experiment)
  return experiment


def _resolved(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Experiment:
  named = lambda field: resolve_lib.resolve(config[field], field)
  net, loss, tx, source = map(named, ("model", "objective", "optimizer", "data"))
  _check_sizes(net)
  _check_times(loss, net, config.reach)
  group_size = loss.keywords.get("group_size", 1)
  sharding.check_batch(config.batch_size, group_size, mesh, config.accumulate)
  source = functools.partial(source, batch_size=config.batch_size, seed=config.seed)
  batch = next(source())
  _warn_of_scale(batch["x"], loss.keywords["f"].sigma_data)
  _check_labels(batch.get("cond") or {}, getattr(net, "num_classes", 0))
  return Experiment(
    config=config,
    mesh=mesh,
    net=net,
    apply=net.apply,
    loss=loss,
    f=loss.keywords["f"],
    tx=tx,
    reach=named("reach"),
    source=source,
    batch=jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch),
  )


def _check_step(experiment: Experiment) -> None:
  """Traces the loss without computing it: shapes and times that do not fit raise here."""
  params, count = experiment.shapes.params, experiment.config.accumulate
  part = lambda a: jax.ShapeDtypeStruct((a.shape[0] // count, *a.shape[1:]), a.dtype)
  jax.eval_shape(
    functools.partial(experiment.loss, functools.partial(experiment.apply, train=True)),
    params,
    params,
    jax.tree.map(part, experiment.batch),
    jax.random.key(0),
  )


def _completed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A copy with defaults filled in, refused if a field is unknown, missing or of another type."""
  for field in config:
    if field not in FIELDS:
      raise ConfigError(f"{field}: no such config field{resolve_lib.near(field, FIELDS)}.")
  values = {**DEFAULTS, **config.to_dict()}
  for field, kind in FIELDS.items():
    if field not in values:
      raise ConfigError(f"{field}: missing from the config; it takes {_kinds(kind)}.")
    value = values[field]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
      raise ConfigError(f"{field}={value!r}: wants {_kinds(kind)}.")
  positive = ("steps", "batch_size", "refresh_every", "accumulate", "log_every", "checkpoint_every")
  for field in positive:
    if values[field] < 1:
      raise ConfigError(f"{field}={values[field]}: set it to 1 or more.")
  if values["seed"] < 0:
    raise ConfigError(f"seed={values['seed']}: set it to 0 or more.")
  if not values["ema"] or not all(0.0 <= decay < 1.0 for decay in values["ema"]):
    raise ConfigError(f"ema={values['ema']!r}: give at least one decay, each in [0, 1).")
  return ml_collections.ConfigDict(values)


def _kinds(kind: Any) -> str:
  kinds = kind if isinstance(kind, tuple) else (kind,)
  return " or ".join(k.__name__ for k in kinds)


def _check_sizes(net: Any) -> None:
  for field in ("width", "depth", "heads"):
    if getattr(net, field, 1) < 1:
      raise ConfigError(f"model.{field}={getattr(net, field)}: set it to 1 or more.")


def _check_times(loss: Any, net: Any, reach: Any) -> None:
  """What would train on something else than it says."""
  sample_times, streams = loss.keywords.get("sample_times"), loss.keywords.get("streams", 1)
  pattern = getattr(sample_times, "keywords", {}).get("pattern")
  if pattern is None:
    raise ConfigError("objective.sample_times: give it a name, a pattern, t_max and t_min.")
  if (getattr(pattern, "func", pattern) is times.two_stream) != (streams == 2):
    raise ConfigError(
      f"objective.streams={streams}: 2 goes with objective.sample_times.pattern.name="
      "core.times.two_stream, and that pattern with 2; change one of the two."
    )
  if streams == 2 and "streams" not in inspect.signature(type(net).__call__).parameters:
    raise ConfigError(
      f"objective.streams=2: {type(net).__name__} has one stream; set model.name="
      "models.causal_transformer.CausalTransformer."
    )
  weight = loss.keywords.get("weight")
  if streams == 2 and getattr(weight, "func", weight) is weights.fused_snr:
    raise ConfigError(
      "objective.weight: fused_snr would take the context for the past; use another."
    )
  if reach != 1.0 and "reach" not in inspect.signature(sample_times).parameters:
    raise ConfigError("reach: only core.times.sample has one; leave it at 1.0.")


def _check_labels(cond: dict[str, np.ndarray], classes: int) -> None:
  """A label beyond the table of a network's classes would read NaN."""
  if classes and "label" in cond and cond["label"].max() >= classes:
    raise ConfigError(
      f"model.num_classes={classes}: the data have label {cond['label'].max()}; set it to their"
      " number of classes, or to 0 for a network that ignores labels."
    )


def _warn_of_scale(x: np.ndarray, sigma_data: float) -> None:
  std = float(np.std(x))
  if not 0.5 < std / sigma_data < 2.0:
    logging.warning(
      "The data's standard deviation is %.3g, sigma_data is %.3g: scale one to the other.",
      std,
      sigma_data,
    )
