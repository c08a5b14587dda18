"""Arrays and numbers from outside, checked once for type, shape, finiteness and range.

Files, series, arrays given to `draw`, weights and statistics all pass here. An error is one line
with the field, the place and the fix.
"""

import math
import os
import pathlib
from typing import Any

import numpy as np

from dfim.config.errors import FieldError

_AXES = {  # of examples, by their rank
  1: ("row",),
  2: ("row", "column"),
  3: ("sequence", "token", "dimension"),
  4: ("image", "row", "column", "channel"),
  5: ("video", "frame", "row", "column", "channel"),
}


def numbers(
  value: Any,
  field: str,
  shape: tuple[int | None, ...],
  *,
  axes: tuple[str, ...],
  dtype: Any = np.float64,
  low: float | None = None,
  high: float | None = None,
  finite: bool = True,
  rows: np.ndarray | None = None,
) -> np.ndarray:
  """`value` as an array of `dtype`, without loss of range.

  Args:
    value: an array of NumPy or JAX, or nested lists of numbers.
    field: its name in the error.
    shape: the size of each axis; None takes any.
    axes: the name of each axis in the singular, such as ("row", "column").
    dtype: a floating type, which takes floating numbers, integers and booleans, or an integer type,
      which takes integers and booleans in its range.
    low: the least value allowed.
    high: the greatest value allowed.
    finite: whether to refuse NaN and infinity, also of numbers beyond the range of `dtype`.
    rows: if `value` is part of a larger array, the index there of each of its rows.

  Raises:
    ValueError: a wrong type, rank or shape, or a value out of range, with its place.
  """
  whole = np.issubdtype(dtype, np.integer)
  array = _array(value, field, shape, axes, whole)
  if np.ma.is_masked(value):  # the number under a mask is no value
    refuse_where(np.ma.getmaskarray(value), array, field, axes, "it is masked; fill it", rows)
  if whole:
    limits = np.iinfo(dtype)
    low = limits.min if low is None else max(low, limits.min)
    high = limits.max if high is None else min(high, limits.max)
  else:
    with np.errstate(over="ignore"):  # infinity, which is refused below
      array = array.astype(dtype)  # also bfloat16, which NumPy's own functions do not take
    if finite:
      fix = "fill it, or leave that part out"
      refuse_where(~np.isfinite(array), array, field, axes, fix, rows)
  if low is not None:
    refuse_where(array < low, array, field, axes, f"give {low} or more", rows)
  if high is not None:
    refuse_where(array > high, array, field, axes, f"give {high} or less", rows)
  return array.astype(dtype)


def _array(
  value: Any, field: str, shape: tuple[int | None, ...], axes: tuple[str, ...], whole: bool
) -> np.ndarray:
  """`value` as an array of numbers, of integers if `whole`, and of a size that matches `shape`."""
  sizes = zip(shape, axes, strict=True)
  wanted = ", ".join(f"{axis}s" if n is None else f"{n} {axis}s" for n, axis in sizes)
  try:
    array = np.asarray(value)
  except ValueError:
    fix = f"give numbers [{wanted}]."
    raise FieldError(field, value, fix, ": rows of different lengths; ") from None
  if not _is_number(array.dtype, whole) or value is None:
    kind = "integers" if whole else "numbers"
    untyped = array.dtype.kind == "O" and not isinstance(value, np.ndarray)
    found = type(value).__name__ if untyped else array.dtype
    raise FieldError(field, value, f"give {kind} [{wanted}].", f" of {found}: ")
  matches = lambda found: all(n in (None, m) for n, m in zip(shape, found, strict=True))
  if array.ndim != len(shape) or not matches(array.shape):
    raise FieldError(field, value, f"give [{wanted}].", f" of shape {array.shape}: ")
  return array


def floats(
  value: Any,
  field: str,
  shape: tuple[int | None, ...],
  *,
  axes: tuple[str, ...],
  dtype: Any = np.float64,
) -> np.ndarray:
  """As `numbers`, of an array that is floating already: weights or statistics in a file.

  Raises:
    ValueError: another type, integers too; otherwise as `numbers`.
  """
  found = np.asarray(value).dtype
  if not _is_number(found, whole=False) or _is_number(found, whole=True):
    raise FieldError(field, value, "give floating-point numbers.", f" of {found}: ")
  array = numbers(value, field, shape, axes=axes, dtype=dtype, finite=False)
  refuse_where(~np.isfinite(array), array, field, axes, "make or fetch the file anew")
  return array


def examples(
  value: Any,
  field: str,
  rank: int | None = None,
  *,
  least: int = 1,
  largest: float | None = None,
  dtype: Any = np.float64,
) -> np.ndarray:
  """As `numbers`, of points, sequences, images or videos `[N, ...]`, of any size.

  Args:
    value: an array or nested lists.
    field: its name in the error.
    rank: the only rank allowed, such as 4 for images; any from 1 on by default.
    least: the smallest N.
    largest: the greatest absolute value allowed.
    dtype: as in `numbers`.

  Raises:
    ValueError: fewer than `least`, or no numbers in them; otherwise as `numbers`.
  """
  if rank is None:
    try:
      rank = max(np.ndim(value), 1)
    except ValueError:  # rows of different lengths, which `numbers` refuses
      rank = 2
  axes = _AXES.get(rank) or ("row", *(f"axis {n}, place" for n in range(1, rank)))
  limits = {} if largest is None else dict(low=-largest, high=largest)
  array = numbers(value, field, (None,) * rank, axes=axes, dtype=dtype, **limits)
  if len(array) < least:
    raise FieldError(field, value, f"give {least} or more.", f" of {len(array)} {axes[0]}s: ")
  if not array.size:
    said = f" of shape {array.shape}: "
    raise FieldError(field, value, "holds no numbers; give some.", said)
  return array


def refuse_where(
  bad: np.ndarray,
  array: np.ndarray,
  field: str,
  axes: tuple[str, ...],
  fix: str,
  rows: np.ndarray | None = None,
) -> None:
  """Raises ValueError with the first place, counted from 0, at which `bad` is True.

  `axes` and `rows` as in `numbers`.
  """
  if bad.any():
    index = tuple(int(n) for n in np.unravel_index(int(bad.argmax()), bad.shape))
    there = index if rows is None else (int(rows[index[0]]), *index[1:])
    place = ", ".join(f"{axis} {n}" for axis, n in zip(axes, there, strict=True))
    raise FieldError(field, array[index], f"{fix}.", f": {array[index]} at {place}; ")


def whole(value: Any, field: str, *, low: int | None = None, high: int | None = None) -> int:
  """`value` as an int.

  Raises:
    ValueError: it is of another type (a float or a boolean, say), or out of range.
  """
  if isinstance(value, bool) or not isinstance(value, int | np.integer):
    raise FieldError(field, value, "give a whole number.")
  if low is not None and value < low:
    raise FieldError(field, value, f"give {low} or more.")
  if high is not None and value > high:
    raise FieldError(field, value, f"give {high} or less.")
  return int(value)


def number(
  value: Any, field: str, *, low: float | None = None, above: float | None = None
) -> float:
  """`value`, an int or a float of Python or NumPy, as a float.

  Raises:
    ValueError: it is of another type, not finite, less than `low`, or not above `above`.
  """
  kinds = int | float | np.integer | np.floating
  if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
    raise FieldError(field, value, "give a finite number.")
  if low is not None and value < low:
    raise FieldError(field, value, f"give {low} or more.")
  if above is not None and value <= above:
    raise FieldError(field, value, f"give more than {above}.")
  return float(value)


def path(value: Any, field: str) -> pathlib.Path:
  """`value` as a path, with `~` as the user's folder.

  Raises:
    ValueError: it is no path, empty, or in the folder of an unknown user.
  """
  if not isinstance(value, str | os.PathLike) or not value:
    raise FieldError(field, value, "give a path.")
  try:
    return pathlib.Path(value).expanduser()
  except RuntimeError:
    raise FieldError(field, value, "there is no such user; give another path.") from None


def _is_number(dtype: np.dtype, whole: bool) -> bool:
  """Whether it holds integers or booleans or, unless `whole`, floating numbers, bfloat16 too."""
  return np.can_cast(dtype, np.int64 if whole else np.float64, "same_kind")
