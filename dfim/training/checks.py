"""What a config must say before anything is traced; each refusal names the field and the fix.

Types, unknown names and missing arguments are `resolve`'s to refuse; shapes and times that do not
fit each other are found by tracing a step, in `experiment`.
"""

from collections.abc import Callable
import functools
import inspect
import json
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dfim.config import errors, resolve as resolve_lib
from dfim.core import conditioning, grouping, patterns, posterior, two_stream, weights
from dfim.io import inputs
from dfim.objectives import moment_matching, shortcut
from dfim.samplers import given as given_lib

ConfigError = errors.ConfigError

KINDS = {  # where dfim keeps each part: ours stand for no other kind, others' are taken as they are
  "data": "data",
  "model": "models",
  "objective": "objectives",
  "objective.f": "core.parameterization",
  "objective.f.path": "core.interpolants",
  "objective.sample_times": "core.times",
  "objective.sample_times.pattern": "core.patterns",
  "objective.sample_times.mapping": "core.mappings",
  "objective.particles": "core.particles",
  "objective.conditioning": "core.two_stream",
  "objective.conditioning.grouping": "core.grouping",
  "objective.conditioning.posterior": "core.posterior",
  "objective.kernel": "core.kernels",
  "objective.weight": "core.weights",
  "optimizer": "optax",
  "sampler.method": "samplers",
  "sampler.step": "samplers",
  "sampler.grid": "core.grids",
}
SIZES = "width depth heads channels blocks patch mlp_ratio mlp_width embed_multiplier".split()


def numbers(values: dict[str, Any]) -> None:
  """Refuses top-level numbers out of range."""
  counts = "steps batch_size refresh_every accumulate log_every checkpoint_every keep_checkpoints"
  least = dict.fromkeys(counts.split(), 1) | dict.fromkeys(
    "seed sample_every eval_every keep_every".split(), 0
  )
  for field, low in least.items():
    if values[field] < low:
      raise ConfigError(f"{field}={values[field]}: set it to {low} or more.")
  if values["seed"] >= 2**32:  # keys are made of the rest: seed 2^32 would be seed 0 again
    raise ConfigError(f"seed={values['seed']}: set it below 2^32.")
  if values["keep_every"] % values["checkpoint_every"]:
    raise ConfigError(
      f"keep_every={values['keep_every']}: set it to a multiple of"
      f" checkpoint_every={values['checkpoint_every']}, for only what is saved can be kept."
    )
  decays = [d for d in values["ema"] if isinstance(d, int | float) and 0.0 <= d < 1.0]
  if not decays or len(decays) < len(values["ema"]):
    raise ConfigError(f"ema={values['ema']!r}: give at least one decay, each in [0, 1).")


def plain(values: dict[str, Any]) -> None:
  """Refuses what `config.json` cannot hold, such as a path or a dtype in place of its name."""
  for field, value in values.items():
    try:
      json.dumps(value)
    except TypeError as error:
      raise ConfigError(f"{field}: {error}; give numbers, strings, lists and dicts.") from error


def kinds(config: ml_collections.ConfigDict) -> None:
  """Refuses a part without a name, and one of ours in the place of another kind."""
  for field, home in KINDS.items():
    spec = functools.reduce(lambda node, key: _get(node, key), field.split("."), config)
    if "." not in field and _get(spec, "name") is None:
      raise ConfigError(f"{field}: has no name; give it one, of {home}.* or of your own.")
    if _get(spec, "name") is not None:
      found = getattr(resolve_lib.find(spec["name"], field), "__module__", None) or ""
      if found.startswith("dfim.") and not f"{found}.".startswith(f"dfim.{home}."):
        raise ConfigError(f"{field}.name={spec['name']!r}: name one of {home}.*, or of your own.")


def _get(node: Any, key: str) -> Any:
  return node.get(key) if isinstance(node, dict | ml_collections.ConfigDict) else None


def network(net: Any) -> None:
  """Refuses sizes, rates and a type of numbers that no network could have."""
  if not hasattr(net, "apply"):
    raise ConfigError(f"model: {_name(net)} is no network; name one of models.*, or your own.")
  least = dict.fromkeys(SIZES, 1) | dict(num_classes=0, augment_dim=0)
  for field, low in least.items():
    value = getattr(net, field, low)
    if isinstance(value, int) and value < low:
      raise ConfigError(f"model.{field}={value}: set it to {low} or more.")
  if not 0.0 <= (getattr(net, "dropout", None) or 0.0) < 1.0:
    raise ConfigError(f"model.dropout={net.dropout}: set it in [0, 1), a share of the features.")
  if isinstance(getattr(net, "time_scale", None), int | float) and net.time_scale <= 0.0:
    raise ConfigError(f"model.time_scale={net.time_scale}: set it above 0.")
  if not _is_floating(getattr(net, "dtype", None) or "float32"):
    raise ConfigError(f"model.dtype={net.dtype!r}: set it to float32, bfloat16 or None.")


def _is_floating(dtype: Any) -> bool:
  try:
    return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
  except TypeError:  # no type at all
    return False


def objective(loss: Any, net: Any, reach: Any) -> None:
  """Refuses an objective that lacks a part, or would train on something else than it says."""
  given, function = getattr(loss, "keywords", {}), _function(loss)
  for p in inspect.signature(function).parameters.values():
    if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in given:
      raise ConfigError(f"objective.{p.name}: missing; {function.__module__} needs it.")
  sample_times = given.get("sample_times")
  fields = getattr(sample_times, "keywords", {})
  if fields.get("pattern") is None:
    raise ConfigError("objective.sample_times: give it a name, a pattern, t_max and t_min.")
  if function is moment_matching.loss and fields.get("mapping") is None:
    raise ConfigError(
      "objective.sample_times.mapping: missing, and without it r = t and nothing is learnt; name"
      " one of core.mappings.*"
    )
  if function in (moment_matching.loss, shortcut.loss):
    _jumps_from_noise(given["f"], fields.get("t_max", 1.0))
  if given.get("drop_rate", 0.0) == 1.0:
    raise ConfigError("objective.drop_rate=1.0: drops every condition; set it below 1.")
  _streams(function, given, fields["pattern"], net)
  _reach(reach, sample_times)


def _jumps_from_noise(f: Any, t_max: float) -> None:
  """Refuses jumps of a network that predicts noise from where there is no signal: 0 / 0."""
  with jax.ensure_compile_time_eval():
    if f.prediction == "eps" and f.path.alpha(t_max) <= 0.0:
      raise ConfigError(
        f"objective.sample_times.t_max={t_max}: pure noise, which core.parameterization.Noise"
        " divides by; lower it."
      )


def _streams(function: Any, given: dict[str, Any], pattern: Any, net: Any) -> None:
  """Refuses two streams without their pattern, network or clean context, and the reverse."""
  spec, of_two = two_stream.of(given), _function(pattern) is patterns.two_stream
  field, value = "objective.streams", given.get("streams", 1)
  one, two = "1", "2"
  if "conditioning" in inspect.signature(function).parameters:
    field, one, two = "objective.conditioning", "None", '{"name": "core.two_stream.TwoStream"}'
    value = two if spec.streams == 2 else one
  if of_two and spec.streams != 2:
    raise ConfigError(
      f"{field}={value}: the pattern two_stream needs two streams; set it to {two}, or give"
      ' objective.sample_times.pattern whole, such as {"name": "core.patterns.pivot"}.'
    )
  if spec.streams == 2 and not of_two:
    raise ConfigError(
      f"{field}={value}: objective.sample_times.pattern is of one stream; set {field}={one}, or"
      ' give the pattern whole: {"name": "core.patterns.two_stream"}.'
    )
  noisy = getattr(inspect.signature(pattern).parameters.get("noisy"), "default", 0.0)
  for rule in map(_function, (spec.grouping, spec.posterior)):
    if rule in (grouping.by_prefix, posterior.minibatch_mean) and noisy > 0.0:
      raise ConfigError(
        f"objective.sample_times.pattern.noisy={noisy}: {rule.__name__} needs 0.0; set that, or"
        f" objective.conditioning={two}, which has neither grouping nor posterior mean."
      )
  if spec.streams == 2 and "streams" not in inspect.signature(type(net).__call__).parameters:
    raise ConfigError(
      f"{field}={value}: {type(net).__name__} has one stream; set model.name="
      "models.causal_transformer.CausalTransformer."
    )
  if spec.streams == 2 and _function(given.get("weight")) is weights.fused_snr:
    raise ConfigError(
      "objective.weight: fused_snr would take the context for the past; use another."
    )


def _reach(reach: Any, sample_times: Any) -> None:
  """A number, or a schedule by step."""
  if reach != 1.0 and "reach" not in inspect.signature(sample_times).parameters:
    raise ConfigError("reach: only core.times.sample has one; leave it at 1.0.")
  if isinstance(reach, float) and not 0.0 < reach <= 1.0:
    raise ConfigError(f"reach={reach}: set it in (0, 1], or to a schedule.")
  if isinstance(reach, float):
    return
  resolve_lib.check(reach, Callable, "reach", "a schedule")
  fix = "reach: give a number in (0, 1] or a whole schedule, such as optax.linear_schedule"
  with errors.config_errors(fix):
    found = jax.eval_shape(reach, jax.ShapeDtypeStruct((), jnp.int32))
    if jax.tree.map(jnp.shape, found) != ():
      raise ValueError(f"this one gives {found}")


def optimizer(tx: Any, rate: Any = None) -> None:
  """Refuses what is no optimizer, waits for arguments or walks uphill."""
  if not hasattr(tx, "update"):
    raise ConfigError(
      f"optimizer: {_name(tx)} is none, or lacks an argument such as learning_rate; name one of"
      " optax.*, with all that it requires."
    )
  if isinstance(rate, int | float) and rate < 0.0:
    raise ConfigError(f"optimizer.learning_rate={rate}: set it above 0.")


def source(found: Any) -> None:
  """Refuses what does not make batches."""
  if not callable(found):
    raise ConfigError("data: gives no batches; name a source, such as data.digits.digits.")


def batch(found: dict[str, Any], net: Any) -> None:
  """Refuses examples without numbers, and labels or values that a network has no row for."""
  x = found["x"]
  if not x.size:
    raise ConfigError(f"data: examples of shape {x.shape[1:]} are empty; give others.")
  for name, array in _read(found).items():
    limits = given_lib.limits(name, array, net)
    if limits and array.min() < limits["low"]:
      raise ConfigError(f"data: {name} {array.min()}: count from 0; -1 stands for none.")
    if "high" in limits and array.max() > limits["high"]:  # would read NaN
      field = "num_classes" if name == "label" else "vocabulary"
      without = ", or to 0 for a network that ignores labels" if name == "label" else ""
      raise ConfigError(
        f"model.{field}={limits['high'] + 1}: the data have {name} {array.max()}; set it to how"
        f" many there are{without}."
      )


def first_batch(found: dict[str, Any], net: Any) -> None:
  """`batch`, and refuses numbers that are not finite, and classes without labels.

  Later batches are not searched: a step that meets such a number is skipped and counted.
  """
  x, mask = found["x"], found.get("mask")
  if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating):
    kind = getattr(x, "dtype", type(x).__name__)
    raise ConfigError(f"data: x of {kind}: give an array of floats, scaled to sigma_data.")
  conditioning.check(found.get("cond"), x.shape)
  if mask is not None:
    two_stream.check_mask(np.asarray(mask), x.shape)
  batch(found, net)
  read, classes = _read(found), getattr(net, "num_classes", 0)
  for name, array in dict(x=x if mask is None else np.where(mask, x, 0.0), **read).items():
    axes = ("example", *(f"axis {n}, place" for n in range(1, array.ndim)))
    inputs.numbers(array, f"data: {name}", array.shape, axes=axes)
  if classes and "label" not in read:
    raise ConfigError(
      f"model.num_classes={classes}: the data have no labels, and samples would be of classes that"
      " were never trained; set it to 0, or give the data labels."
    )


def _read(found: dict[str, Any]) -> dict[str, np.ndarray]:
  """The conditions that a network will read: what is padding may hold anything."""
  return jax.device_get(conditioning.hide(found.get("cond"), found.get("mask"))) or {}


def labels(occurring: Any, net: Any) -> tuple[int, ...]:
  """The classes to sample: those of the network that occur in the data, and others of none.

  `occurring` are the labels of the data, None where that is not known.
  """
  classes = range(getattr(net, "num_classes", 0))
  found = tuple(classes) if occurring is None else tuple(c for c in classes if c in occurring)
  if len(found) < len(classes):
    logging.warning(
      "model.num_classes=%d: the data have examples of %d classes; samples are of these alone, for"
      " the others are never trained.",
      len(classes),
      len(found),
    )
  return found


def limits(field: str, given: Any) -> None:
  """Refuses values of black and white that are not two numbers in rising order."""
  resolve_lib.check(given, tuple[float, float], field, "a picture")
  if not given[0] < given[1]:
    raise ConfigError(f"{field}={tuple(given)}: give the value of black, then white's above it.")


def takes(function: Any, count: int, field: str) -> None:
  """Refuses a function that cannot be called with `count` values and nothing else."""
  try:
    inspect.signature(function).bind(*range(count))
  except TypeError as error:
    raise ConfigError(f"{field}: {_name(function)} does not fit here, {error}.") from None
  except ValueError:  # a builtin that does not tell
    pass


def _function(part: Any) -> Any:
  """What a part of the config names, whatever arguments it has been given."""
  return getattr(part, "func", part)


def _name(part: Any) -> str:
  return getattr(_function(part), "__name__", type(part).__name__)
