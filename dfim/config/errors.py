"""Errors of a config, in one line: the field, its value and the fix."""

from collections.abc import Iterator
import contextlib
import difflib
import itertools
import re
from typing import Any

import ml_collections

_NESTED = (tuple, list, dict, ml_collections.ConfigDict)


class ConfigError(ValueError):
  """A config, a flag or a folder with which nothing can run."""


class FieldError(ConfigError):
  """A `field`, by its path such as "model.width", whose `value` is wrong, and the `fix`."""

  def __init__(self, field: str, value: Any, fix: str):
    shown = getattr(getattr(value, "func", value), "__name__", None) or repr(value)
    super().__init__(f"{field}={shown}: {fix}")
    self.field, self.value, self.fix = field, value, fix


def suggest(word: str, known: Any) -> str:
  """', did you mean ...?' with the nearest of the known words, or '' if none is near."""
  match = difflib.get_close_matches(word, [k for k in known if not k.startswith("_")], 1)
  return f"; did you mean {match[0]!r}" if match else ""


@contextlib.contextmanager
def config_errors(field: str = "", spec: Any = None) -> Iterator[None]:
  """Turns errors of a config's functions, raised while they are set up, into `ConfigError`s.

  Args:
    field: whose functions they are.
    spec: the field's value, in which the field of an argument is found, see `located`.
  """
  try:
    yield
  except ConfigError:
    raise
  except (ValueError, TypeError, ArithmeticError, ImportError, OSError) as error:
    line = " ".join(str(error).split())
    named = not field or line.startswith(field)  # the error may name the field by itself
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
    if leaf == name and (isinstance(value, _NESTED) or f"{leaf}={value!r}" in line):
      return f"{above}.{said}" if name == given[0] else f"{above}: {said}"
  called = re.match(r"(?:\w+\.)*?(\w+)(?:\.__init__)?(\(\)| with )", line)
  for path, value in fields.items() if called else ():
    above, _, leaf = path.rpartition(".")
    if leaf == "name" and called[1] == str(value).rpartition(".")[2]:
      if found := f"{above}: {line}" if called[2] == " with " else _misfit(line, above, fields):
        return found
  return f"{field}: {line}"


def _misfit(line: str, field: str, fields: dict[str, Any]) -> str | None:
  """The error for a `TypeError` about the arguments of the function at `field`."""
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
