"""The bent walk is the plain one, carried over to a curve in more numbers."""

import numpy as np
import pytest

from dfim.data.synthetic import bent_walk
from tests.data.helpers import refused


def circle(points):
  angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
  return np.stack([np.cos(angle), np.sin(angle)], -1)


@pytest.mark.parametrize("numbers", [3, 16, 28])
def test_points_lie_on_a_closed_curve_up_to_the_noise_which_does_not_cross_itself(numbers):
  curve = np.asarray(bent_walk.bend(circle(2000), numbers))
  x = bent_walk.load(size=500, numbers=numbers)["x"]
  assert x.shape == (500, 6, numbers) and abs(x.std() - 0.5) < 0.02
  apart = np.linalg.norm(x[:, :1, None] - curve, axis=-1)  # of first tokens
  noise = np.sqrt((apart.min(-1) ** 2).mean() / (numbers - 1))  # the curve takes one direction
  assert abs(noise / 0.03 - 1) < 0.1
  far = np.linalg.norm(curve[::10, None] - curve[None, ::10], axis=-1)
  around = np.abs(np.arange(200)[:, None] - np.arange(200))
  assert far[np.minimum(around, 200 - around) > 20].min() > 0.1


def test_without_noise_turns_are_those_of_the_plain_walk():
  curve = np.asarray(bent_walk.bend(circle(3600), 16))
  x = bent_walk.load(size=300, noise=0.0, spread=0.0)["x"]
  tenths = np.linalg.norm(x[:, :, None] - curve, axis=-1).argmin(-1)
  turns = np.diff(tenths, axis=1) % 3600
  assert set(np.unique(turns)) <= {499, 500, 501, 3099, 3100, 3101}
  assert abs((turns < 1800).mean() - 0.5) < 4 * 0.5 / np.sqrt(turns.size)


@pytest.mark.parametrize("field, value", dict(numbers=2, noise=-1, branches=0, tokens=0).items())
def test_a_wrong_field_is_named(field, value):
  with refused(f"data.{field}={value}"):
    bent_walk.bent_walk(4, 0, **{field: value})
