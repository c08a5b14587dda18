"""Level matrices: their shapes, one step at a time, and how they become times."""

import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grids, levels as levels_lib

MATRICES = [
  levels_lib.full_sequence,
  levels_lib.autoregressive,
  levels_lib.pyramid,
  levels_lib.trapezoid,
  lambda steps, tokens: levels_lib.pyramid(steps, tokens, lag=0.5),
  lambda steps, tokens: levels_lib.trapezoid(steps, tokens, lag=2.5),
]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("steps,tokens", [(1, 1), (4, 3), (3, 8)])
def test_levels_go_from_noise_to_clean_one_at_a_time(matrix, steps, tokens):
  levels = matrix(steps, tokens)
  levels_lib.check_levels(levels, steps, tokens)
  assert np.all(np.isin(np.diff(levels, axis=0), [0, -1]))
  assert np.all(np.any(np.diff(levels, axis=0), axis=1)), "some token changes in every row"


def test_matrices_of_a_few_tokens_and_their_times(float64):
  np.testing.assert_array_equal(levels_lib.full_sequence(2, 3), [[2] * 3, [1] * 3, [0] * 3])
  expected = [[2, 2], [1, 2], [0, 2], [0, 1], [0, 0]]
  np.testing.assert_array_equal(levels_lib.autoregressive(2, 2), expected)
  assert levels_lib.pyramid(5, 4, lag=1.5).shape == (5 + int(3 * 1.5) + 1, 4)
  grid = levels_lib.at(levels_lib.autoregressive(2, 2), grids.uniform(2, 0.994, 0.006))
  expected = [[0.994, 0.994], [0.5, 0.994], [0.006, 0.006]]
  np.testing.assert_allclose(grid[jnp.array([0, 1, -1])], expected)


@pytest.mark.parametrize("tokens", [4, 5])
def test_the_trapezoid_is_symmetric(tokens):
  """The released program's is not: its right edge takes the value of the second column."""
  levels = levels_lib.trapezoid(3, tokens, lag=2)
  np.testing.assert_array_equal(levels, levels[:, ::-1])
  assert levels[2, 0] < levels[2, tokens // 2]


def test_golden_matrices(golden):
  """All but the trapezoid, whose released form is asymmetric by a slip of an index."""
  numbers = golden("diffusion_forcing.npz")
  names = [n for n in numbers.files if n.startswith("matrix/") and "trapezoid" not in n]
  for name in names:
    _, kind, steps, horizon, lag = name.split("/")
    steps, tokens, lag = int(steps[5:]), int(horizon[7:]), float(lag[1:])
    extra = (lag,) if kind == "pyramid" else ()
    np.testing.assert_array_equal(getattr(levels_lib, kind)(steps, tokens, *extra), numbers[name])
  assert len(names) == 40
