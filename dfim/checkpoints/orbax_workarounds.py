"""Faults of Orbax and TensorStore that `Checkpoints` works around, by patches of their functions.

A test of each fails once the fault is gone: then delete the patch.
"""

from collections.abc import Callable
import copy
import functools
from importlib import metadata
from typing import Any

import orbax.checkpoint.utils
import tensorstore

_TENSORSTORE = (0, 2)  # leaks to 0.1.86 at least; later minor versions are not known


@functools.cache
def apply() -> None:
  """Patches the two libraries, once a process, as their installed versions need it."""
  orbax.checkpoint.utils.reached_preemption = _not_reached
  if tuple(map(int, metadata.version("tensorstore").split(".")[:2])) < _TENSORSTORE:
    tensorstore.KvStore.Spec.to_json = cached(tensorstore.KvStore.Spec.to_json)
    # These metrics are never freed; Orbax collects them for a line of its log, 10 KB a save.
    wrapped = functools.wraps(tensorstore.experimental_collect_matching_metrics)
    tensorstore.experimental_collect_matching_metrics = wrapped(lambda *_, **__: [])


def _not_reached(step: int) -> bool:
  """JAX lets all processes stop one step after the last that any has asked about.

  Orbax asks about the step that it writes, so that a signal would name a step that is over.
  """
  del step
  return False


def cached(to_json: Callable[..., Any]) -> Callable[..., Any]:
  """`tensorstore.KvStore.Spec.to_json` with a cache of its last result.

  TensorStore never frees the strings and numbers in it, which Orbax asks for once for each array:
  60 KB a save.
  """
  last = {}

  @functools.wraps(to_json)
  def from_cache(spec: tensorstore.KvStore.Spec, *args: Any, **kwargs: Any) -> Any:
    key = repr((spec, args, kwargs))
    found = last.get(key)
    if found is None:  # several threads may find none
      found = to_json(spec, *args, **kwargs)
      last.clear()
      last[key] = found
    return copy.deepcopy(found)

  return from_cache
