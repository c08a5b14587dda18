"""Windows of series: the contract of all sources, and that nothing of the horizon leaks."""

import functools
import gzip
import itertools
import json
import tarfile
import tracemalloc

import numpy as np
import pytest

from dfim.data.series import forecasting, ridge
from tests.conftest import shared
from tests.data import test_sources as contract
from tests.data.helpers import assert_equal, refused, spoiled

SIZES = dict(context=48, horizon=24)
LAGS = (24, 168)
ANCHORS = pytest.mark.parametrize("anchor", ["last", "mean", "train", "ridge"])

# The contract of every data source, of the source below.
test_starting_at_n_equals_skipping_n = contract.test_starting_at_n_equals_skipping_n
test_processes_hold_parts_of_one_batch = contract.test_processes_hold_contiguous_parts_of_one_batch
test_refusals_come_before_the_first_batch = contract.test_refusals_come_before_the_first_batch


@pytest.fixture(scope="module")
def series():
  return forecasting.vector_autoregression(length=2000, dims=3)


@pytest.fixture
def source(series):
  return functools.partial(forecasting.windows, series=series, **SIZES, stack=4, lags=LAGS)


def changed(series, part, index, value):
  array = np.array(series[part], float)
  array[index] = value
  return series | {part: array}


def ramp(length, dims=2):
  """Values that say where they come from: row + 1000 * dimension."""
  values = np.arange(length)[:, None] + 1000.0 * np.arange(dims)
  calendar = np.zeros((length, 0), np.float32)
  cuts = (length * 6 // 10, length * 8 // 10, length)
  return dict(values=values, calendar=calendar, season=4, cuts=cuts)


@ANCHORS
@pytest.mark.parametrize("split", ["test", "validation"])
def test_nothing_of_the_horizon_reaches_a_forecaster(series, anchor, split):
  options = dict(**SIZES, lags=LAGS, anchor=anchor, stack=2, split=split, count=5)
  whole = forecasting.load(series=series, **options)
  known = whole["context"]
  for i, origin in enumerate(whole["origin"]):
    data = forecasting.load(series=spoiled(series, origin, 1e6), **options)
    assert_equal(data["x"][i, :known], whole["x"][i, :known])
    assert_equal(data["cond"]["covariates"][i], whole["cond"]["covariates"][i])
    assert_equal(data["location"][i], whole["location"][i])
    assert_equal(data["scale"], whole["scale"])
    assert np.all(data["target"][i] == 1e6)


@ANCHORS
def test_rows_yet_to_be_forecast_are_nan_in_the_horizon_alone(series, anchor):
  options = dict(**SIZES, lags=LAGS, anchor=anchor, stack=2)
  whole = forecasting.load(series=series, **options)
  data = forecasting.load(series=spoiled(series, 1700), **options)
  known, n = whole["context"], len(data["origin"])
  assert list(data["origin"]) == [1600, 1624, 1648, 1672, 1696]  # the next is not known before 1720
  assert_equal(data["x"][:-1], whole["x"][: n - 1])
  assert_equal(data["x"][-1, : known + 2], whole["x"][n - 1, : known + 2])  # rows 1696 to 1699
  assert_equal(data["cond"]["covariates"], whole["cond"]["covariates"][:n])
  assert np.isnan(data["x"][-1, known + 2 :]).all() and np.isnan(data["target"][-1, 4:]).all()


def test_every_entry_point_checks_the_series(series):
  bad = series | dict(season=0)
  for call in (
    lambda: forecasting.windows(8, 0, series=bad, **SIZES),
    lambda: forecasting.load(series=bad, **SIZES),
    lambda: forecasting.origins(bad, 24),
    lambda: forecasting.targets(bad, np.array([1600]), 24),
  ):
    with refused("data.series.season=0"):
      call()


@pytest.mark.parametrize(
  "change, place",
  [
    (("values", (7, 2), np.nan), "values: nan at row 7, column 2"),
    (("values", slice(1199, None), np.nan), "values: nan at row 1199, column 0"),
    (("values", (1999, 1), -np.inf), "values: -inf at row 1999, column 1"),
    (("values", (3, 0), 1e300), "values: 1e+300 at row 3, column 0"),
    (("values", (slice(None), 1), 1e-200), "values, largest: 1e-200 at column 1"),
    (("calendar", (1999, 3), np.nan), "calendar: nan at row 1999, column 3"),
  ],
)
def test_numbers_out_of_range_are_refused_with_their_place(series, change, place):
  with refused(f"data.series.{place}"):
    forecasting.checked(changed(series, *change))


@pytest.mark.parametrize(
  "dtype, level, amplitude", [(np.uint16, 30_000, 2), (np.int16, 0, 20_000), (list, 0, 3)]
)
@pytest.mark.parametrize("anchor", ["last", "ridge"])
def test_integers_give_the_windows_of_their_values(dtype, level, amplitude, anchor):
  rng = np.random.default_rng(0)
  wave = np.sin(np.arange(400)[:, None] / [3, 5]) + 0.1 * rng.normal(size=(400, 2)).clip(-1, 1)
  exact = ramp(400) | dict(values=np.round(level + 0.9 * amplitude * wave))
  values = exact["values"].tolist() if dtype is list else exact["values"].astype(dtype)
  options = dict(context=8, horizon=4, lags=(4,), anchor=anchor)
  narrow = exact | dict(values=values, calendar=exact["calendar"].tolist(), cuts=[240, 320, 400])
  assert_equal(*(forecasting.load(series=s, **options) for s in (narrow, exact)))
  batches = (next(forecasting.windows(16, 0, series=s, **options)) for s in (narrow, exact))
  assert_equal(*batches)


def test_blocks_of_windows_have_the_scale_of_all_in_little_memory(series, monkeypatch):
  options = [dict(series=series, **SIZES, lags=LAGS, anchor=a) for a in ("last", "ridge")]
  whole = [forecasting.load(**how)["scale"] for how in options]
  monkeypatch.setattr(ridge, "_BLOCK", 3000)  # six windows
  found = [forecasting.load(**how)["scale"] for how in options]
  np.testing.assert_allclose(found, whole, rtol=1e-12)
  monkeypatch.setattr(ridge, "_BLOCK", 2**16)
  long = ramp(20_000)
  tracemalloc.start()
  next(forecasting.windows(8, 0, series=long, context=96, horizon=48))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 5 * long["values"].nbytes  # all windows of one column are 43 times as many


def test_windows_give_their_stored_rows_by_number(series):
  source = forecasting.windows(8, 0, series=series, **SIZES, lags=LAGS, stack=4)
  first = 168 + 48  # the first origin
  assert source.size == 1200 - 24 - first + 1 and source.labels is None
  numbers = np.array([source.size - 1, 0, 5])
  found = source.examples(numbers)
  for n, values, calendar in zip(numbers, found["values"], found["calendar"], strict=True):
    np.testing.assert_array_equal(values, series["values"][first + n - 48 : first + n + 24])
    np.testing.assert_array_equal(calendar, series["calendar"][first + n - 48 : first + n + 24])


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
def test_raw_values_come_back_from_windows_with_a_std_of_one(series, anchor, stack):
  data = forecasting.load(series=series, **SIZES, anchor=anchor, stack=stack)
  raw = forecasting.to_raw(data["x"], data)
  assert data["x"].shape == (len(raw), 72 // stack, stack * 3) and data["x"].dtype == np.float32
  rows = data["origin"][:, None] + np.arange(-48, 24)
  np.testing.assert_allclose(raw, series["values"][rows], rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(data["target"], series["values"][rows[:, 48:]])
  size = series["cuts"][0] - 72 + 1
  x = next(forecasting.windows(size, 0, series=series, **SIZES, anchor=anchor))["x"]  # all of them
  np.testing.assert_allclose(x.astype(np.float64).std((0, 1)), 1, rtol=1e-5)
  again = forecasting.to_raw(np.stack(2 * [data["x"]]), data)  # paths come before windows
  np.testing.assert_array_equal(again, np.stack(2 * [raw]))


def test_a_token_holds_consecutive_steps_and_their_lags_side_by_side():
  series = ramp(400)
  how = dict(context=8, horizon=4, stack=2, lags=(4, 12), anchor="last", count=1)
  data = forecasting.load(series=series, **how)
  (origin,), (scale, _) = data["origin"], data["scale"]
  step = lambda t: np.array([t, t]) - (origin - 1)  # both dimensions, relative to the last
  first = origin - 8
  expected = np.concatenate([step(first), step(first + 1)]) / scale
  np.testing.assert_allclose(data["x"][0, 0], expected, rtol=1e-6)
  lags = [step(first + i - lag) for i in (0, 1) for lag in (4, 12)]
  found = data["cond"]["covariates"][0, 0]
  np.testing.assert_allclose(found, np.concatenate(lags) / scale, rtol=1e-6)


@ANCHORS
def test_a_dimension_whose_std_is_rounding_is_not_blown_up(series, anchor, level=-7e5):
  noise = np.random.default_rng(0).normal(size=2000)
  column = lambda size: changed(series, "values", (slice(None), 1), level * (1 + size * noise))
  how = dict(**SIZES, anchor=anchor)
  near, far = (forecasting.load(series=column(size), **how) for size in (1e-14, 1e-8))
  assert near["scale"][1] == 1 and np.abs(near["x"][..., 1]).max() < 1e-7
  assert 0.2 < np.abs(far["x"][..., 1]).std() < 2
  np.testing.assert_allclose(near["scale"][[0, 2]], far["scale"][[0, 2]], rtol=1e-3)


@ANCHORS
def test_a_constant_leaves_the_other_dimensions_as_they_are(series, anchor):
  constant = changed(series, "values", (slice(None), 1), 3)
  alone = series | dict(values=series["values"][:, [0, 2]])
  data = forecasting.load(series=constant, **SIZES, anchor=anchor)
  expected = forecasting.load(series=alone, **SIZES, anchor=anchor)
  np.testing.assert_allclose(data["x"][..., [0, 2]], expected["x"], atol=1e-5)
  assert np.all(data["x"][..., 1] == 0) and np.all(data["location"][..., 1] == 3)


def test_windows_of_a_split_tile_it(series):
  train_end, test_start, test_end = series["cuts"]
  assert list(forecasting.origins(series, 24)) == list(range(test_start, test_end - 23, 24))
  every = forecasting.origins(series, 24, split="validation", stride=1)
  assert (every[0], every[-1]) == (train_end, test_start - 24)
  assert list(forecasting.origins(series, 24, count=10**6)) == list(forecasting.origins(series, 24))
  joined = ramp(1000) | dict(cuts=(800, 800, 1000))  # nothing lies between: the end of training
  assert list(forecasting.origins(joined, 30, split="validation")) == [650, 680, 710, 740, 770]
  few = forecasting.origins(series, 24, split="validation", stride=1, count=3)
  assert list(few) == [every[0], every[(len(every) - 1) // 2 + (len(every) - 1) % 2], every[-1]]


@pytest.mark.parametrize(
  "field, value",
  [
    *[("context", 0), ("context", 2000), ("horizon", True), ("stack", 5), ("anchor", "first")],
    *[("lags", (24, 23)), ("lags", (24.0,)), ("regression", (0, 1.0)), ("regression", (49, 1.0))],
  ],
)
@pytest.mark.parametrize("call", [functools.partial(forecasting.windows, 8, 0), forecasting.load])
def test_windows_that_cannot_be_shown_are_refused(series, call, field, value):
  with refused(f"data.{field}"):
    call(series=series, **SIZES | dict(anchor="ridge") | {field: value})


@pytest.mark.parametrize(
  "change, place",
  [
    *[(dict(split="val"), "data.split"), (dict(length=500), "data.horizon")],
    *[(dict(stride=0), "data.stride"), (dict(count=2.5), "data.count")],
    (dict(lags=(24,), length=48), "data.lags=(24,): 24 is shorter than horizon=48"),
  ],
)
def test_windows_outside_a_split_are_refused(series, change, place):
  with refused(place):
    forecasting.load(series=series, **SIZES, **change)
  for origin in (-1, 1977):
    with refused("data.origin"):
      forecasting.targets(series, np.array([origin]), 24)


def test_a_regression_that_grows_beyond_all_numbers_is_refused():
  """It has learned to multiply by ten, and begins at 1e95."""
  series = ramp(500, 1) | dict(values=10.0 ** np.minimum(np.arange(500), 95)[:, None])
  options = dict(series=series | dict(cuts=(95, 95, 500)), context=2, horizon=2, anchor="ridge")
  assert np.isfinite(forecasting.load(**options, regression=(1, 1e-9), split="train")["x"]).all()
  with refused("data.regression"):
    forecasting.load(**options, regression=(1, 1e-9), length=20)


def test_the_made_up_series_follows_its_distribution():
  """The errors of the exact forecast are white, with the stated covariance, and the mean is."""
  series = forecasting.vector_autoregression(length=40_000)
  known, t = series["distribution"], np.arange(40_000)
  z = series["values"] - known["mean"][t % 24]
  e = z[1:] - z[:-1] @ known["matrix"].T
  tolerance = 5 / np.sqrt(len(e))
  np.testing.assert_allclose(e.T @ e / len(e), known["covariance"], atol=2 * tolerance)
  np.testing.assert_allclose(e[1:].T @ e[:-1] / len(e), 0, atol=tolerance)
  np.testing.assert_allclose(np.abs(np.linalg.eigvals(known["matrix"])).max(), 0.9)
  daily = z[: 24 * (len(z) // 24)].reshape(-1, 24, 4).mean(0)
  assert np.abs(daily).max() < 0.3  # a std of up to 6, some 1,700 days


def test_the_made_up_series_is_one_of_its_seed():
  make = functools.partial(forecasting.vector_autoregression, 500)
  np.testing.assert_array_equal(make()["values"], make()["values"])
  assert np.all(make()["values"] != make(seed=1)["values"])
  assert make(dims=1)["values"].shape == (500, 1)
  for name, value in dict(length=0, dims=2.5, seed=-1).items():
    with refused(f"data.series.{name}={value}"):
      forecasting.vector_autoregression(**{name: value})


def ett_lines(rows=14_400):
  hours = np.datetime64("2016-07-01T00", "h") + np.arange(rows)
  return ["date,a,b,c,d,e,f,g"] + [f"{str(h).replace('T', ' ')}:00:00,1,2,3,4,5,6,7" for h in hours]


@pytest.mark.parametrize(
  "text, place",
  [
    ("2016-07-01 02:00:00,1,2,3,4,x,6,7", "'x'"),
    ("2016-07-01 02:00:00,1,2,3,4,nan,6,7", "nan at row 2, column 4"),
    ("2016-07-01 03:00:00,1,2,3,4,5,6,7", "hour"),
  ],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path, text, place):
  path, lines = tmp_path / "ett.csv", ett_lines()
  path.write_text("\n".join(lines))
  assert forecasting.ett(path)["values"].shape == (14_400, 7)
  lines[3] = text
  path.write_text("\n".join(lines))
  with refused("data.series.path", path, place):
    forecasting.ett(path)


def test_another_table_and_a_missing_file_are_refused(tmp_path):
  for loader in (forecasting.ett, forecasting.exchange):
    with refused("data.series.path", "no/x.csv", "https://github.com", kind=FileNotFoundError):
      loader("no/x.csv")
  (tmp_path / "short.csv").write_text("\n".join(ett_lines(10)))
  with refused("data.series.path", "10 rows of 8 columns"):
    forecasting.ett(tmp_path / "short.csv")
  with gzip.open(tmp_path / "seven.txt.gz", "wt") as file:
    file.write("1,2,3,4,5,6,7\n" * 7000)
  with refused("data.series.path", "7000 rows of 7 columns"):
    forecasting.exchange(tmp_path / "seven.txt.gz")


def test_transformer_stations_are_cut_as_in_the_field():
  series = forecasting.ett(shared("data/ETTh1.csv"))
  assert series["values"].shape == (17_420, 7) and series["calendar"].shape == (17_420, 4)
  data = forecasting.load(series=series, context=168, horizon=24)
  assert data["target"].shape == (120, 24, 7) and data["origin"][0] == 11_520
  friday = np.exp(2j * np.pi / 7)  # 1 July 2016, midnight; Thursday is 0
  expected = [1, 0, friday.real, friday.imag]
  np.testing.assert_allclose(series["calendar"][0], expected, atol=1e-6)


def test_exchange_rates_are_those_of_gluonts_and_cut_as_there():
  series = forecasting.exchange(shared("data/exchange_rate.txt.gz"))
  data = forecasting.load(series=series, context=90, horizon=30)
  assert list(data["origin"]) == [6071, 6101, 6131, 6161, 6191]
  values = series["values"]
  assert values.shape == (7588, 8)
  np.testing.assert_array_equal(series["calendar"][0], series["calendar"][5])
  with tarfile.open(shared("data/exchange_rate_nips.tar.gz")) as archive:
    for part in ("train/train", "test/test"):
      lines = archive.extractfile(f"exchange_rate_nips/{part}.json").read().splitlines()
      for i, line in enumerate(lines):
        target = np.array(json.loads(line)["target"])
        np.testing.assert_array_equal(target, values[: len(target), i % 8])


@pytest.mark.parametrize(
  "field, value",
  [
    *[("values", v) for v in (None, np.zeros(2000), np.full((2000, 2), 1j))],
    *[("calendar", v) for v in (None, np.zeros((5, 0)))],
    *[("cuts", v) for v in ((600, 800, 3000), (600, 500, 900), (600, 800), (600.0, 800, 900))],
    *[("season", v) for v in (0, 24.0)],
  ],
)
def test_other_things_than_a_series_are_refused(series, field, value):
  with refused(f"data.series.{field}"):
    forecasting.checked(series | {field: value})
