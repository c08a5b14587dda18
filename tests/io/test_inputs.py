"""What comes from outside is taken without loss, or refused in one line with its place."""

import jax.numpy as jnp
import numpy as np
import pytest

from dfim.io import inputs

AXES = ("row", "column")


@pytest.mark.parametrize(
  "value",
  [
    [[1, 2], [3, 4]],
    np.array([[1, 2], [3, 4]], np.uint16),
    np.array([[1, 2], [3, 4]], np.float16),
    jnp.array([[1, 2], [3, 4]], jnp.bfloat16),
  ],
)
def test_numbers_of_any_type_keep_their_values(value):
  found = inputs.numbers(value, "x", (None, 2), axes=AXES)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
  "value, line",
  [
    (None, "x of NoneType: give numbers [rows, 2 columns]."),
    ([[1, 2], [3]], "x: rows of different lengths; give numbers [rows, 2 columns]."),
    ([["a", "b"]], "x of <U1: give numbers [rows, 2 columns]."),
    (np.ones((3, 2), complex), "x of complex128: give numbers [rows, 2 columns]."),
    (np.ones((3, 4)), "x of shape (3, 4): give [rows, 2 columns]."),
    (np.ones(2), "x of shape (2,): give [rows, 2 columns]."),
    ([[1, 2], [3, np.nan]], "x: nan at row 1, column 1; fill it, or leave that part out."),
    ([[1, 2], [3, -4]], "x: -4.0 at row 1, column 1; give 0 or more."),
  ],
)
def test_wrong_numbers_are_refused_with_their_place(value, line):
  with pytest.raises(ValueError) as error:
    inputs.numbers(value, "x", (None, 2), axes=AXES, low=0)
  assert str(error.value) == line


def test_integers_that_do_not_fit_are_refused_and_never_wrap():
  labels = np.array([3, 2**31], np.int64)
  with pytest.raises(ValueError, match="label: 2147483648 at example 1; give 2147483647 or less"):
    inputs.numbers(labels, "label", (None,), axes=("example",), dtype=np.int32)
  with pytest.raises(ValueError, match="label of float64: give integers"):
    inputs.numbers([1.0], "label", (None,), axes=("example",), dtype=np.int32)
  found = inputs.numbers(labels[:1], "label", (None,), axes=("example",), dtype=np.int32)
  assert found.dtype == np.int32 and found.tolist() == [3]


@pytest.mark.parametrize("value", [1.0, True, "3", None, np.float32(2)])
def test_a_whole_number_is_an_integer(value):
  with pytest.raises(ValueError, match="lag=.*: give a whole number"):
    inputs.whole(value, "lag")
  assert inputs.whole(np.int64(3), "lag", low=1) == 3
