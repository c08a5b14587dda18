"""Errors of a config: one line, with the field, its value and the fix."""

import functools
import math

import pytest

from dfim.config import errors
from dfim.config.errors import config_errors, ConfigError


def test_a_field_error_carries_its_parts_and_the_nearest_word_is_suggested():
  error = errors.FieldError("model.width", -1, "set it to 1 or more.")
  assert (error.field, error.value, error.fix) == ("model.width", -1, "set it to 1 or more.")
  assert str(error) == "model.width=-1: set it to 1 or more."
  error = errors.FieldError("data", functools.partial(math.dist, (0.0,)), "name a source.")
  assert str(error) == "data=dist: name a source."
  assert "'width'" in errors.suggest("widht", ["depth", "width", "_widht"])
  assert errors.suggest("x", ["depth"]) == ""


def test_errors_of_set_up_become_one_line():
  with pytest.raises(ConfigError, match="^data: first second$"), config_errors("data"):
    raise FileNotFoundError("first\n   second")
  with pytest.raises(AttributeError), config_errors():  # a bug stays a bug
    _ = None.field
