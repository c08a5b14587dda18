"""Arrays and numbers from outside, checked once: type, shape, finiteness and range.

Every entry point (files, series, arrays given to `draw`, weights, statistics) calls these, so that
a wrong value is answered by one line with the field, the place of the fault and the fix.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np


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
) -> np.ndarray:
  """`value` as an array of `dtype` without loss of range, or one line that says why not.

  Args:
    value: an array of NumPy or JAX, or nested lists of numbers.
    field: what it is called in the error.
    shape: the size of each axis, None where any size will do.
    axes: the name of each axis in the singular, such as ("row", "column").
    dtype: floating, which takes floating numbers, integers and booleans, or an integer type, which
      takes integers and booleans that fit into it.
    low: the least value allowed.
    high: the greatest value allowed.
    finite: whether to refuse NaN and infinity.

  Raises:
    ValueError: another type, shape or rank, or a value out of range, with its place.
  """
  sizes = zip(shape, axes, strict=True)
  wanted = ", ".join(f"{axis}s" if n is None else f"{n} {axis}s" for n, axis in sizes)
  try:
    array = np.asarray(value)
  except ValueError:  # rows of different lengths
    raise ValueError(f"{field}: rows of different lengths; give numbers [{wanted}].") from None
  whole = np.issubdtype(dtype, np.integer)
  if not _is_number(array.dtype, whole) or value is None:
    kind = "integers" if whole else "numbers"
    found = type(value).__name__ if array.dtype.kind == "O" else str(array.dtype)
    raise ValueError(f"{field} of {found}: give {kind} [{wanted}].")
  fits = lambda found: all(n in (None, m) for n, m in zip(shape, found, strict=True))
  if array.ndim != len(shape) or not fits(array.shape):
    raise ValueError(f"{field} of shape {array.shape}: give [{wanted}].")
  if whole:
    limits = np.iinfo(dtype)
    low = limits.min if low is None else max(low, limits.min)
    high = limits.max if high is None else min(high, limits.max)
  else:
    array = array.astype(dtype)  # also bfloat16, which NumPy's own functions do not take
    if finite:
      refuse_where(~np.isfinite(array), array, field, axes, "fill it, or leave that part out")
  if low is not None:
    refuse_where(array < low, array, field, axes, f"give {low} or more")
  if high is not None:
    refuse_where(array > high, array, field, axes, f"give {high} or less")
  return array.astype(dtype)


def refuse_where(
  bad: np.ndarray, array: np.ndarray, field: str, axes: tuple[str, ...], fix: str
) -> None:
  """Raises ValueError with the first place, counted from 0, at which `bad` is True."""
  if bad.any():
    index = tuple(int(n) for n in np.unravel_index(int(bad.argmax()), bad.shape))
    place = ", ".join(f"{axis} {n}" for axis, n in zip(axes, index, strict=True))
    raise ValueError(f"{field}: {array[index]} at {place}; {fix}.")


def whole(value: Any, field: str, *, low: int | None = None, high: int | None = None) -> int:
  """`value` as an int.

  Raises:
    ValueError: it is none (a float or a boolean, say), or out of range.
  """
  if isinstance(value, bool) or not isinstance(value, int | np.integer):
    raise ValueError(f"{field}={value!r}: give a whole number.")
  if low is not None and value < low:
    raise ValueError(f"{field}={value}: give {low} or more.")
  if high is not None and value > high:
    raise ValueError(f"{field}={value}: give {high} or less.")
  return int(value)


def _is_number(dtype: np.dtype, whole: bool) -> bool:
  kinds = (jnp.integer, jnp.bool_) if whole else (jnp.integer, jnp.bool_, jnp.floating)
  return any(jnp.issubdtype(dtype, kind) for kind in kinds)
