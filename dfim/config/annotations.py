"""Whether a value of a config fits the annotation of what takes it."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
import types
import typing
from typing import Any

_PLAIN = (bool, int, float, str, tuple, list, dict, type(None))  # what a config may hold
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


def fits(value: Any, hint: Any) -> bool:
  """Whether `value` may stand for `hint`; what a config names may stand for any class."""
  parts = typing.get_args(hint)
  kind = typing.get_origin(hint) or hint
  if kind in (typing.Union, types.UnionType):
    return any(fits(value, part) for part in parts)
  if kind is Callable:
    return callable(value)
  if hint is Any or not isinstance(kind, type) or not isinstance(value, _PLAIN):
    return kind not in (dict, Mapping, tuple, Sequence) or not callable(value)
  if isinstance(value, int | float) and kind.__module__.startswith(("jax", "numpy")):
    return not isinstance(value, bool)
  if isinstance(value, bool) or kind is float:
    return isinstance(value, int | float) and isinstance(value, bool) == (kind is bool)
  if getattr(kind, "_is_protocol", False):
    return False
  kind = (list, tuple) if kind is tuple else kind
  return isinstance(value, kind) and (not parts or _fit_inside(value, parts))


def _fit_inside(value: Any, parts: tuple[Any, ...]) -> bool:
  """Whether what a dict, a list or a tuple holds fits the parts of its annotation."""
  if isinstance(value, dict):
    return all(fits(part, parts[-1]) for part in value.values())
  if isinstance(value, str):  # a sequence too
    return False
  each = parts[:1] * len(value) if ... in parts or len(parts) == 1 else parts
  return len(value) == len(each) and all(map(fits, value, each))


def word(hint: Any) -> str:
  """What fits `hint`, in words."""
  parts = typing.get_args(hint)
  kind = typing.get_origin(hint) or hint
  if kind in (typing.Union, types.UnionType):
    known = [part for part in parts if (typing.get_origin(part) or part) in _WORDS]
    known = parts if set(known) <= {type(None)} else known
    known = [part for part in known if float not in known or part not in (int, bool)]
    return " or ".join(dict.fromkeys(map(word, known)))
  whole = _WORDS.get(kind, f"a dict with the name of a {getattr(kind, '__name__', kind)}")
  each = parts[-1:] if kind in (dict, Mapping) else [part for part in parts if part is not ...]
  if kind not in (tuple, Sequence, dict, Mapping) or not each or each[0] not in (int, float, str):
    return whole
  count = f"{len(each)} " if len(each) > 1 else ""
  return f"{whole} of {count}{_WORDS[each[0]].split()[1]}s"
