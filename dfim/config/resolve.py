"""From config to functions: `dict(name="core.kernels.rbf", ...)` names a Python object.

The rest of the dict are its keyword arguments; nested dicts with a name come first. A class, or a
function that the config gives everything it requires (an optimizer, a schedule), is called; a
function that still waits for arguments is partially applied. A name is looked up under `dfim`
first; give the full path, such as "my_project.kernels.mine", for your own.
"""

from collections.abc import Callable
import functools
import importlib
import inspect
import math
from typing import Any

import jax
import ml_collections

from dfim.config import annotations, moved
from dfim.config.errors import config_errors, FieldError, suggest

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def resolve(spec: Any, field: str = "config") -> Any:
  """The object that `spec`, a value or a dict (a `ConfigDict` too) with a `name`, describes.

  A FieldError names the field, from `field` on, with an unknown name or argument or a wrong type.
  """
  if isinstance(spec, ml_collections.ConfigDict):
    spec = spec.to_dict()
  if isinstance(spec, dict):
    resolved = {k: resolve(v, f"{field}.{k}") for k, v in spec.items() if k != "name"}
    return _build(spec["name"], resolved, field) if "name" in spec else resolved
  for value in jax.tree.leaves(spec) if isinstance(spec, list | tuple) else (spec,):
    if isinstance(value, float) and not math.isfinite(value):
      raise FieldError(field, spec, "wants finite numbers.")
  return spec


def _build(name: str, kwargs: dict[str, Any], field: str) -> Any:
  target = find(name, field)
  with config_errors(f"{field}.name={name!r}"):
    signature = inspect.signature(target)
  given = lambda p: p.name in kwargs or p.default is not p.empty or p.kind in _VARIABLE
  if inspect.isclass(target) or all(map(given, signature.parameters.values())):
    return call(target, kwargs, field)
  check_arguments(target, kwargs, field)
  return functools.partial(target, **kwargs) if kwargs else target


def call(target: Callable[..., Any], kwargs: dict[str, Any], field: str) -> Any:
  """`target(**kwargs)`, whose arguments are those at `field`."""
  check_arguments(target, kwargs, field)
  check_missing(target, kwargs, field)
  with config_errors(field, kwargs):
    return target(**kwargs)


def check_missing(
  target: Callable[..., Any], kwargs: dict[str, Any], field: str, *, keyword_only: bool = False
) -> None:
  """Refuses to leave out an argument without a default; with `keyword_only` the others may."""
  for name, parameter in inspect.signature(target).parameters.items():
    required = parameter.default is parameter.empty and parameter.kind not in _VARIABLE
    looked_at = parameter.kind is parameter.KEYWORD_ONLY or not keyword_only
    if required and looked_at and name not in kwargs:
      raise FieldError(f"{field}.{name}", None, f"missing; {target.__name__} needs it.")


def find(name: str, field: str = "config") -> Any:
  """The object at dotted path `name`, under `dfim` first."""
  module, _, attribute = str(name).rpartition(".")
  if not module:
    raise FieldError(f"{field}.name", name, "give the whole path, as core.kernels.laplace.")
  for path in (f"dfim.{module}", module):
    try:
      found = importlib.import_module(path)
    except ModuleNotFoundError as error:
      if error.name and path.startswith(error.name):
        continue  # not there; other modules that it imports may be missing too
      raise
    if not hasattr(found, attribute):
      _refuse_moved(name, field)
      fix = f"{path} has no {attribute!r}{suggest(attribute, dir(found))}."
      raise FieldError(f"{field}.name", name, fix)
    return getattr(found, attribute)
  _refuse_moved(name, field)
  raise FieldError(f"{field}.name", name, f"no module {module!r}, in dfim or elsewhere.")


def _refuse_moved(name: str, field: str) -> None:
  if now := moved.new_name(str(name)):
    raise FieldError(f"{field}.name", name, f"moved to {now!r}.")


def check_arguments(target: Any, kwargs: dict[str, Any], field: str) -> None:
  """Refuses keyword arguments that `target` does not take, or takes in another type."""
  parameters = inspect.signature(target).parameters
  if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
    return
  hints, name = annotations.of_arguments(target), f"{target.__module__}.{target.__name__}"
  for key, value in kwargs.items():
    if now := moved.new_value(name, key, value):
      raise FieldError(f"{field}.{key}", value, f"moved to {now!r}.")
    if key not in parameters:
      if rule := moved.from_data(name, key):
        fix = f"it follows from the data; leave it out, or see {rule}."
        raise FieldError(f"{field}.{key}", value, fix)
      if now := moved.new_field(name, key):
        raise FieldError(f"{field}.{key}", value, f"moved to {field}.{now}.")
      instead = suggest(key, parameters) or f"; to leave it out give {field} whole, as a dict"
      raise FieldError(f"{field}.{key}", value, f"{target.__name__} takes no {key!r}{instead}.")
    check(value, hints.get(key, Any), f"{field}.{key}", target.__name__)


def check_call(function: Callable[..., Any], count: int, field: str) -> None:
  """Refuses a function that cannot be called with `count` values and nothing else."""
  try:
    inspect.signature(function).bind(*range(count))
  except TypeError as error:
    raise FieldError(field, function, f"does not fit here, {error}.") from None
  except ValueError:  # a builtin without a signature
    pass


def check(value: Any, hint: Any, field: str, whose: str) -> None:
  """Refuses a value of `field` that does not match `hint`, an annotation in `whose` signature."""
  if annotations.matches(value, hint):
    return
  fix = f"{whose} wants {annotations.describe(hint)}."
  if callable(value):  # it waits for arguments, or it would have been called
    given = getattr(value, "keywords", {})
    missing = [p.name for p in inspect.signature(value).parameters.values() if p.default is p.empty]
    if missing := [name for name in missing if name not in given]:
      fix = f"needs {', '.join(missing)}; {fix}"
  raise FieldError(field, value, fix)
