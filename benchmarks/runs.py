"""Rows of runs: each is trained once, wherever a benchmark left off, and scores are collected."""

from collections.abc import Iterable
import json
import pathlib
import statistics
from typing import Any

from absl import logging
import ml_collections

from dfim import train


def folder(workdir: pathlib.Path, row: str, seed: str) -> pathlib.Path:
  """Where a row's run of one seed is."""
  return workdir / row.replace(" ", "_") / seed


def run(config: ml_collections.ConfigDict, seed: int, where: pathlib.Path) -> None:
  """Trains and scores `config` with one seed, unless that is done."""
  config.seed = seed
  if not (where / "eval" / f"{config.steps}.json").exists():
    logging.info("%s", where)
    train.train(config, str(where))


def collect(workdir: pathlib.Path, rows: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
  """The scores of every run that is there, by row."""
  found = {}
  for row in rows:
    for path in sorted(folder(workdir, row, "*").parent.glob("*/eval/*.json")):
      found.setdefault(row, []).append(json.loads(path.read_text()))
  return found


def cell(values: list[float]) -> str:
  """The median, and the range where there are several."""
  text = f"{statistics.median(values):.3g}"
  return text if len(values) == 1 else f"{text} ({min(values):.3g}-{max(values):.3g})"
