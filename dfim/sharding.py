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


def micro_batches(batch: Any, count: int, group_size: int) -> Any:
  """`[B, ...]` to `[count, B / count, ...]`, whole groups dealt out in turn like cards.

  Every device keeps its rows, which consecutive micro-batches would not: the first would be the
  first device's. The deal does not depend on the devices, so neither does the step.
  """

  def deal(a: Array) -> Array:
    hands = a.reshape(-1, count, group_size, *a.shape[1:]).swapaxes(0, 1)
    return hands.reshape(count, -1, *a.shape[1:])

  return jax.tree.map(deal, batch)


def check_batch(
  batch_size: int, group_size: int, mesh: jax.sharding.Mesh, accumulate: int = 1
) -> None:
  """Refuses groups of particles that are empty, or that would straddle devices or micro-batches.

  Raises:
    ValueError: naming the fields and a batch size that fits.
  """
  if group_size < 1:
    raise ValueError(f"objective.group_size={group_size}: set it to 1 or more.")
  sizes = {"group_size": group_size, "devices": mesh.size}
  if accumulate > 1:
    sizes["accumulate"] = accumulate
  unit = group_size * mesh.size * accumulate
  if batch_size % unit:
    fit = max(batch_size // unit, 1) * unit
    raise ValueError(
      f"batch_size={batch_size}: not a multiple of {' x '.join(sizes)} ="
      f" {' x '.join(map(str, sizes.values()))}; set batch_size={fit}."
    )
