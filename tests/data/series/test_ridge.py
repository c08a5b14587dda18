"""The ridge regression finds a distribution that is known, and its mean is that of its draws."""

import numpy as np
import pytest

from dfim.data.series import forecasting, ridge


@pytest.fixture(scope="module")
def series():
  return forecasting.vector_autoregression(length=6000, dims=3)


def test_a_fit_in_blocks_is_that_of_all_rows_and_finds_its_distribution(series, monkeypatch):
  """Order 1 without ridge is least squares: in raw units its matrix is the exact one."""
  fitted = ridge.fit(series, 6000, 1, 0.0)
  matrix = (fitted["lagged"] / fitted["std"][:, None] * fitted["std"]).T
  np.testing.assert_allclose(matrix, series["distribution"]["matrix"], atol=0.06)
  root = fitted["root"] * fitted["std"][:, None]
  np.testing.assert_allclose(root @ root.T, series["distribution"]["covariance"], atol=0.08)
  whole = ridge.fit(series, 3600, 5, 10.0)
  monkeypatch.setattr(ridge, "_BLOCK", 2000)
  found = ridge.fit(series, 3600, 5, 10.0)
  for name in ("lagged", "drift", "root"):
    np.testing.assert_allclose(found[name], whole[name], rtol=1e-8, atol=1e-10)


def test_the_mean_is_that_of_the_draws(series):
  known, origin = ridge.fit(series, 3600, 2, 1.0), np.array([3600, 3607])
  drawn = ridge.draw(series, known, origin, 6, 20_000, np.random.default_rng(0))
  error = drawn.mean(0) - ridge.expect(series, known, origin, 6)
  assert np.all(np.abs(error) < 5 * drawn.std(0) / np.sqrt(20_000))


@pytest.mark.parametrize("constant", [0.0, 0.1, -7e5])
def test_a_constant_dimension_is_forecast_as_it_is(series, constant):
  values = series["values"].copy()
  values[:, 1] = constant
  known = ridge.fit(series | dict(values=values), 3600, 2, 1.0)
  origin = np.array([3600, 3607])
  drawn = ridge.draw(series | dict(values=values), known, origin, 6, 50, np.random.default_rng(0))
  assert np.all(drawn[..., 1] == constant) and np.isfinite(drawn).all()
  alone = series | dict(values=values[:, [0, 2]])
  expected = ridge.expect(alone, ridge.fit(alone, 3600, 2, 1.0), origin, 6)
  found = ridge.expect(series | dict(values=values), known, origin, 6)
  np.testing.assert_allclose(found[..., [0, 2]], expected, rtol=1e-10)


def test_a_constant_stays_one_where_it_moves_later(series):
  values = series["values"].copy()
  values[:3600, 1] = 3.0
  known = ridge.fit(series | dict(values=values), 3600, 2, 1.0)
  found = ridge.expect(series | dict(values=values), known, np.array([4000]), 6)
  values[3600:, 1] = 3.0
  expected = ridge.expect(series | dict(values=values), known, np.array([4000]), 6)
  np.testing.assert_array_equal(found, expected)


HOUR = np.arange(6000)[:, None] % 24 / 24
DAY = np.eye(7)[np.arange(6000) // 24 % 7]


@pytest.mark.parametrize(
  "calendar, more", [(HOUR, np.ones((6000, 1))), (HOUR, 2 * HOUR - 1), (DAY[:, :6], DAY[:, 6:])]
)
def test_a_calendar_that_repeats_itself_adds_nothing(series, calendar, more):
  both = np.concatenate([calendar, more], 1)
  cases = [series | dict(calendar=c.astype(np.float32)) for c in (calendar, both)]
  origin = np.array([3600, 3650])
  expected, found = (ridge.expect(s, ridge.fit(s, 3600, 2, 1.0), origin, 30) for s in cases)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("rows, width", [(10, 3), (10, 1000), (7, 5)])
def test_blocks_hold_all_rows_in_order(rows, width, monkeypatch):
  monkeypatch.setattr(ridge, "_BLOCK", 12)
  parts = ridge.blocks(np.arange(rows), width)
  assert np.concatenate(parts).tolist() == list(range(rows))
  assert all(1 <= len(part) <= max(12 // width, 1) for part in parts)


def test_the_root_leaves_out_dimensions_without_variance():
  a = np.array([[2.0, 0, 0], [0, 0, 0], [1.0, 0, 3.0]])
  np.testing.assert_allclose(ridge.root(a @ a.T), a)
  with pytest.raises(np.linalg.LinAlgError):
    ridge.root(np.diag([1.0, -1.0]))
