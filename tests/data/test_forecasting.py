"""Windows of series: the contract of all sources, and that nothing of the horizon leaks."""

import functools
import gzip
import itertools
import json
import tarfile

import jax
import numpy as np
import pytest

from dfim.data import forecasting
from dfim.resolve import resolve
from tests.conftest import SHARED
from tests.data import test_sources as contract
from tests.data.test_sources import assert_equal

SIZES = dict(context=48, horizon=24)
LAGS = (24, 168)
ANCHORS = pytest.mark.parametrize("anchor", ["last", "mean", "train", "ridge"])

# What every data source promises, of the source below.
test_starting_at_n_equals_skipping_n = contract.test_starting_at_n_equals_skipping_n
test_processes_hold_parts_of_one_batch = contract.test_processes_hold_contiguous_parts_of_one_batch
test_batches_differ_by_seed_and_number = contract.test_batches_differ_by_seed_and_number
test_refusals_come_before_the_first_batch = contract.test_refusals_come_before_the_first_batch


@pytest.fixture(scope="module")
def series():
  return forecasting.vector_autoregression(length=2000, dims=3)


@pytest.fixture
def source(series):
  return functools.partial(forecasting.windows, series=series, **SIZES, stack=4, lags=LAGS)


def shared(name):
  path = SHARED / "data" / name
  if not path.is_file():
    pytest.skip(f"{path} is absent: data files do not travel with the repository")
  return path


def spoiled(series, row):
  """The series with every value from `row` on overwritten."""
  values = series["values"].copy()
  values[row:] = np.nan
  return series | dict(values=values)


def ramp(length, dims=2):
  """Values that say where they come from: row + 1000 * dimension."""
  values = np.arange(length)[:, None] + 1000.0 * np.arange(dims)
  calendar = np.zeros((length, 0), np.float32)
  cuts = (length * 6 // 10, length * 8 // 10, length)
  return dict(values=values, calendar=calendar, season=4, cuts=cuts)


@ANCHORS
@pytest.mark.parametrize("split", ["test", "validation"])
def test_nothing_of_the_horizon_reaches_what_a_forecaster_is_given(series, anchor, split):
  options = dict(**SIZES, lags=LAGS, anchor=anchor, stack=2, split=split, count=5)
  whole = forecasting.load(series=series, **options)
  known = whole["context"]
  for i, origin in enumerate(whole["origin"]):
    data = forecasting.load(series=spoiled(series, origin), **options)
    assert_equal(data["x"][i, :known], whole["x"][i, :known])
    assert_equal(data["cond"]["covariates"][i], whole["cond"]["covariates"][i])
    assert_equal(data["location"][i], whole["location"][i])
    assert_equal(data["scale"], whole["scale"])
    assert np.isnan(data["target"][i]).all() and np.isnan(data["x"][i, known:]).all()


@ANCHORS
def test_batches_read_nothing_after_the_training_part(series, anchor):
  options = dict(**SIZES, lags=LAGS, anchor=anchor)
  train_end = series["cuts"][0]
  whole, short = (
    itertools.islice(forecasting.windows(64, 0, series=s, **options), 30)  # every window, and again
    for s in (series, spoiled(series, train_end))
  )
  for a, b in zip(whole, short, strict=True):
    assert_equal(a, b)


@ANCHORS
@pytest.mark.parametrize("stack", [1, 3, 24])
def test_raw_values_come_back(series, anchor, stack):
  data = forecasting.load(series=series, **SIZES, anchor=anchor, stack=stack)
  raw = forecasting.to_raw(data["x"], data)
  assert data["x"].shape == (len(raw), 72 // stack, stack * 3) and data["x"].dtype == np.float32
  rows = data["origin"][:, None] + np.arange(-48, 24)
  np.testing.assert_allclose(raw, series["values"][rows], rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(data["target"], series["values"][rows[:, 48:]])
  again = forecasting.to_raw(np.stack(2 * [data["x"]]), data)  # paths come before windows
  np.testing.assert_array_equal(again, np.stack(2 * [raw]))


def test_a_token_holds_consecutive_steps_and_their_lags_side_by_side():
  series = ramp(400)
  data = forecasting.load(
    series=series, context=8, horizon=4, stack=2, lags=(4, 12), anchor="last", count=1
  )
  (origin,), (scale, _) = data["origin"], data["scale"]
  step = lambda t: np.array([t, t]) - (origin - 1)  # both dimensions, relative to the last
  first = origin - 8
  expected = np.concatenate([step(first), step(first + 1)]) / scale
  np.testing.assert_allclose(data["x"][0, 0], expected, rtol=1e-6)
  lags = [step(first + i - lag) for i in (0, 1) for lag in (4, 12)]
  found = data["cond"]["covariates"][0, 0]
  np.testing.assert_allclose(found, np.concatenate(lags) / scale, rtol=1e-6)


def test_without_calendar_and_lags_there_is_no_condition():
  options = dict(series=ramp(400), context=8, horizon=4)
  assert "cond" not in next(forecasting.windows(2, 0, **options))
  assert "cond" not in forecasting.load(**options)


@ANCHORS
def test_training_windows_have_a_std_of_one_in_every_dimension(series, anchor):
  size = series["cuts"][0] - 72 + 1
  x = next(forecasting.windows(size, 0, series=series, **SIZES, anchor=anchor))["x"]  # all of them
  np.testing.assert_allclose(x.astype(np.float64).std((0, 1)), 1, rtol=1e-5)


def test_a_dimension_that_never_moves_is_zero_and_not_nan():
  series = ramp(400)
  series["values"][:, 1] = 3
  data = forecasting.load(series=series, context=8, horizon=4)
  assert np.isfinite(data["x"]).all() and np.all(data["x"][..., 1] == 0)


def test_windows_of_a_split_tile_it(series):
  train_end, test_start, test_end = series["cuts"]
  assert list(forecasting.origins(series, 24)) == list(range(test_start, test_end - 23, 24))
  every = forecasting.origins(series, 24, split="validation", stride=1)
  assert (every[0], every[-1]) == (train_end, test_start - 24)
  assert list(forecasting.origins(series, 24, count=10**6)) == list(forecasting.origins(series, 24))
  few = forecasting.origins(series, 24, split="validation", stride=1, count=3)
  assert list(few) == [every[0], every[(len(every) - 1) // 2 + (len(every) - 1) % 2], every[-1]]


def test_validation_is_the_end_of_training_where_nothing_follows_it():
  series = ramp(1000) | dict(cuts=(800, 800, 1000))
  assert list(forecasting.origins(series, 30, split="validation")) == [650, 680, 710, 740, 770]


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(stack=5), "data.stack: context 48 and horizon 24 must be multiples of stack=5"),
    (dict(lags=(24, 23)), "data.lags: lag 23 is shorter than horizon=24: .* unknown"),
    (
      dict(anchor="ridge", regression=(0, 1.0)),
      "data.regression: .0, 1.: give an order of 1 to",
    ),
    (dict(anchor="ridge", regression=(1, 0.0)), "and a ridge above 0"),
    (dict(anchor="first"), "data.anchor: 'first' is not one of last, mean, train, ridge"),
    (dict(context=0), "data: context=0"),
    (dict(context=2000), "data.context: 2024 steps .* 1200 of training"),
  ],
)
@pytest.mark.parametrize("call", [functools.partial(forecasting.windows, 8, 0), forecasting.load])
def test_what_cannot_be_shown_is_refused_in_one_line(series, call, options, message):
  with pytest.raises(ValueError, match=message) as error:
    call(series=series, **SIZES | options)
  assert "\n" not in str(error.value)


def test_an_unknown_split_and_a_horizon_beyond_it_are_named(series):
  with pytest.raises(ValueError, match="data.split: 'val' is not one of train, validation, test"):
    forecasting.load(series=series, **SIZES, split="val")
  with pytest.raises(ValueError, match="data.horizon: 500 steps"):
    forecasting.origins(series, 500)


def test_the_embedded_series_follows_its_law():
  """The errors of the exact forecast are white, with the stated covariance, and the mean is."""
  series = forecasting.vector_autoregression(length=40_000)
  law, t = series["law"], np.arange(40_000)
  z = series["values"] - law["mean"][t % 24]
  e = z[1:] - z[:-1] @ law["matrix"].T
  tolerance = 5 / np.sqrt(len(e))
  np.testing.assert_allclose(e.T @ e / len(e), law["covariance"], atol=2 * tolerance)
  np.testing.assert_allclose(e[1:].T @ e[:-1] / len(e), 0, atol=tolerance)
  np.testing.assert_allclose(np.abs(np.linalg.eigvals(law["matrix"])).max(), 0.9)
  daily = z[: 24 * (len(z) // 24)].reshape(-1, 24, 4).mean(0)
  assert np.abs(daily).max() < 0.3  # a std of up to 6, some 1,700 days


def test_the_embedded_series_is_one_of_its_seed():
  make = functools.partial(forecasting.vector_autoregression, 500)
  np.testing.assert_array_equal(make()["values"], make()["values"])
  assert np.all(make()["values"] != make(seed=1)["values"])
  assert make(dims=1)["values"].shape == (500, 1)
  with pytest.raises(ValueError, match="data.series: length=0"):
    forecasting.vector_autoregression(0)


def test_a_config_names_the_series():
  source = resolve(
    dict(
      name="data.forecasting.windows",
      series=dict(name="data.forecasting.vector_autoregression", length=500),
      **SIZES,
    ),
    "data",
  )
  batch = next(source(4, 0))
  assert batch["x"].shape == (4, 72, 4) and batch["cond"]["covariates"].shape == (4, 72, 4)
  assert {a.dtype for a in jax.tree.leaves(batch)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("loader", [forecasting.ett, forecasting.exchange])
def test_a_missing_file_says_where_to_get_it(loader):
  with pytest.raises(FileNotFoundError, match="data.series.path: no file no/x.csv; .*github") as e:
    loader("no/x.csv")
  assert "\n" not in str(e.value)


def ett_lines(rows=14_400):
  hours = np.datetime64("2016-07-01T00", "h") + np.arange(rows)
  return ["date,a,b,c,d,e,f,g"] + [f"{str(h).replace('T', ' ')}:00:00,1,2,3,4,5,6,7" for h in hours]


@pytest.mark.parametrize(
  "row, text, message",
  [
    (3, "2016-07-01 02:00:00,1,2,3", "cannot be read"),
    (3, "2016-07-01 02:00:00,1,2,3,4,x,6,7", "wants dates, then numbers .*'x'"),
    (3, "2016-07-01 02:00:00,1,2,3,4,nan,6,7", "not finite in row 2"),
    (3, "2016-07-01 03:00:00,1,2,3,4,5,6,7", "skips an hour"),
    (3, "noon,1,2,3,4,5,6,7", "wants dates"),
  ],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path, row, text, message):
  path, lines = tmp_path / "ett.csv", ett_lines()
  path.write_text("\n".join(lines))
  assert forecasting.ett(path)["values"].shape == (14_400, 7)
  lines[row] = text
  path.write_text("\n".join(lines))
  with pytest.raises(ValueError, match=f"data.series.path: .*{message}"):
    forecasting.ett(path)


def test_another_table_is_refused(tmp_path):
  (tmp_path / "short.csv").write_text("\n".join(ett_lines(10)))
  with pytest.raises(ValueError, match="10 rows of 8 columns, not at least 14400 of 8"):
    forecasting.ett(tmp_path / "short.csv")
  with gzip.open(tmp_path / "seven.txt.gz", "wt") as file:
    file.write("1,2,3,4,5,6,7\n" * 7000)
  with pytest.raises(ValueError, match="7000 rows of 7 columns"):
    forecasting.exchange(tmp_path / "seven.txt.gz")
  (tmp_path / "cut.txt.gz").write_bytes((tmp_path / "seven.txt.gz").read_bytes()[:50])
  with pytest.raises(ValueError, match="data.series.path: .* cannot be read"):
    forecasting.exchange(tmp_path / "cut.txt.gz")


@pytest.mark.parametrize("name", ["ETTh1.csv", "ETTh2.csv"])
def test_transformer_stations_are_cut_as_in_the_field(name):
  series = forecasting.ett(shared(name))
  assert series["values"].shape == (17_420, 7) and series["calendar"].shape == (17_420, 4)
  data = forecasting.load(series=series, context=168, horizon=24)
  assert data["target"].shape == (120, 24, 7) and data["origin"][0] == 11_520
  friday = np.exp(2j * np.pi / 7)  # 1 July 2016, midnight; Thursday is 0
  expected = [1, 0, friday.real, friday.imag]
  np.testing.assert_allclose(series["calendar"][0], expected, atol=1e-6)


def test_exchange_rates_are_cut_as_in_gluonts():
  series = forecasting.exchange(shared("exchange_rate.txt.gz"))
  data = forecasting.load(series=series, context=90, horizon=30)
  assert list(data["origin"]) == [6071, 6101, 6131, 6161, 6191]
  assert series["values"].shape == (7588, 8)
  np.testing.assert_array_equal(series["calendar"][0], series["calendar"][5])


def test_exchange_rates_equal_those_of_gluonts():
  values = forecasting.exchange(shared("exchange_rate.txt.gz"))["values"]
  with tarfile.open(shared("exchange_rate_nips.tar.gz")) as archive:
    for part in ("train/train", "test/test"):
      lines = archive.extractfile(f"exchange_rate_nips/{part}.json").read().splitlines()
      for i, line in enumerate(lines):
        target = np.array(json.loads(line)["target"])
        np.testing.assert_array_equal(target, values[: len(target), i % 8])


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(values=np.zeros(2000)), "data.series: values of shape .2000,."),
    (dict(calendar=np.zeros((5, 0))), "calendar of shape .5, 0.; give"),
    (dict(cuts=(600, 800, 3000)), "data.series: cuts=.600, 800, 3000.; give .* <= 2000 rows"),
    (dict(cuts=(600, 500, 900)), "data.series: cuts="),
  ],
)
def test_what_is_no_series_is_refused(series, change, message):
  with pytest.raises(ValueError, match=message):
    forecasting.load(series=series | change, **SIZES)
  with pytest.raises(ValueError, match="data.series: has no calendar"):
    forecasting.load(series={k: v for k, v in series.items() if k != "calendar"}, **SIZES)
