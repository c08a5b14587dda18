"""Scores of sequences whose distribution can be sampled freely, such as the turning walk."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dfim.config.errors import FieldError
from dfim.core import conditioning
from dfim.evaluators import points, references
from dfim.evaluators.references import Data, Draw, Found
from dfim.io import inputs
from dfim.metrics import sequences, subsets
from dfim.viz import images as pictures


def scores(
  draw: Draw, params: Any, *, reference: Data, steps: tuple[int, ...] = (1, 2, 4, 8)
) -> Found:
  """`joint`, `following` and, of points of the plane, `turn` of samples and fresh data.

  Samples are as many as fresh data `x [N, T, D]`. With `cond`, half as many: they are drawn under
  the conditions of one half, and compared, with these, with the other half and its conditions.
  """
  pairs = _under_conditions if reference.get("cond") else _without
  return {k: _row(*pair) for k, pair in pairs(draw, params, reference, steps).items()}, {}


def check_scores(
  *,
  reference: Data,
  shape: tuple[int, ...] | None = None,
  check_cond: Callable[[Any, int], Any] | None = None,
  **_: Any,
) -> None:
  """Raises ValueError for arguments that `scores` cannot take; `shape` is a sample's.

  `check_cond(cond, count)` refuses conditions that samples cannot be drawn under.
  """
  x = references.examples(reference, "reference", 3, least=points.LEAST_EXAMPLES)
  if shape is not None and x.shape[1:] != shape:
    said = f": sequences of shape {x.shape[1:]}, samples are of {shape}; "
    raise FieldError("reference.x", x, "name the same data.", said)
  if x.shape[2] == 2 and x.shape[1] < 2:
    raise ValueError("reference.x: sequences of 1 point of the plane, which has no turn; give 2.")
  if reference.get("mask") is not None:
    raise ValueError("reference.mask: give sequences of one length; padding cannot be compared.")
  _check_conditions(reference.get("cond"), x.shape, check_cond)


def _check_conditions(
  cond: Any, shape: tuple[int, ...], check_cond: Callable[[Any, int], Any] | None
) -> None:
  try:
    conditioning.check(cond, shape)
    for name, array in (cond or {}).items():
      inputs.examples(array, f"cond.{name}")
    if cond and check_cond is not None:
      check_cond(cond, shape[0])
  except ValueError as error:  # starts with "cond"
    raise ValueError(f"reference.{error}") from error


def _without(
  draw: Draw, params: Any, reference: Data, steps: tuple[int, ...]
) -> dict[str, tuple[Data, Data]]:
  pairs = points.pairs(draw, params, reference["x"], steps)
  return {name: (dict(x=x), dict(x=y)) for name, (x, y) in pairs.items()}


def _under_conditions(
  draw: Draw, params: Any, reference: Data, steps: tuple[int, ...]
) -> dict[str, tuple[Data, Data]]:
  """Pairs as `points.pairs`, of two halves of fresh data: no condition is in both sets."""
  order, whole = subsets.shuffle(reference["x"]), {k: reference[k] for k in ("x", "cond")}
  halves = np.split(order[: len(order) // 2 * 2], 2)
  one, other = (jax.tree.map(lambda a: a[rows], whole) for rows in halves)  # noqa: B023
  drawn = lambda k: one | dict(x=draw(params, len(one["x"]), k, cond=one["cond"]))
  return {"fresh data": (one, other)} | {f"{k} steps": (drawn(k), other) for k in steps}


def _row(one: Data, other: Data) -> dict[str, float | None]:
  x, y = one["x"], other["x"]
  given = dict(conditions=(one["cond"], other["cond"]) if "cond" in one else None)
  row = dict(zip(("joint", "joint_se"), sequences.joint(x, y, **given), strict=True))
  if x.shape[-1] == 2:
    row |= zip(("turn", "turn_se"), sequences.turn(x, y), strict=True)
  if x.shape[1] == 1 and "cond" not in one:
    return row
  found = sequences.following(x, y, **given)
  values = found if np.isfinite(found).all() else (None, None)  # no prefix in common
  return row | dict(zip(("following", "following_se"), values, strict=True))


def rollout(draw: Draw, params: Any, *, reference: Data, steps: int, tokens: int = 3) -> Found:
  """`local` of `metrics.sequences` along sequences as long as `reference`'s, and a figure."""
  x = reference["x"]
  drawn = draw(params, len(x), steps, length=x.shape[1])
  values, errors = sequences.local(drawn, x, tokens=tokens)
  positions = range(tokens, x.shape[1] + 1)
  found = zip(positions, values.tolist(), errors.tolist(), strict=True)
  rows = {f"token {k}": dict(local=value, local_se=se) for k, value, se in found}
  return rows, {"tracks": pictures.tracks(drawn[:40], (-1.0, 1.0))}


def check_rollout(*, reference: Data, tokens: int = 3, any_length: bool = True, **_: Any) -> None:
  """Raises ValueError for arguments that `rollout` cannot take; `any_length` is the sampler's."""
  x = references.examples(reference, "reference", 3, least=3)
  if inputs.whole(tokens, "tokens", low=1) > x.shape[1]:
    raise FieldError("tokens", tokens, f"the sequences of reference have {x.shape[1]}; give fewer.")
  if not any_length:
    raise ValueError("rollout: set sampler.rollout, without sampler.rollout.length.")
  if reference.get("cond"):
    raise ValueError("reference.cond: rollouts are drawn without; name data that have none.")
