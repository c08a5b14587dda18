"""What a config must say before anything is traced; each refusal names the field and the fix.

Types, names and missing arguments are `resolve`'s; shapes are found by tracing, in `experiment`.
"""

import inspect
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from dfim.config import errors, resolve as resolve_lib
from dfim.config.errors import FieldError
from dfim.core import conditioning, patterns, two_stream
from dfim.io import inputs
from dfim.samplers import given as given_lib

ConfigError = errors.ConfigError

SIZES = "width depth heads channels blocks patch mlp_ratio mlp_width embed_multiplier".split()


def network(net: Any) -> None:
  """Refuses sizes, rates and dtypes that no network could have."""
  if not hasattr(net, "apply"):
    raise ConfigError(f"model: {_name(net)} is no network; name one of models.*, or your own.")
  least = dict.fromkeys(SIZES, 1) | dict(num_classes=0, augment_dim=0)
  for field, low in least.items():
    value = getattr(net, field, low)
    if isinstance(value, int) and value < low:
      raise FieldError(f"model.{field}", value, f"set it to {low} or more.")
  if not 0.0 <= (getattr(net, "dropout", None) or 0.0) < 1.0:
    raise FieldError("model.dropout", net.dropout, "set it in [0, 1), a share of the features.")
  if isinstance(getattr(net, "time_scale", None), int | float) and net.time_scale <= 0.0:
    raise FieldError("model.time_scale", net.time_scale, "set it above 0.")
  if not _is_floating(getattr(net, "dtype", None) or "float32"):
    raise FieldError("model.dtype", net.dtype, "set it to float32, bfloat16 or None.")


def _is_floating(dtype: Any) -> bool:
  try:
    return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
  except TypeError:  # no type at all
    return False


def objective(loss: Any, net: Any) -> None:
  """Refuses an objective that lacks a part, or would train on something else than it says."""
  given, function = getattr(loss, "keywords", {}), _function(loss)
  resolve_lib.check_missing(function, given, "objective", keyword_only=True)
  sample_times = given.get("sample_times")
  fields = getattr(sample_times, "keywords", {})
  if fields.get("pattern") is None:
    raise ConfigError("objective.sample_times: give it a name, a pattern, t_max and t_min.")
  if getattr(function, "inductive", False):
    _check_mapping(sample_times)
  if getattr(function, "jumps", False):
    _check_signal(given["f"], fields)
  if given.get("drop_rate", 0.0) == 1.0:
    raise FieldError("objective.drop_rate", 1.0, "drops every condition; set it below 1.")
  _streams(function, given, fields["pattern"], net)


def _check_mapping(sample_times: Any) -> None:
  """Refuses r = t, of which nothing is learnt."""
  takes = "mapping" in inspect.signature(sample_times).parameters
  if takes and sample_times.keywords.get("mapping") is None:
    fix = "without it r = t and nothing is learnt; name one of core.mappings.*"
    raise FieldError("objective.sample_times.mapping", None, fix)


def _check_signal(f: Any, fields: dict[str, Any]) -> None:
  """Refuses jumps from pure noise of a network that predicts noise: 0 / 0."""
  t_max = fields.get("t_max", 1.0)
  with jax.ensure_compile_time_eval():
    if f.prediction == "eps" and f.path.alpha(t_max) <= 0.0:
      fix = "pure noise, which core.parameterization.Noise divides by; lower it."
      raise FieldError("objective.sample_times.t_max", t_max, fix)


def _streams(function: Any, given: dict[str, Any], pattern: Any, net: Any) -> None:
  """Refuses two streams without their pattern, network or clean context, and the reverse."""
  spec, of_two = two_stream.of(given), patterns.streams(pattern) == 2
  two, field, options = spec.streams == 2, "objective.streams", ("1", "2")
  value = given.get("streams", 1)
  if "conditioning" in inspect.signature(function).parameters:
    field, options = "objective.conditioning", ("None", '{"name": "core.two_stream.TwoStream"}')
    value = options[two]
  if two != of_two:
    says, other = ("is of one stream", "two_stream") if two else ("needs two streams", "pivot")
    fix = f'set {field}={options[of_two]}, or it to {{"name": "core.patterns.{other}"}}.'
    raise FieldError(field, value, f"the pattern {says}; {fix}")
  noisy = getattr(inspect.signature(pattern).parameters.get("noisy"), "default", 0.0)
  for rule in map(_function, (spec.grouping, spec.posterior)):
    if getattr(rule, "clean_context", False) and noisy > 0.0:
      fix = f"{rule.__name__} needs 0.0; set that, or objective.conditioning={options[1]}."
      raise FieldError("objective.sample_times.pattern.noisy", noisy, fix)
  if two and "streams" not in inspect.signature(type(net).__call__).parameters:
    fix = f"{type(net).__name__} has one stream; use models.causal_transformer.CausalTransformer."
    raise FieldError(field, value, fix)
  weight = _function(given.get("weight"))
  if two and getattr(weight, "streams", 2) == 1:
    raise FieldError("objective.weight", weight, "takes the context for the past; use another.")


def optimizer(tx: Any, rate: Any = None) -> None:
  """Refuses anything but an optimizer, and a negative learning rate."""
  if not hasattr(tx, "update"):
    fix = "name one of optax.*, with learning_rate and all else that it requires."
    raise ConfigError(f"optimizer: {_name(tx)} is not a GradientTransformation; {fix}")
  if isinstance(rate, int | float) and rate < 0.0:
    raise FieldError("optimizer.learning_rate", rate, "set it above 0.")


def batch(found: dict[str, Any], net: Any) -> None:
  """Refuses empty examples, and labels or values that a network has no row for."""
  if not found["x"].size:
    raise ConfigError(f"data: examples of shape {found['x'].shape[1:]} are empty; give others.")
  for name, array in _read(found).items():
    limits = given_lib.limits(name, array, net)
    if limits and array.min() < limits["low"]:
      raise ConfigError(f"data: {name} {array.min()}: count from 0; -1 stands for none.")
    if "high" in limits and array.max() > limits["high"]:  # would read NaN
      field = "num_classes" if name == "label" else "vocabulary"
      fix = f"the data have {name} {array.max()}; set it to how many there are."
      raise ConfigError(f"model.{field}={limits['high'] + 1}: {fix}")


def first_batch(found: dict[str, Any], net: Any) -> None:
  """`batch`, and refuses numbers that are not finite, and classes without labels."""
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
    raise FieldError("model.num_classes", classes, "the data have no labels; set it to 0.")


def stated_shape(stated: Any) -> tuple[int, ...] | None:
  """The config's `data.shape`, the shape of one example; None where it states none."""
  if stated is None:
    return None
  if not isinstance(stated, list | tuple) or not stated:
    raise FieldError("data.shape", stated, "give the shape of one example, as (32, 32, 3).")
  return tuple(inputs.whole(n, "data.shape", low=1) for n in stated)


def shape(stated: Any, found: tuple[int, ...]) -> None:
  """Refuses examples of another shape than `data.shape` states."""
  if stated_shape(stated) not in (None, found):
    raise FieldError("data.shape", stated, f"the data have examples of {found}; set it to that.")


def _read(found: dict[str, Any]) -> dict[str, np.ndarray]:
  """The conditions that a network will read: what is padding may hold anything."""
  return jax.device_get(conditioning.hide(found.get("cond"), found.get("mask"))) or {}


def labels(occurring: Any, net: Any) -> tuple[int, ...]:
  """The classes to sample: those of the network that are `occurring` in the data, or all (None)."""
  classes = range(getattr(net, "num_classes", 0))
  found = tuple(c for c in classes if occurring is None or c in occurring)
  if len(found) < len(classes):
    text = "model.num_classes=%d: the data have %d classes; samples are of these alone."
    logging.warning(text, len(classes), len(found))
  return found


def _function(part: Any) -> Any:
  """What a part of the config names, whatever arguments it has been given."""
  return getattr(part, "func", part)


def _name(part: Any) -> str:
  return getattr(_function(part), "__name__", type(part).__name__)
