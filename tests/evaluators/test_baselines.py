import numpy as np
import pytest

from dfim.data import forecasting
from dfim.evaluators import baselines
from dfim.metrics import crps

SIZES = dict(context=48, horizon=24)
ALL = pytest.mark.parametrize(
  "forecast", [baselines.seasonal_naive, baselines.ridge_var, baselines.oracle]
)


@pytest.fixture(scope="module")
def series():
  return forecasting.vector_autoregression(length=6000, dims=3)


@pytest.fixture(scope="module")
def windows(series):
  return forecasting.load(series=series, **SIZES)


def spoiled(series, row):
  """The series with every value from `row` on overwritten."""
  values = series["values"].copy()
  values[row:] = np.nan
  return series | dict(values=values)


@ALL
def test_the_future_never_enters(series, forecast):
  """Nor by what is fitted or chosen; at the last window, all before it may be known."""
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
  found = forecast(spoiled(series, first), windows, 4, 0)
  np.testing.assert_array_equal(found[:, 0], forecast(series, windows, 4, 0)[:, 0])


@ALL
def test_paths_are_keyed_by_the_seed(series, windows, forecast):
  kwargs = dict(choice=(1, 1.0)) if forecast is baselines.ridge_var else {}
  a, b, c = (forecast(series, windows, 4, seed, **kwargs) for seed in (0, 0, 1))
  np.testing.assert_array_equal(a, b)
  assert np.mean(a != c) > 0.9  # naive paths of two seeds may take one training day
  assert len(np.unique(a[:, 0, 0, 0])) == 4


def test_order_in_the_embedded_series_is_oracle_ridge_naive(series, windows):
  score = {
    forecast.__name__: crps.scores(forecast(series, windows), windows["target"])["crps_sum"]
    for forecast in (baselines.oracle, baselines.ridge_var, baselines.seasonal_naive)
  }
  assert abs(score["ridge_var"] / score["oracle"] - 1) < 0.03  # 49 windows; the law is in its class
  assert score["seasonal_naive"] > 1.2 * score["oracle"]


def test_oracle_is_the_exact_gaussian(series):
  """Mean and covariance at each step by their recursions, against 40,000 paths of one window."""
  windows, law = forecasting.load(series=series, **SIZES, count=1), series["law"]
  drawn = baselines.oracle(series, windows, 40_000)[:, 0]
  origin, covariance = windows["origin"][0], np.zeros((3, 3))
  deviation = series["values"][origin - 1] - law["mean"][(origin - 1) % 24]
  for h in range(24):
    deviation = law["matrix"] @ deviation
    covariance = law["matrix"] @ covariance @ law["matrix"].T + law["covariance"]
    std = np.sqrt(np.diag(covariance))
    error = drawn[:, h].mean(0) - deviation - law["mean"][(origin + h) % 24]
    assert np.all(np.abs(error) < 5 * std / 200)
    assert np.all(np.abs(np.cov(drawn[:, h].T) - covariance) < 5 * np.outer(std, std) / 140)


def test_a_periodic_series_is_forecast_without_error():
  t = np.arange(1200)
  values = np.stack([np.sin(2 * np.pi * t / 24), t % 24], -1) + 3.0
  series = dict(
    values=values, calendar=np.zeros((1200, 0), np.float32), season=24, cuts=(700, 1000, 1200)
  )
  windows = forecasting.load(series=series, context=48, horizon=30)  # longer than a season
  found = baselines.seasonal_naive(series, windows, 5)
  np.testing.assert_allclose(found, np.stack(5 * [windows["target"]]), atol=1e-12)


def test_naive_errors_are_whole_blocks_of_training_at_the_same_phase():
  """Errors that name the day they come from: day k lies at k^2."""
  day, step = np.divmod(np.arange(24 * 50), 24)
  values = (day**2 * 100.0 + step)[:, None] * [1.0, 2.0]
  series = dict(
    values=values, calendar=np.zeros((1200, 0), np.float32), season=24, cuts=(700, 900, 1200)
  )
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


def test_a_season_of_one_step_repeats_the_last_value():
  values = np.cumsum(np.random.default_rng(0).normal(size=(500, 2)), 0)
  series = dict(
    values=values, calendar=np.zeros((500, 0), np.float32), season=1, cuts=(400, 400, 500)
  )
  windows = forecasting.load(series=series, context=10, horizon=5)
  found = baselines.seasonal_naive(series, windows, 4000)
  spread = found.std(0) / np.sqrt(4000)
  last = values[windows["origin"] - 1, None]
  starts = np.arange(1, 396)
  bias = (values[starts[:, None] + np.arange(5)] - values[starts - 1, None]).mean(0)
  assert np.all(np.abs(found.mean(0) - last - bias) < 5 * spread)


def test_too_short_a_past_is_refused(series):
  windows = forecasting.load(series=series, **SIZES, split="train")
  for forecast in (baselines.seasonal_naive, baselines.ridge_var):
    with pytest.raises(ValueError, match="296 training steps .* not 48; .*baselines=False"):
      forecast(series, windows)


def test_the_choice_is_made_on_validation_windows_alone(series, windows):
  choice = baselines.choose_ridge_var(series, windows)
  again = baselines.choose_ridge_var(spoiled(series, series["cuts"][1]), windows)
  assert choice == again and choice[0] in (1, 2, 5, 25) and choice[1] in baselines._RIDGES


def test_dimensions_that_agree_can_be_forecast(series):
  values = series["values"][:, [0, 0]]
  twins = series | dict(values=values)
  windows = forecasting.load(series=twins, **SIZES, count=3)
  found = baselines.ridge_var(twins, windows, 20, choice=(1, 1.0))
  np.testing.assert_allclose(found[..., 0], found[..., 1], atol=0.01)
