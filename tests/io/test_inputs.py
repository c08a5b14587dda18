"""What comes from outside is taken without loss, or refused in one line with its place."""

import jax.numpy as jnp
import numpy as np
import pytest

from dfim.io import inputs

AXES = ("row", "column")


@pytest.mark.parametrize("dtype", [None, np.uint16, np.float16, jnp.bfloat16])
def test_numbers_of_any_type_keep_their_values(dtype):
  value = [[1, 2], [3, 4]]
  found = inputs.numbers(jnp.array(value, dtype) if dtype else value, "x", (None, 2), axes=AXES)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(
  "value, line",
  [
    (None, "x of NoneType: give numbers [rows, 2 columns]."),
    (np.ones((3, 2), complex), "x of complex128"),
    (np.ones((3, 4)), "x of shape (3, 4): give [rows, 2 columns]."),
    ([[1, 2], [3, np.nan]], "x: nan at row 1, column 1; "),
    ([[1, 2], [3, -4]], "x: -4.0 at row 1, column 1; give 0 or more."),
    (np.ma.array([[1, 2], [9, 4]], mask=[[0, 0], [1, 0]]), "x: 9 at row 1, column 0; it is masked"),
  ],
)
def test_wrong_numbers_are_refused_with_their_place(value, line):
  with pytest.raises(ValueError) as error:
    inputs.numbers(value, "x", (None, 2), axes=AXES, low=0)
  assert str(error.value).startswith(line)


def test_integers_that_do_not_fit_are_refused_and_a_part_names_the_places_in_the_whole():
  how = dict(shape=(None,), axes=("example",), dtype=np.int32)
  labels = np.array([3, 2**31], np.int64)
  with pytest.raises(ValueError, match="^label: 2147483648 at example 1; give 2147483647 or less"):
    inputs.numbers(labels, "label", **how)
  with pytest.raises(ValueError, match="^label of float64"):
    inputs.numbers([1.0], "label", **how)
  found = inputs.numbers(labels[:1], "label", **how)
  assert found.dtype == np.int32 and found.tolist() == [3]
  with pytest.raises(ValueError, match="x: nan at row 70, column 1; "):
    rows = np.array([5, 70])
    inputs.numbers([[1, 2], [3, np.nan]], "x", (2, 2), axes=AXES, rows=rows)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_floats_of_a_file_are_floating_already(dtype):
  value = np.array([1.5, -2.0]).astype(dtype)
  found = inputs.floats(value, "w", (2,), axes=("index",), dtype=np.float32)
  assert found.dtype == np.float32 and found.tolist() == [1.5, -2.0]
  for other in (np.int8, np.bool_, np.complex64, "U3", object):
    with pytest.raises(ValueError, match="^w of .*: give floating-point numbers"):
      inputs.floats(value.astype(np.float32).astype(other), "w", (2,), axes=("index",))


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
def test_floats_are_finite_in_the_type_that_is_wanted(value):
  with pytest.raises(ValueError, match="w: (inf|nan) at index 1; "):
    inputs.floats(np.array([0, value]), "w", (2,), axes=("index",), dtype=np.float32)


def test_a_path_is_text_and_knows_the_users_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert inputs.path("~/a", "path") == inputs.path(tmp_path / "a", "path") == tmp_path / "a"
  for value in (None, 3, "", b"a", ["a"], "~nobody-of-that-name/a"):
    with pytest.raises(ValueError, match="^path="):
      inputs.path(value, "path")


@pytest.mark.parametrize("value", [1.0, True, "3", None, np.float32(2)])
def test_a_whole_number_is_an_integer_in_its_range(value):
  for wrong in (value, np.int64(3)):
    with pytest.raises(ValueError, match="^lag="):
      inputs.whole(wrong, "lag", low=4)
  assert inputs.whole(np.int64(3), "lag", low=1, high=3) == 3


@pytest.mark.parametrize(
  "value, how, line",
  [
    (np.zeros((2, 3)), dict(rank=4), "x of shape (2, 3): give [images, rows, columns, channels]."),
    (np.zeros((2, 3, 0)), {}, "x of shape (2, 3, 0): holds no numbers; give some."),
    (np.full((1, 1, 2), np.inf), {}, "x: inf at sequence 0, token 0, dimension 0; "),
  ],
)
def test_wrong_examples_are_refused(value, how, line):
  with pytest.raises(ValueError) as error:
    inputs.examples(value, "x", **how)
  assert str(error.value).startswith(line)


@pytest.mark.parametrize("value", [np.nan, np.inf, True, "3", None, 1j, [1.0], 0.0, 1.0])
def test_a_number_is_finite_and_in_its_range(value):
  with pytest.raises(ValueError, match="^std="):
    inputs.number(value, "std", low=2 if value else None, above=0)
  for good in (2, 2.0, np.float32(2), np.uint8(2)):
    found = inputs.number(good, "std", low=2, above=1.9)
    assert found == 2.0 and type(found) is float
