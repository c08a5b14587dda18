"""The loss and the gradient of one step on some layout, as an .npz: `test_layouts` starts this."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import imm_digits, moment_forcing_walk
from dfim import parallel
from dfim.checkpoints import checksums
from dfim.training import experiment as experiment_lib, step
from tests import trust


def config_of(what: str, fsdp: int):
  """A smoke config whose network has arrays that are large enough to be cut."""
  config = dict(digits=imm_digits, walk=moment_forcing_walk)[what].get_config("smoke")
  config.fsdp = fsdp
  config.model.width, config.batch_size = 256, 64  # groups of 4 on 16 devices
  return config


def gradient_of(experiment, dtype: str) -> dict[str, np.ndarray]:
  """The loss and every gradient of the first step, by name, whole on every process."""
  to = lambda tree: jax.tree.map(
    lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
  )
  state = jax.jit(to, out_shardings=experiment.shardings())(experiment.first_state())
  process = jax.process_index(), jax.process_count()
  batch = parallel.put_batch(to(next(experiment.source(process=process))), experiment.mesh)
  gradient = step.make_gradient(experiment.apply, experiment.loss)
  whole = jax.NamedSharding(experiment.mesh, jax.P())
  (loss, _), grads = jax.jit(gradient, out_shardings=whole)(state, batch, experiment.root())
  return jax.device_get({"loss": loss, **checksums.named(grads)})


def main() -> None:
  given = trust.arguments(what="digits", dtype="float32", out="", fsdp=1)
  jax.config.update("jax_enable_x64", given.dtype == "float64")
  if given.coordinator:
    jax.distributed.initialize(given.coordinator, given.num_processes, given.process_id)
  found = gradient_of(experiment_lib.build(config_of(given.what, given.fsdp)), given.dtype)
  if jax.process_index() == 0:
    np.savez(given.out, **found)


if __name__ == "__main__":
  main()
