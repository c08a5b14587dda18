"""Whether a config's value matches the annotation of the argument that takes it."""

from collections.abc import Callable, Mapping, Sequence
import os
import types
import typing
from typing import Any

_JSON = (bool, int, float, str, tuple, list, dict, type(None))  # types of a config's values
_WORDS = {
  bool: "True or False",
  int: "an int",
  float: "a number",
  str: "a string",
  os.PathLike: "a path",
  tuple: "a tuple",
  Sequence: "a tuple",
  dict: "a dict",
  Mapping: "a dict",
  Callable: "a dict with the name of a function",
  type(None): "None",
}


def matches(value: Any, hint: Any) -> bool:
  """Whether `value` matches `hint`; any named object matches any class."""
  parts = typing.get_args(hint)
  kind = typing.get_origin(hint) or hint
  if kind in (typing.Union, types.UnionType):
    return any(matches(value, part) for part in parts)
  if kind is Callable:
    return callable(value)
  if hint is Any or not isinstance(kind, type) or not isinstance(value, _JSON):
    return kind not in (dict, Mapping, tuple, Sequence) or not callable(value)
  if isinstance(value, int | float) and kind.__module__.startswith(("jax", "numpy")):
    return not isinstance(value, bool)
  if isinstance(value, bool) or kind is float:
    return isinstance(value, int | float) and isinstance(value, bool) == (kind is bool)
  if getattr(kind, "_is_protocol", False):
    return False
  kind = (list, tuple) if kind is tuple else kind
  return isinstance(value, kind) and (not parts or _contents_match(value, parts))


def _contents_match(value: Any, parts: tuple[Any, ...]) -> bool:
  if isinstance(value, dict):
    return all(matches(part, parts[-1]) for part in value.values())
  if isinstance(value, str):  # a sequence too
    return False
  each = parts[:1] * len(value) if ... in parts or len(parts) == 1 else parts
  return len(value) == len(each) and all(map(matches, value, each))


def describe(hint: Any) -> str:
  """The values that match `hint`, in words."""
  parts = typing.get_args(hint)
  kind = typing.get_origin(hint) or hint
  if kind in (typing.Union, types.UnionType):
    known = [part for part in parts if (typing.get_origin(part) or part) in _WORDS]
    known = parts if set(known) <= {type(None)} else known
    known = [part for part in known if float not in known or part not in (int, bool)]
    return " or ".join(dict.fromkeys(map(describe, known)))
  whole = _WORDS.get(kind, f"a dict with the name of a {getattr(kind, '__name__', kind)}")
  each = parts[-1:] if kind in (dict, Mapping) else [part for part in parts if part is not ...]
  if kind not in (tuple, Sequence, dict, Mapping) or not each or each[0] not in (int, float, str):
    return whole
  count = f"{len(each)} " if len(each) > 1 else ""
  return f"{whole} of {count}{_WORDS[each[0]].split()[1]}s"


def of_arguments(target: Any) -> dict[str, Any]:
  """The annotations of the arguments of a function or a dataclass, by name."""
  try:
    return typing.get_type_hints(target)
  except (NameError, TypeError):  # annotations of another library that do not evaluate here
    return {}
