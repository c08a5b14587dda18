"""What a config describes, built and checked: nothing is compiled and nothing written here."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np
import optax

from dfim import parallel
from dfim.config import errors, schedules, schema
from dfim.core import two_stream
from dfim.core.scales import Scales
from dfim.data import identity
from dfim.training import checks, generator, state as train_state

Array = jax.Array
ConfigError = errors.ConfigError


@dataclasses.dataclass(frozen=True)
class Experiment(generator.Generator):
  """The functions that a config names; hyper-parameters and callables, no arrays."""

  tx: optax.GradientTransformation
  source: Callable[..., Iterator[dict[str, Any]]]

  def init(self, key: Array) -> train_state.TrainState:
    """The state at step 0."""
    return self.state_of(self.init_params(key), self.tx)

  @functools.cached_property
  def shapes(self) -> train_state.TrainState:
    """Shapes and dtypes of the state; allocates nothing."""
    return jax.eval_shape(self.init, jax.random.key(0))

  def first_state(self) -> train_state.TrainState:
    """The state at step 0, made in its places."""
    key = jax.random.key(self.config.seed)
    return jax.jit(self.init, out_shardings=self.shardings())(key)

  def data_identity(self) -> dict[str, Any]:
    """Which data the config names; reads some of them."""
    with errors.config_errors("data", self.config.data):
      return identity.identity(self.source)

  def root(self) -> Array:
    """The key of training; each step folds its number into it."""
    return jax.random.fold_in(jax.random.key(self.config.seed), 1)

  def batches(self, start: int) -> Iterator[dict[str, Any]]:
    """This process's share of the training batches from number `start` on, on the devices."""
    process = (jax.process_index(), jax.process_count())
    for batch in self.source(start=start, process=process):
      checks.batch(batch, self.net)
      yield parallel.put_batch(batch, self.mesh)


def build(
  config: ml_collections.ConfigDict, *, devices: Any = None, examples: Any = None
) -> Experiment:
  """Resolves `config` and traces one training step; a ConfigError names the field that is wrong.

  `examples`, see `generator.stated_examples`, stand for data that are not opened.
  """
  config = schema.complete(config)
  with errors.config_errors():
    schema.check_kinds(config)
    net, loss = generator.parts(config)
    tx = generator.optimizer_of(config)
    group_size, count = loss.keywords.get("group_size", 1), len(devices or jax.devices())
    parallel.check_batch(config.batch_size, group_size, count, config.accumulate)
    source = generator.source_of(config, loss)
    batch = None
    if examples is None:
      batch, examples = generator.first_batch(config, source, net)
    loss = _with_scales(loss, batch, examples)
    experiment = Experiment(config, devices, net, loss, examples, tx, source)
    if batch is not None:
      _warn(batch["x"], experiment)
    _check_step(experiment)
  return experiment


def _with_scales(loss: Any, batch: dict[str, Any] | None, examples: Any) -> Any:
  """The objective with scales of the first batch; of zeros, where no data are opened."""
  if batch is None:
    few = 2 * two_stream.of(loss.keywords).reference
    batch = jax.tree.map(lambda a: np.zeros((few, *a.shape[1:]), a.dtype), examples.batch)
  return two_stream.fitted(loss, batch)


def _check_step(experiment: Experiment) -> None:
  """Traces the loss and the update: what does not fit raises here."""
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


def _warn(x: np.ndarray, experiment: Experiment) -> None:
  """Logs the scales that were found, and a scale or a window that is probably not meant."""
  scales = two_stream.of(experiment.loss.keywords).scales
  if isinstance(scales, Scales):
    logging.info("%s", scales.describe())
  std, sigma_data = float(np.std(x)), experiment.f.sigma_data
  if not 0.5 < std / sigma_data < 2.0:
    text = "The data's standard deviation is %.3g, sigma_data is %.3g: scale one to the other."
    logging.warning(text, std, sigma_data)
  window = getattr(experiment.net, "window", None) or x.shape[1]
  if window < x.shape[1]:
    text = "The data have %d tokens, and model.window=%d is all that one sees: is that meant?"
    logging.warning(text, x.shape[1], window)
