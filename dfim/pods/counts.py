"""What one run of a program costs a device: FLOPs of products, bytes of memory, collectives.

Everything counts as often as loops repeat it. All branches of a `cond` count, and the body of a
loop of unknown length counts once: see `unknown_loops`.
"""

import collections
from collections.abc import Iterator
import dataclasses
import math
import re

import numpy as np

from dfim.pods import groups, hlo, traffic
from dfim.pods.hlo import Array, Computation, Instruction, Program, Run

SLICES = "to other slices"  # a fixed part of an all-reduce, sent through the hosts
_PASSES = {"high": 3, "highest": 6}  # of a TPU's bfloat16 units, for a product of float32


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

  flops: float  # of products as they run, with what is computed again
  passes: float  # the same, times the passes that each product's precision takes on a TPU
  memory: float  # bytes read from and written to the main memory; an estimate
  collectives: tuple[Collective, ...]
  cycles: int  # as XLA estimates them for a TPU; their unit is not sure, ratios are of use
  unknown_loops: int

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
  flops = passes = 0
  memory = sum(one.times * traffic.in_memory(one.arrays) for run, one in found if run.fused)
  for run in runs:
    product = run.times * product_flops(run.instruction, program.computations[run.inside])
    flops, passes = flops + product, passes + product * _passes(run, program)
    if not run.fused:
      memory += run.times * traffic.of(run.instruction, run.inside, program)
  cycles = sum(run.times * _cycles(run.instruction) for run in runs if not run.fused)
  loops = (run for run in runs if run.instruction.op == "while")
  unknown = sum(program.trips(run.instruction, run.inside) is None for run in loops)
  return Counts(flops, passes, memory, tuple(one for _, one in found), cycles, unknown)


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


def product_flops(instruction: Instruction, inside: Computation) -> int:
  """Two FLOPs for each multiply-add of a product or a convolution; 0 of other instructions."""
  dims = lambda i: inside[instruction.operands[i]].arrays[0].dims
  if instruction.op == "dot":
    contracted = map(int, instruction.attribute("lhs_contracting_dims").split(","))
    lengths = [dims(0)[axis] for axis in contracted]
    return 2 * math.prod(instruction.arrays[0].dims) * math.prod(lengths)
  if instruction.op == "convolution":
    return _convolution_flops(instruction, dims(0))
  return 0


def _convolution_flops(instruction: Instruction, left: tuple[int, ...]) -> int:
  """TPUs write batched products as convolutions too, with pairs that meet padding alone."""
  labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels"))
  named = lambda axes, lengths: dict(zip(axes, lengths, strict=True))
  of_left, of_out = named(labels[1], left), named(labels[3], instruction.arrays[0].dims)
  window, pairs = instruction.attribute("window"), 1
  for axis in filter(str.isdigit, labels[1]):
    pairs *= _pairs(of_left[axis], of_out[axis], _field(window, int(axis)))
  whole = of_left["f"] * of_left["b"] * of_out["f"] * pairs
  splits = (instruction.attribute(f"{name}_group_count") or 1 for name in ("feature", "batch"))
  return 2 * whole // math.prod(map(int, splits))


def _field(window: str, axis: int) -> dict[str, int]:
  """The numbers of one axis of a `window={size=3x3 pad=1_1x1_1}`."""
  found = dict(size=1, stride=1, pad=0, lhs_dilate=1, rhs_dilate=1)
  for name, text in (part.split("=") for part in window.split()):
    if name in found:
      found[name] = int(text.split("x")[axis].split("_")[0])
  return found


def _pairs(length: int, out: int, field: dict[str, int]) -> int:
  """How many pairs of an output and a window position meet a number of the input."""
  start = np.arange(out)[:, None] * field["stride"] - field["pad"]
  at = start + np.arange(field["size"]) * field["rhs_dilate"]
  inside = (at >= 0) & (at <= (length - 1) * field["lhs_dilate"])
  return int(np.count_nonzero(inside & (at % field["lhs_dilate"] == 0)))


def _passes(run: Run, program: Program) -> int:
  """Passes through a TPU's units that a product takes; bfloat16 and the default take one."""
  operands = (program.computations[run.inside].get(name) for name in run.instruction.operands)
  if not any(a.dtype == "f32" for i in operands if i for a in i.arrays):
    return 1
  precisions = run.instruction.attribute("operand_precision").split(",")
  return max(_PASSES.get(precision, 1) for precision in precisions)


def _cycles(instruction: Instruction) -> int:
  found = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
  return int(found[1]) if found else 0
