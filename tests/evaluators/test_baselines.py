"""Baselines: nothing of the future enters, and their draws have the right distribution."""

import functools

import numpy as np
import pytest

from dfim.data.series import forecasting
from dfim.evaluators import baselines
from tests.data.helpers import refused, spoiled

SIZES = dict(context=48, horizon=24)
EVERY = [baselines.seasonal_naive, baselines.ridge_var, baselines.oracle]
ALL = pytest.mark.parametrize("forecast", EVERY)


@pytest.fixture(scope="module")
def series():
  return forecasting.vector_autoregression(length=6000, dims=3)


@pytest.fixture(scope="module")
def windows(series):
  return forecasting.load(series=series, **SIZES)


@ALL
def test_the_future_never_enters(series, forecast):
  """Nor by the fit or the choice; at the last window, all before it may be known."""
  windows = forecasting.load(series=series, **SIZES, count=2)
  expected = forecast(series, windows, 8, 0)
  found = forecast(spoiled(series, windows["origin"][-1]), windows, 8, 0)
  np.testing.assert_array_equal(found, expected)
  assert expected.shape == (8, 2, 24, 3) and np.isfinite(expected).all()


@pytest.mark.parametrize("forecast", [baselines.seasonal_naive, baselines.ridge_var])
def test_nothing_is_fitted_on_windows_that_are_forecast(series, forecast):
  """Also where these lie in the training part, as the validation of the exchange rates does."""
  series = series | dict(cuts=(4800, 4800, 6000))
  windows = forecasting.load(series=series, **SIZES, split="validation")
  first = windows["origin"][0]
  assert first == 4650
  found = forecast(spoiled(series, first, 1e6), windows, 4, 0)
  np.testing.assert_array_equal(found[:, 0], forecast(series, windows, 4, 0)[:, 0])


@ALL
def test_paths_are_keyed_by_the_seed(series, windows, forecast):
  kwargs = dict(choice=(1, 1.0)) if forecast is baselines.ridge_var else {}
  a, b, c = (forecast(series, windows, 4, seed, **kwargs) for seed in (0, 0, 1))
  np.testing.assert_array_equal(a, b)
  assert np.mean(a != c) > 0.9  # naive paths of two seeds may take one training day
  assert len(np.unique(a[:, 0, 0, 0])) == 4


def test_oracle_is_the_exact_gaussian(series):
  """Mean and covariance at each step by their recursions, against 40,000 paths of one window."""
  windows, known = forecasting.load(series=series, **SIZES, count=1), series["distribution"]
  drawn = baselines.oracle(series, windows, 40_000)[:, 0]
  origin, covariance = windows["origin"][0], np.zeros((3, 3))
  deviation = series["values"][origin - 1] - known["mean"][(origin - 1) % 24]
  for h in range(24):
    deviation = known["matrix"] @ deviation
    covariance = known["matrix"] @ covariance @ known["matrix"].T + known["covariance"]
    std = np.sqrt(np.diag(covariance))
    error = drawn[:, h].mean(0) - deviation - known["mean"][(origin + h) % 24]
    assert np.all(np.abs(error) < 5 * std / 200)
    assert np.all(np.abs(np.cov(drawn[:, h].T) - covariance) < 5 * np.outer(std, std) / 140)


def of_days(values, cuts):
  return dict(values=values, calendar=np.zeros((1200, 0), np.float32), season=24, cuts=cuts)


def test_a_periodic_series_is_forecast_without_error():
  t = np.arange(1200)
  values = np.stack([np.sin(2 * np.pi * t / 24), t % 24], -1) + 3.0
  series = of_days(values, (700, 1000, 1200))
  windows = forecasting.load(series=series, context=48, horizon=30)  # longer than a season
  found = baselines.seasonal_naive(series, windows, 5)
  np.testing.assert_allclose(found, np.stack(5 * [windows["target"]]), atol=1e-12)


def test_naive_errors_are_whole_blocks_of_training_at_the_same_phase():
  """Errors that name the day they come from: day k lies at k^2."""
  day, step = np.divmod(np.arange(24 * 50), 24)
  values = (day**2 * 100.0 + step)[:, None] * [1.0, 2.0]
  series = of_days(values, (700, 900, 1200))
  windows = forecasting.load(series=series, context=24, horizon=24, stride=5)
  origin = windows["origin"]
  rows = origin[:, None] + np.arange(24)
  errors = baselines.seasonal_naive(series, windows, 50) - values[rows - 24]
  np.testing.assert_allclose(errors[..., 1], 2 * errors[..., 0])
  day_of = (errors[..., 0] / 100 + 1) / 2  # k^2 - (k - 1)^2 = 2 k - 1
  np.testing.assert_array_equal(day_of, np.round(day_of))
  same = (origin[:, None] + np.arange(24)) // 24 - origin[:, None] // 24
  np.testing.assert_array_equal(day_of - day_of[..., :1], np.broadcast_to(same, day_of.shape))
  assert day_of.min() == 1 and day_of.max() <= 29  # 700 steps are 29 days
  assert len(np.unique(day_of[:, 0, 0])) > 15


@pytest.mark.parametrize(
  "change, place",
  [
    (dict(season=0), "series.season=0"),
    (dict(season=1200), "series.cuts=(3600, 4800, 6000)"),
    (dict(values=None), "series.values"),
  ],
)
def test_a_series_that_cannot_be_forecast_is_refused_without_a_draw(series, windows, change, place):
  for call in (baselines.check, baselines.ridge_var):
    with refused(place):
      call(series | change, windows)


def test_sound_series_pass_the_check_and_windows_of_another_do_not(series, windows):
  baselines.check(series, windows)
  baselines.check(series | dict(cuts=(4800, 4800, 6000)), windows)  # nothing lies between
  baselines.check(spoiled(series, 5990), forecasting.load(series=spoiled(series, 5990), **SIZES))
  baselines.check({k: v for k, v in series.items() if k != "distribution"}, windows)
  other = forecasting.vector_autoregression(length=6000, dims=3, seed=1)
  with refused("series: "):
    baselines.check(other, windows)
  with refused("data.target of shape (50, 24, 3)"):
    baselines.check(series | dict(values=series["values"][:, :2]), windows)


@ALL
@pytest.mark.parametrize("origin", [0, 5977, -24])
def test_forecasts_outside_the_series_are_refused(series, windows, forecast, origin):
  bad = dict(origin=np.array([4800, origin]), target=np.zeros((2, 24, 3)))
  with refused(f"data.origin: {origin} at window 1"):
    forecast(series, bad, 4)
  with refused("data.origin", "5000"):  # after the last known row
    forecast(spoiled(series, 5000), windows, 4)
  with refused("paths=0"):
    forecast(series, windows, 0)


@pytest.mark.parametrize(
  "change", [dict(mean=np.zeros((0, 3))), dict(covariance=-np.eye(3)), dict(matrix=np.eye(2))]
)
def test_a_wrong_distribution_is_refused(series, windows, change):
  bad = series | dict(distribution=series["distribution"] | change)
  for call in (baselines.check, baselines.oracle):
    with refused(f"series.distribution.{next(iter(change))}"):
      call(bad, windows)


@pytest.mark.parametrize("constant", [0.1, -7e5])
def test_a_constant_dimension_is_forecast_as_it_is(series, constant):
  known = {name: value.copy() for name, value in series["distribution"].items()}
  known["mean"][:, 1] = constant
  known["matrix"][1] = known["covariance"][1] = known["covariance"][:, 1] = 0
  values = series["values"].copy()
  values[:, 1] = constant
  constant_one = series | dict(values=values, distribution=known)
  windows = forecasting.load(series=constant_one, **SIZES, count=3)
  baselines.check(constant_one, windows)
  ridge_var = functools.partial(baselines.ridge_var, choice=(2, 1.0))
  for forecast in (baselines.seasonal_naive, ridge_var, baselines.oracle):
    found = forecast(constant_one, windows, 20)
    assert np.all(found[..., 1] == constant) and np.isfinite(found).all()
  others = series | dict(values=values[:, [0, 2]])
  expected = baselines.seasonal_naive(others, forecasting.load(series=others, **SIZES, count=3), 20)
  found = baselines.seasonal_naive(constant_one, windows, 20)
  np.testing.assert_array_equal(found[..., [0, 2]], expected)


def test_the_choice_is_made_on_validation_windows_alone(series, windows):
  choice = baselines.choose_ridge_var(series, windows)
  again = baselines.choose_ridge_var(spoiled(series, series["cuts"][1], 1e6), windows)
  assert choice == again and choice[0] in (1, 2, 5, 25) and choice[1] in baselines._RIDGES
