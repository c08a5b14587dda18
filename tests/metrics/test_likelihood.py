"""The bound against exact log densities of Gaussian sequences, C_ij = sigma_data^2 a^|i - j|."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grids, interpolants as ip, levels as levels_lib
from dfim.metrics import likelihood
from tests.data.helpers import refused

pytestmark = pytest.mark.usefixtures("keys_unchecked")

SIGMA, TOKENS, DRAWS = 0.5, 4, 20_000
CLEAN = [0, 0, 0, 0]  # quarters of the way to noise
ORDERS = dict(
  full=levels_lib.full_sequence,
  autoregressive=levels_lib.autoregressive,
  pyramid=lambda steps, tokens: levels_lib.pyramid(steps, tokens, lag=steps / 4),
)


def covariance(a):
  tokens = np.arange(TOKENS)
  return SIGMA**2 * float(a) ** np.abs(tokens[:, None] - tokens)


def denoiser(path, cov, *, causal=False, factor=1.0):
  """The exact posterior mean of each token given all others, or those before it, at their times."""

  def clean(x_t, t):
    alpha, sigma = path.alpha(t)[0, :, 0], path.sigma(t)[0, :, 0]

    def row(i):
      seen = jnp.arange(TOKENS) <= i if causal else jnp.ones(TOKENS, bool)
      a, b = jnp.where(seen, alpha, 0.0), jnp.where(seen, sigma, 1.0)
      noisy = a[:, None] * cov * a[None] + jnp.diag(jnp.square(SIGMA * b))
      return jnp.linalg.solve(noisy, jnp.asarray(cov)[i] * a)

    return factor * jnp.einsum("ij,bj...->bi...", jax.vmap(row)(jnp.arange(TOKENS)), x_t)

  return clean


def moments(path, cov, k):
  alpha, sigma = np.asarray(path.alpha(k)), np.asarray(path.sigma(k))
  return alpha[:, None] * cov * alpha + np.diag(np.square(SIGMA * sigma))


def draw(path, cov, k, draws=DRAWS):
  root = np.linalg.cholesky(moments(path, cov, k))
  return np.random.default_rng(0).normal(size=(draws, TOKENS)) @ root.T


def log_density(cov, y):
  square = np.sum(y * np.linalg.solve(cov, y.T).T, -1)
  return -0.5 * (square + np.linalg.slogdet(2 * np.pi * cov)[1])


def make_grid(order, steps, quarters, t_max, t_min):
  ends = np.array(quarters) * steps // 4
  levels = likelihood.ending_at(ORDERS[order](steps, TOKENS), ends)
  return np.asarray(levels_lib.at(levels, grids.uniform(steps, t_max, t_min)))


def bound(path, clean, y, grid):
  y = jnp.asarray(y)[..., None]
  run = lambda key: likelihood.lower_bound(clean, key, y, grid, path=path, sigma_data=SIGMA)
  return np.asarray(jax.jit(run)(jax.random.key(1)))


def gap(path, order, quarters, steps, *, a=0.9, t_max=1.0, t_min=0.01, factor=1.0):
  """How far the bound lies below the exact log density on average, and the standard error."""
  cov, grid = covariance(a), make_grid(order, steps, quarters, t_max, t_min)
  y, there = draw(path, cov, grid[-1]), np.array(quarters) < 4
  exact = log_density(moments(path, cov, grid[-1])[np.ix_(there, there)], y[:, there])
  y = np.where(there, y, 1e3)  # values of tokens that are left out do not matter
  clean = denoiser(path, cov, causal=order == "autoregressive", factor=factor)
  apart = exact - bound(path, clean, y, grid)
  return apart.mean(), apart.std() / np.sqrt(len(apart))


@pytest.mark.parametrize(
  "path, order, quarters, limit",
  [
    (ip.Cosine(), "full", CLEAN, 0.2),
    (ip.Cosine(), "autoregressive", [0, 4, 1, 4], 0.05),
    pytest.param(ip.FlowMatching(), "autoregressive", CLEAN, 0.1, marks=pytest.mark.slow),
    (ip.FlowMatching(), "full", [1, 2, 0, 3], 0.05),
    pytest.param(ip.FlowMatching(), "pyramid", [0, 4, 1, 4], 0.05, marks=pytest.mark.slow),
    (ip.DiscreteVP(), "pyramid", CLEAN, 0.16),
  ],
)
def test_lies_below_the_exact_value_and_reaches_it_as_steps_shrink(
  path, order, quarters, limit, float64
):
  """Clean, noised by a level each, and parts of a sequence; `limit` in nats, for 32 steps."""
  t_max = 0.994 if isinstance(path, ip.FlowMatching) else 1.0
  (few, few_se), (many, many_se) = (gap(path, order, quarters, n, t_max=t_max) for n in (4, 32))
  assert few > 5 * few_se
  assert -3 * many_se < many < limit
  assert many < 0.3 * few + 3 * many_se


@pytest.mark.parametrize("path", [ip.Cosine(), ip.FlowMatching()], ids=repr)
@pytest.mark.parametrize("steps, quarters", [(1, [0, 0, 0, 4]), (4, [0, 1, 2, 4])])
def test_white_data_have_their_exact_density_by_any_number_of_steps(path, steps, quarters, float64):
  """The reverse steps of white data are Gaussians of the variance that the model has."""
  mean, error = gap(path, "full", quarters, steps, a=0.0, t_min=0.0)
  assert abs(mean) < 4 * error + 1e-6


def test_a_denoiser_blind_to_other_tokens_reaches_the_product_of_marginals(float64):
  """Its bound falls short by the tokens' mutual information, -1/2 ln det of the correlation."""
  path, cov = ip.Cosine(), covariance(0.9)
  grid = make_grid("full", 32, CLEAN, 1.0, 0.01)
  y = draw(path, cov, grid[-1])
  noisy = moments(path, cov, grid[-1])
  values = bound(path, denoiser(path, covariance(0.0)), y, grid)
  apart = log_density(np.diag(np.diag(noisy)), y) - values
  assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(len(y))
  missing = log_density(noisy, y).mean() - values.mean()
  mutual = 0.5 * (np.log(np.diag(noisy)).sum() - np.linalg.slogdet(noisy)[1])
  assert abs(missing - mutual) < 0.1


def test_tokens_held_fixed_below_the_top_are_given(float64):
  path, cov = ip.Cosine(), covariance(0.9)
  grid = make_grid("full", 32, CLEAN, 1.0, 0.01).copy()
  grid[:, :2] = [0.01, 0.4]
  y = draw(path, cov, grid[-1])
  noisy = moments(path, cov, grid[-1])
  exact = log_density(noisy, y) - log_density(noisy[:2, :2], y[:, :2])
  apart = exact - bound(path, denoiser(path, cov), y, grid)
  error = apart.std() / np.sqrt(len(y))
  assert -3 * error < apart.mean() < 0.1


def test_a_grid_for_each_example_and_vectors_as_tokens():
  path, clean = ip.Cosine(), lambda x_t, t: 0.5 * x_t
  grid = jnp.asarray(make_grid("autoregressive", 4, [0, 1, 4, 2], 1.0, 0.01))
  y = jax.random.normal(jax.random.key(2), (3, TOKENS, 2))
  how = dict(path=path, sigma_data=SIGMA)
  run = lambda grid: likelihood.lower_bound(clean, jax.random.key(1), y, grid, **how)
  each = jnp.repeat(grid[:, None], 3, axis=1)
  values = run(each)
  assert values.shape == (3,)
  np.testing.assert_allclose(values, run(grid), rtol=1e-5)
  others = run(each.at[:, 1:].set(grid[:, None, ::-1]))
  np.testing.assert_allclose(others[0], values[0], rtol=1e-5)
  assert np.all(np.abs(others[1:] - values[1:]) > 0.01)


def test_matrices_stop_at_their_ends_and_repeat_no_row():
  levels = likelihood.ending_at(levels_lib.autoregressive(2, 3), np.array([1, 2, 0]))
  np.testing.assert_array_equal(levels, [[2, 2, 2], [1, 2, 2], [1, 2, 1], [1, 2, 0]])
  whole = levels_lib.pyramid(3, 4)
  np.testing.assert_array_equal(likelihood.ending_at(whole, np.zeros(4, int)), whole)
  with refused("ends: 3 at token 1"):
    likelihood.ending_at(levels_lib.autoregressive(2, 3), np.array([1, 3, 0]))


Y, GRID = np.zeros((3, TOKENS, 2), np.float32), np.linspace([1.0] * TOKENS, [0.01] * TOKENS, 3)


def placed(array, value, *place):
  array = array.copy()
  array[place] = value
  return array


@pytest.mark.parametrize(
  "y, grid, sigma_data, line",
  [
    (Y[0, 0], GRID, SIGMA, "y of float32 (2,)"),
    (placed(Y, np.nan, 1, 2, 0), GRID, SIGMA, "y: nan at sequence 1, token 2, dimension 0"),
    (Y, GRID[:, :3], SIGMA, "grid of shape (3, 3)"),
    (Y, placed(GRID, 1.5, 0, 1), SIGMA, "grid: 1.5 at row 0, token 1"),
    (Y, GRID[::-1], SIGMA, "at row 1, token 0; times may not rise"),
    (Y, GRID, 0.0, "sigma_data=0.0"),
  ],
)
def test_arguments_that_have_no_bound_are_refused(y, grid, sigma_data, line):
  clean = lambda x_t, t: 0.5 * x_t
  how = dict(path=ip.Cosine(), sigma_data=sigma_data)
  with refused(line):
    likelihood.lower_bound(clean, jax.random.key(1), y, grid, **how)
