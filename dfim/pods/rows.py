"""The numbers of a compiled program, as a row for a table."""

import dataclasses
import re
from typing import Any

import jax

from dfim import parallel, sample
from dfim.pods import advice, counts as counts_lib, roofline, topology
from dfim.training import chips, experiment as experiment_lib, step as step_lib

_REFUSED = re.compile(r"Used ([\d.]+)([KMG]?) of ([\d.]+)([KMG]?) hbm")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Row:
  """Makes the row of an experiment's training step, or of its sampler in so many steps.

  All is of one chip. A row that fits has `memory_gib`, `collectives` as [number, GB] by kind,
  `seconds` by term, and of a training step `share_of_peak` and `chip_hours` of the whole recipe.
  """

  experiment: experiment_lib.Experiment
  steps: int | None

  @property
  def program(self) -> str:
    """Its name."""
    return "training step" if self.steps is None else f"sampler, steps {self.steps}"

  @property
  def chip(self) -> chips.Chip:
    """The figures of the devices."""
    return chips.of(self.experiment.mesh.devices.flat[0])

  def refused(self, memory: tuple[float, float]) -> dict[str, Any]:
    """The row of a program that wants more bytes than there are, `memory` says how many."""
    found = dict(zip(("total", "available"), (size / _GIB for size in memory), strict=True))
    return self._common() | self._verdict(found) | dict(warnings=[])

  def compiled(self, memory: Any, text: str) -> dict[str, Any]:
    """The row of a program that compiles, by its `memory_analysis()` and `as_text()`."""
    counts = counts_lib.count(text, self.experiment.mesh.size)
    domains = topology.domains(self.experiment.mesh.devices.flat)
    times, found = roofline.of(counts, self.chip, domains), _memory(memory, self.chip)
    row = self._common() | self._verdict(found)
    row |= dict(
      collectives={kind: [n, size / 1e9] for kind, (n, size) in counts.by_kind().items()},
      compiled_tflop=counts.flops / 1e12,
      memory_gb=counts.memory / 1e9,
      seconds=dataclasses.asdict(times) | dict(largest=times.largest, sum=times.sum),
      cycles=counts.cycles,
      warnings=self._warnings(counts),
    )
    return row | (self._recipe(times) if self.steps is None else {})

  def _common(self) -> dict[str, Any]:
    mesh, config, chip = self.experiment.mesh, self.experiment.config, self.chip
    on_chip, whole = self._state()
    return dict(
      program=self.program,
      chip=mesh.devices.flat[0].device_kind,
      chips=mesh.size,
      fsdp=parallel.fsdp_of(mesh),
      batch_size=config.batch_size,
      accumulate=config.accumulate,
      jax=jax.__version__,
      peaks=dataclasses.asdict(chip),
      state_gib=on_chip / _GIB,
      whole_gib=whole / _GIB,
    )

  def _verdict(self, memory: dict[str, float]) -> dict[str, Any]:
    fits, fixes = memory["total"] <= memory["available"], []
    if not fits:
      fixes = ["a smaller --config.sampler.chunk", "more chips"]
      if self.steps is None:
        fixes = advice.of_memory(self.experiment, self._state()[0], self.chip)
    return dict(fits=fits, memory_gib=memory, fixes=fixes)

  def _state(self) -> tuple[int, int]:
    """Bytes of the state, or of a sampler's weights, that a chip holds, and those whole on all."""
    state = self.experiment.abstract_state()
    return parallel.bytes_held(state if self.steps is None else self.experiment.ema_params(state))

  def _warnings(self, counts: counts_lib.Counts) -> list[str]:
    if self.steps is None:
      return advice.of_step(self.experiment, counts, *self._state(), self.chip)
    return advice.of_sampler(self.experiment, counts, sample.rows_at_a_time(self.experiment))

  def _recipe(self, times: roofline.Roofline) -> dict[str, Any]:
    """The model's FLOPs, without what is computed again, and the cost of all steps."""
    count, steps = self.experiment.mesh.size, self.experiment.config.steps
    flops = step_lib.flops(self.experiment) / count
    hours = lambda seconds: steps * seconds * count / 3600
    return dict(
      model_tflop=flops / 1e12,
      share_of_peak=flops / self.chip.flops / times.largest,
      recipe_steps=steps,
      chip_hours=dict(largest=hours(times.largest), sum=hours(times.sum)),
    )


def refusal(text: str) -> tuple[float, float] | None:
  """Bytes wanted and there by the compiler's error; None for another error."""
  if found := _REFUSED.search(text):
    return float(found[1]) * _UNITS[found[2]], float(found[3]) * _UNITS[found[4]]
  return None


def _memory(memory: Any, chip: chips.Chip) -> dict[str, float]:
  """GiB by kind; `outputs` are those that do not take the place of arguments."""
  sizes = dict(
    arguments=memory.argument_size_in_bytes,
    outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    code=memory.generated_code_size_in_bytes,
  )
  sizes |= dict(total=sum(sizes.values()), available=chip.memory)
  return {kind: size / _GIB for kind, size in sizes.items()}
