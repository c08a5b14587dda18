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
  """The arguments that are not None, as arrays of the types that the training data have.

  Args:
    batch: shapes and dtypes of one batch, `x` `[B, T, ...]` and perhaps `cond`.
    net: the network; its `num_classes` and `vocabulary` bound labels and discrete conditions.
    count: samples.
    labels: the classes that were trained; none where that is not known.
    context: observed tokens `[count, C, ...]`.
    cond: by name, `[count, C + length, ...]` where every token has one, else `[count, ...]`.
    length: tokens to draw; None for as many as the data have beyond the context.
    lengths: integers `[count]`, how long each sequence is with its context.

  Raises:
    ValueError: one line with the name of the argument and the place of the fault.
  """
  shape, found, known = batch["x"].shape[1:], {}, 0
  if context is not None:
    wanted = (count, None, *shape[1:])
    axes = _AXES[: len(wanted)]
    context = inputs.numbers(context, "context", wanted, axes=axes, dtype=batch["x"].dtype)
    found["context"], known = context, context.shape[1]
  total = shape[0] if length is None else known + length
  if total <= known:
    raise ValueError(
      f"context of {known} tokens fills the {total} of the data: pass length=, the tokens to draw."
    )
  if cond is not None:
    found["cond"] = _conditions(batch, net, count, total, cond)
    _check_labels(found["cond"].get("label"), labels)
  missing = sorted(set(conditioning.per_token(batch.get("cond"))) - set(found.get("cond", {})))
  if known and missing:
    raise ValueError(f"cond: has no {', '.join(missing)}; a context needs that of every token.")
  if lengths is not None:
    ends = dict(low=max(known, 1), high=total)
    axes = _AXES[:1]
    found["lengths"] = inputs.numbers(
      lengths, "lengths", (count,), axes=axes, dtype=np.int32, **ends
    )
  return found


def _conditions(
  batch: Mapping[str, Any], net: Any, count: int, total: int, cond: Any
) -> dict[str, np.ndarray]:
  if not isinstance(cond, Mapping):
    raise ValueError(f"cond of {type(cond).__name__}: give a dict of arrays by name.")
  like = batch.get("cond") or {}
  found = {}
  for name, value in cond.items():
    if name not in like:
      known = ", ".join(sorted(like)) or "none"
      raise ValueError(f"cond.{name}: the training data have no such condition, but {known}.")
    shape = list(like[name].shape)
    shape[0] = count
    if conditioning.is_per_token(like[name]):
      shape[1] = total
    axes = _AXES[: len(shape)] if conditioning.is_per_token(like[name]) else ("sample", "value")
    found[name] = inputs.numbers(
      value,
      f"cond.{name}",
      tuple(shape),
      axes=axes[: len(shape)],
      dtype=np.int32 if conditioning.is_discrete(like[name]) else like[name].dtype,
      **limits(name, like[name], net),
    )
  return found


def _check_labels(given: np.ndarray | None, labels: tuple[int, ...]) -> None:
  """Refuses a class that was never trained; -1 stands for none."""
  if given is not None and labels:
    untrained = ~np.isin(given, (-1, *labels))
    inputs.refuse_where(
      untrained, given, "cond.label", _AXES[:1], "the training data have no such class"
    )


def limits(name: str, array: Any, net: Any) -> dict[str, int]:
  """The least and the greatest value of a discrete condition; -1 stands for its absence."""
  if not conditioning.is_discrete(array):
    return {}
  size = getattr(net, "num_classes" if name == "label" else "vocabulary", None)
  return dict(low=-1) | (dict(high=size - 1) if size else {})
