"""From config to functions: `dict(name="core.kernels.rbf", ...)` names a Python object.

The rest of the dict are its keyword arguments; nested dicts with a name come first. A class, or a
function that the config gives everything it requires (an optimizer, a schedule), is called; a
function that still waits for arguments is partially applied. A name is looked up under `dfim`
first; give the full path, such as "my_project.kernels.mine", for your own.
"""

from collections.abc import Iterator
import contextlib
import difflib
import functools
import importlib
import inspect
import typing
from typing import Any

import ml_collections


class ConfigError(ValueError):
  """A config that cannot run, in one line: the field, its value and the fix."""


@contextlib.contextmanager
def config_errors(field: str = "") -> Iterator[None]:
  """Turns what a config's functions raise while they are set up into one-line `ConfigError`s."""
  try:
    yield
  except ConfigError:
    raise
  except (ValueError, TypeError, ArithmeticError, ImportError, OSError) as error:
    line = " ".join(str(error).split())
    named = not field or line.startswith(field)  # what was raised may say where by itself
    raise ConfigError(line if named else f"{field}: {line}") from error


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
  return spec


def _build(name: str, kwargs: dict[str, Any], field: str) -> Any:
  target = find(name, field)
  signature = inspect.signature(target)
  _check_arguments(target, signature, kwargs, field)
  if inspect.isclass(target) or _is_complete(signature, kwargs):
    with config_errors(field):
      return target(**kwargs)
  return functools.partial(target, **kwargs) if kwargs else target


def find(name: str, field: str = "config") -> Any:
  """The object at dotted path `name`, under `dfim` first."""
  module, _, attribute = str(name).rpartition(".")
  for path in (f"dfim.{module}", module) if module else ():
    try:
      found = importlib.import_module(path)
    except ModuleNotFoundError as error:
      if error.name and path.startswith(error.name):
        continue  # not there; other modules that it imports may be missing too
      raise
    if not hasattr(found, attribute):
      raise ConfigError(
        f"{field}.name={name!r}: {path} has no {attribute!r}{near(attribute, dir(found))}."
      )
    return getattr(found, attribute)
  raise ConfigError(f"{field}.name={name!r}: no module {module!r}, in dfim or elsewhere.")


def near(word: str, known: Any) -> str:
  """', did you mean ...?' for the known word that is nearest, if one is near."""
  match = difflib.get_close_matches(word, [k for k in known if not k.startswith("_")], 1)
  return f"; did you mean {match[0]!r}" if match else ""


def _check_arguments(
  target: Any, signature: inspect.Signature, kwargs: dict[str, Any], field: str
) -> None:
  parameters = signature.parameters
  if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
    return
  hints = _hints(target)
  for key, value in kwargs.items():
    if key not in parameters:
      raise ConfigError(
        f"{field}.{key}={value!r}: {target.__name__} takes no {key!r}{near(key, parameters)}."
      )
    if not _fits(value, hints.get(key)):
      raise ConfigError(f"{field}.{key}={value!r}: {target.__name__} wants {_word(hints[key])}.")


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


def _fits(value: Any, hint: Any) -> bool:
  """Whether `value` may stand for plain type `hint`; what is not plain is not checked."""
  plain = {int: int, float: (int, float), str: str, bool: bool}
  if hint not in plain:
    return True
  return isinstance(value, plain[hint]) and not (isinstance(value, bool) and hint is not bool)


def _word(hint: Any) -> str:
  return {int: "an int", float: "a number", str: "a string", bool: "True or False"}[hint]
