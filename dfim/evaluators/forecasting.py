"""Scores of forecasts as sample paths, and of baselines; needs matplotlib."""

from typing import Any

import jax
import numpy as np

from dfim.data.series import forecasting
from dfim.evaluators import baselines as baselines_lib
from dfim.evaluators.references import Draw, Found
from dfim.io import inputs
from dfim.metrics import crps


def check_scores(
  *,
  data: dict[str, Any],
  series: forecasting.Series,
  paths: int = 100,
  baselines: bool = True,
  seed: int = 0,
  **_: Any,
) -> None:
  """Raises ValueError, naming the argument, for those that `scores` cannot take."""
  _check(data, paths)
  inputs.whole(seed, "seed", low=0)
  forecasting.checked(series, "series")
  crps.check(data["target"], "data.target")
  if baselines:
    baselines_lib.check(series, data)


def check_rollout(*, data: dict[str, Any], paths: int = 20, **_: Any) -> None:
  """Raises ValueError, naming the argument, for those that `rollout` cannot take."""
  _check(data, paths)
  crps.check(data["target"], "data.target", columns=False)


def scores(
  draw: Draw,
  params: Any,
  *,
  data: dict[str, Any],
  series: forecasting.Series,
  steps: tuple[int, ...] = (1, 2, 4, 8),
  paths: int = 100,
  baselines: bool = True,
  seed: int = 0,
) -> Found:
  """`metrics.crps.scores` of `paths` paths of each window for each number of `steps`, in raw units.

  `data` are windows of `data.series.forecasting.load`. `draw(params, count, steps, *, context,
  cond, length) -> [count, T, stack D]` is given known tokens `[count, C, stack D]` and covariates,
  never the horizon. `baselines` adds those of `evaluators.baselines`, which take `series` and
  `seed`. The figure shows quantiles at the largest number of steps.
  """
  matplotlib = _matplotlib()  # before the drawing
  values = {"windows": len(data["target"]), "paths": paths}
  drawn = {f"{k} steps": _forecast(draw, params, data, k, paths) for k in steps}
  figure = _figure(matplotlib, data, drawn[f"{max(steps)} steps"])
  if baselines:
    choice = baselines_lib.choose_ridge_var(series, data, seed=seed)
    values["ridge VAR is of"] = "order {}, ridge {:g}".format(*choice)
    drawn["seasonal naive"] = baselines_lib.seasonal_naive(series, data, paths, seed)
    drawn["ridge VAR"] = baselines_lib.ridge_var(series, data, paths, seed, choice=choice)
    if "distribution" in series:
      drawn["oracle"] = baselines_lib.oracle(series, data, paths, seed)
  return values | {name: crps.scores(x, data["target"]) for name, x in drawn.items()}, figure


def rollout(draw: Draw, params: Any, *, data: dict[str, Any], steps: int, paths: int = 20) -> Found:
  """`crps_sum` of each token of windows with a `length`, longer than in training, and a figure."""
  matplotlib = _matplotlib()
  x = _forecast(draw, params, data, steps, paths)
  error = crps.along(x, data["target"])
  by_token = error.reshape(data["x"].shape[1] - data["context"], -1).mean(1).tolist()
  rows = {f"token {n}": dict(crps_sum=value) for n, value in enumerate(by_token, 1)}
  return rows, _figure(matplotlib, data, x)


def _forecast(draw: Draw, params: Any, data: dict[str, Any], steps: int, paths: int) -> np.ndarray:
  """Paths `[P, N, H, D]` in raw units; the P of one window are drawn one after the other."""
  known = data["context"]
  each = lambda a: np.repeat(a, paths, axis=0)
  context, cond = each(data["x"][:, :known]), jax.tree.map(each, data.get("cond"))
  length = data["x"].shape[1] - known
  x = draw(params, len(context), steps, context=context, cond=cond, length=length)
  x = x.reshape(-1, paths, *x.shape[1:])[:, :, known:]
  return forecasting.to_raw(x.swapaxes(0, 1), data, first=known)


def _check(data: dict[str, Any], paths: int) -> None:
  _matplotlib()
  inputs.whole(paths, "paths", low=1)
  unknown = np.isnan(data["target"]).any(-1)
  if unknown.any():
    rows = data["origin"][:, None] + np.arange(unknown.shape[1])
    fix = "is yet to be forecast; let the test part (series.cuts) end there or before"
    raise ValueError(f"data.target: row {rows[unknown].min()} of the series {fix}")


def _matplotlib() -> Any:
  try:
    import matplotlib.backends.backend_agg
    import matplotlib.figure
  except ImportError:
    line = "evaluators.forecasting: matplotlib is missing; pip install -e '.[plot]'"
    raise ImportError(line) from None
  return matplotlib


def _figure(matplotlib: Any, data: dict[str, Any], paths: np.ndarray) -> dict[str, np.ndarray]:
  rows, columns = min(3, paths.shape[1]), min(4, paths.shape[3])
  figure = matplotlib.figure.Figure((3.4 * columns, 2.2 * rows), dpi=100, layout="constrained")
  canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  known = forecasting.to_raw(data["x"][:, : data["context"]], data)[:, -2 * paths.shape[2] :]
  for (n, d), ax in np.ndenumerate(figure.subplots(rows, columns, squeeze=False)):
    _plot(ax, known[n, :, d], data["target"][n, :, d], paths[:, n, :, d])
    ax.set_title(f"row {data['origin'][n]}, dimension {d}", fontsize=8)
    ax.tick_params(labelsize=7)
  ax.legend(fontsize=6)
  canvas.draw()
  return {"paths": np.asarray(canvas.buffer_rgba())[..., :3].copy()}


def _plot(ax: Any, known: np.ndarray, target: np.ndarray, paths: np.ndarray) -> None:
  past, future = np.arange(-len(known), 0), np.arange(len(target))
  for low, high, alpha in ((10, 90, 0.2), (25, 75, 0.35)):
    band = np.percentile(paths, [low, high], axis=0)
    ax.fill_between(future, *band, color="C0", alpha=alpha, lw=0, label=f"{low}-{high}%")
  ax.plot(future, np.median(paths, axis=0), color="C0", lw=1, label="median")
  truth = np.concatenate([known, target])
  ax.plot(np.concatenate([past, future]), truth, color="black", lw=0.8, label="truth")
  ax.axvline(-0.5, color="grey", lw=0.5)
