"""One mesh: batches are cut along it, states replicated or cut by one rule."""

from typing import Any

import jax
import numpy as np

from dfim.config.errors import FieldError

Array = jax.Array


def make_mesh(devices: Any = None, fsdp: int = 1) -> jax.sharding.Mesh:
  """All devices, or those given, as `[data, fsdp]`; a state is cut over `fsdp`, or all (-1)."""
  devices = np.asarray(jax.devices() if devices is None else devices)
  fsdp = len(devices) if fsdp == -1 else fsdp
  if fsdp < 1 or len(devices) % fsdp:
    fix = f"{len(devices)} devices; set it to a number that divides them, or -1 for all."
    raise FieldError("fsdp", fsdp, fix)
  types = (jax.sharding.AxisType.Auto,) * 2
  return jax.sharding.Mesh(devices.reshape(-1, fsdp), ("data", "fsdp"), axis_types=types)


def of_rows(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The first axis cut over all devices."""
  return jax.NamedSharding(mesh, jax.P(("data", "fsdp")))


def of_state(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """A sharding for each array of `tree`, by one rule for every network.

  It is cut along the largest axis that "fsdp" divides, if it has 2^16 numbers or more.
  """
  count = mesh.shape["fsdp"]

  def rule(array: Any) -> jax.sharding.NamedSharding:
    fitting = [i for i, n in enumerate(array.shape) if n % count == 0]
    if count == 1 or not fitting or np.prod(array.shape) < 2**16:
      return jax.NamedSharding(mesh, jax.P())
    largest = max(fitting, key=lambda i: array.shape[i])
    return jax.NamedSharding(mesh, jax.P(*[None] * largest, "fsdp"))

  return jax.tree.map(rule, tree)


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


def check_batch(
  batch_size: int, group_size: int, mesh: jax.sharding.Mesh, accumulate: int = 1
) -> None:
  """Refuses groups of particles that are empty, or that straddle devices or micro-batches."""
  if group_size < 1:
    raise FieldError("objective.group_size", group_size, "set it to 1 or more.")
  shares = mesh.size * accumulate
  unit = group_size * shares
  if batch_size % unit:
    fix = f"batch_size={max(batch_size // unit, 1) * unit}"
    divisors = [m for m in range(1, group_size) if batch_size % (m * shares) == 0]
    fix = f"objective.group_size={divisors[-1]} or {fix}" if divisors else fix
    product = f"group_size x devices x accumulate = {group_size} x {mesh.size} x {accumulate}"
    raise FieldError("batch_size", batch_size, f"not a multiple of objective.{product}; set {fix}.")
