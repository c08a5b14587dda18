"""Arguments that depend on the step: schedules that a config gives in place of a number."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dfim.config import annotations


def at_step(part: Any, step: Any) -> Any:
  """`part` with the schedules among its arguments, and among those of its own parts, at `step`.

  A part is a bound function or a dataclass. A schedule is a function where the annotation says
  `float | Array`. At a step that is an int its value is a float, so that the part can check it.
  """
  if isinstance(part, functools.partial):
    arguments, hints = part.keywords, annotations.of_arguments(part.func)
  elif dataclasses.is_dataclass(part) and not isinstance(part, type):
    given = [field.name for field in dataclasses.fields(part) if field.init]
    arguments, hints = {n: getattr(part, n) for n in given}, annotations.of_arguments(type(part))
  else:
    return part
  now = {
    key: _value(value, step)
    if callable(value) and hints.get(key) == float | jax.Array
    else at_step(value, step)
    for key, value in arguments.items()
  }
  if all(now[key] is value for key, value in arguments.items()):
    return part  # without a schedule
  if dataclasses.is_dataclass(part):
    return dataclasses.replace(part, **now)
  return functools.partial(part.func, *part.args, **now)


def _value(schedule: Callable[[Any], Any], step: Any) -> Any:
  if not isinstance(step, int):
    return schedule(step)
  jax.eval_shape(schedule, jax.ShapeDtypeStruct((), jnp.int32))  # traced, as in a training step
  return float(schedule(step))
