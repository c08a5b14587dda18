"""The text of an optimized XLA program: its instructions, and how often each of them runs.

XLA's own `cost_analysis()` counts the body of a loop once, and does not exist for GPUs that are not
there; so programs are read from their text.
"""

from collections.abc import Iterator
import dataclasses
import math
import re
from typing import NamedTuple

COLLECTIVES = "all-gather all-reduce reduce-scatter all-to-all collective-permute".split()

_BITS = dict(pred=8, token=0, opaque=0, bf16=16, c64=64, c128=128)  # others end in their number
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = {  # the attributes with computations that run as a part of an instruction
  "fusion": ("calls",),
  "call": ("to_apply",),
  "async-start": ("calls",),
  "conditional": ("branch_computations", "true_computation", "false_computation"),
  "while": ("body",),
}


class Array(NamedTuple):
  """An array of a program, as one device holds it; `space` 0 is the device's main memory."""

  dtype: str
  dims: tuple[int, ...]
  space: int = 0

  @property
  def size(self) -> int:
    """Its bytes, without padding."""
    bits = _BITS.get(self.dtype) or int((re.findall(r"\d+", self.dtype) or [0])[0])
    return math.prod(self.dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program."""

  name: str
  op: str
  arrays: tuple[Array, ...]  # its result, tuples flattened
  operands: tuple[str, ...]
  attributes: str  # the text after the operands
  root: bool = False

  def called(self) -> list[str]:
    """The computations that run when it runs, those of a branch that is not taken too."""
    texts = (self.attribute(name) for name in _CALLED.get(self.op, ()))
    return [name for text in texts for name in re.findall(r"[\w.\-]+", text)]

  def attribute(self, name: str) -> str:
    """The text of `name=value` or `name={values}`, without braces; "" where there is none."""
    found = re.search(rf"\b{name}=(?:\{{([^}}]*)\}}|([^,\s]+))", self.attributes)
    return (found[1] or found[2] or "").replace("%", "") if found else ""


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
  """The computations of a program by their names."""

  computations: dict[str, Computation]
  entry: str

  def runs(self) -> Iterator["Run"]:
    """Every instruction that runs, with its number of times; bodies of loops come once."""
    return self._runs(self.entry, self.entry, 1)

  def _runs(self, name: str, around: str, times: int) -> Iterator["Run"]:
    for instruction in self.computations[name].values():
      yield Run(instruction, name, around, times)
      loop = instruction.op == "while"
      count = times * (self.trips(instruction, name) or 1) if loop else times
      for called in instruction.called():
        fused = instruction.op == "fusion" or name != around
        yield from self._runs(called, around if fused else called, count)

  def trips(self, loop: Instruction, name: str) -> int | None:
    """How often the body of a loop in computation `name` runs; None where the text does not say."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
      return int(known[1])
    condition = self.computations[loop.attribute("condition")]
    test = next(i for i in condition.values() if i.root)
    if test.op != "compare" or test.attribute("direction") != "LT":
      return None
    outside = self.computations[name]
    carried = outside.get(loop.operands[0])
    ends = [_scalar(i, condition, carried, outside) for i in test.operands]
    return None if None in ends else ends[1] - ends[0]  # scans count by one


class Run(NamedTuple):
  """An instruction that runs so many `times`; what is fused runs as a part of its fusion."""

  instruction: Instruction
  inside: str  # its computation
  around: str  # the computation that it, or its fusion, is a line of
  times: int

  @property
  def fused(self) -> bool:
    return self.inside != self.around


def parse(text: str) -> Program:
  """The program of `compiled.as_text()`."""
  computations, entry, current = {}, "", {}
  for line in text.splitlines():
    if head := _HEAD.match(line) if "->" in line and not line[0].isspace() else None:
      current = computations.setdefault(head[2], {})
      entry = head[2] if head[1] else entry
    elif found := _LINE.match(line):
      instruction = _instruction(*found.groups())
      current[instruction.name] = instruction
  if not entry:
    raise ValueError("no ENTRY in the text of a program")
  return Program(computations, entry)


def _instruction(root: str | None, name: str, result: str, op: str, rest: str) -> Instruction:
  end = _closing(rest)
  operands = () if op == "constant" else tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
  attributes = rest if op in ("constant", "parameter") else rest[end:]
  return Instruction(name, op, _arrays(result), operands, attributes, bool(root))


def _closing(text: str) -> int:
  """Where the parenthesis that is open before `text` closes."""
  depth = 1
  for found in re.finditer(r"[()]", text):
    depth += 1 if found[0] == "(" else -1
    if depth == 0:
      return found.start()
  return len(text)


def _arrays(text: str) -> tuple[Array, ...]:
  """The arrays of a result's type."""

  def array(dtype: str, dims: str, layout: str) -> Array:
    space = re.search(r"S\((\d+)\)", layout)
    lengths = tuple(int(n.lstrip("<=")) for n in dims.split(",") if n)
    return Array(dtype, lengths, int(space[1]) if space else 0)

  return tuple(array(*found) for found in _ARRAY.findall(text))


def _scalar(
  name: str, condition: Computation, carried: Instruction | None, outside: Computation
) -> int | None:
  """A number in a loop's condition: a constant, or the one that the loop starts with."""
  found = condition[name]
  if found.op == "get-tuple-element" and carried is not None and carried.op == "tuple":
    found = outside.get(carried.operands[int(found.attribute("index"))])
    while found is not None and found.op == "copy":
      found = outside.get(found.operands[0])
  constant = re.match(r"(-?\d+)\)", found.attributes) if found and found.op == "constant" else None
  return int(constant[1]) if constant else None
