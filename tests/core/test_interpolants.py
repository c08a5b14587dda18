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
def test_noise_to_signal_ratio_grows_and_has_an_inverse(path):
  etas = ip.eta(path, jnp.linspace(0.0, 0.999, 500))
  assert jnp.all(jnp.diff(etas) > 0)
  t = jnp.linspace(0.01, 0.99, 99)
  np.testing.assert_allclose(path.time(ip.eta(path, t)), t, atol=2e-5)
  np.testing.assert_allclose(path.time(jnp.array([0.0, jnp.inf])), [0.0, 1.0], atol=1e-6)


@paths
@ranks
def test_ddim_stays_on_the_path(path, times, key):
  k1, k2 = jax.random.split(key)
  x, eps = jax.random.normal(k1, (2, 4, 6, 3))
  s, _, t = some_times(k2, times)
  x_t = ip.interpolate(path, x, eps, t)
  found = ip.ddim(path, x_t, x, s, t)
  np.testing.assert_allclose(found, ip.interpolate(path, x, eps, s), atol=2e-5)


@pytest.mark.parametrize("path", CONTINUOUS, ids=repr)
def test_steps_of_no_length_and_to_either_end(path, key):
  x, x_t = jax.random.normal(key, (2, 4, 3))
  t, zero, one = jnp.full((4, 1), 0.6), jnp.zeros((4, 1)), jnp.ones((4, 1))
  for u in (t, zero, one):  # at 0 the formula is 0 / 0
    np.testing.assert_array_equal(ip.ddim(path, x_t, x, u, u), x_t)
    mean, std = ip.ddpm_posterior(path, x_t, x, u, u)
    np.testing.assert_array_equal(mean, x_t)
    np.testing.assert_array_equal(std, 0.0)
  np.testing.assert_allclose(ip.ddim(path, x_t, x, zero, t), x, atol=1e-6)
  found = ip.ddim(path, x_t, x, t, one)
  np.testing.assert_allclose(found, ip.interpolate(path, x, x_t, t), atol=1e-6)


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


@paths
def test_renewed_noise_is_the_ddpm_posteriors_and_keeps_the_marginal(path, key, float64):
  """Coefficients on noise and fresh noise: those of eq. 97, of unit norm, composing through r."""
  s, r, t = some_times(key)
  one, zero = jnp.ones_like(t), jnp.zeros_like(t)

  def coefficients(s, t):
    return (ip.renewed_noise(path, *pair, s, t) for pair in ((one, zero), (zero, one)))

  kept, fresh = coefficients(s, t)
  mean, std = ip.ddpm_posterior(path, path.sigma(t), zero, s, t)  # of x = 0, noise 1
  np.testing.assert_allclose(path.sigma(s) * kept, mean, rtol=1e-9)
  np.testing.assert_allclose(path.sigma(s) * fresh, std, rtol=1e-9)
  np.testing.assert_allclose(kept**2 + fresh**2, 1.0, rtol=1e-12)
  (kept1, fresh1), (kept2, fresh2) = coefficients(r, t), coefficients(s, r)
  np.testing.assert_allclose(kept2 * kept1, kept, rtol=1e-9)
  np.testing.assert_allclose(kept2**2 * fresh1**2 + fresh2**2, fresh**2, rtol=1e-9)


@paths
def test_x_r_of_a_datum_has_the_marginal_and_the_correlation_of_its_interpolant(path, key):
  """Of 100,000 draws given x = 0.3: mean alpha(r) x, deviation sigma(r), correlation with x_t."""
  x, r, t = jnp.full((100_000, 1), 0.3), jnp.asarray(0.4), jnp.asarray(0.7)
  eps, fresh = jax.random.normal(key, (2, *x.shape))
  x_t = ip.interpolate(path, x, eps, t)
  ratio = ip.eta(path, r) / ip.eta(path, t)
  for interpolant, correlation in ((ip.same_noise, 1.0), (ip.renewed_noise, ratio)):
    x_r = ip.interpolate(path, x, interpolant(path, eps, fresh, r, t), r)
    np.testing.assert_allclose(x_r.mean(), path.alpha(r) * 0.3, atol=0.01)
    np.testing.assert_allclose(x_r.std(), path.sigma(r), rtol=0.01)
    found = np.corrcoef(x_r[:, 0], x_t[:, 0])[0, 1]
    np.testing.assert_allclose(found, correlation, atol=0.01)


@pytest.mark.parametrize("interpolant", [ip.same_noise, ip.renewed_noise])
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_x_r_is_x_t_at_r_equal_t(path, interpolant, key):
  eps, fresh = jax.random.normal(key, (2, 4, 3))
  for t in (0.0, 0.37, 1.0):
    t = jnp.full((4, 1), t)
    np.testing.assert_array_equal(interpolant(path, eps, fresh, t, t), eps)
  found = interpolant(path, eps, fresh, jnp.zeros((4, 1)), t)
  assert np.all(np.isfinite(found)), "from pure noise to data"


@paths
def test_the_ratio_of_noise_has_a_slope_in_s_also_at_s_equal_t(path, float64):
  """sigma'(t) / sigma(t), which a jump's velocity needs."""
  t = jnp.asarray(0.503)
  slope = jax.grad(lambda s: ip.noise_ratio(path, s, t))(t)
  np.testing.assert_allclose(slope, jax.grad(path.sigma)(t) / path.sigma(t), rtol=1e-9)
  assert ip.noise_ratio(path, t, t) == 1.0 == ip.noise_ratio(path, 0.0 * t, 0.0 * t)


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
  expected = numbers[f"betas/{betas}/{levels}"]
  np.testing.assert_allclose(1 - found[1:] / found[:-1], expected, rtol=2e-5)


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
