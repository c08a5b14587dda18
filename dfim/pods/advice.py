"""What to look at in a compiled program, and what to change where it does not fit."""

from collections.abc import Iterable
import math
from typing import Any

import jax

from dfim import parallel
from dfim.config.errors import FieldError
from dfim.pods.counts import Collective, Counts
from dfim.training import chips, experiment as experiment_lib

_GIB = 2**30


def moves_batch(
  found: Iterable[Collective], rows: int, tokens: int, params: Any = ()
) -> list[Collective]:
  """The collectives with a batch of so many `rows` and all its `tokens`: activations, not weights.

  An array is one if an axis has all rows, or all tokens of all rows, and it as many numbers, unless
  one of `params`, a tree, or a block of a stack of them has its shape.
  """
  shape = lambda dims: tuple(sorted(n for n in dims if n > 1))
  weights = {shape(a.shape[i:]) for a in jax.tree.leaves(params) for i in (0, 1)}
  lengths = {rows, rows * tokens}
  large = lambda a: bool(lengths & {*a.dims}) and math.prod(a.dims) >= rows * tokens
  is_batch = lambda a: large(a) and shape(a.dims) not in weights
  return [one for one in found if any(map(is_batch, one.arrays))]


def of_step(
  experiment: experiment_lib.Experiment, counts: Counts, on_chip: int, whole: int, chip: chips.Chip
) -> list[str]:
  """Warnings of a training step; a chip has `on_chip` bytes of its state, `whole` as all have."""
  config, mesh = experiment.config, experiment.mesh
  rows = experiment.batch["x"].shape[0] // config.accumulate
  found = _of_program(experiment, counts, counts.collectives, rows)
  fsdp, size = parallel.fsdp_of(mesh), f"{whole / _GIB:.3g} GiB of the state"
  if fsdp > 1 and whole > 0.1 * on_chip:
    found.append(f"{size} are whole on every chip although fsdp is {fsdp}; try another divisor.")
  elif fsdp == 1 < mesh.size and whole > chip.memory / parallel.STATE_SHARE:
    found.append(f"{size} are whole on every chip, and so is its update; set fsdp to 0, or to -1.")
  return found


def of_sampler(experiment: experiment_lib.Experiment, counts: Counts, rows: int) -> list[str]:
  """Warnings of a sampler that draws `rows` at a time."""
  drawn, twice = (
    rows * math.prod(experiment.batch["x"].shape[1:]),
    experiment.sampler.guidance != 1.0,
  )
  larger = lambda one: any(math.prod(a.dims) > drawn for a in one.arrays)
  activations = filter(larger, counts.collectives)  # the samples themselves are gathered in the end
  found = _of_program(experiment, counts, activations, rows * (1 + twice))
  chunk = experiment.sampler.chunk
  if rows != chunk:
    text = f"sampler.chunk={chunk} is no multiple of {experiment.mesh.size} chips"
    found.append(f"{text}: {rows} samples are drawn at a time.")
  return found


def _of_program(
  experiment: experiment_lib.Experiment,
  counts: Counts,
  collectives: Iterable[Collective],
  rows: int,
) -> list[str]:
  positions, lines = math.prod(experiment.batch["x"].shape[1:-1]), []
  tokens = positions // getattr(experiment.net, "patch", 1) ** 2
  if found := moves_batch(collectives, rows, tokens, experiment.param_shapes):
    size, names = sum(one.size for one in found) / 1e9, sorted({one.kind for one in found})
    lines.append(f"{size:.3g} GB of {', '.join(names)} move the whole batch between the chips.")
  if counts.unknown_loops:
    lines.append(f"{counts.unknown_loops} loops of unknown length are counted once.")
  return lines


def of_memory(experiment: experiment_lib.Experiment, on_chip: int, chip: chips.Chip) -> list[str]:
  """Changes that make a training step smaller, the first to try first."""
  config, mesh, found = experiment.config, experiment.mesh, []
  if getattr(experiment.net, "remat", None) == "none":
    found.append("--config.model.remat=block")
  group, doubled = experiment.loss.keywords.get("group_size", 1), 2 * config.accumulate
  try:
    parallel.check_batch(config.batch_size, group, mesh.size, doubled)
    found.append(f"--config.accumulate={doubled}")
  except FieldError:
    pass  # a chip has one group of particles already
  if mesh.shape["data"] > 1 and on_chip > chip.memory / parallel.STATE_SHARE:
    found.insert(0 if on_chip > chip.memory / 2 else len(found), "--config.fsdp=-1")
  return [*found, "more chips"]
