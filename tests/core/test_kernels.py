"""Every public function of `kernels` must be a kernel: new ones are tested for free."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import kernels, mmd

KERNELS = [
  f for name, f in inspect.getmembers(kernels, inspect.isfunction) if not name.startswith("_")
]
CONDITIONAL = {kernels.energy, kernels.pseudo_huber}  # positive definite on sum-zero weights only
one = jnp.ones(())


def mmd2(y, z, kernel, scale):
  k_yy, k_zz, k_yz = mmd.grams(y, z, kernel, scale[..., None, None])
  return jnp.mean(k_yy + k_zz - 2.0 * k_yz, axis=(-1, -2))


@pytest.fixture(params=KERNELS, ids=lambda f: f.__name__)
def kernel(request):
  return request.param


def gram(kernel, x):
  return kernel(x[:, None], x[None, :], jnp.ones((1, 1)))


def test_gram_is_symmetric_and_positive_semidefinite(kernel, key):
  k = np.asarray(gram(kernel, jax.random.normal(key, (12, 3))), np.float64)
  np.testing.assert_allclose(k, k.T, atol=1e-6)
  centre = np.eye(12) - (1 / 12 if kernel in CONDITIONAL else 0)
  assert np.linalg.eigvalsh(centre @ k @ centre).min() > -1e-5


def test_gradient_is_finite_where_particles_meet(kernel):
  x = jnp.zeros((4, 3))
  grad = jax.grad(lambda x: jnp.sum(gram(kernel, x)))(x)
  np.testing.assert_array_equal(grad, 0.0)


def test_mmd_of_a_group_with_itself_is_zero_and_of_others_not_negative(kernel, key):
  y, z = jax.random.normal(key, (2, 200, 4, 3))
  of = lambda y, z: mmd2(y, z, kernel, jnp.full(200, 0.3)).sum()
  distance, grad = jax.value_and_grad(of)(y, y)
  assert abs(distance) < 1e-4
  np.testing.assert_allclose(grad, 0.0, atol=1e-6)
  np.testing.assert_allclose(mmd2(y, y[:, ::-1], kernel, jnp.ones(200)), 0.0, atol=1e-5)
  assert jnp.all(mmd2(y, 0.5 + z, kernel, jnp.full(200, 0.3)) > -1e-6)


def test_mmd_matches_a_plain_double_sum(kernel, key):
  k1, k2 = jax.random.split(key)
  y, z = np.asarray(jax.random.normal(k1, (2, 1, 4, 3)))
  scale = jax.random.uniform(k2, (1,))
  mean = lambda a, b: np.mean([kernel(i, j, scale[0]) for i in a for j in b])
  expected = mean(y[0], y[0]) + mean(z[0], z[0]) - 2 * mean(y[0], z[0])
  np.testing.assert_allclose(mmd2(y, z, kernel, scale)[0], expected, atol=1e-5)


def test_energy_kernel_sees_the_mean_alone(key):
  """IMM lemma 1: 2 ||mean y - mean z||^2, and 2 ||y - z||^2 for one particle."""
  y, z = jax.random.normal(key, (2, 6, 4, 3))
  squared = jnp.sum((y.mean(1) - z.mean(1)) ** 2, -1)
  exact = dict(kernel=lambda *a: kernels.energy(*a, floor=0.0), scale=jnp.ones(6))
  np.testing.assert_allclose(mmd2(y, z, **exact), 2 * squared, rtol=1e-4, atol=1e-5)
  alone, expected = mmd2(y[:, :1], z[:, :1], **exact), 2 * jnp.sum((y - z)[:, 0] ** 2, -1)
  np.testing.assert_allclose(alone, expected, rtol=1e-5)


def pull(kernel, y, *, far, p):
  """Of the loss on one pair, on average, at a particle at y; its pair is at `far`, or else at 0."""

  def loss(y):
    on_pair = lambda z: mmd2(y[None], jnp.full((1, 1), z), kernel, one)
    return (1 - p) * on_pair(0.0) + p * on_pair(far)

  return -jax.grad(loss)(jnp.full(1, y))[0]


@pytest.mark.parametrize("m", [1.0, 8.0])
@pytest.mark.parametrize("far", [0.5, 1.0, 2.0])
def test_a_wide_laplace_kernel_lets_a_particle_leave_at_a_share_nearer_to_half(m, far):
  """A particle near 0 whose pairs lie at 0, and at `far` in a share p of cases."""
  kernel = functools.partial(kernels.laplace, bandwidth_multiplier=m)
  near_0 = functools.partial(pull, kernel, 1e-3, far=far)
  turning = 1 / (1 + np.exp(-far / m))
  assert near_0(p=turning - 0.01) < 0.0 < near_0(p=turning + 0.01)


def test_a_round_bottom_draws_a_particle_to_the_mean_of_its_pairs_and_a_sharp_one_to_their_median():
  """What small jumps learn: the mean is the flow of the data, the median is not."""
  far, round_, sharp = 0.05, functools.partial(kernels.pseudo_huber, c=1.0), kernels.laplace
  for p in (0.2, 0.5, 0.8):
    below, above = (pull(round_, (p + d) * far, far=far, p=p) for d in (-0.1, 0.1))
    assert below > 0.0 > above
  for y in (0.2 * far, 0.5 * far, 0.8 * far):
    assert pull(sharp, y, far=far, p=0.2) < -1.0 and pull(sharp, y, far=far, p=0.8) > 1.0
    # two equally likely pairs leave it anywhere between them
    assert abs(pull(sharp, y, far=far, p=0.5)) < 0.1 * abs(pull(sharp, y, far=far, p=0.2))
