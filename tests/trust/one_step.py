"""The loss and the gradient of one step on some layout, as an .npz: `test_layouts` starts this."""

import sys

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from configs import dfim_walk
from configs import imm_digits
from dfim import experiment as experiment_lib
from dfim import manifest
from dfim import sharding
from dfim import step

_CONFIG = flags.DEFINE_enum("what", "digits", ["digits", "walk"], "Which config.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float64"], "Of all numbers.")
_FSDP = flags.DEFINE_integer("fsdp", 1, "Devices over which a state is cut.")
_OUT = flags.DEFINE_string("out", None, "The .npz.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "As dfim.main.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "As dfim.main.")
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "As dfim.main.")


def config_of(what: str, fsdp: int):
  """A smoke config whose network has arrays that are large enough to be cut."""
  config = dict(digits=imm_digits, walk=dfim_walk)[what].get_config("smoke")
  config.fsdp = fsdp
  config.model.width = 256
  return config


def gradient_of(experiment, dtype: str) -> dict[str, np.ndarray]:
  """The loss and every gradient of the first step, by name, whole on every process."""
  to = lambda tree: jax.tree.map(
    lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
  )
  state = jax.jit(to, out_shardings=experiment.places())(experiment.first_state())
  process = jax.process_index(), jax.process_count()
  batch = sharding.put_batch(to(next(experiment.source(process=process))), experiment.mesh)
  gradient = step.make_gradient(experiment.apply, experiment.loss, reach=experiment.reach)
  whole = jax.NamedSharding(experiment.mesh, jax.P())
  (loss, _), grads = jax.jit(gradient, out_shardings=whole)(state, batch, experiment.root())
  return jax.device_get({"loss": loss, **manifest.named(grads)})


def main(argv):
  """Writes what the first process has."""
  del argv
  jax.config.update("jax_enable_x64", _DTYPE.value == "float64")
  if _COORDINATOR.value:
    jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  found = gradient_of(experiment_lib.build(config_of(_CONFIG.value, _FSDP.value)), _DTYPE.value)
  if jax.process_index() == 0:
    np.savez(_OUT.value, **found)


if __name__ == "__main__":
  sys.exit(app.run(main))
