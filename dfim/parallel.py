"""One mesh: batches stay cut along it through every network; states are whole, or cut by one rule.

Arrays are placed here alone: networks, objectives and samplers read as if for one device.
"""

from collections.abc import Callable
import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from dfim.config.errors import FieldError
from dfim.core.grouping import prime_factors

Array = jax.Array

_SMALLEST_CUT = 2**16  # numbers; smaller arrays are whole
STATE_SHARE = 8  # a state may take this part of a chip's memory before it is cut


def make_mesh(devices: Any = None, fsdp: int = 1) -> jax.sharding.Mesh:
  """All devices, or those given, as axes `data` and, for the factors of `fsdp`, `fsdp0` .. .

  Each `fsdp` neighbours share a state (-1: all of them). One axis a prime factor lets an array be
  cut by any divisor of `fsdp`. Slices of a pod are neighbours last.
  """
  devices = np.asarray(jax.devices() if devices is None else devices)
  fsdp = devices.size if fsdp == -1 else fsdp
  if fsdp < 1 or devices.size % fsdp:
    fix = f"{devices.size} devices; set it to a number that divides them, 0 to choose, -1 for all."
    raise FieldError("fsdp", fsdp, fix)
  by_slice = sorted(devices.flat, key=slice_of)
  factors = prime_factors(fsdp)
  names = ("data", *(f"fsdp{i}" for i in range(len(factors))))
  types = (jax.sharding.AxisType.Auto,) * len(names)
  return jax.sharding.Mesh(np.reshape(by_slice, (-1, *factors)), names, axis_types=types)


def default_fsdp(state_bytes: int, devices: Any, memory: int | None) -> int:
  """The fewest devices over which a state takes at most an eighth of each one's `memory` [bytes].

  All are of one slice: between slices there is data parallelism alone. 1 where `memory` is unknown.
  """
  size = len(devices) // len(set(map(slice_of, devices)))
  enough = lambda n: memory is None or state_bytes / n <= memory / STATE_SHARE
  return next((n for n in range(1, size + 1) if size % n == 0 and enough(n)), size)


def slice_of(device: Any) -> int:
  """The number of its slice of a pod; 0 where there are none."""
  return getattr(device, "slice_index", 0)


def fsdp_of(mesh: jax.sharding.Mesh) -> int:
  """How many devices share a state."""
  return mesh.size // mesh.shape["data"]


def of_rows(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The first axis cut over all devices."""
  return jax.NamedSharding(mesh, jax.P(mesh.axis_names))


def of_state(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """A sharding for each array of `tree`, by one rule for every network.

  With 2^16 numbers or more it is cut into the most parts that `fsdp` and the length of one of its
  axes allow, along the largest such axis.
  """
  place = lambda spec: jax.NamedSharding(mesh, jax.P(*spec))
  return jax.tree.map(lambda a: place(_spec(a.shape, mesh)), tree)


def bytes_held(tree: Any) -> tuple[int, int]:
  """Bytes of a tree with shardings that a device holds, and of those in arrays whole on all."""
  held = whole = 0
  for a in jax.tree.leaves(tree):
    size = math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize
    held, whole = held + size, whole + size * a.sharding.is_fully_replicated
  return held, whole


def describe_state(tree: Any, mesh: jax.sharding.Mesh) -> str:
  """`bytes_held` of a state, for the log."""
  held, whole = (size / 2**20 for size in bytes_held(tree))
  text = f"fsdp {fsdp_of(mesh)}: {held:.4g} MiB of state on each device"
  return f"{text}, {whole:.4g} MiB in arrays that are whole, as all below {_SMALLEST_CUT} numbers"


def _spec(shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> list[tuple[str, ...] | None]:
  """The mesh's axes that cut an array, by its axes up to the one that is cut; [] for none."""
  ways = [_ways(length, mesh) for length in shape]
  parts = [_count(names, mesh) for names in ways]
  if math.prod(shape) < _SMALLEST_CUT or max(parts) == 1:
    return []
  axis = max(range(len(shape)), key=lambda i: (parts[i], shape[i]))
  return [None] * axis + [ways[axis]]


def _ways(length: int, mesh: jax.sharding.Mesh) -> tuple[str, ...]:
  """The axes of the mesh that cut `length` into the most equal parts."""
  names = ()
  for name in mesh.axis_names[1:]:
    if length % (_count(names, mesh) * mesh.shape[name]) == 0:
      names = (*names, name)
  return names


def _count(names: tuple[str, ...], mesh: jax.sharding.Mesh) -> int:
  return math.prod(mesh.shape[name] for name in names)


def keep_rows(apply: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
  """`apply(params, x, ...)` of a network, with the activations of every module cut by rows.

  Without it the compiler may cut weights instead, and gather the whole batch in every layer. An
  array counts as activations where its first axis is as long as that of `x`.
  """
  place = of_rows(mesh)

  def constrained(params: Any, x: Array, *args: Any, **kwargs: Any) -> Any:
    if mesh.size == 1 or len(x) % mesh.size:
      return apply(params, x, *args, **kwargs)

    def cut(a: Any) -> Any:
      rows = isinstance(a, Array) and a.ndim and len(a) == len(x)
      return jax.lax.with_sharding_constraint(a, place) if rows else a

    def around(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
      del context
      return jax.tree.map(cut, call(*jax.tree.map(cut, args), **jax.tree.map(cut, kwargs)))

    with nn.intercept_methods(around):
      return apply(params, x, *args, **kwargs)

  return constrained


def put_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """This process's rows of a batch as one global array, cut along the mesh."""
  put = lambda a: jax.make_array_from_process_local_data(of_rows(mesh), np.asarray(a))
  return jax.tree.map(put, batch)


def micro_batches(batch: Any, count: int, group_size: int) -> Any:
  """`[B, ...]` to `[count, B / count, ...]`, group n to micro-batch n mod `count`.

  So every device keeps its rows, and the step does not depend on the devices.
  """
  by_group = lambda a: a.reshape(-1, count, group_size, *a.shape[1:]).swapaxes(0, 1)
  return jax.tree.map(lambda a: by_group(a).reshape(count, -1, *a.shape[1:]), batch)


def check_batch(batch_size: int, group_size: int, devices: int, accumulate: int = 1) -> None:
  """Refuses groups of particles that are empty, or that straddle devices or micro-batches."""
  if group_size < 1:
    raise FieldError("objective.group_size", group_size, "set it to 1 or more.")
  shares = devices * accumulate
  unit = group_size * shares
  if batch_size % unit:
    fix = f"batch_size={max(batch_size // unit, 1) * unit}"
    divisors = [m for m in range(1, group_size) if batch_size % (m * shares) == 0]
    fix = f"objective.group_size={divisors[-1]} or {fix}" if divisors else fix
    product = f"group_size x devices x accumulate = {group_size} x {devices} x {accumulate}"
    raise FieldError("batch_size", batch_size, f"not a multiple of objective.{product}; set {fix}.")
