"""Bytes that an instruction moves from and to a device's main memory: an estimate.

A fusion reads its operands and writes its results, and what is in between stays on the chip; of an
operand that it slices it reads the slice, and into a buffer that it updates it writes the update.
Buffers that XLA has placed on the chip cost nothing. Padding of tiles is left out.
"""

from collections.abc import Iterable

from dfim.pods.hlo import Array, COLLECTIVES, Computation, Instruction, Program

_FREE = frozenset(
  """parameter constant tuple get-tuple-element bitcast iota after-all partition-id replica-id
  while call conditional async-start send recv""".split()
)
_FREE_TARGETS = "AllocateBuffer ConcatBitcast AssumeGatherIndicesInBound SliceId ZeroCrop".split()
_SLICES = "dynamic-slice slice gather".split()


def of(instruction: Instruction, inside: str, program: Program) -> int:
  """Bytes read and written by an instruction of the computation `inside`, which is not fused."""
  op, scope = instruction.op, program.computations[inside]
  target = instruction.attribute("custom_call_target").strip('"')
  if op in _FREE or op.endswith("-done") or target in _FREE_TARGETS:
    return 0
  if op in ("copy-start", "slice-start"):  # between the memory and the chip
    source, result = instruction.arrays[:2]
    return result.size * ((source.space == 0) + (result.space == 0))
  operands = dict.fromkeys(instruction.operands)
  read = sum(_read(instruction, name, scope, program) for name in operands)
  return read + _written(instruction, scope, program)


def in_memory(arrays: tuple[Array, ...]) -> int:
  """The bytes of those arrays that are in the main memory."""
  return sum(a.size for a in arrays if a.space == 0)


def _read(instruction: Instruction, name: str, scope: Computation, program: Program) -> int:
  whole = in_memory(scope[name].arrays) if name in scope else 0
  needed = None
  if whole and instruction.op.removesuffix("-start") not in COLLECTIVES:
    needed = _needed(instruction, name, program)
  return whole if needed is None else min(needed, whole)


def _needed(instruction: Instruction, name: str, program: Program) -> int | None:
  """Bytes that an instruction reads of its operand `name`; None for all of it."""
  op, first = instruction.op, instruction.operands[:1] == (name,)
  if op in _SLICES and first:
    return sum(a.size for a in instruction.arrays)
  if op == "tuple" or op in COLLECTIVES or (op == "dynamic-update-slice" and first):
    return 0  # handed through, or moved by a collective, which is counted once for its pieces
  if op != "fusion":
    return None
  inside = program.computations[instruction.called()[0]]
  places = [n for n, operand in enumerate(instruction.operands) if operand == name]
  of_place = {int(i.attributes.split(")")[0]): i for i in inside.values() if i.op == "parameter"}
  return _sum(_needed_of_value(of_place[n].name, inside, program) for n in places)


def _needed_of_value(name: str, inside: Computation, program: Program) -> int | None:
  """Bytes that all users of a value in a fusion read of it."""
  users = [i for i in inside.values() if name in i.operands]
  return _sum(
    _needed_of_value(user.name, inside, program)
    if user.op == "bitcast"
    else _needed(user, name, program)
    for user in users
  )


def _sum(parts: Iterable[int | None]) -> int | None:
  parts = list(parts)
  return None if None in parts else sum(parts)


def _written(instruction: Instruction, scope: Computation, program: Program) -> int:
  """Bytes of the results, or of the updates of buffers that are updated in place."""
  new = zip(instruction.arrays, _made(instruction, scope, program), strict=True)
  return sum(a.size if part is None else part for a, part in new if a.space == 0)


def _made(instruction: Instruction, scope: Computation, program: Program) -> list[int | None]:
  """Bytes that are new in each array of a result; None for all of it."""
  if instruction.op == "dynamic-update-slice":
    return [sum(a.size for a in scope[instruction.operands[1]].arrays)]
  if instruction.op == "bitcast":
    return _made(scope[instruction.operands[0]], scope, program)
  if instruction.op == "fusion":
    inside = program.computations[instruction.called()[0]]
    root = next(i for i in inside.values() if i.root)
    parts = [inside[name] for name in root.operands] if root.op == "tuple" else [root]
    return [part for i in parts for part in _in_fusion(i, inside, program)]
  return [None] * len(instruction.arrays)


def _in_fusion(instruction: Instruction, inside: Computation, program: Program) -> list[int | None]:
  """`_made` of a result in a fusion, which may hand a parameter through."""
  if instruction.op == "parameter" or instruction.op in COLLECTIVES:
    return [0] * len(instruction.arrays)
  return _made(instruction, inside, program)
