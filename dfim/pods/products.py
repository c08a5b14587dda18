"""FLOPs of matrix products and convolutions, in the forms in which compilers write them."""

import math
import re

import numpy as np

from dfim.pods.hlo import Computation, Instruction

_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]+)')
_PRECISION = re.compile(r'operand_precision(?:=\{|":\[)([\w,"]+)')
_LIBRARIES = "__cublas$", "__cudnn$conv"


def flops(instruction: Instruction, inside: Computation) -> int:
  """Two for each multiply-add of a product in the computation `inside`; 0 of other instructions."""
  target = instruction.attribute("custom_call_target").strip('"')
  library = instruction.op == "custom-call" and target.startswith(_LIBRARIES)
  if instruction.op not in ("dot", "convolution") and not library:
    return 0
  shapes = [inside[name].arrays[0].dims for name in instruction.operands]
  result = instruction.arrays[0].dims
  if contracted := _CONTRACTED.search(instruction.attributes):
    axes = re.findall(r"\d+", contracted[1])
    return 2 * math.prod(result) * math.prod(shapes[0][int(axis)] for axis in axes)
  if "BackwardInput" in target:
    return _convolution(instruction, image=result, output=shapes[0])
  output = shapes[1] if "BackwardFilter" in target else result
  return _convolution(instruction, image=shapes[0], output=output)


def precision(instruction: Instruction, inside: Computation) -> str:
  """Of a product of float32 "default", "high" or "highest"; "" of narrower numbers."""
  operands = (inside[name] for name in instruction.operands if name in inside)
  if not any(a.dtype == "f32" for operand in operands for a in operand.arrays):
    return ""
  found = _PRECISION.search(instruction.attributes)
  words = re.findall(r"[a-z]+", found[1].lower() if found else "default")
  return max(words)  # the alphabet has them in order


def _convolution(instruction: Instruction, image: tuple[int, ...], output: tuple[int, ...]) -> int:
  """Of a forward convolution of these shapes.

  Pairs that meet padding alone do not count: TPUs write batched products with such.
  """
  labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels"))
  named = lambda axes, lengths: dict(zip(axes, lengths, strict=True))
  image, output = named(labels[1], image), named(labels[3], output)
  window, pairs = instruction.attribute("window"), 1
  for axis in filter(str.isdigit, labels[1]):
    pairs *= _pairs(image[axis], output[axis], _field(window, int(axis)))
  splits = (instruction.attribute(f"{name}_group_count") or 1 for name in ("feature", "batch"))
  return 2 * image["b"] * image["f"] * output["f"] * pairs // math.prod(map(int, splits))


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
