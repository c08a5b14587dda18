"""Which devices take part in a collective together, from the text of its groups."""

import re

import numpy as np

from dfim.pods.hlo import Instruction

_NUMBERS = r"\[([\d,]+)\]"
_IOTA = re.compile(rf"{_NUMBERS}(?:<={_NUMBERS})?(?:T\(([\d,]+)\))?")
_MESH = re.compile(r"mesh\[([^\]]*)\](?:, device_ids=\(([^)]*\)?)\))? *\{([^}]*)\}")


def of(instruction: Instruction, devices: int) -> tuple[int, ...]:
  """The first group of a collective; of a permutation the pair that is furthest apart.

  Devices are numbers from 0 to `devices` - 1, by their places in the mesh.
  """
  text = instruction.attributes
  if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", text):
    ends = [_numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", pairs[1])]
    return tuple(max(ends, key=lambda pair: abs(pair[0] - pair[1])))
  text = text[text.find("replica_groups=") + len("replica_groups=") :]
  if listed := re.match(r"\{\{([\d,]+)\}", text):
    return tuple(_numbers(listed[1]))
  if mesh := _MESH.match(text):
    return _of_mesh(*mesh.groups(), devices)
  if iota := _IOTA.match(text):
    return tuple(_iota(*iota.groups())[0].tolist())
  return tuple(range(devices))


def _of_mesh(sizes: str, order: str | None, names: str, devices: int) -> tuple[int, ...]:
  """Of a mesh such as 'a'=2,'b'=4: the devices that differ in the axes `names` alone."""
  axes = dict(re.findall(r"'(\w+)'=(\d+)", sizes))
  numbers = np.arange(devices)
  if order:
    numbers = _iota(*_IOTA.match(order).groups())
  mesh = numbers.reshape([int(n) for n in axes.values()])
  moved = [list(axes).index(name) for name in re.findall(r"'(\w+)'", names)]
  last = np.moveaxis(mesh, moved, range(-len(moved), 0))
  size = int(np.prod([mesh.shape[axis] for axis in moved]))
  return tuple(last.reshape(-1, size)[0].tolist())


def _iota(shape: str, before: str | None, order: str | None) -> np.ndarray:
  """[groups,size]<=[lengths]T(axes): 0, 1, ... of `lengths`, transposed, then reshaped."""
  lengths = _numbers(before or shape)
  numbers = np.arange(np.prod(lengths)).reshape(lengths)
  numbers = numbers.transpose(_numbers(order)) if order else numbers
  return numbers.reshape(_numbers(shape)) if before else numbers


def _numbers(text: str) -> list[int]:
  return [int(n) for n in text.split(",")]
