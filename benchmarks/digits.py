"""Quality against NFE on the digits: every row of ROWS, several seeds, one table.

python -m benchmarks.digits --rows=imm,flow --seeds=0,1,2

A row and a seed are an ordinary run in <workdir>/<row>/<seed>: finished runs are not repeated,
stopped ones resume. `table.md` and `figure.png` in <workdir> show all finished runs.
"""

import pathlib
import statistics

from absl import app, flags
import ml_collections

from benchmarks import runs
from configs import consistency_digits, flow_digits, imm_digits
from dfim.training import monitor

flags.adopt_module_key_flags(runs)  # so that --help shows --rows, --seeds and --quick

STEPS = (1, 2, 4, 8, 16, 64)
ETA, LOG_SNR = "eta_decrement", "log_snr_decrement"  # the paper's mapping, and imm_digits'


def imm(mode: str, **changes) -> ml_collections.ConfigDict:
  """`imm_digits` with dotted fields changed: `kernel__name=...` for `objective.kernel.name`."""
  c = imm_digits.get_config(mode)
  c.objective.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
  return c


def flow_equal_seconds(mode: str) -> ml_collections.ConfigDict:
  """Flow matching for 1.4 times the steps: its step is that much cheaper (docs/results.md)."""
  c = flow_digits.get_config(mode)
  c.steps = int(1.4 * c.steps)
  return c


def self_distillation(mode: str) -> ml_collections.ConfigDict:
  """The flow map, learnt with the flow."""
  return flow_digits.self_distillation(flow_digits.get_config(mode))


def imm_reach(mode: str) -> ml_collections.ConfigDict:
  """IMM whose jumps are at most 0.1 long at first, and free from half of the run on."""
  c = imm_digits.get_config(mode)
  c.objective.sample_times.reach = dict(
    name="optax.linear_schedule", init_value=0.1, end_value=1.0, transition_steps=c.steps // 2
  )
  return c


def particles(m: int, kernel: str, k: float, batch_size: int = 256, mapping: str = ETA):
  """M particles, a kernel, the step of r(s, t), and the batch that the groups divide."""

  def config(mode: str) -> ml_collections.ConfigDict:
    c = imm(
      mode,
      group_size=m,
      kernel__name=f"core.kernels.{kernel}",
      sample_times__mapping=dict(name=f"core.mappings.{mapping}", k=k),
    )
    c.batch_size = batch_size
    return c

  return config


def per_particle_times(
  m: int, inverse_bandwidth: float, k: float = 8.0, mapping: str = LOG_SNR
) -> runs.Row:
  """M particles at different times, compared where their times are similar."""

  def config(mode: str) -> ml_collections.ConfigDict:
    c = particles(m, "laplace", k, mapping=mapping)(mode)
    c.objective.sample_times.per_particle_times = True
    c.objective.particles = dict(
      name="core.particles.per_particle_times", inverse_bandwidth=inverse_bandwidth
    )
    return c

  return config


def replaced(**parts: dict) -> runs.Row:
  """`imm_digits` with whole parts of its objective replaced."""

  def config(mode: str) -> ml_collections.ConfigDict:
    c = imm_digits.get_config(mode)
    for part, value in parts.items():
      c.objective[part] = ml_collections.ConfigDict(value)
    return c

  return config


def form(name: str, path: str, sigma_data: float = 0.5) -> dict:
  """A parameterization on a path."""
  path = dict(name=f"core.interpolants.{path}")
  return dict(name=f"core.parameterization.{name}", path=path, sigma_data=sigma_data)


ORDERS = {  # the paper's section 7.5 on a small scale: imm_digits with one part replaced
  **{
    f"kernel {kernel}": replaced(kernel=dict(name=f"core.kernels.{kernel}"))
    for kernel in ("rbf", "energy", "pseudo_huber")
  },
  **{
    f"{name} {path}": replaced(f=form(name, path))
    for name, path in (
      ("Identity", "Cosine"),
      ("Identity", "FlowMatching"),
      ("SimpleEDM", "Cosine"),
      ("SimpleEDM", "FlowMatching"),
    )
  },
  **{
    f"mapping {name} k={k:g}": particles(4, "laplace", k, mapping=name)
    for name, k in (
      ("time_decrement", 6.0),
      ("time_decrement", 8.0),
      ("inverse_eta_increment", 6.0),
      ("inverse_eta_increment", 8.0),
    )
  },
  "weight a=2": replaced(weight=dict(name="core.weights.imm", a=2.0, b=4.0)),
  "weight uniform": replaced(weight=dict(name="core.weights.uniform")),
}

ROWS = {
  "imm": imm,
  "flow": flow_digits.get_config,
  "flow_equal_seconds": flow_equal_seconds,
  "self_distillation": self_distillation,
  "consistency": consistency_digits.get_config,
  "imm_reach": imm_reach,
  **{
    f"M={m} log-SNR k=8": particles(m, "laplace", 8.0, mapping=LOG_SNR)
    for m in (1, 2, 8, 16)  # 4 is imm
  },
  **{
    f"M={m} log-SNR k=8 batch={size}": particles(m, "laplace", 8.0, size, LOG_SNR)
    for size in (512, 1024, 2048)
    for m in (1, 2, 4)
  },
  **{
    f"M={m} log-SNR k={k:g} batch={size}": particles(m, "laplace", k, size, LOG_SNR)
    for size in (1024, 2048)
    for m in (1, 2)
    for k in (7.0, 9.0)
  },
  **{
    f"M={m} time k={k:g}": particles(m, "laplace", k, mapping="time_decrement")
    for m in (1, 2)  # 4 is the rows "mapping"
    for k in (5.0, 6.0, 7.0)
  },
  **{
    f"own times M={m} bandwidth={b:g}": per_particle_times(m, b)
    for m in (16, 64, 256)
    for b in (5.0, 10.0, 20.0)
  },
  **{
    f"own times M=256 bandwidth={b:g} time k=6": per_particle_times(256, b, 6.0, "time_decrement")
    for b in (5.0, 10.0, 20.0)
  },
  **ORDERS,
  "M=4 laplace k=12": particles(4, "laplace", 12.0),
  **{f"M={m} laplace k=10": particles(m, "laplace", 10.0) for m in (1, 2, 4, 8, 16)},
  **{
    f"M=1 {kernel} k={k:g}": particles(1, kernel, k)
    for kernel in ("laplace", "energy", "pseudo_huber")
    for k in (6.0, 8.0, 10.0, 12.0)
  },
  **{
    f"M={m} {kernel} k={k:g} batch=1024": particles(m, kernel, k, 1024)
    for m, kernel, k in [
      *((m, "laplace", 10.0) for m in (1, 2, 4, 8, 16)),
      *((m, "laplace", 12.0) for m in (1, 4)),
      *((1, kernel, k) for kernel in ("energy", "pseudo_huber") for k in (10.0, 12.0)),
    ]
  },
}


def config_of(row: str, mode: str) -> ml_collections.ConfigDict:
  """A row's config, scored at STEPS."""
  config = ROWS[row](mode)
  config.sampler.steps = STEPS
  return config


def main(_) -> None:
  """Trains the missing runs, then writes the table and the figure."""
  monitor.show_log()
  workdir = runs.workdir_of("digits")
  found = runs.image_scores(ROWS, config_of, workdir)
  if found:
    (workdir / "table.md").write_text(runs.image_table(found, STEPS))
    figure(found, workdir / "figure.png")
    print(runs.image_table(found, STEPS))


def figure(found: dict[str, list[dict[str, float]]], path: pathlib.Path) -> None:
  """Median and range against NFE, of one row for each method."""
  from matplotlib import pyplot as plt

  axes = plt.figure(figsize=(6, 4)).subplots()
  for row in ("imm", "flow", "flow_equal_seconds", "consistency", "M=1 log-SNR k=8"):
    if row in found:
      values = [sorted(r[f"{k} steps"]["frechet"] for r in found[row]) for k in STEPS]
      axes.plot(STEPS, [statistics.median(v) for v in values], marker="o", label=row)
      axes.fill_between(STEPS, [v[0] for v in values], [v[-1] for v in values], alpha=0.2)
  floor = next(iter(found.values()))[0]["held out"]["frechet"]
  axes.axhline(floor, color="grey", linestyle=":", label="held-out digits")
  axes.set(xscale="log", yscale="log", xlabel="NFE", ylabel="Frechet distance", xticks=STEPS)
  axes.set_xticklabels(STEPS)
  axes.minorticks_off()
  axes.legend(frameon=False)
  axes.figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
  app.run(main)
