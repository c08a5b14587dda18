"""Contacts by their closed forms and by MuJoCo's numbers, without MuJoCo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.envs import contacts

X, Y, BOTH = np.eye(3, dtype=bool)  # which of the three cells around a corner is a wall
REMAINING = 0.17721520476  # of the depth of one contact, after MuJoCo 4.0.0's five sub-steps
pytestmark = pytest.mark.usefixtures("float64", "optimized")
push_out = jax.jit(jax.vmap(contacts.push_out, in_axes=(0, None)))


def depths(d):
  """The gaps at depths `d [N, 2]` in two walls."""
  return jnp.asarray(contacts.RADIUS - np.asarray(d, float))


def remaining(d, walls):
  return contacts.RADIUS - np.asarray(push_out(depths(d), walls))


def test_without_contact_nothing_moves():
  gap = jnp.asarray(np.random.default_rng(0).uniform(0.71, 2.0, (100, 2)))
  for walls in (X, Y, BOTH, X | Y | BOTH):
    np.testing.assert_array_equal(push_out(gap, walls), gap)
  shallow = gap.at[:, 0].set(0.1)
  np.testing.assert_array_equal(push_out(shallow, np.zeros(3, bool)), shallow)


def test_head_on_a_fixed_share_of_the_depth_remains():
  d = np.stack([np.array([0.01, 0.05, 0.1, 0.2, 0.24]), np.full(5, -0.5)], axis=-1)
  found = remaining(d, X)
  np.testing.assert_allclose(found[:, 0], REMAINING * d[:, 0], rtol=1e-8)
  np.testing.assert_array_equal(found[:, 1], d[:, 1])  # no drift along the wall


def test_one_contact_is_a_damped_spring_that_never_pulls():
  """Depth and its rate by RK4, in NumPy; the contact ends in the second of five sub-steps."""
  stiffness, damping = 1 / (0.95 * 0.04) ** 2, 2 / (0.95 * 0.04)
  active = 28.5 / 29.5  # the share of its target that a contact of four edges reaches
  slope = lambda z: np.array([-z[1], active * max(0.95 * stiffness * z[0] - damping * z[1], 0)])
  z, h = np.array([0.1, 0.0]), 0.02
  for _ in range(5):
    k1 = slope(z)
    k2 = slope(z + h / 2 * k1)
    k3 = slope(z + h / 2 * k2)
    k4 = slope(z + h * k3)
    z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
  np.testing.assert_allclose(remaining([[0.1, -1.0]], X)[0, 0], z[0], rtol=1e-9)


def test_an_edge_pushes_straight_away_from_itself():
  angle = np.linspace(0.2, 1.4, 9)
  normal = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  after = np.asarray(push_out(jnp.asarray((contacts.RADIUS - 0.1) * normal), BOTH))
  np.testing.assert_allclose(after, (contacts.RADIUS - 0.1 * REMAINING) * normal, rtol=1e-9)


def test_inner_corners_are_mujocos_and_symmetric():
  d = np.array([(0.1, 0.1), (0.2, 0.05), (0.05, 0.2), (0.1, 0.01)])
  walls = X | Y | BOTH
  expected = [(0.01853945, 0.01853945), (0.03380778, -0.03759576), (-0.03759576, 0.03380778)]
  expected += [(0.01275667, -0.02328617)]
  np.testing.assert_allclose(remaining(d, walls), expected, atol=1e-8)
  np.testing.assert_allclose(remaining(d[:, ::-1], walls), remaining(d, walls)[:, ::-1], atol=1e-9)


def test_a_seam_between_two_cells_of_a_wall_pushes_sideways_as_in_mujoco():
  """From MuJoCo 4.0.0: 0.1 deep in a wall, 0.1, 0.05 and 0 units from the seam of two cells."""
  gap = jnp.array([[0.6, 0.1], [0.6, 0.05], [0.6, 0.0]])
  moved = np.asarray(push_out(gap, X | BOTH)) - gap
  expected = [(0.084225, 0.00337788), (0.08371226, 0.00252555), (0.08269755, 0.0)]
  np.testing.assert_allclose(moved, expected, atol=1e-8)
