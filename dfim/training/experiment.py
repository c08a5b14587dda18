"""What a config describes, built and checked: nothing is compiled and nothing written here."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from dfim import parallel
from dfim.config import errors, resolve as resolve_lib, schedules
from dfim.core import parameterization, two_stream
from dfim.data import identity
from dfim.training import checks, state as train_state

Array = jax.Array
ConfigError = errors.ConfigError

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
  keep_every=int,
  sample_every=int,
  eval_every=int,
)
DEFAULTS = dict(
  reach=1.0,
  refresh_every=1,
  accumulate=1,
  fsdp=1,
  evaluators={},
  keep_checkpoints=3,  # the newest
  keep_every=0,  # and, unless it is 0, those of its multiples for good
)


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
  source: Callable[..., Iterator[dict[str, Any]]]
  batch: dict[str, Any]  # shapes and dtypes of one global batch
  labels: tuple[int, ...] = ()  # the classes to sample, over and over; none without classes

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
    return parallel.of_state(self.shapes, self.mesh)

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

  def ema_params(self, state: train_state.TrainState) -> Any:
    """The weights to sample, score and export: the average of the config's first decay."""
    return state.ema[str(self.config.ema[0])]

  def data_identity(self) -> dict[str, Any]:
    """Which data the config names; reads some of them."""
    with errors.config_errors("data", self.config.data):
      return identity.identity(self.source)

  def root(self) -> Array:
    """The key of training; each step folds its number into it."""
    return jax.random.fold_in(jax.random.key(self.config.seed), 1)

  def batches(self, start: int) -> Iterator[dict[str, Any]]:
    """This process's share of the training batches from number `start` on, on the devices.

    Raises:
      ConfigError: a label is beyond the network's classes, which an embedding would read as NaN.
    """
    process = (jax.process_index(), jax.process_count())
    for batch in self.source(start=start, process=process):
      checks.batch(batch, self.net)
      yield parallel.put_batch(batch, self.mesh)


def build(config: ml_collections.ConfigDict, *, devices: Any = None) -> Experiment:
  """Resolves `config` and traces one training step, so that what is wrong is said here.

  Raises:
    ConfigError: one line with the field, its value and the fix.
  """
  config = _completed(config)
  with errors.config_errors():
    checks.kinds(config)
    experiment = _resolved(config, parallel.make_mesh(devices, config.fsdp))
    _check_step(experiment)
  return experiment


def _resolved(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Experiment:
  named = lambda field: resolve_lib.resolve(config[field], field)
  net, loss, tx, source, reach = map(named, "model objective optimizer data reach".split())
  checks.network(net)
  checks.objective(loss, net, reach)
  checks.optimizer(tx, config.optimizer.get("learning_rate"))
  checks.source(source)
  group_size = loss.keywords.get("group_size", 1)
  parallel.check_batch(config.batch_size, group_size, mesh, config.accumulate)
  read = config.batch_size * two_stream.of(loss.keywords).reference
  source = functools.partial(source, batch_size=read, seed=config.seed)
  with errors.config_errors("data", config.data):
    stream = source()
    batch = next(stream)
    checks.first_batch(batch, net)
  _warn_of_scale(batch["x"], loss.keywords["f"].sigma_data)
  _warn_of_window(batch["x"], net)
  return Experiment(
    config=config,
    mesh=mesh,
    net=net,
    apply=net.apply,
    loss=_within(reach, loss),
    f=loss.keywords["f"],
    tx=tx,
    source=source,
    batch=jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), batch
    ),
    labels=checks.labels(getattr(stream, "labels", None), net),
  )


def _within(reach: Any, loss: Callable[..., Any]) -> Callable[..., Any]:
  """The objective whose jumps are no longer than `reach`, a number or a schedule."""
  if reach == 1.0:
    return loss
  return functools.partial(
    loss, sample_times=functools.partial(loss.keywords["sample_times"], reach=reach)
  )


def _check_step(experiment: Experiment) -> None:
  """Traces the loss and the update without computing them: what does not fit raises here."""
  config, count = experiment.config, experiment.config.accumulate
  with errors.config_errors("model", config.model):
    params, opt_state = experiment.shapes.params, experiment.shapes.opt_state
  part = lambda a: jax.ShapeDtypeStruct((a.shape[0] // count, *a.shape[1:]), a.dtype)
  batch = jax.tree.map(part, experiment.batch)
  apply = functools.partial(experiment.apply, train=True)
  with errors.config_errors("objective", config.objective):
    first, last = (schedules.at_step(experiment.loss, n) for n in (0, config.steps))
    for objective in (first,) if first is last else (first, last):  # one, without a schedule
      loss = functools.partial(objective, apply)
      jax.eval_shape(loss, params, params, batch, jax.random.key(0))
  with errors.config_errors("optimizer", config.optimizer):
    jax.eval_shape(experiment.tx.update, params, opt_state, params)


def _completed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A copy with defaults filled in, refused if a field is unknown, missing or of another type."""
  for field in config:
    if field not in FIELDS:
      raise ConfigError(f"{field}: no such config field{errors.suggest(field, FIELDS)}.")
  values = {**DEFAULTS, **config.to_dict()}
  for field, kind in FIELDS.items():
    if field not in values:
      raise ConfigError(f"{field}: missing from the config; it takes {_kinds(kind)}.")
    value = values[field]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
      raise ConfigError(f"{field}={value!r}: wants {_kinds(kind)}.")
  checks.numbers(values)
  checks.plain(values)
  return ml_collections.ConfigDict(values)


def _kinds(kind: Any) -> str:
  kinds = kind if isinstance(kind, tuple) else (kind,)
  return " or ".join(k.__name__ for k in kinds)


def _warn_of_window(x: np.ndarray, net: Any) -> None:
  window = getattr(net, "window", None) or x.shape[1]
  if window < x.shape[1]:
    logging.warning(
      "The data's sequences have %d tokens, and model.window=%d is all that one sees: if that is"
      " not meant, set it and sampler.method.window to %d.",
      x.shape[1],
      window,
      x.shape[1],
    )


def _warn_of_scale(x: np.ndarray, sigma_data: float) -> None:
  std = float(np.std(x))
  if not 0.5 < std / sigma_data < 2.0:
    logging.warning(
      "The data's standard deviation is %.3g, sigma_data is %.3g: scale one to the other.",
      std,
      sigma_data,
    )
