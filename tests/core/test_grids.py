"""Time grids: worked values, and exact ends."""

import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grids, interpolants as ip

FM, COSINE = ip.FlowMatching(), ip.Cosine()


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


@pytest.mark.parametrize(
  "call, field",
  [
    (lambda: grids.uniform(0, 0.9, 0.1), "steps=0"),
    (lambda: grids.uniform(2, 0.1, 0.9), "t_min=0.9"),
    (lambda: grids.edm(FM, 2, 1.0, 0.0), "t_max=1.0"),
    (lambda: grids.through_eta(FM, (500.0,), 0.994, 0.006), r"etas=\(500.0,\)"),
    (lambda: grids.discrete(10, 20), "steps=20"),
  ],
)
def test_wrong_fields_are_named(call, field):
  with pytest.raises(ValueError, match=f"^{field}"):
    call()


def test_golden_steps(golden):
  index = golden("diffusion_forcing.npz")["real_steps/20"][::-1]
  np.testing.assert_allclose(grids.discrete(1000, 20), (index + 1) / 1000, rtol=1e-6)
