"""Scores of forecasts: each path meets its own window, and hopeless series are refused."""

import sys

import numpy as np
import pytest

from dfim import evaluate
from dfim.data.series import forecasting
from dfim.evaluators import forecasting as evaluator
from tests.data.helpers import refused, spoiled

pytest.importorskip("matplotlib")
COLUMNS = {"crps", "crps_sum", "crps_quantile", "crps_sum_quantile"}


@pytest.fixture(scope="module")
def series():
  return forecasting.vector_autoregression(length=1500, dims=5)


@pytest.fixture(scope="module")
def data(series):
  return forecasting.load(series=series, context=48, horizon=24, stack=4, lags=(24,))


def noisy(params, count, steps, first=0, *, context, cond, length):
  """A draw that keeps the context and adds noise of std 1 / steps to its last step."""
  assert cond["covariates"].shape[:2] == (count, 18) and context.shape == (count, 12, 20)
  last = np.tile(context[:, -1:, -5:], (1, 6, 4))
  noise = np.random.default_rng(first).normal(size=last.shape) * params / steps
  return np.concatenate([context, last + noise], 1)


def test_rows_columns_and_figure(series, data):
  how = dict(data=data, series=series, steps=(1, 4), paths=20, seed=3)
  found, figures = evaluator.scores(noisy, 1.0, **how)
  rows = {name: row for name, row in found.items() if isinstance(row, dict)}
  assert list(rows) == ["1 steps", "4 steps", "seasonal naive", "ridge VAR", "oracle"]
  assert all(set(row) == COLUMNS for row in rows.values())
  assert found["windows"] == len(data["x"]) and found["paths"] == 20
  assert found["ridge VAR is of"].startswith("order ")
  assert rows["oracle"]["crps_sum"] < min(r["crps_sum"] for n, r in rows.items() if "steps" in n)
  assert figures["paths"].dtype == np.uint8 and figures["paths"].ndim == 3
  assert figures["paths"].shape[2] == 3 and figures["paths"].std() > 10
  assert "ridge VAR" in evaluate.table(found)


def test_each_path_meets_its_own_window_in_raw_units(series, data):
  """A draw that knows the truth scores 0, and with it the order of paths and windows is right."""
  known, paths = data["context"], 3
  x = np.repeat(data["x"], paths, axis=0)

  def perfect(params, count, steps, first=0, *, context, cond, length):
    np.testing.assert_array_equal(context, x[:, :known])
    np.testing.assert_array_equal(cond["covariates"][::paths], data["cond"]["covariates"])
    return x[first : first + count]

  how = dict(data=data, series=series, steps=(2,), paths=paths, baselines=False)
  found, _ = evaluator.scores(perfect, None, **how)
  assert set(found) == {"windows", "paths", "2 steps"}
  assert max(found["2 steps"].values()) < 1e-6  # of float32


def test_a_missing_matplotlib_is_named_before_anything_is_drawn(series, data, monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
  monkeypatch.delitem(sys.modules, "matplotlib.backends.backend_agg", raising=False)
  for call in (
    lambda: evaluator.scores(None, None, data=data, series=series),
    lambda: evaluator.check_scores(data=data, series=series),
    lambda: evaluator.check_rollout(data=data, steps=1),
  ):
    with refused("pip install -e '.[plot]'", kind=ImportError):
      call()


def zeroed(series, *columns):
  values = series["values"].copy()
  values[1200:, columns] = 0
  return series | dict(values=values)


@pytest.mark.parametrize(
  "change, place",
  [
    (lambda s: zeroed(s, 3), "data.target: column 3"),
    (lambda s: spoiled(s, 1485), "data.target: row 1485"),
    (lambda s: s | dict(season=300), "series.cuts=(900, 1200, 1500)"),
    (lambda s: s | dict(distribution=3), "series.distribution"),
  ],
)
def test_a_series_that_cannot_be_scored_is_refused(series, change, place):
  bad = change(series)
  data = forecasting.load(series=bad, context=24, horizon=24, stack=4)
  with refused(place):
    evaluator.check_scores(data=data, series=bad)


@pytest.mark.parametrize(
  "change, place",
  [
    (lambda s: spoiled(s, 1485), "data.target: row 1485"),
    (lambda s: zeroed(s, *range(5)), "data.target: the sum"),
  ],
)
def test_a_rollout_that_cannot_be_scored_is_refused(series, change, place):
  load = lambda s: forecasting.load(series=s, context=24, horizon=24, stack=4)
  evaluator.check_rollout(data=load(zeroed(series, 1)), steps=1)  # a column alone may be 0
  with refused(place):
    evaluator.check_rollout(data=load(change(series)), steps=1)


def test_a_draw_that_is_not_finite_is_refused(series, data):
  draw = lambda params, count, steps, **_: np.full((count, 18, 20), np.nan)
  with refused("paths: nan at path 0, window 0, step 0, column 0"):
    evaluator.scores(draw, None, data=data, series=series, steps=(1,), paths=2, baselines=False)
  with refused("paths: nan at path 0"):
    evaluator.rollout(draw, None, data=data, steps=1, paths=2)


def test_the_error_along_a_long_rollout(series):
  """A draw that loses the truth from the third token on is worse there, and perfect before."""
  how = dict(series=series, context=48, horizon=24, stack=4, lags=(48,))
  data, short = forecasting.load(**how, length=48, count=5), forecasting.load(**how)
  np.testing.assert_array_equal(data["scale"], short["scale"])
  x = np.repeat(data["x"], 4, axis=0)

  def losing(params, count, steps, *, context, cond, length):
    assert length == 12 and cond["covariates"].shape[1] == 24
    lost = x.copy()
    lost[:, 12 + 2 :] += 1.0
    return lost

  rows, _ = evaluator.rollout(losing, None, data=data, steps=3, paths=4)
  values = [row["crps_sum"] for row in rows.values()]
  assert list(rows) == [f"token {n}" for n in range(1, 13)]
  assert max(values[:2]) < 1e-6 and min(values[2:]) > 1e-3
