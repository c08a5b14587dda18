"""The fields of a config: their types, their defaults and what each may name."""

import functools
import json
from typing import Any

import ml_collections

from dfim.config import moved, resolve as resolve_lib
from dfim.config.errors import FieldError, suggest

_PARTS = "data model objective optimizer sampler evaluators".split()
_COUNTS = """seed steps batch_size refresh_every accumulate fsdp log_every checkpoint_every
  keep_checkpoints keep_every sample_every eval_every""".split()
FIELDS = {**dict.fromkeys(_COUNTS, int), **dict.fromkeys(_PARTS, dict), "ema": tuple}
DEFAULTS = dict(
  refresh_every=1,
  accumulate=1,
  fsdp=0,  # chosen by the size of the state, see `parallel.default_fsdp`
  evaluators={},
  keep_checkpoints=3,  # the newest
  keep_every=0,  # and, unless it is 0, those of its multiples for good
)
SMALLEST = dict.fromkeys(
  "steps batch_size refresh_every accumulate log_every checkpoint_every keep_checkpoints".split(), 1
) | dict.fromkeys("seed sample_every eval_every keep_every".split(), 0)
KINDS = {  # where dfim keeps each part: ours stand for no other kind, others' are taken as they are
  "data": "data",
  "model": "models",
  "objective": "objectives",
  "objective.f": "core.parameterization",
  "objective.f.path": "core.interpolants",
  "objective.sample_times": "core.times",
  "objective.sample_times.pattern": "core.patterns",
  "objective.sample_times.mapping": "core.mappings",
  "objective.particles": "core.particles",
  "objective.conditioning": "core.two_stream",
  "objective.conditioning.grouping": "core.grouping",
  "objective.conditioning.posterior": "core.posterior",
  "objective.kernel": "core.kernels",
  "objective.weight": "core.weights",
  "optimizer": "optax",
  "sampler.step": "samplers.jump",
  "sampler.grid": "core.grids",
  "sampler.rollout.levels": "core.levels",
}


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A copy with defaults filled in; a FieldError names a field that is wrong."""
  given = config.to_dict()
  for field, value in given.items():
    if field not in FIELDS:
      now = moved.new_field("", field)
      fix = f"moved to {now}." if now else f"no such config field{suggest(field, FIELDS)}."
      raise FieldError(field, value, fix)
  values = {**DEFAULTS, **given}
  for field, kind in FIELDS.items():
    value = values.get(field)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
      missing = "" if field in values else "missing; "
      raise FieldError(field, value, f"{missing}wants {kind.__name__}.")
    try:
      json.dumps(value)  # config.json cannot hold a path or a dtype in place of its name
    except TypeError as error:
      fix = f"{error}; give numbers, strings, lists and dicts."
      raise FieldError(field, value, fix) from error
  _check_ranges(values)
  return ml_collections.ConfigDict(values)


def _check_ranges(values: dict[str, Any]) -> None:
  for field, low in SMALLEST.items():
    if values[field] < low:
      raise FieldError(field, values[field], f"set it to {low} or more.")
  if values["seed"] >= 2**32:  # keys are made of the rest: seed 2^32 would be seed 0 again
    raise FieldError("seed", values["seed"], "set it below 2^32.")
  if values["keep_every"] % values["checkpoint_every"]:
    every = values["checkpoint_every"]
    fix = f"set it to a multiple of checkpoint_every={every}; only what is saved can be kept."
    raise FieldError("keep_every", values["keep_every"], fix)
  decays = [d for d in values["ema"] if isinstance(d, int | float) and 0.0 <= d < 1.0]
  if not decays or len(decays) < len(values["ema"]):
    raise FieldError("ema", values["ema"], "give at least one decay, each in [0, 1).")


def check_kinds(config: ml_collections.ConfigDict) -> None:
  """Refuses a part without a name, and one of ours in the place of another kind."""
  for field, home in KINDS.items():
    name = functools.reduce(_get, [*field.split("."), "name"], config)
    if "." not in field and name is None:
      raise FieldError(f"{field}.name", None, f"missing; give one of {home}.* or of your own.")
    if name is not None:
      found = getattr(resolve_lib.find(name, field), "__module__", None) or ""
      if found.startswith("dfim.") and not f"{found}.".startswith(f"dfim.{home}."):
        raise FieldError(f"{field}.name", name, f"name one of {home}.*, or of your own.")


def _get(node: Any, key: str) -> Any:
  return node.get(key) if isinstance(node, dict | ml_collections.ConfigDict) else None
