import numpy as np
import pytest
import scipy.stats

from dfim.metrics import crps
from tests.data.helpers import refused

BOTH = pytest.mark.parametrize("score", [crps.exact, crps.quantile])


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


@BOTH
def test_a_point_forecast_scores_its_absolute_error(score):
  target = normal(0, 6)
  np.testing.assert_allclose(score(np.full((100, 6), 0.7), target), np.abs(target - 0.7))


def test_the_exact_score_is_the_double_sum_and_a_normals_closed_form():
  """T. Gneiting and A. Raftery, JASA 102, 2007, eq. 21."""
  y = np.linspace(-3, 3, 13)
  gaussian = scipy.stats.norm
  expected = y * (2 * gaussian.cdf(y) - 1) + 2 * gaussian.pdf(y) - 1 / np.sqrt(np.pi)
  x = gaussian.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
  np.testing.assert_allclose(crps.exact(x + 0 * y, y), expected, atol=1e-4)
  x, y = np.round(normal(0, 17, 5), 1), np.round(normal(1, 5), 1)  # with ties
  expected = np.abs(x - y).mean(0) - np.abs(x[:, None] - x[None]).mean((0, 1)) / 2
  np.testing.assert_allclose(crps.exact(x, y), expected, atol=1e-12)


@pytest.mark.parametrize("paths", [100, 37, 5])
def test_quantiles_are_those_of_the_released_program(paths):
  """Level q is the int(q P)-th smallest sample, where that is one."""
  x, y = normal(0, paths, 6), normal(1, 6)
  losses = []
  for q in (round(0.05 * k, 2) for k in range(1, 20)):
    at = np.sort(x, 0)[max(int(round(q * 100) * paths / 100), 1) - 1]
    losses.append(2 * np.abs((at - y) * ((y <= at) - q)))
  np.testing.assert_allclose(crps.quantile(x, y), np.mean(losses, 0))


def test_the_sum_sees_dependence_and_each_dimension_counts_equally():
  target = normal(0, 50, 2, 2)
  errors = normal(1, 400, 50, 2, 1)
  together, against = errors * [1, 1], errors * [1, -1]
  target = np.concatenate([target[..., :1], target[..., :1]], -1)  # its dimensions agree
  a, b = crps.scores(together, target), crps.scores(against, target)
  assert a["crps_sum"] < 0.75 * b["crps_sum"]
  assert abs(a["crps"] - b["crps"]) < 0.02
  paths, target = normal(0, 30, 4, 5, 2), normal(1, 4, 5, 2)
  units = np.array([1.0, 1000.0])
  a, b = crps.scores(paths, target), crps.scores(units * paths, units * target)
  np.testing.assert_allclose((a["crps"], a["crps_quantile"]), (b["crps"], b["crps_quantile"]))


@pytest.mark.parametrize("score", [crps.exact, crps.quantile, crps.scores, crps.along])
def test_numbers_that_are_not_finite_are_refused_with_their_place(score):
  paths, target = normal(0, 9, 4, 5, 3), normal(1, 4, 5, 3)
  spoiled = paths.copy()
  spoiled[8, 3, 0, 2] = np.nan
  with refused("paths: nan at path 8, window 3, step 0, column 2"):
    score(spoiled, target)
  target[3, 0, 2] = np.inf
  with refused("target: inf at window 3, step 0, column 2"):
    score(paths, target)


def test_a_truth_of_zeros_is_refused_with_its_column():
  paths, target = normal(0, 9, 4, 5, 3), normal(1, 4, 5, 3)
  target[..., 1] = 0
  with refused("target: column 1"):
    crps.scores(paths, target)
  assert np.isfinite(crps.along(paths, target)).all()  # of the sum alone
  for score in (crps.scores, crps.along):
    with refused("target: the sum"):
      score(paths, target[..., :1] * [0.1, 0.2, -0.3])  # whose sum is rounding


def test_a_constant_column_that_is_met_scores_0_and_leaves_the_others():
  paths, target = normal(0, 30, 4, 5, 2), normal(1, 4, 5, 2)
  alone = crps.scores(paths[..., :1], target[..., :1])
  paths[..., 1] = target[..., 1] = 0.1
  found = crps.scores(paths, target)
  for name in ("crps", "crps_quantile"):
    assert found[name] == pytest.approx(alone[name] / 2)


def test_the_error_along_a_forecast_is_that_of_each_step_and_a_perfect_one_scores_0():
  paths, target = normal(0, 30, 4, 5, 2), normal(1, 4, 5, 2)
  x, y = paths.sum(-1), target.sum(-1)
  loss = np.abs(x - y).mean(0) - np.abs(x[:, None] - x[None]).mean((0, 1)) / 2
  expected = [loss[:, h].sum() / np.abs(y).sum() * 5 for h in range(5)]
  np.testing.assert_allclose(crps.along(paths, target), expected)
  target = normal(0, 3, 4, 2) + 5
  found = crps.scores(np.stack(100 * [target]), target)
  assert found == dict(crps=0, crps_sum=0, crps_quantile=0, crps_sum_quantile=0)
