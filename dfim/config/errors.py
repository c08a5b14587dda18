"""Errors of a config, in one line: the field, its value and the fix."""

from collections.abc import Iterator
import contextlib
import difflib
from typing import Any

import ml_collections

_PARTS = ("data", "model", "objective", "optimizer", "sampler", "evaluators")  # of a config
_NESTED = (tuple, list, dict, ml_collections.ConfigDict)


class ConfigError(ValueError):
  """A config, a flag or a folder with which nothing can run."""


class FieldError(ConfigError):
  """A `field`, by its path such as "model.width", whose `value` is wrong, and the `fix`.

  A function that knows its argument's name alone gives that; `config_errors` finds the path.
  """

  def __init__(self, field: str, value: Any, fix: str, said: str | None = None):
    """`said` is what follows the field in the line, if not the value: " of shape (3,): "."""
    if said is None:
      value = value.item() if getattr(value, "shape", None) == () else value
      shown = getattr(getattr(value, "func", value), "__name__", None) or repr(value)
      said = f"={shown}: "
    super().__init__(f"{field}{said}{fix}")
    self.field, self.value, self.fix, self.said = field, value, fix, said

  def within(self, field: str, spec: Any) -> "FieldError":
    """The error by its path from `field` on, whose value is `spec`."""
    first, inner = self.field.partition(".")[0], self.field.removeprefix(field)
    of_another_part = first in _PARTS and first not in (spec or ())
    if not field or of_another_part or (inner != self.field and inner[:1] in ("", ".", ":")):
      return self  # it is whole
    same = lambda value: isinstance(value, _NESTED) or str(value) == str(self.value)
    paths = (path for path, value in _fields(spec, field) if same(value))
    between = "." if self.field.replace(".", "").isidentifier() else ": "  # of a file's path
    whole = next((p for p in paths if p.endswith(f".{self.field}")), field + between + self.field)
    return FieldError(whole, self.value, self.fix, self.said)


def suggest(name: str, known: Any) -> str:
  """', did you mean ...?' with the nearest of the known names, or '' if none is near."""
  match = difflib.get_close_matches(name, [k for k in known if not k.startswith("_")], 1)
  return f"; did you mean {match[0]!r}" if match else ""


@contextlib.contextmanager
def config_errors(field: str = "", spec: Any = None) -> Iterator[None]:
  """Turns errors of a config's functions, raised while they are set up, into `ConfigError`s.

  `field` is theirs, and `spec` its value, in which the argument of a `FieldError` is found.
  """
  try:
    yield
  except FieldError as error:
    found = error.within(field, spec)
    if found is error:
      raise
    raise found from error
  except ConfigError:
    raise
  except (ValueError, TypeError, ArithmeticError, ImportError, OSError) as error:
    line = " ".join(str(error).split())
    raise ConfigError(line if line.startswith(field) else f"{field}: {line}") from error


def _fields(spec: Any, path: str) -> Iterator[tuple[str, Any]]:
  """All fields of a spec by their whole names."""
  for key, value in spec.items() if isinstance(spec, dict | ml_collections.ConfigDict) else ():
    yield f"{path}.{key}", value
    yield from _fields(value, f"{path}.{key}")
