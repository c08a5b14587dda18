"""Which values match an annotation, and its description in words."""

from collections.abc import Callable
import os

import jax
import pytest

from dfim.config import annotations

PATH = str | os.PathLike


@pytest.mark.parametrize(
  "hint, good, bad, words",
  [
    (int, [3], [True, 4.0, "3", None], "an int"),
    (float | jax.Array, [1, 0.5], [True, "0.5"], "a number"),
    (str, ["x"], [3], "a string"),
    (PATH, ["x"], [3], "a string or a path"),
    (tuple[int, ...], [(), (1, 2), [1, 2]], [4, (1.5, 1), "12"], "a tuple of ints"),
    (tuple[float, float], [(1, 2.0)], [(1.0,), (1, "x")], "a tuple of 2 numbers"),
    (dict[str, float], [{}, dict(a=1)], [dict(a="x"), print, (1,)], "a dict of numbers"),
    (Callable[..., int], [print], ["print", 3], "a dict with the name of a function"),
  ],
  ids=str,
)
def test_values_match_their_annotation(hint, good, bad, words):
  assert all(annotations.matches(value, hint) for value in good)
  assert not any(annotations.matches(value, hint) for value in bad)
  assert annotations.describe(hint) == words


def test_annotations_that_do_not_evaluate_are_no_error():
  def of_another_library(x: "NotHere"):  # noqa: F821
    return x

  assert annotations.of_arguments(of_another_library) == {}
