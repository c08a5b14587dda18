"""Rows of runs: each is trained once, wherever a benchmark left off, and scores are collected."""

from collections.abc import Callable, Iterable, Sequence
import fnmatch
import functools
import json
import pathlib
import statistics
import sys
from typing import Any

from absl import flags, logging
import ml_collections

from dfim import evaluate, train
from dfim.config import errors

_ROWS = flags.DEFINE_list("rows", None, "Rows to train, wildcards too; 'none' to make the table.")
_RUNS = flags.DEFINE_string("runs", None, "Their folder; runs/benchmark_<name> by default.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
flags.register_validator(
  "seeds", lambda seeds: seeds and all(s.isdecimal() for s in seeds), "whole numbers, such as 0,1,2"
)
_QUICK = flags.DEFINE_bool("quick", False, "Small networks and a few steps, to see that it runs.")

Row = Callable[[str], ml_collections.ConfigDict]  # (mode) -> config


def asked(rows: Iterable[str]) -> list[str]:
  """Those of `rows` that --rows names or matches, all by default."""
  wanted = ["*"] if _ROWS.value is None else _ROWS.value
  for one in wanted:
    if one != "none" and not fnmatch.filter(rows, one):
      near = errors.suggest(one, rows)
      sys.exit(f"--rows={one}: no such row{near}; all are in this benchmark's ROWS.")
  return [row for row in rows if any(fnmatch.fnmatchcase(row, one) for one in wanted)]


def train_seeds(row: str, config_of: Row, workdir: pathlib.Path) -> None:
  """Trains and scores a row with each of --seeds."""
  for seed in _SEEDS.value:
    run(config_of("smoke" if _QUICK.value else "full"), int(seed), folder(workdir, row, seed))


def workdir_of(benchmark: str) -> pathlib.Path:
  """Where the runs of a benchmark are; those of --quick are apart: they share no row."""
  folder = _RUNS.value or f"runs/benchmark_{benchmark}"
  return pathlib.Path(folder) / ("quick" if _QUICK.value else "")


def folder(workdir: pathlib.Path, row: str, seed: str) -> pathlib.Path:
  """Where a row's run of one seed is."""
  return workdir / row.replace(" ", "_") / seed


def run(config: ml_collections.ConfigDict, seed: int, where: pathlib.Path) -> None:
  """Trains and scores `config` with one seed, unless that is done."""
  config.seed = seed
  if not evaluate.is_complete(evaluate.path_of(str(where), config.steps), config.evaluators):
    logging.info("%s", where)
    train.train(config, str(where))


def collect(workdir: pathlib.Path, rows: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
  """The scores of every finished run, by row."""
  found = {}
  for row in rows:
    for path in sorted(folder(workdir, row, "*").parent.glob("*/eval/*.json")):
      if path.stem.isdigit():  # and none of --mode=eval
        found.setdefault(row, []).append(json.loads(path.read_text()))
  return found


def image_scores(
  rows: Iterable[str], config_of: Callable[[str, str], Any], workdir: pathlib.Path
) -> dict[str, list[dict[str, Any]]]:
  """Trains the rows of --rows, `config_of(row, mode)`; the scores of all finished runs."""
  for row in asked(rows):
    train_seeds(row, functools.partial(config_of, row), workdir)
  return {row: [s["images"] for s in seeds] for row, seeds in collect(workdir, rows).items()}


def cell(values: list[float | None]) -> str:
  """The median, and the range where there are several; "-" where there is none."""
  values = [value for value in values if value is not None]
  if not values:
    return "-"
  text = f"{statistics.median(values):.3g}"
  return text if len(values) == 1 else f"{text} ({min(values):.3g}-{max(values):.3g})"


def image_table(found: dict[str, list[dict[str, Any]]], nfe: Sequence[int]) -> str:
  """Markdown: the median over seeds of the Frechet distance at each NFE, and its range."""
  first = next(iter(found.values()))[0]
  lines = [
    f"Frechet distance in {first['features']}, {first['samples']} samples, against the training"
    f" set; held-out data: {first['held out']['frechet']:.2f}.",
    "",
    "| row | seeds | " + " | ".join(map(str, nfe)) + " |",
    "|---" * (len(nfe) + 2) + "|",
  ]
  for row, seeds in found.items():
    cells = [cell([r[f"{k} steps"]["frechet"] for r in seeds]) for k in nfe]
    lines.append(f"| {row} | {len(seeds)} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"
