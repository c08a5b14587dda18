"""The arrays that a caller gives to `draw`, checked once before anything compiles."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dfim.core import conditioning
from dfim.io import inputs

_AXES = ("sample", "token", "value", "column", "channel")


def check(
  batch: Mapping[str, Any],
  net: Any,
  count: int,
  *,
  labels: tuple[int, ...] = (),
  context: Any = None,
  cond: Any = None,
  length: int | None = None,
  lengths: Any = None,
) -> dict[str, Any]:
  """The arguments that are not None, as arrays of the types that the training `batch` has.

  Args:
    batch: shapes and dtypes of one batch, `x` `[B, T, ...]` and perhaps `cond`.
    net: the network; its `num_classes` and `vocabulary` bound labels and discrete conditions.
    count: samples.
    labels: the classes that were trained; none where that is not known.
    context, cond, length, lengths: see `sample.make_draw`.
  """
  shape, found, known = batch["x"].shape[1:], {}, 0
  if context is not None:
    wanted = (count, None, *shape[1:])
    dtype, axes = batch["x"].dtype, _AXES[: len(wanted)]
    context = inputs.numbers(context, "context", wanted, axes=axes, dtype=dtype)
    found["context"], known = context, context.shape[1]
  total = shape[0] if length is None else known + length
  if total <= known:
    raise ValueError(f"context of {known} tokens fills the {total} of the data: pass length=.")
  if cond is not None:
    found["cond"] = _conditions(batch, net, count, total, cond)
    label = found["cond"].get("label")
    if label is not None and labels:
      fix = "the training data have no such class"
      inputs.refuse_where(~np.isin(label, (-1, *labels)), label, "cond.label", _AXES[:1], fix)
  missing = sorted(set(conditioning.per_token(batch.get("cond"))) - set(found.get("cond", {})))
  if known and missing:
    raise ValueError(f"cond: has no {', '.join(missing)}; a context needs that of every token.")
  if lengths is not None:
    options = dict(axes=_AXES[:1], dtype=np.int32, low=max(known, 1), high=total)
    found["lengths"] = inputs.numbers(lengths, "lengths", (count,), **options)
  return found


def _conditions(
  batch: Mapping[str, Any], net: Any, count: int, total: int, cond: Any
) -> dict[str, np.ndarray]:
  if not isinstance(cond, Mapping):
    raise ValueError(f"cond of {type(cond).__name__}: give a dict of arrays by name.")
  like, found = batch.get("cond") or {}, {}
  for name, value in cond.items():
    if name not in like:
      known = ", ".join(sorted(like)) or "none"
      raise ValueError(f"cond.{name}: the training data have no such condition, but {known}.")
    array, per_token = like[name], conditioning.is_per_token(like[name])
    shape = (count, total, *array.shape[2:]) if per_token else (count, *array.shape[1:])
    options = limits(name, array, net)
    options["axes"] = (_AXES if per_token else ("sample", "value"))[: len(shape)]
    options["dtype"] = np.int32 if conditioning.is_discrete(array) else array.dtype
    found[name] = inputs.numbers(value, f"cond.{name}", shape, **options)
  return found


def limits(name: str, array: Any, net: Any) -> dict[str, int]:
  """The least and the greatest value of a discrete condition; -1 stands for its absence."""
  if not conditioning.is_discrete(array):
    return {}
  size = getattr(net, "num_classes" if name == "label" else "vocabulary", None)
  return dict(low=-1) | (dict(high=size - 1) if size else {})
