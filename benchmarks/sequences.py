"""Sequences: quality against NFE and other forecasters, and along rollouts past the horizon.

python -m benchmarks.sequences --shared=FOLDER

FOLDER holds ETTh1.csv, ETTh2.csv and exchange_rate.txt.gz; without it the rows that need them are
left out, with a line in the log. A row and a seed are an ordinary run in <workdir>/<row>/<seed>:
finished runs are not repeated, stopped ones resume. `tables.md` and `rollout.png` in <workdir> show
all finished runs.
"""

import pathlib
from typing import Any

from absl import app, flags, logging
import ml_collections

from benchmarks import runs
from configs import forcing_series, forcing_walk
from dfim.training import monitor

flags.adopt_module_key_flags(runs)  # so that --help shows --rows, --seeds and --quick
_SHARED = flags.DEFINE_string("shared", None, "Folder of the real series.")

FILES = dict(ETTh1="ETTh1.csv", ETTh2="ETTh2.csv", exchange="exchange_rate.txt.gz")
PATTERNS = dict(  # who shares a time in training
  forcing="core.patterns.token",
  teacher="core.patterns.next_token",
  full="core.patterns.example",
)


def trained_as(config: ml_collections.ConfigDict, method: str, chunk: int) -> None:
  """Gives Diffusion Forcing's config the times of another method, and its best sampler.

  Teacher forcing learns one token of a sequence at a time. Full-sequence diffusion denoises `chunk`
  tokens together, given the tokens before.
  """
  config.objective.sample_times.pattern = dict(name=PATTERNS[method])
  if method == "full":
    config.sampler.rollout.levels = dict(name="core.levels.full_sequence")
    config.sampler.rollout.chunk = chunk


def walk(method: str) -> runs.Row:
  """The turning walk: six tokens, rolled out to 24."""

  def config(mode: str) -> ml_collections.ConfigDict:
    c = forcing_walk.get_config(mode)
    trained_as(c, method, chunk=3)
    if method != "forcing":
      c.evaluators.walk.steps = c.evaluators.walk.steps[-3:][:1]
    return c

  return config


def series(name: str, method: str = "forcing") -> runs.Row:
  """A real series, or the made-up one; rolled out to four horizons."""

  def config(mode: str) -> ml_collections.ConfigDict:
    c = forcing_series.get_config(mode)
    if name in FILES:
      loader = "exchange" if name == "exchange" else "ett"
      path = str(pathlib.Path(_SHARED.value) / FILES[name])
      c.data.series.update(name=f"data.series.forecasting.{loader}", path=path)
    if name == "exchange":
      c.data.update(context=60, horizon=30, stack=5, lags=())
      del c.evaluators.rollout  # the test part is five windows of one horizon
    trained_as(c, method, chunk=c.data.horizon // c.data.stack)
    return c

  return config


def exchange_from_ridge(mode: str) -> ml_collections.ConfigDict:
  """The exchange rates relative to a ridge regression's forecast, in fewer steps."""
  c = series("exchange")(mode)
  c.data.update(anchor="ridge", regression=(5, 1000.0))  # as the VAR chooses, in training
  c.steps = min(c.steps, 300)
  return c


ROWS = {
  "walk forcing": walk("forcing"),
  "walk teacher": walk("teacher"),
  "walk full": walk("full"),
  **{f"{name} forcing": series(name) for name in ("made-up", *FILES)},
  "exchange ridge": exchange_from_ridge,
  "ETTh1 teacher": series("ETTh1", "teacher"),
  "ETTh1 full": series("ETTh1", "full"),
}


def main(_) -> None:
  """Trains the missing runs, then writes tables and figures."""
  monitor.show_log()
  workdir = runs.workdir_of("sequences")
  for row in runs.asked(ROWS):
    if row.split()[0] in FILES and not _SHARED.value:
      logging.info("%s: left out, for it needs a file; give --shared=FOLDER.", row)
    else:
      runs.train_seeds(row, ROWS[row], workdir)
  found = runs.collect(workdir, ROWS)
  if found:
    text = "\n".join(table(f"{row} ({len(seeds)} seeds)", seeds) for row, seeds in found.items())
    (workdir / "tables.md").write_text(text)
    figure(found, workdir / "rollout.png")
    print(text)


def table(title: str, seeds: list[dict[str, Any]]) -> str:
  """Markdown of one row's scores: median over seeds and range of every number."""
  blocks = [f"## {title}", ""]
  for name, first in seeds[0].items():
    rows = {row: score for row, score in first.items() if isinstance(score, dict)}
    columns = next(iter(rows.values()))
    blocks += [f"| {name} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
      cells = [runs.cell([s[name][row][c] for s in seeds]) for c in columns]
      blocks.append(f"| {row} | {' | '.join(cells)} |")
    blocks.append("")
  return "\n".join(blocks)


def figure(found: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
  """Errors along rollouts: median and range over seeds, a panel for each set with several rows."""
  from matplotlib import pyplot as plt

  names = [row.split()[0] for row, seeds in found.items() if "rollout" in seeds[0]]
  sets = sorted({name for name in names if names.count(name) > 1})
  if not sets:
    return
  panels = plt.figure(figsize=(4.5 * len(sets), 3.2)).subplots(1, len(sets), squeeze=False)[0]
  for axes, name in zip(panels, sets, strict=True):
    for row, seeds in found.items():
      if row.split()[0] == name and "rollout" in seeds[0]:
        positions = [int(p.split()[-1]) for p in seeds[0]["rollout"]]
        first = next(iter(next(iter(seeds[0]["rollout"].values()))))
        curves = [[p[first] for p in s["rollout"].values()] for s in seeds]
        ordered = [sorted(at) for at in zip(*curves, strict=True)]
        axes.plot(positions, [v[len(v) // 2] for v in ordered], label=row.split()[1])
        axes.fill_between(positions, [v[0] for v in ordered], [v[-1] for v in ordered], alpha=0.2)
    axes.set(title=name, xlabel="position", ylabel="error")
    axes.legend(frameon=False)
  panels[0].figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
  app.run(main)
