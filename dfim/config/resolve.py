"""From config to functions: `dict(name="core.kernels.rbf", ...)` names a Python object.

The rest of the dict are its keyword arguments; nested dicts with a name come first. A class, or a
function that the config gives everything it requires (an optimizer, a schedule), is called; a
function that still waits for arguments is partially applied. A name is looked up under `dfim`
first; give the full path, such as "my_project.kernels.mine", for your own.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import difflib
import functools
import importlib
import inspect
import itertools
import math
import re
import typing
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from dfim.config import annotations
from dfim.config import moved


class ConfigError(ValueError):
  """A config that cannot run, in one line: the field, its value and the fix."""


_MANY = (tuple, list, dict, ml_collections.ConfigDict)


@contextlib.contextmanager
def config_errors(field: str = "", spec: Any = None) -> Iterator[None]:
  """Turns what a config's functions raise while they are set up into one-line `ConfigError`s.

  Args:
    field: whose functions they are.
    spec: what stands there, to find the field further down that is meant, see `located`.
  """
  try:
    yield
  except ConfigError:
    raise
  except (ValueError, TypeError, ArithmeticError, ImportError, OSError) as error:
    line = " ".join(str(error).split())
    named = not field or line.startswith(field)  # what was raised may say where by itself
    raise ConfigError(line if named else located(line, spec, field)) from error


def located(line: str, spec: Any, field: str) -> str:
  """`line` with its field, found in `spec`: of an argument or the function that it starts with.

  Such as "gap=2.0: ..", "sample() missing .." or "eta_decrement with t_max=1.0: ..".
  """
  fields = dict(_fields(spec, field))
  said = re.sub(r"^\w+: ", "", line)
  given = re.match(r"\w+=", said) and re.findall(r"(?:^|, )(\w+)=", said.partition(": ")[0])
  for name, (path, value) in itertools.product(given or (), fields.items()):
    above, _, leaf = path.rpartition(".")
    if leaf == name and (isinstance(value, _MANY) or f"{leaf}={value!r}" in line):
      return f"{above}.{said}" if name == given[0] else f"{above}: {said}"
  called = re.match(r"(?:\w+\.)*?(\w+)(?:\.__init__)?(\(\)| with )", line)
  for path, value in fields.items() if called else ():
    above, _, leaf = path.rpartition(".")
    if leaf == "name" and called[1] == str(value).rpartition(".")[2]:
      if found := f"{above}: {line}" if called[2] == " with " else _misfit(line, above, fields):
        return found
  return f"{field}: {line}"


def _misfit(line: str, field: str, fields: dict[str, Any]) -> str | None:
  """What a `TypeError` about the arguments of the function at `field` means for the config."""
  name = fields[f"{field}.name"]
  missing = re.search(r"missing .* arguments?: '(\w+)'", line)
  if not missing:
    return f"{field}.name={name!r}: {line}; name another, or change its arguments."
  if f"{field}.{missing[1]}" in fields:
    return None  # it is given here: another field names the same function
  return f"{field}.{missing[1]}: missing; {name} needs it."


def _fields(spec: Any, path: str) -> Iterator[tuple[str, Any]]:
  """All fields of a spec by their whole names."""
  for key, value in spec.items() if isinstance(spec, dict | ml_collections.ConfigDict) else ():
    yield f"{path}.{key}", value
    yield from _fields(value, f"{path}.{key}")


def resolve(spec: Any, field: str = "config") -> Any:
  """Returns what `spec` names; anything that names nothing as it is.

  Args:
    spec: a value, or a dict (a `ConfigDict` too) with a `name`.
    field: where in the config it stands, for error messages.

  Raises:
    ConfigError: for a name, an argument or a type that does not fit, with the nearest match.
  """
  if isinstance(spec, ml_collections.ConfigDict):
    spec = spec.to_dict()
  if isinstance(spec, dict):
    resolved = {k: resolve(v, f"{field}.{k}") for k, v in spec.items() if k != "name"}
    return _build(spec["name"], resolved, field) if "name" in spec else resolved
  for value in jax.tree.leaves(spec) if isinstance(spec, list | tuple) else (spec,):
    if isinstance(value, float) and not math.isfinite(value):
      raise ConfigError(f"{field}={spec!r}: wants finite numbers.")
  return spec


def _build(name: str, kwargs: dict[str, Any], field: str) -> Any:
  target = find(name, field)
  with config_errors(f"{field}.name={name!r}"):
    signature = inspect.signature(target)
  check_arguments(target, kwargs, field)
  if inspect.isclass(target) or _is_complete(signature, kwargs):
    with config_errors(field, {"name": name, **kwargs}):
      return target(**kwargs)
  return functools.partial(target, **kwargs) if kwargs else target


def find(name: str, field: str = "config") -> Any:
  """The object at dotted path `name`, under `dfim` first."""
  module, _, attribute = str(name).rpartition(".")
  if not module:
    raise ConfigError(f"{field}.name={name!r}: give the whole path, as core.kernels.laplace.")
  for path in (f"dfim.{module}", module):
    try:
      found = importlib.import_module(path)
    except ModuleNotFoundError as error:
      if error.name and path.startswith(error.name):
        continue  # not there; other modules that it imports may be missing too
      raise
    if not hasattr(found, attribute):
      _refuse_moved(name, field)
      raise ConfigError(
        f"{field}.name={name!r}: {path} has no {attribute!r}{near(attribute, dir(found))}."
      )
    return getattr(found, attribute)
  _refuse_moved(name, field)
  raise ConfigError(f"{field}.name={name!r}: no module {module!r}, in dfim or elsewhere.")


def _refuse_moved(name: str, field: str) -> None:
  if now := moved.new_name(str(name)):
    raise ConfigError(f"{field}.name={name!r}: moved to {now!r}.")


def at_step(part: Any, step: Any) -> Any:
  """`part` with the schedules among its arguments, and among those of its own parts, at `step`.

  A schedule is a function that a config gives where the signature says `float | Array`, such as
  `objective.kernel.width` or `objective.sample_times.reach`. At a step that is an int its value is
  a float, whose range its part can refuse.
  """
  if not isinstance(part, functools.partial):
    return part
  hints = _hints(part.func)
  now = {
    key: _value(value, step)
    if callable(value) and hints.get(key) == float | jax.Array
    else at_step(value, step)
    for key, value in part.keywords.items()
  }
  if all(now[key] is value for key, value in part.keywords.items()):
    return part  # without a schedule
  return functools.partial(part.func, *part.args, **now)


def _value(schedule: Callable[[Any], Any], step: Any) -> Any:
  if not isinstance(step, int):
    return schedule(step)
  jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))  # as a step will ask it
  return float(schedule(step))


def near(word: str, known: Any) -> str:
  """', did you mean ...?' for the known word that is nearest, if one is near."""
  match = difflib.get_close_matches(word, [k for k in known if not k.startswith("_")], 1)
  return f"; did you mean {match[0]!r}" if match else ""


def check_arguments(target: Any, kwargs: dict[str, Any], field: str) -> None:
  """Refuses keyword arguments that `target` does not take, or takes in another type.

  Raises:
    ConfigError: naming the field.
  """
  parameters = inspect.signature(target).parameters
  if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
    return
  hints = _hints(target)
  for key, value in kwargs.items():
    if key not in parameters:
      instead = near(key, parameters) or f"; to leave it out give {field} whole, as a dict"
      raise ConfigError(f"{field}.{key}={value!r}: {target.__name__} takes no {key!r}{instead}.")
    check(value, hints.get(key, Any), f"{field}.{key}", target.__name__)


def check(value: Any, hint: Any, field: str, whose: str) -> None:
  """Refuses a value of `field` that does not fit the annotation `hint` of what takes it.

  Raises:
    ConfigError: naming the field.
  """
  if not annotations.fits(value, hint):
    shown = getattr(getattr(value, "func", value), "__name__", None) or repr(value)
    raise ConfigError(f"{field}={shown}: {whose} wants {annotations.word(hint)}.")


def _is_complete(signature: inspect.Signature, kwargs: dict[str, Any]) -> bool:
  """Whether nothing is left that only a caller could give."""
  return all(
    p.name in kwargs or p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    for p in signature.parameters.values()
  )


def _hints(target: Any) -> dict[str, Any]:
  """The annotations of a function's, or of a dataclass's, arguments."""
  try:
    return typing.get_type_hints(target)
  except (NameError, TypeError):  # annotations of another library that do not evaluate here
    return {}
