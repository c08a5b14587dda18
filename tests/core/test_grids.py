"""The times of sampling: worked grids, and the shape of level matrices."""

import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grids, interpolants as ip

FM, COSINE = ip.FlowMatching(), ip.Cosine()
MATRICES = [
  grids.full_sequence,
  grids.autoregressive,
  grids.pyramid,
  grids.trapezoid,
  lambda steps, tokens: grids.pyramid(steps, tokens, lag=0.5),
  lambda steps, tokens: grids.trapezoid(steps, tokens, lag=2.5),
]


def test_worked_grids(float64):
  close = lambda grid, expected: np.testing.assert_allclose(grid, expected, atol=1e-6)
  close(grids.uniform(4, 0.994, 0.0), [0.994, 0.7455, 0.497, 0.2485, 0.0])
  close(grids.edm(FM, 4, 0.994, 0.0), [0.994, 0.956736, 0.564132, 0.01001, 0.0])
  close(grids.through_eta(FM, (1.4,), 0.994, 0.006), [0.994, 0.583333, 0.006])
  close(grids.through_eta(COSINE, (1.4,), 0.996, 0.006), [0.996, 0.605137, 0.006])
  close(grids.discrete(1000, 3), [1.0, 0.666, 0.333, 0.0])


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_grids_fall_between_exact_ends(steps):
  for grid in (grids.uniform(steps, 0.994, 0.006), grids.edm(FM, steps, 0.994, 0.006)):
    assert grid.shape == (steps + 1,)
    assert grid[0] == jnp.float32(0.994) and grid[-1] == jnp.float32(0.006)
    assert jnp.all(jnp.diff(grid) < 0)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("steps,tokens", [(1, 1), (4, 3), (3, 8)])
def test_levels_go_from_noise_to_clean_one_at_a_time(matrix, steps, tokens):
  levels = matrix(steps, tokens)
  assert levels.shape[1] == tokens and levels.dtype == int
  assert np.all(levels[0] == steps) and np.all(levels[-1] == 0)
  assert np.all(np.isin(np.diff(levels, axis=0), [0, -1]))
  assert np.all(np.any(np.diff(levels, axis=0), axis=1)), "no row stands still as a whole"


def test_named_matrices():
  np.testing.assert_array_equal(grids.full_sequence(2, 3), [[2] * 3, [1] * 3, [0] * 3])
  np.testing.assert_array_equal(
    grids.autoregressive(2, 2), [[2, 2], [1, 2], [0, 2], [0, 1], [0, 0]]
  )
  assert grids.pyramid(5, 4, lag=1.5).shape == (5 + int(3 * 1.5) + 1, 4)


@pytest.mark.parametrize("tokens", [4, 5])
def test_the_trapezoid_is_symmetric(tokens):
  """The released program's is not: its right edge takes the value of the second column."""
  levels = grids.trapezoid(3, tokens, lag=2)
  np.testing.assert_array_equal(levels, levels[:, ::-1])
  assert levels[2, 0] < levels[2, tokens // 2]


def test_levels_become_times(float64):
  times = grids.uniform(2, 0.994, 0.006)
  grid = grids.at(grids.autoregressive(2, 2), times)
  np.testing.assert_allclose(grid[0], 0.994)
  np.testing.assert_allclose(grid[1], [0.5, 0.994])
  np.testing.assert_allclose(grid[-1], 0.006)


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda: grids.uniform(0, 0.9, 0.1), "steps=0"),
    (lambda: grids.uniform(2, 0.1, 0.9), "t_min=0.9, t_max=0.1: set"),
    (lambda: grids.edm(FM, 2, 1.0, 0.0), "t_max=1.0: eta.1. is infinite"),
    (lambda: grids.through_eta(FM, (500.0,), 0.994, 0.006), "etas=.500.0,.: must fall"),
    (lambda: grids.discrete(10, 20), "steps=20: set 1 <= steps <= levels = 10"),
    (lambda: grids.pyramid(2, 3, lag=-1.0), "lag=-1.0"),
  ],
)
def test_wrong_fields_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_golden_matrices(golden):
  """All but the trapezoid, whose released form is asymmetric by a slip of an index."""
  numbers = golden("diffusion_forcing.npz")
  names = [n for n in numbers.files if n.startswith("matrix/") and "trapezoid" not in n]
  for name in names:
    _, kind, steps, horizon, lag = name.split("/")
    steps, tokens, lag = int(steps[5:]), int(horizon[7:]), float(lag[1:])
    extra = (lag,) if kind == "pyramid" else ()
    np.testing.assert_array_equal(getattr(grids, kind)(steps, tokens, *extra), numbers[name])
  assert len(names) == 40


def test_golden_steps(golden):
  index = golden("diffusion_forcing.npz")["real_steps/20"][::-1]
  np.testing.assert_allclose(grids.discrete(1000, 20), (index + 1) / 1000, rtol=1e-6)
