"""The ridge regression: it finds a law that is known, and its mean is that of its draws."""

import numpy as np
import pytest

from dfim.data import forecasting
from dfim.data import ridge


@pytest.fixture(scope="module")
def series():
  return forecasting.vector_autoregression(length=6000, dims=3)


def test_it_finds_the_law_it_is_fitted_to(series):
  """Order 1 without ridge is least squares: in raw units its matrix is the exact one."""
  fitted = ridge.fit(series, 6000, 1, 0.0)
  matrix = (fitted["lagged"] / fitted["std"][:, None] * fitted["std"]).T
  np.testing.assert_allclose(matrix, series["law"]["matrix"], atol=0.06)
  root = fitted["root"] * fitted["std"][:, None]
  np.testing.assert_allclose(root @ root.T, series["law"]["covariance"], atol=0.08)


def test_the_mean_is_that_of_the_draws(series):
  law, origin = ridge.fit(series, 3600, 2, 1.0), np.array([3600, 3607])
  drawn = ridge.draw(series, law, origin, 6, 20_000, np.random.default_rng(0))
  error = drawn.mean(0) - ridge.expect(series, law, origin, 6)
  assert np.all(np.abs(error) < 5 * drawn.std(0) / np.sqrt(20_000))
