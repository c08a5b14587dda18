"""Rows of numbers as text to read."""

from typing import Any

from dfim import parallel
from dfim.training import chips, experiment as experiment_lib


def heading(experiment: experiment_lib.Experiment, topology: str, slices: int) -> str:
  """Which chips, by which peaks, and how the batch and the state lie on them."""
  mesh, config = experiment.mesh, experiment.config
  device = mesh.devices.flat[0]
  chip, fsdp = chips.of(device), parallel.fsdp_of(mesh)
  rates = dict(memory=chip.memory_rate, links=chip.link_rate)
  rates |= {"between slices": chip.network_rate} if slices > 1 else {}
  peaks = ", ".join(f"{name} {rate / 1e9:.4g} GB/s" for name, rate in rates.items())
  rows = config.batch_size // (mesh.size * config.accumulate)
  return "\n".join(
    [
      f"{f'{slices} x ' if slices > 1 else ''}{topology}: {mesh.size} x {device.device_kind}.",
      f"Peaks of one: {chip.flops / 1e12:.4g} TFLOP/s in bfloat16, {peaks}.",
      f"Each has {rows} examples at a time; a copy of the state is on {fsdp} of them.",
      "Memory and collectives are compiled, times are estimated by the peaks; nothing is measured.",
    ]
  )


def program(row: dict[str, Any]) -> str:
  """The lines of one program, of which all numbers are of one chip."""
  lines = _compiled(row) if "seconds" in row else _refused(row)
  lines += [("try", ", then ".join(row["fixes"]))] if row["fixes"] else []
  lines += [("warning", line) for line in row["warnings"]]
  title = f"\n{row['program']}: {'fits' if row['fits'] else 'refused'}"
  return "\n".join([title, *(f"  {name:<12}{line}" for name, line in lines)])


def _refused(row: dict[str, Any]) -> list[tuple[str, str]]:
  memory = row["memory_gib"]
  return [("memory", f"{memory['total']:.2f} GiB wanted of {memory['available']:.2f}")]


def _compiled(row: dict[str, Any]) -> list[tuple[str, str]]:
  memory, seconds = row["memory_gib"], row["seconds"]
  kinds = "arguments", "outputs", "temporaries", "code"
  parts = ", ".join(f"{kind} {memory[kind]:.2f}" for kind in kinds)
  moved = (f"{n:,} {kind} ({gb:.3g} GB)" for kind, (n, gb) in row["collectives"].items())
  terms = ", ".join(f"{name} {_ms(seconds[name])}" for name in ("compute", "memory", "links"))
  held = f"{row['state_gib']:.2f} GiB, of which {row['whole_gib']:.2f} are whole on every chip"
  lines = [
    ("memory", f"{memory['total']:.2f} GiB of {memory['available']:.2f}: {parts}"),
    ("state" if "recipe_steps" in row else "weights", held),
    ("work", f"{row['compiled_tflop']:.4g} TFLOP of products, {row['memory_gb']:.3g} GB of memory"),
    ("collectives", ", ".join(moved) or "none"),
    ("roofline", terms),
    ("time", f"{_ms(seconds['largest'])}, the largest term, to {_ms(seconds['sum'])}, their sum"),
  ]
  if "recipe_steps" in row:
    share = f"{row['share_of_peak']:.0%} with {row['model_tflop']:.4g} TFLOP of the model"
    hours = (f"{row['chip_hours'][end]:,.0f}" for end in ("largest", "sum"))
    lines.append(("of peak", f"{share}, in the largest term's time"))
    lines.append(("recipe", f"{row['recipe_steps']:,} steps: {' to '.join(hours)} chip-hours"))
  return lines


def _ms(seconds: float) -> str:
  return f"{1000 * seconds:.3g} ms"
