"""The README's picture: digits at 1 NFE, and quality against NFE per token.

python -m benchmarks.hero

Reads `results/hero.csv`, medians over seeds that are transcribed from docs/moment_forcing.md, and
the first block of docs/imm_digits.png; writes docs/hero.png. `nfe` is per token, the denoising
steps and the evaluation that writes the cache; `joint` and `turn` are energy distances times 1000.
"""

import csv
import pathlib

from absl import app
from matplotlib import pyplot as plt
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
DIGITS = slice(16, 124)  # the sheet's pixel rows of three times 20 digits at 1 NFE
TICKS = (2, 3, 5, 9, 17)


def curves(path: pathlib.Path) -> dict[str, np.ndarray]:
  """`[points, 3]` of NFE, joint and turn for each method, in the file's order."""
  found = {}
  for row in csv.DictReader(path.read_text().splitlines()):
    point = [float(row[field]) for field in ("nfe", "joint", "turn")]
    found.setdefault(row["method"], []).append(point)
  return {method: np.array(points) for method, points in found.items()}


def digits(path: pathlib.Path) -> np.ndarray:
  """Grey levels of 60 digits at 1 NFE: a class a column, six of each."""
  sheet = np.asarray(Image.open(path).convert("L"))[DIGITS]
  return np.concatenate(np.split(sheet, 2, axis=1))


def main(_) -> None:
  """Draws both panels."""
  left, right = plt.figure(figsize=(10, 3.4), layout="constrained").subplots(1, 2)
  left.imshow(digits(ROOT / "docs/imm_digits.png"), cmap="gray", vmin=0, vmax=255)
  left.set_title("IMM: digits at 1 NFE")
  left.set_axis_off()
  for method, points in curves(ROOT / "results/hero.csv").items():
    (line,) = right.plot(points[:, 0], points[:, 2], marker="o", label=method)
    right.plot(points[:, 0], points[:, 1], linestyle=":", color=line.get_color())
  right.plot([], [], color="grey", label="turning angles")
  right.plot([], [], color="grey", linestyle=":", label="whole sequences")
  right.set(xscale="log", yscale="log", xticks=TICKS, xticklabels=TICKS)
  right.set(xlabel="NFE per token", ylabel="energy distance × 1000")
  right.set_title("Turning walk: distance to data, lower is better")
  right.yaxis.set_major_formatter("{x:g}")
  right.minorticks_off()
  right.legend(frameon=False, fontsize="small")
  right.figure.savefig(ROOT / "docs/hero.png", dpi=130)


if __name__ == "__main__":
  app.run(main)
