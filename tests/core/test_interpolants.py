"""Paths and interpolants: what every path must satisfy, and exact compositions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants as ip

CONTINUOUS = [ip.FlowMatching(), ip.Cosine()]
DISCRETE = [ip.DiscreteVP(betas, 100) for betas in ("linear", "cosine", "sigmoid")]
PATHS = CONTINUOUS + DISCRETE
paths = pytest.mark.parametrize("path", PATHS, ids=repr)
ranks = pytest.mark.parametrize("times", [(4, 1, 1), (4, 6, 1)], ids=["per_example", "per_token"])


def some_times(key, shape=(64, 1)):
  """s < r < t, away from the ends."""
  return jnp.sort(jax.random.uniform(key, (3, *shape), minval=0.05, maxval=0.95), axis=0)


@paths
def test_ends_are_data_and_noise(path):
  zero, one = jnp.zeros(1), jnp.ones(1)
  np.testing.assert_allclose(path.alpha(zero), 1.0, atol=1e-7)
  np.testing.assert_allclose(path.sigma(zero), 0.0, atol=1e-7)
  np.testing.assert_allclose(path.sigma(one), 1.0, atol=1e-3)
  assert 0.0 <= path.alpha(one)[0] < 0.01


@paths
def test_noise_to_signal_ratio_grows(path):
  etas = ip.eta(path, jnp.linspace(0.0, 0.999, 500))
  assert jnp.all(jnp.diff(etas) > 0)


@paths
def test_time_inverts_eta(path):
  t = jnp.linspace(0.01, 0.99, 99)
  np.testing.assert_allclose(path.time(ip.eta(path, t)), t, atol=2e-5)
  np.testing.assert_allclose(path.time(jnp.array([0.0, jnp.inf])), [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("path", CONTINUOUS, ids=repr)
def test_log_snr_is_minus_two_log_eta(path):
  t = jnp.linspace(0.01, 0.99, 99)
  np.testing.assert_allclose(ip.log_snr(path, t), -2 * jnp.log(ip.eta(path, t)), atol=1e-4)


@paths
@ranks
def test_ddim_stays_on_the_path(path, times, key):
  k1, k2 = jax.random.split(key)
  x, eps = jax.random.normal(k1, (2, 4, 6, 3))
  s, _, t = some_times(k2, times)
  x_t = ip.interpolate(path, x, eps, t)
  np.testing.assert_allclose(
    ip.ddim(path, x_t, x, s, t), ip.interpolate(path, x, eps, s), atol=2e-5
  )


@paths
def test_ddim_composes(path, key, float64):
  k1, k2 = jax.random.split(key)
  x, x_t = jax.random.normal(k1, (2, 64, 3), jnp.float64)
  s, r, t = some_times(k2)
  twice = ip.ddim(path, ip.ddim(path, x_t, x, r, t), x, s, r)
  np.testing.assert_allclose(twice, ip.ddim(path, x_t, x, s, t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", CONTINUOUS, ids=repr)
def test_ddim_ends(path, key):
  x, x_t = jax.random.normal(key, (2, 4, 3))
  t, zero, one = jnp.full((4, 1), 0.6), jnp.zeros((4, 1)), jnp.ones((4, 1))
  np.testing.assert_array_equal(ip.ddim(path, x_t, x, t, t), x_t)
  np.testing.assert_array_equal(ip.ddim(path, x_t, x, zero, zero), x_t)  # 0 / 0 if done blindly
  np.testing.assert_allclose(ip.ddim(path, x_t, x, zero, t), x, atol=1e-6)
  np.testing.assert_allclose(
    ip.ddim(path, x_t, x, t, one), ip.interpolate(path, x, x_t, t), atol=1e-6
  )


@paths
def test_posterior_composes_and_keeps_the_marginal(path, key, float64):
  """IMM lemma 6: coefficients on (x_t, x, noise) through r equal those of one step."""
  s, r, t = some_times(key)
  one, zero = jnp.ones_like(t), jnp.zeros_like(t)

  def coefficients(s, t):
    of_xt, std = ip.ddpm_posterior(path, one, zero, s, t)
    return of_xt, ip.ddpm_posterior(path, zero, one, s, t)[0], std**2

  a, b, var = coefficients(s, t)
  (a1, b1, var1), (a2, b2, var2) = coefficients(r, t), coefficients(s, r)
  np.testing.assert_allclose(a2 * a1, a, rtol=1e-10)
  np.testing.assert_allclose(a2 * b1 + b2, b, rtol=1e-9)
  np.testing.assert_allclose(a2**2 * var1 + var2, var, rtol=1e-9)
  np.testing.assert_allclose(a * path.alpha(t) + b, path.alpha(s), rtol=1e-9)
  np.testing.assert_allclose(a**2 * path.sigma(t) ** 2 + var, path.sigma(s) ** 2, rtol=1e-9)


@pytest.mark.parametrize("path", CONTINUOUS, ids=repr)
def test_posterior_keeps_the_marginal_in_a_simulation(path, key):
  """IMM definition 1 with data of two atoms: drawn through t, x_s has the law of the path."""
  k1, k2, k3, k4 = jax.random.split(key, 4)
  x = jnp.where(jax.random.bernoulli(k1, 0.3, (200_000, 1)), 1.0, -0.5)
  t, s = jnp.full((1, 1), 0.8), jnp.full((1, 1), 0.35)
  x_t = ip.interpolate(path, x, jax.random.normal(k2, x.shape), t)
  mean, std = ip.ddpm_posterior(path, x_t, x, s, t)
  through = mean + std * jax.random.normal(k3, x.shape)
  direct = ip.interpolate(path, x, jax.random.normal(k4, x.shape), s)
  for power in (1, 2, 3, 4):
    a, b = through**power, direct**power
    error = jnp.sqrt((a.var() + b.var()) / len(x))
    assert abs(a.mean() - b.mean()) < 5 * error, power


def test_posterior_stands_still_where_s_is_t(key):
  x, x_t = jax.random.normal(key, (2, 4, 3))
  for time in (0.0, 0.5, 1.0):
    t = jnp.full((4, 1), time)
    mean, std = ip.ddpm_posterior(ip.FlowMatching(), x_t, x, t, t)
    np.testing.assert_array_equal(mean, x_t)
    np.testing.assert_array_equal(std, 0.0)


def test_times_of_the_wrong_rank_are_refused():
  x = jnp.ones((4, 6, 3))
  with pytest.raises(ValueError, match="rank"):
    ip.interpolate(PATHS[0], x, x, jnp.ones((4,)) * 0.5)


def test_an_unknown_schedule_is_refused():
  with pytest.raises(ValueError, match="betas='lineer'.*linear, cosine or sigmoid"):
    ip.DiscreteVP("lineer")


def test_noise_keyed_by_example_does_not_depend_on_the_batch(key):
  keys = lambda indices: jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
  five = ip.noise_like(keys(jnp.arange(5)), jnp.zeros((5, 2, 3)))
  two = ip.noise_like(keys(jnp.arange(3, 5)), jnp.zeros((2, 2, 3)))
  np.testing.assert_array_equal(five[3:], two)
  assert len(np.unique(five)) == five.size


@pytest.mark.parametrize("levels", [10, 100, 1000])
@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid"])
def test_golden_schedules(betas, levels, golden):
  numbers, found = golden("diffusion_forcing.npz"), ip.alpha_bars(betas, levels)
  expected = numbers[f"alphas_cumprod/{betas}/{levels}"]
  # The released sigmoid is evaluated in float32: its last levels are right to 1e-8.
  np.testing.assert_allclose(found[1:], expected, rtol=1e-5, atol=1e-8)
  np.testing.assert_allclose(
    1 - found[1:] / found[:-1], numbers[f"betas/{betas}/{levels}"], rtol=2e-5
  )


@pytest.mark.parametrize("betas", ["cosine", "sigmoid"])
def test_golden_noise_per_token(betas, golden):
  numbers = golden("diffusion_forcing.npz")
  x, eps = (jnp.asarray(numbers[name]) for name in ("x", "eps"))
  t = (jnp.asarray(numbers["noise_levels"])[..., None] + 1) / 1000  # index -1 is clean
  found = ip.interpolate(ip.DiscreteVP(betas), x, eps, t)
  np.testing.assert_allclose(found, numbers[f"q_sample/{betas}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid"])
def test_the_first_levels_keep_their_noise(betas):
  """1 - alpha_bar of level 0 is 3e-4 and less: taken from a rounded alpha_bar it would be off."""
  path = ip.DiscreteVP(betas)
  t = jnp.array([1e-3, 2e-3])
  exact = np.sqrt(1.0 - ip.alpha_bars(betas, 1000)[1:3])
  np.testing.assert_allclose(path.sigma(t), exact, rtol=1e-5)
