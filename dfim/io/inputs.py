"""Arrays and numbers from outside, checked once for type, shape, finiteness and range.

An error is a ValueError of one line with the field, the place and the fix.
"""

import math
import os
import pathlib
from typing import Any

import numpy as np

from dfim.config.errors import FieldError

Axes = tuple[str, ...]  # names in the singular, such as ("row", "column")
Shape = tuple[int | None, ...]  # None is any size
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
  shape: Shape,
  *,
  axes: Axes,
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
    shape, axes: sizes and names of the axes.
    dtype: an integer type takes integers and booleans; a floating one, floating numbers too.
    low, high: the least and the greatest value allowed.
    finite: whether to refuse NaN and infinity, also of numbers beyond the range of `dtype`.
    rows: if `value` is part of a larger array, the index there of each of its rows.
  """
  whole = np.issubdtype(dtype, np.integer)
  array = _array(value, field, shape, axes, whole)
  refuse = lambda bad, fix: refuse_where(bad, array, field, axes, fix, rows)
  if np.ma.is_masked(value):  # the number under a mask is no value
    refuse(np.ma.getmaskarray(value), "it is masked; fill it")
  if whole:
    limits = np.iinfo(dtype)
    low = limits.min if low is None else max(low, limits.min)
    high = limits.max if high is None else min(high, limits.max)
  else:
    with np.errstate(over="ignore"):  # infinity, which is refused below
      array = array.astype(dtype)  # also bfloat16, which NumPy's own functions do not take
    if finite:
      refuse(~np.isfinite(array), "fill it, or leave that part out")
  if low is not None:
    refuse(array < low, f"give {low} or more")
  if high is not None:
    refuse(array > high, f"give {high} or less")
  return array.astype(dtype)


def _array(value: Any, field: str, shape: Shape, axes: Axes, whole: bool) -> np.ndarray:
  """`value` as an array of numbers, of integers if `whole`, and of a size that matches `shape`."""
  sizes = zip(shape, axes, strict=True)
  wanted = ", ".join(f"{axis}s" if n is None else f"{n} {axis}s" for n, axis in sizes)
  try:
    array = np.asarray(value)
  except ValueError:
    raise FieldError(field, value, f"give [{wanted}].", ": rows of different lengths; ") from None
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
  value: Any, field: str, shape: Shape, *, axes: Axes, dtype: Any = np.float64
) -> np.ndarray:
  """As `numbers`, of an array that is floating already: weights or statistics in a file."""
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

  They are at least `least`, of that `rank` if given; absolute values are at most `largest`.
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
    raise FieldError(field, value, "holds no numbers; give some.", f" of shape {array.shape}: ")
  return array


def refuse_where(
  bad: np.ndarray, array: np.ndarray, field: str, axes: Axes, fix: str, rows: Any = None
) -> None:
  """Raises ValueError with the first place where `bad` is True; see `numbers`."""
  if bad.any():
    index = tuple(int(n) for n in np.unravel_index(int(bad.argmax()), bad.shape))
    there = index if rows is None else (int(rows[index[0]]), *index[1:])
    place = ", ".join(f"{axis} {n}" for axis, n in zip(axes, there, strict=True))
    raise FieldError(field, array[index], f"{fix}.", f": {array[index]} at {place}; ")


def whole(value: Any, field: str, *, low: int | None = None, high: int | None = None) -> int:
  """`value` as an int; a float or a boolean is refused."""
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
  """`value`, an int or a finite float of Python or NumPy, as a float."""
  kinds = int | float | np.integer | np.floating
  if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
    raise FieldError(field, value, "give a finite number.")
  if low is not None and value < low:
    raise FieldError(field, value, f"give {low} or more.")
  if above is not None and value <= above:
    raise FieldError(field, value, f"give more than {above}.")
  return float(value)


def limits(value: tuple[float, float], field: str) -> tuple[float, float]:
  """`value`, of black and of white in pictures, in this order."""
  if not -math.inf < value[0] < value[1] < math.inf:
    raise FieldError(field, value, "give the value of black, then white's above it.")
  return value


def path(value: Any, field: str) -> pathlib.Path:
  """`value` as a path, with `~` as the user's folder."""
  if not isinstance(value, str | os.PathLike) or not value:
    raise FieldError(field, value, "give a path.")
  try:
    return pathlib.Path(value).expanduser()
  except RuntimeError:
    raise FieldError(field, value, "there is no such user; give another path.") from None


def _is_number(dtype: np.dtype, whole: bool) -> bool:
  """Whether it holds integers or booleans or, unless `whole`, floating numbers, bfloat16 too."""
  return np.can_cast(dtype, np.int64 if whole else np.float64, "same_kind")
