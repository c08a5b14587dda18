"""Where arrays live: one mesh, batches cut along it, states replicated or cut by one rule."""

from typing import Any

import jax
import numpy as np

Array = jax.Array


def make_mesh(devices: Any = None) -> jax.sharding.Mesh:
  """One axis, "data", over all devices, or those given.

  Auto axes: networks stay single-device programs and the compiler places their arrays.
  """
  devices = np.asarray(jax.devices() if devices is None else devices)
  return jax.sharding.Mesh(devices, ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def of_state(tree: Any, mesh: jax.sharding.Mesh, *, fsdp: bool = False) -> Any:
  """A sharding for each array of `tree`.

  Replicated, or with `fsdp` cut along the largest axis that the mesh divides; arrays of fewer
  than 2^16 numbers stay whole, for moving them costs more than it saves.
  """

  def rule(array: Any) -> jax.sharding.NamedSharding:
    fitting = [i for i, n in enumerate(array.shape) if n % mesh.size == 0]
    if not fsdp or not fitting or np.prod(array.shape) < 2**16:
      return jax.NamedSharding(mesh, jax.P())
    largest = max(fitting, key=lambda i: array.shape[i])
    return jax.NamedSharding(mesh, jax.P(*[None] * largest, "data"))

  return jax.tree.map(rule, tree)


def put_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
  """This process's rows of a batch as one global array, cut along the mesh."""
  sharding = jax.NamedSharding(mesh, jax.P("data"))
  return jax.tree.map(
    lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a)), batch
  )


def check_batch(batch_size: int, group_size: int, mesh: jax.sharding.Mesh) -> None:
  """Refuses groups of particles that are empty, or that would straddle devices.

  Raises:
    ValueError: naming the fields and a batch size that fits.
  """
  if group_size < 1:
    raise ValueError(f"objective.group_size={group_size}: set it to 1 or more.")
  unit = group_size * mesh.size
  if batch_size % unit:
    fit = max(batch_size // unit, 1) * unit
    raise ValueError(
      f"batch_size={batch_size}: not a multiple of group_size x devices ="
      f" {group_size} x {mesh.size}; set batch_size={fit}."
    )
