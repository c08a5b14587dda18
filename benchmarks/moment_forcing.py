"""Moment Forcing and its baselines on the turning walk: quality against NFE, and ablations.

python -m benchmarks.moment_forcing --rows='final *' --seeds=0,1,2
python -m benchmarks.moment_forcing --rows='screen *' --seeds=0
python -m benchmarks.moment_forcing --rows='memory *,bent *,steered *' --seeds=0

All rows have the network, the optimizer, the data and the examples of
configs/moment_forcing_walk.py; `moment_forcing` and `M=1` read three more examples for each, for
the posterior mean alone. `final` rows are the methods, each down the grid that suits it, after
3,000 steps. `equal tokens` rows are baselines of one stream after twice the steps. `other`, `third`
and `short` rows are other walks. `memory`, `bent` and `steered` rows are other families of
sequences, after half of the steps: nothing was chosen on them. `screen` rows are Moment Forcing
with one choice changed, after half of the steps. A row and a seed are an ordinary run in
<workdir>/<row>/<seed>: finished runs are not repeated, stopped ones resume. `table.md` and
`figure.png` in <workdir> show all finished runs.
Rows of earlier defaults and other ablations are in this file at commit 2475a9a.
"""

import functools
import pathlib
import statistics
from typing import Any

from absl import app, flags
import ml_collections

from benchmarks import runs
from configs import follow, moment_forcing_walk
from dfim.training import monitor

flags.adopt_module_key_flags(runs)  # so that --help shows --rows, --seeds and --quick

STEPS = (1, 2, 4, 8, 16)  # a token, of baselines; Moment Forcing is scored at its config's
SMALLEST_DRAWN = 5e-5  # of a distance in the figure: an unbiased one may be 0 or less
STEP_MS = {  # of training: docs/moment_forcing.md, "Speed"
  "moment_forcing": 136,
  "M=1": 135,
  "data MMD": 102,
  "forcing": 44.1,
  "forcing two_stream": 78.8,
  "shortcut velocity": 50.4,
  "shortcut x": 49.7,
  "shortcut velocity two_stream": 90.2,
  "shortcut x two_stream": 91.4,
}
ONE_STREAM = dict(  # half of the sequences have the clean past that a token is sampled from
  name="core.patterns.mixture",
  patterns=dict(
    pivot=dict(name="core.patterns.pivot"), context=dict(name="core.patterns.context", rate=0.3)
  ),
  shares=dict(pivot=0.5, context=0.5),
)
CONDITIONAL = dict(  # x_r on the path to each example's own datum, as in IMM
  conditioning__posterior=dict(name="core.posterior.conditional"),
  conditioning__reference=1,
  sample_times__p_one_step=0.0,
  group_size=32,
)
CONTIGUOUS = dict(  # the same, and groups of consecutive examples
  conditioning=dict(name="core.two_stream.TwoStream"),
  sample_times__p_one_step=0.0,
  group_size=16,
)


def changed(config: ml_collections.ConfigDict, fields: dict[str, Any]) -> ml_collections.ConfigDict:
  """`config` with dotted fields set."""
  for name, value in fields.items():
    *path, last = name.split(".")
    functools.reduce(lambda node, key: node[key], path, config)[last] = value
  return config


def moment_forcing(steps: float = 1.0, **fields: Any) -> runs.Row:
  """The config of Moment Forcing with fields of its objective set, `__` for a dot.

  `steps` is a multiple of the config's own.
  """
  dotted = {"objective." + name.replace("__", "."): value for name, value in fields.items()}

  def config(mode: str) -> ml_collections.ConfigDict:
    c = changed(moment_forcing_walk.get_config(mode), dotted)
    c.steps = int(steps * c.steps)
    c.batch_size = max(c.batch_size, c.objective.group_size)  # where all is quick, and small
    del c.evaluators.rollout
    return c

  return config


def baseline(
  objective: dict[str, Any], step: dict[str, Any], streams: int, steps: float
) -> runs.Row:
  """Moment Forcing's config with another objective, and another way to sample."""

  def config(mode: str) -> ml_collections.ConfigDict:
    c = moment_forcing(steps)(mode)
    times = c.objective.sample_times
    times = dict(
      pattern=times.pattern if streams == 2 else ONE_STREAM, t_max=times.t_max, t_min=times.t_min
    )
    c.objective = {**objective, "streams": streams}
    c.objective.sample_times = {**objective["sample_times"], **times}
    c.sampler.step = step
    c.sampler.grid = dict(
      name="core.grids.uniform", **follow(c.objective.sample_times, "t_max", "t_min")
    )
    c.sampler.steps = STEPS if mode == "full" else STEPS[:2]
    return c

  return config


def forcing(streams: int = 1, steps: float = 1.0) -> runs.Row:
  """Diffusion Forcing: denoising, sampled by DDIM."""
  objective = dict(
    name="objectives.denoising.loss",
    f=straight("EulerFlow"),
    sample_times=dict(name="core.times.sample"),
    weight=dict(name="core.weights.uniform"),
  )
  step = dict(name="samplers.jump.Ancestral", eta=0.0)
  return baseline(objective, step, streams, steps)


def shortcut(prediction: str, streams: int = 1, steps: float = 1.0) -> runs.Row:
  """Shortcut forcing: of the velocity, or Dreamer 4's of x."""
  form = dict(
    velocity=dict(f=straight("EulerFlow"), weight=dict(name="core.weights.uniform")),
    x=dict(f=straight("Identity"), weight=dict(name="core.weights.linear", clean=1.0, noise=0.1)),
  )[prediction]
  objective = dict(
    name="objectives.shortcut.loss", sample_times=dict(name="core.times.dyadic", finest=32), **form
  )
  return baseline(objective, dict(name="samplers.jump.Pushforward"), streams, steps)


def self_distillation() -> runs.Row:
  """Lagrangian self-distillation, with two streams."""
  objective = dict(
    name="objectives.self_distillation.loss",
    f=straight("EulerFlow"),
    sample_times=dict(name="core.times.sample", p_endpoint=0.3),
    weight=dict(name="core.weights.uniform"),
  )
  row = baseline(objective, dict(name="samplers.jump.Pushforward"), streams=2, steps=1.0)
  return lambda mode: changed(row(mode), {"model.time_scale": 10.0})  # see configs/flow_digits.py


def energy_score(mode: str) -> ml_collections.ConfigDict:
  """One pass a token, two samples of it scored."""
  c = moment_forcing_walk.energy_score(moment_forcing_walk.get_config(mode))
  del c.evaluators.rollout
  return c


def noisy(row: runs.Row) -> runs.Row:
  """The same with a quarter of the context noisy."""
  return lambda mode: changed(row(mode), {"objective.sample_times.pattern.noisy": 0.25})


def straight(name: str) -> dict[str, Any]:
  """A parameterization of the straight path."""
  path = dict(name="core.interpolants.FlowMatching")
  return dict(name=f"core.parameterization.{name}", path=path, sigma_data=0.5)


def scales(**given: Any) -> dict[str, Any]:
  """The rule of scales with one choice fixed."""
  return dict(name="core.scales.Fit", **given)


FINAL = {
  "moment_forcing": moment_forcing(),
  "moment_forcing own datum": moment_forcing(**CONDITIONAL),
  "M=1": moment_forcing(group_size=1),
  "M=1 own datum": moment_forcing(**CONDITIONAL | dict(group_size=1)),
  "data MMD": moment_forcing(
    **CONDITIONAL, sample_times__mapping=dict(name="core.mappings.to_target")
  ),
  "forcing": forcing(),
  "forcing two_stream": forcing(streams=2),
  "forcing equal tokens": forcing(steps=2.0),
  **{f"shortcut {p}": shortcut(p) for p in ("velocity", "x")},
  **{f"shortcut {p} two_stream": shortcut(p, streams=2) for p in ("velocity", "x")},
  "shortcut velocity equal tokens": shortcut("velocity", steps=2.0),
  "energy score": energy_score,
  "self-distillation two_stream": self_distillation(),
  "forcing two_stream noisy": noisy(forcing(streams=2)),
  **{f"shortcut {p} two_stream noisy": noisy(shortcut(p, streams=2)) for p in ("velocity", "x")},
}
SCREEN = {
  "default": {},
  **{f"M={m}": dict(group_size=m) for m in (1, 2, 8, 16)},
  "particles token": dict(particles=dict(name="core.particles.token")),
  **{f"bandwidth {m:g}": dict(particles__bandwidth_multiplier=m) for m in (0.3, 3.0)},
  **{f"count {n:g}": dict(conditioning__scales=scales(counts=(n,))) for n in (1.0, 4.0, 16.0)},
  **{f"discount {g:g}": dict(conditioning__scales=scales(discounts=(g,))) for g in (0.0, 0.5, 1.0)},
  **{f"s at t_min {p:g}": dict(sample_times__p_endpoint=p) for p in (0.0, 0.6)},
  **{f"k={k:g}": dict(sample_times__mapping__k=k) for k in (5.0, 7.0)},
  "weight b=0": dict(weight__b=0.0),
  "contiguous M=16": CONTIGUOUS,
  "context a quarter noisy": CONTIGUOUS | dict(sample_times__pattern__noisy=0.25),
  **{
    f"one stream {name}": CONTIGUOUS | dict(conditioning=None, sample_times__pattern=pattern)
    for name, pattern in (
      ("token", dict(name="core.patterns.token")),
      ("pivot and context", ONE_STREAM),
    )
  },
  "one stream sequence": CONTIGUOUS
  | dict(
    conditioning=None,
    sample_times__pattern=ONE_STREAM,
    particles=dict(name="core.particles.sequence", inverse_bandwidth=1.0),
  ),
}
WALKS = {  # fields of `data`; a first one is the config's
  "other": dict(tokens=8, branches=3, angle=80.0),
  "third": dict(tokens=5, branches=4, angle=75.0),
  "short": dict(tokens=4, branches=3, angle=60.0),
}
ELSEWHERE = (
  "moment_forcing",
  "moment_forcing own datum",
  "M=1",
  "M=1 own datum",
  "forcing",
  "shortcut velocity",
  "shortcut x two_stream",
)


def elsewhere(row: runs.Row, walk: str) -> runs.Row:
  """The same on another of WALKS."""
  fields = {f"data.{name}": value for name, value in WALKS[walk].items()}
  return lambda mode: changed(row(mode), fields)


FAMILIES = {  # modules of data.synthetic, and their tokens
  "memory": ("memory_walk", 7),
  "bent": ("bent_walk", 6),
  "steered": ("steered_walk", 6),
}
COMPARED = (
  "moment_forcing",
  "M=1",
  "shortcut x two_stream",
  "self-distillation two_stream",
  "energy score",
  "forcing",
)


def family(row: runs.Row, name: str) -> runs.Row:
  """The same on one of FAMILIES, after half of the steps."""
  module, tokens = FAMILIES[name]
  path = f"data.synthetic.{module}"

  def config(mode: str) -> ml_collections.ConfigDict:
    c = row(mode)
    c.steps //= 2
    c.data = dict(name=f"{path}.{module}", tokens=tokens)
    c.model.window = tokens
    size = c.evaluators.walk.reference.size
    c.evaluators.walk.reference = dict(name=f"{path}.load", tokens=tokens, size=size)
    return c

  return config


ROWS = {
  **{f"final {name}": row for name, row in FINAL.items()},
  **{f"{walk} {name}": elsewhere(FINAL[name], walk) for walk in WALKS for name in ELSEWHERE},
  **{f"{name} {of}": family(FINAL[of], name) for name in FAMILIES for of in COMPARED},
  **{f"screen {name}": moment_forcing(steps=0.5, **fields) for name, fields in SCREEN.items()},
}


def main(_) -> None:
  """Trains the missing runs, then writes the table and the figure."""
  monitor.show_log()
  workdir = runs.workdir_of("moment_forcing")
  for row in runs.asked(ROWS):
    runs.train_seeds(row, ROWS[row], workdir)
  found = {row: [s["walk"] for s in seeds] for row, seeds in runs.collect(workdir, ROWS).items()}
  if found:
    text = "\n".join(tables(found))
    (workdir / "table.md").write_text(text)
    figure(found, workdir / "figure.png")
    print(text)


def tables(found: dict[str, list[dict[str, Any]]]) -> list[str]:
  """Markdown: walks by joint and turn distance, families by joint distance and that of a token."""
  of_family = lambda row: row.split()[0] in FAMILIES
  walks, families = ({k: found[k] for k in found if of_family(k) == other} for other in (0, 1))
  return [table(walks, "turn"), table(families, "following")]


def table(found: dict[str, list[dict[str, Any]]], second: str) -> str:
  """Joint and a second distance times 1,000 at each number of steps, median and range."""
  lines = [
    f"Joint / {second} distance, times 1,000 (dfim.metrics.sequences), by denoising steps a token.",
    "",
    "| row | seeds | " + " | ".join(map(str, STEPS)) + " |",
    "|---" * (len(STEPS) + 2) + "|",
  ]
  for row, seeds in found.items():
    cells = []
    for k in STEPS:
      at = [s[f"{k} steps"] for s in seeds if f"{k} steps" in s]
      both = [runs.cell([1000 * a[name] for a in at]) for name in ("joint", second) if at]
      cells.append(" / ".join(both))
    lines.append(f"| {row} | {len(seeds)} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def figure(found: dict[str, list[Any]], path: pathlib.Path) -> None:
  """Turn distance of the `final` rows: against steps, and at two steps against training seconds."""
  from matplotlib import pyplot as plt

  left, right = plt.figure(figsize=(10, 4)).subplots(1, 2, sharey=True)
  left.set_prop_cycle(color=plt.get_cmap("tab20").colors)
  for name in FINAL:
    seeds = found.get(f"final {name}", [])
    steps = [k for k in STEPS if all(f"{k} steps" in s for s in seeds)] if seeds else []
    turns = [sorted(max(s[f"{k} steps"]["turn"], SMALLEST_DRAWN) for s in seeds) for k in steps]
    if 2 not in steps:
      continue
    line = left.plot(steps, [statistics.median(v) for v in turns], marker=".", label=name)[0]
    left.fill_between(steps, [v[0] for v in turns], [v[-1] for v in turns], alpha=0.2)
    method = name.removesuffix(" equal tokens")
    if method in STEP_MS:
      seconds = FINAL[name]("full").steps * STEP_MS[method] / 1000
      at_two = turns[steps.index(2)]
      median = statistics.median(at_two)
      spread = [[median - at_two[0]], [at_two[-1] - median]]
      right.errorbar(seconds, median, spread, fmt="o", color=line.get_color())
  left.set(xscale="log", yscale="log", xlabel="denoising steps a token", ylabel="turn distance")
  left.set_xticks(STEPS, map(str, STEPS))
  left.minorticks_off()
  left.legend(frameon=False, fontsize=7)
  right.set(xlabel="training seconds, at two denoising steps a token")
  left.figure.savefig(path, dpi=150, bbox_inches="tight")
  plt.close(left.figure)


if __name__ == "__main__":
  app.run(main)
