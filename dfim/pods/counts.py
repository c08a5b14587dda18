"""What one run of a program costs a device: FLOPs of products, bytes of memory, collectives.

Everything counts as often as loops repeat it. All branches of a `cond` count, and the body of a
loop of unknown length counts once: see `unknown_loops`.
"""

import collections
from collections.abc import Iterator
import dataclasses
import re

from dfim.pods import groups, hlo, products, traffic
from dfim.pods.hlo import Array, Instruction, Run

SLICES = "to other slices"  # a fixed part of an all-reduce, sent through the hosts


@dataclasses.dataclass(frozen=True)
class Collective:
  """A collective that runs `times`, with the `arrays` of its whole result."""

  kind: str  # one of hlo.COLLECTIVES, or SLICES
  arrays: tuple[Array, ...]
  group: tuple[int, ...]  # some devices that take part together, by their places in the mesh
  times: int

  @property
  def size(self) -> int:
    """Bytes of the whole result, for all times."""
    return self.times * sum(a.size for a in self.arrays)


@dataclasses.dataclass(frozen=True)
class Counts:
  """The costs of one device."""

  products: dict[str, int]  # FLOPs as they run, with what is computed again, by their precision
  memory: float  # bytes read from and written to the main memory; an estimate
  collectives: tuple[Collective, ...]
  cycles: int  # as XLA estimates them for a TPU; their unit is not sure, ratios are of use
  unknown_loops: int

  @property
  def flops(self) -> int:
    """FLOPs of all products."""
    return sum(self.products.values())

  def by_kind(self) -> dict[str, tuple[int, int]]:
    """The number and the bytes of the collectives of each kind."""
    found = collections.defaultdict(lambda: (0, 0))
    for one in self.collectives:
      times, size = found[one.kind]
      found[one.kind] = times + one.times, size + one.size
    return dict(found)


def count(text: str, devices: int) -> Counts:
  """Counts the program `compiled.as_text()` of so many `devices`."""
  program = hlo.parse(text)
  runs = list(program.runs())
  found = list(_collectives(runs, devices))
  memory = sum(one.times * traffic.in_memory(one.arrays) for run, one in found if run.fused)
  flops = collections.Counter()
  for run in runs:
    inside = program.computations[run.inside]
    if product := run.times * products.flops(run.instruction, inside):
      flops[products.precision(run.instruction, inside)] += product
    if not run.fused:
      memory += run.times * traffic.of(run.instruction, run.inside, program)
  cycles = sum(run.times * _cycles(run.instruction) for run in runs if not run.fused)
  loops = (run for run in runs if run.instruction.op == "while")
  unknown = sum(program.trips(run.instruction, run.inside) is None for run in loops)
  return Counts(dict(flops), memory, tuple(one for _, one in found), cycles, unknown)


def _collectives(runs: list[Run], devices: int) -> Iterator[tuple[Run, Collective]]:
  """The collectives; an asynchronous one whose pieces are fused with other work comes once."""
  seen = set()
  for run in runs:
    chain = run.around, run.instruction.attribute("chain_id")
    if (found := _collective(run, devices)) and not (chain[1] and chain in seen):
      seen.add(chain)
      yield run, found


def _collective(run: Run, devices: int) -> Collective | None:
  instruction, arrays = run.instruction, run.instruction.arrays
  kind, start = instruction.op.removesuffix("-start"), instruction.op.endswith("-start")
  if instruction.op == "send" and "xla_megascale" in instruction.attributes:
    return Collective(SLICES, arrays[:1], (), run.times)
  if kind not in hlo.COLLECTIVES:
    return None
  group = groups.of(instruction, devices)
  if start and kind != "all-reduce":  # operands, results and maybe contexts
    arrays = tuple(a for a in arrays if a.dims)
    arrays = arrays[len(arrays) // 2 :]
  if kind == "reduce-scatter":
    axis = int(instruction.attribute("dimensions"))
    longer = lambda n: (*n[:axis], n[axis] * len(group), *n[axis + 1 :])
    arrays = tuple(a._replace(dims=longer(a.dims)) for a in arrays)
  if run.inside.startswith("all-reduce-scatter"):  # each device keeps a part of the result
    kind = "reduce-scatter"
  return Collective(kind, arrays, group, run.times)


def _cycles(instruction: Instruction) -> int:
  found = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
  return int(found[1]) if found else 0
