"""Which values match an annotation, and its description in words."""

from collections.abc import Callable, Mapping, Sequence
import os

import jax
import numpy as np
import pytest

from dfim.config import annotations

PATH, NUMBER = str | os.PathLike, float | jax.Array


@pytest.mark.parametrize(
  "hint, good, bad, words",
  [
    (int, [3], [True, 4.0, "3", None], "an int"),
    (int | None, [3, None], [4.0], "an int or None"),
    (float, [1, 0.5], [True, "0.5"], "a number"),
    (NUMBER, [1, 0.5], [True, "x"], "a number"),
    (bool, [True], [1, "x"], "True or False"),
    (str, ["x"], [3], "a string"),
    (PATH, ["x"], [3], "a string or a path"),
    (tuple[int, ...], [(), (1, 2), [1, 2]], [4, (1.5, 1), "12"], "a tuple of ints"),
    (tuple[float, float], [(1, 2.0)], [(1.0,), (1, "x")], "a tuple of 2 numbers"),
    (Sequence[int], [(1,)], ["12", print], "a tuple of ints"),
    (dict[str, float], [{}, dict(a=1)], [dict(a="x"), print, (1,)], "a dict of numbers"),
    (Mapping[str, int], [dict(a=1)], [dict(a=1.5)], "a dict of ints"),
    (Callable[..., int], [print], ["print", 3], "a dict with the name of a function"),
    (os.PathLike, [np.zeros(1)], ["x"], "a path"),  # any named object may be of a class
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
