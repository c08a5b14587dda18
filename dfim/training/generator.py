"""What samples are drawn with: a network, its objective and the form of its data."""

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import optax

from dfim import parallel
from dfim.config import errors, resolve as resolve_lib, schema
from dfim.core import parameterization, two_stream
from dfim.data import examples as examples_lib
from dfim.samplers import sampler as sampler_lib
from dfim.training import checks, chips, state as train_state

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Generator:
  """What sampling needs of an experiment; nothing that only training needs."""

  config: ml_collections.ConfigDict
  devices: Any  # None for all
  net: Any  # the linen module
  loss: Callable[..., tuple[Array, dict[str, Array]]]  # with its arguments bound
  examples: examples_lib.Examples

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """`config.fsdp` devices share a state, or as many as its size asks for (0)."""
    devices = jax.devices() if self.devices is None else self.devices
    size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(self.shapes))
    fsdp = self.config.fsdp or parallel.default_fsdp(size, devices, chips.memory(devices[0]))
    return parallel.make_mesh(devices, fsdp)

  @functools.cached_property
  def apply(self) -> parameterization.Apply:
    """The network, on the mesh."""
    return parallel.keep_rows(self.net.apply, self.mesh)

  @property
  def f(self) -> parameterization.Parameterization:
    return self.loss.keywords["f"]

  @property
  def batch(self) -> dict[str, Any]:
    """Shapes and dtypes of one global batch."""
    return self.examples.batch

  @functools.cached_property
  def sampler(self) -> sampler_lib.Sampler:
    return sampler_lib.parse(self.config.sampler)

  def init_params(self, key: Array) -> Any:
    """The network's parameters at step 0."""
    one = jax.tree.map(lambda a: jnp.zeros((1, *a.shape[1:]), a.dtype), self.batch)
    t = jnp.ones((1,) * one["x"].ndim)
    return self.net.init(key, one["x"], t, t, one.get("cond"))

  @functools.cached_property
  def param_shapes(self) -> Any:
    """Shapes and dtypes of the parameters; allocates nothing."""
    with errors.config_errors("model", self.config.model):
      return jax.eval_shape(self.init_params, jax.random.key(0))

  @functools.cached_property
  def shapes(self) -> train_state.TrainState:
    """Shapes and dtypes of what is read of a state: its numbers of steps and `ema_params`."""
    count = jax.ShapeDtypeStruct((), jnp.int32)
    ema = {str(self.config.ema[0]): self.param_shapes}
    return train_state.TrainState(count, None, None, ema, None, count)

  def shardings(self) -> train_state.TrainState:
    """The sharding of every array of the state."""
    return parallel.of_state(self.shapes, self.mesh)

  def abstract_state(self) -> train_state.TrainState:
    """Shapes, dtypes and shardings of the state; allocates nothing."""
    put = lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place)
    return jax.tree.map(put, self.shapes, self.shardings())

  def state_of(self, params: Any, tx: optax.GradientTransformation) -> train_state.TrainState:
    """The state at step 0 that has `params`."""
    config = self.config
    how = dict(ema=config.ema, refresh_every=config.refresh_every)
    return train_state.init(params, tx, **how)

  def ema_params(self, state: train_state.TrainState) -> Any:
    """The weights to sample, score and export: the average of the config's first decay."""
    return state.ema[str(self.config.ema[0])]


def parts(config: ml_collections.ConfigDict) -> tuple[Any, Callable[..., Any]]:
  """The network and the objective of a complete config."""
  net = resolve_lib.resolve(config.model, "model")
  loss = resolve_lib.resolve(config.objective, "objective")
  checks.network(net)
  checks.objective(loss, net)
  return net, loss


def optimizer_of(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """The optimizer of a complete config."""
  tx = resolve_lib.resolve(config.optimizer, "optimizer")
  checks.optimizer(tx, config.optimizer.get("learning_rate"))
  return tx


def source_of(config: ml_collections.ConfigDict, loss: Callable[..., Any]) -> Callable[..., Any]:
  """The source of a config's data, `(start, process) -> batches`."""
  spec = {key: value for key, value in config.data.to_dict().items() if key != "shape"}
  source = resolve_lib.resolve(spec, "data")
  if not callable(source):
    raise errors.ConfigError("data: gives no batches; name a source, as data.images.digits.digits.")
  return functools.partial(source, batch_size=_rows_read(config, loss), seed=config.seed)


def _rows_read(config: ml_collections.ConfigDict, loss: Callable[..., Any]) -> int:
  """Examples of a global batch, with those that serve as the reference batch alone."""
  return config.batch_size * two_stream.of(loss.keywords).reference


def first_batch(
  config: ml_collections.ConfigDict, source: Callable[..., Any], net: Any
) -> tuple[dict[str, Any], examples_lib.Examples]:
  """The first global batch, and its form."""
  with errors.config_errors("data", config.data):
    stream = source()
    batch = next(stream)
    checks.first_batch(batch, net)
  checks.shape(config.data.get("shape"), batch["x"].shape[1:])
  labels = checks.labels(getattr(stream, "labels", None), net)
  return batch, examples_lib.of_batch(batch, labels)


def stated_examples(config: ml_collections.ConfigDict) -> examples_lib.Examples | None:
  """The form of a complete config's batches by `data.shape`, without its data; None without it."""
  shape = checks.stated_shape(config.data.get("shape"))
  if shape is None:
    return None
  net, loss = parts(config)
  classes, augmented = getattr(net, "num_classes", 0), config.data.get("augment") is not None
  return examples_lib.of_shape(shape, _rows_read(config, loss), classes, augmented=augmented)


def build(
  config: ml_collections.ConfigDict, folder: str | os.PathLike, *, devices: Any = None
) -> Generator:
  """The generator of a run or an export, from its folder; of an older one, from its data too."""
  config = schema.complete(config)
  with errors.config_errors():
    schema.check_kinds(config)
    net, loss = parts(config)
    examples = examples_lib.read(folder, config.batch_size)
    if examples is None:
      logging.info("%s has no %s; opening the data.", folder, examples_lib.FILE)
      _, examples = first_batch(config, source_of(config, loss), net)
    generator = Generator(config, devices, net, loss, examples)
    generator.mesh  # noqa: B018, refuses `fsdp`
  return generator
