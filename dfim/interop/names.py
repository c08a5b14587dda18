"""Names and layouts of parameters: from the released programs to ours, and ours in files.

Names are paths joined by dots: "blocks.0.attn.qkv.weight" there, "block0.qkv.kernel" here. The
table does not change our own names, so one reader serves both. In a file blocks are always
numbered, also those that the network stacks (`models.layers.stacking`).
"""

from collections.abc import Mapping
import math
import re
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from dfim.io import inputs
from dfim.models import dit
from dfim.models.layers import stacking

Path = tuple[str, ...]

_RENAME = tuple(  # to ours, in this order
  (re.compile(pattern), new)
  for pattern, new in [
    # IMM's DDPM++ U-Net
    (r"^map_layer(\d)_s", r"map_s.layer\1"),
    (r"^map_layer(\d)", r"map_t.layer\1"),
    (r"^(enc|dec)\.", r"\1_"),
    # IMM's DiT
    (r"^([st])_embedder\.mlp\.0", r"conditioning.\1.layer0"),
    (r"^([st])_embedder\.mlp\.2", r"conditioning.\1.layer1"),
    (r"^y_embedder\.embedding_table\.weight", r"conditioning.label.table.embedding"),
    (r"^x_embedder\.proj", r"input"),
    (r"^final_layer\.adaLN_modulation\.1", r"output_modulation.linear"),
    (r"^final_layer\.linear", r"output"),
    (r"adaLN_modulation\.1", r"modulation.linear"),
    (r"^blocks\.(\d+)\.(attn\.|mlp\.)?", r"block\1."),
    # Diffusion Forcing's transformer
    (r"^transformer\.layers\.(\d+)\.(self_attn\.)?", r"block\1."),
    (r"in_proj_", r"qkv."),
    (r"out_proj", r"proj"),
    (r"linear([12])", r"fc\1"),
    (r"^init_mlp\.0", r"input0"),
    (r"^init_mlp\.2", r"input1"),
    (r"^out\.", r"output."),
  ]
)


def to_params(arrays: Mapping[str, np.ndarray], wanted: Any, *, prefix: str = "") -> Any:
  """The parameters of one of our networks, from a released program's or from `to_arrays`.

  Args:
    arrays: by name; released ones are in torch's layouts `[O, I, H, W]` and `[O, I]`.
    wanted: the network's tree of shapes and types, as `jax.eval_shape(net.init, ...)` gives it.
    prefix: the start of the parameters' names; arrays without it are ignored.
  """
  leaves = flax.traverse_util.flatten_dict(wanted["params"])
  shapes = {".".join(p): s for path, leaf in leaves.items() for p, s in _unstacked(path, leaf)}
  found = _converted({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
  _check_names(found, shapes, arrays, prefix)
  for name, (old, value) in found.items():
    if value.shape != shapes[name]:
      raise ValueError(f"{old}, our {name}, is {value.shape} there and {shapes[name]} in ours.")
  params = {path: _stacked(path, leaf, found) for path, leaf in leaves.items()}
  return {"params": flax.traverse_util.unflatten_dict(params)}


def to_arrays(params: Any) -> dict[str, np.ndarray]:
  """Our parameters by flat names, such as "block0.qkv.kernel", in our layouts."""
  leaves = flax.traverse_util.flatten_dict(jax.device_get(params["params"]))
  arrays = {}
  for path, leaf in leaves.items():
    parts = leaf if stacking.is_stack(path[0]) else [leaf]
    names = [".".join(p) for p, _ in _unstacked(path, leaf)]
    arrays |= dict(zip(names, map(np.asarray, parts), strict=True))
  return arrays


def _unstacked(path: Path, leaf: Any) -> list[tuple[Path, tuple[int, ...]]]:
  """Paths and shapes of the numbered blocks in a stacked leaf; of another leaf, its own."""
  if not stacking.is_stack(path[0]):
    return [(path, leaf.shape)]
  blocks = stacking.numbered(path[0], leaf.shape[0])
  return [((block, *path[1:]), leaf.shape[1:]) for block in blocks]


def _stacked(path: Path, leaf: Any, found: Mapping[str, tuple[str, np.ndarray]]) -> np.ndarray:
  """The leaf at `path`: one parameter, or those of all blocks."""
  values = []
  for part, shape in _unstacked(path, leaf):
    old, value = found[name := ".".join(part)]
    values.append(_floats(value, f"{old}, our {name}", shape, leaf.dtype))
  return np.stack(values) if stacking.is_stack(path[0]) else values[0]


def _floats(value: np.ndarray, field: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
  return inputs.floats(value, field, shape, axes=("index",) * len(shape), dtype=dtype)


def _converted(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
  """By our name of each parameter: its name in the file, and its value in our layout."""
  found = {}
  for old, value in arrays.items():
    if check := _CONSTANTS.get(old.rpartition(".")[2]):
      check(old, _floats(value, old, value.shape, np.float64))
      continue
    name, value = _ours(old, value)
    if name in found:
      raise ValueError(f"{old} and {found[name][0]} are both our {name}; give a narrower prefix.")
    found[name] = old, value
  return found


def _ours(old: str, value: np.ndarray) -> tuple[str, np.ndarray]:
  name = old
  for pattern, new in _RENAME:
    name = pattern.sub(new, name)
  module, _, leaf = name.rpartition(".")
  if leaf != "weight":
    return name, value
  if value.ndim == 1:
    return f"{module}.scale", value
  if value.ndim in (2, 4):
    value = np.moveaxis(value, (0, 1), (-1, -2))
  if old.startswith("x_embedder") and value.size and value.ndim:  # here linear, of flat patches
    value = value.reshape(-1, value.shape[-1])
  return f"{module}.kernel", value


def _check_names(found: Mapping, shapes: Mapping, arrays: Mapping, prefix: str) -> None:
  first = lambda names: names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
  if missing := [name for name in shapes if name not in found]:
    hint = _other_prefix(arrays, shapes, prefix)
    raise ValueError(f"our {first(missing)}: absent from the file{hint}.")
  if extra := [old for name, (old, _) in found.items() if name not in shapes]:
    raise ValueError(f"{first(extra)}: left over, this network has no such parameter.")


def _other_prefix(arrays: Mapping[str, Any], shapes: Mapping[str, Any], prefix: str) -> str:
  """Another prefix under which parameters are, or else some names of the file."""
  for name, value in arrays.items():
    for cut in re.finditer(r"[./]", name):
      start = name[: cut.end()]
      if start != prefix and _ours(name[cut.end() :], value)[0] in shapes:
        return f" under prefix {prefix!r}; try prefix {start!r}"
  return f" under prefix {prefix!r}; it has {', '.join(list(arrays)[:3])} ..."


def _check_filter(name: str, value: np.ndarray) -> None:
  """Our U-Net resamples with [1, 1] / 2 on each axis, and has no parameter for it."""
  if value.shape[-2:] != (2, 2) or not np.allclose(value, 0.25, rtol=0, atol=1e-6):
    raise ValueError(f"{name} of shape {value.shape}: our U-Net resamples with the filter [1, 1].")


def _check_positions(name: str, value: np.ndarray) -> None:
  """Ours are computed, and must equal those of the file on a square grid."""
  side = math.isqrt(value.shape[1]) if value.ndim == 3 else 0
  ours = dit.positions((side, side), value.shape[-1]) if side else np.zeros(0)
  if ours.shape != value.shape or not np.allclose(value, ours, rtol=0, atol=1e-5):
    raise ValueError(f"{name} of shape {value.shape}: not our positions of a square of patches.")


_CONSTANTS = dict(resample_filter=_check_filter, pos_embed=_check_positions)
