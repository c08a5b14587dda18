"""Recipes compiled for slices that are not there: a row for each, in `results/pods.csv`.

python -m benchmarks.pods --rows='S v5e:16x16'

Needs the extra `tpu`. Rows that are in the file are not repeated; delete one to compile it again. A
row that takes longer than --minutes is written down as that, with what had been compiled by then.
`--rows=none` compiles nothing and prints the table of docs/recipes.md.
"""

from collections.abc import Iterable
import csv
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

from absl import app, flags, logging

from benchmarks import runs
from dfim.training import monitor

flags.adopt_module_key_flags(runs)
_MINUTES = flags.DEFINE_float("minutes", 20.0, "The longest that a row may take.")
TABLE = pathlib.Path(__file__).parents[1] / "results/pods.csv"

IMAGENET = "configs/imm_imagenet256.py"
RECIPES = {
  "CIFAR": "configs/imm_cifar.py",
  **{size: f"{IMAGENET}:{size}" for size in ("S", "B", "L", "XL")},
  "XL best": f"{IMAGENET}:best",
}
# XLA takes far longer for the gradients of a U-Net's convolutions; O1 wants no less memory.
ENVIRONMENT = {"CIFAR": dict(JAX_OPTIMIZATION_LEVEL="O1")}
SLICES = "v5e:16x16", "v6e:8x8", "v5p:4x4x4"
ROWS = {  # the flags of a recipe on a slice; sixteen images of S at a time on each of four chips
  "S v5e:2x2": [f"--config={RECIPES['S']}", "--topology=v5e:2x2", "--config.accumulate=64"],
  **{
    f"{name} {where}": [f"--config={path}", f"--topology={where}"]
    for where in SLICES
    for name, path in RECIPES.items()
  },
}
COLUMNS = (
  "row program verdict memory_gib available_gib state_gib whole_gib collectives model_tflop"
  " compiled_tflop memory_gb compute_ms memory_ms links_ms largest_ms sum_ms share_of_peak"
  " chip_hours_largest chip_hours_sum cycles compile_seconds notes command commit date jax"
).split()


def main(_) -> None:
  """Compiles the rows that are not there yet."""
  monitor.show_log()
  for row in runs.asked(ROWS):
    table = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    if any(line["row"] == row for line in table):
      logging.info("%s: is there already.", row)
      continue
    write(TABLE, [*table, *lines(row, ROWS[row], _MINUTES.value)])
  print("\n".join(markdown(csv.DictReader(TABLE.open()))))


def markdown(table: Iterable[dict[str, str]]) -> list[str]:
  """The training steps of a table, in the order of `ROWS`, as lines of Markdown."""
  steps = {line["row"]: line for line in table if line["program"] in ("training step", "")}
  cells = ["recipe", "slice", "verdict", "GiB a chip", "state", "collectives, GB"]
  cells += ["compute / memory / links, ms", "step, ms", "of peak", "chip-hours"]
  rows = [cells, ["---"] * len(cells)]
  for row in filter(steps.get, ROWS):
    line, (recipe, _, where) = steps[row], row.rpartition(" ")
    rows.append([recipe, where, line["verdict"], *_cells(line)])
  return [f"| {' | '.join(cells)} |" for cells in rows]


def _cells(line: dict[str, str]) -> list[str]:
  """What a training step takes; a row that is refused or late has less of it."""
  memory = f"{float(line['memory_gib'] or 0):.2f} of {float(line['available_gib'] or 0):.0f}"
  if line["verdict"] != "fits":
    return [memory if line["memory_gib"] else "", *[""] * 6]
  number = lambda column, form=".3g": f"{float(line[column]):,{form}}"
  to = lambda name, form: " to ".join(number(name.format(end), form) for end in ("largest", "sum"))
  moved = sum(float(gb) for gb in re.findall(r"([\d.e+-]+) GB", line["collectives"]))
  terms = " / ".join(number(f"{term}_ms") for term in ("compute", "memory", "links"))
  costs = [to("{}_ms", ".3g"), number("share_of_peak", ".0%"), to("chip_hours_{}", ".0f")]
  return [memory, number("state_gib", ".2f"), f"{moved:.3g}", terms, *costs]


def lines(row: str, given: list[str], minutes: float) -> list[dict[str, Any]]:
  """A line of `COLUMNS` for each program that was compiled in time, and for one that was not."""
  more = ENVIRONMENT.get(row.split()[0], {})
  command = [*(f"{k}={v}" for k, v in more.items()), "python", "-m", "dfim.main", "--mode=compile"]
  command += given
  done = dict(row=row, command=" ".join(command), commit=commit(), date=datetime.date.today())
  with tempfile.TemporaryDirectory() as folder:
    late = False
    try:
      out = [sys.executable, *command[len(more) + 1 :], f"--out={folder}"]
      code = subprocess.run(out, timeout=60 * minutes, env=os.environ | more).returncode
      if code not in (0, 1):
        sys.exit(f"{row}: see the error above; nothing is written.")
    except subprocess.TimeoutExpired:
      late = True
    path = pathlib.Path(folder) / "row.json"
    found = json.loads(path.read_text()) if path.exists() else []
  if not found and not late:
    sys.exit(f"{row}: ended without a row; nothing is written.")
  unfinished = [dict(done, verdict=f"not done in {minutes:g} minutes")] if late else []
  return [dict(done, **numbers(one)) for one in found] + unfinished


def numbers(row: dict[str, Any]) -> dict[str, Any]:
  """The numbers of a row of `--mode=compile`, by column, rounded to four digits."""
  moved = (f"{n} {kind} {gb:.3g} GB" for kind, (n, gb) in row.get("collectives", {}).items())
  found = dict(
    {key: row[key] for key in COLUMNS if key in row},
    verdict="fits" if row["fits"] else "refused",
    memory_gib=row["memory_gib"]["total"],
    available_gib=row["memory_gib"]["available"],
    collectives=", ".join(moved),
    notes="; ".join([*(f"try {fix}" for fix in row["fixes"]), *row["warnings"]]),
  )
  found |= {f"{term}_ms": 1000 * seconds for term, seconds in row.get("seconds", {}).items()}
  found |= {f"chip_hours_{end}": hours for end, hours in row.get("chip_hours", {}).items()}
  return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in found.items()}


def commit() -> str:
  """The commit of this tree, with a mark where what is compiled has changed since."""
  git = lambda *how: subprocess.run(
    ["git", *how], cwd=TABLE.parents[1], capture_output=True, text=True
  )
  changed = git("status", "--porcelain", "--", "dfim", "configs").stdout
  return git("rev-parse", "--short", "HEAD").stdout.strip() + ("-dirty" if changed else "")


def write(path: pathlib.Path, table: list[dict[str, Any]]) -> None:
  """Writes all lines, whole or not at all."""
  with path.with_suffix(".tmp").open("w", newline="") as file:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
  path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
  app.run(main)
