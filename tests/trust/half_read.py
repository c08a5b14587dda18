"""One of two processes alone cannot read the newest checkpoint: `test_processes` starts this."""

import sys

import jax
import jax.numpy as jnp
import ml_collections

from dfim.checkpoints import checkpoint
from tests import trust

CONFIG = ml_collections.ConfigDict(dict(checkpoint_every=1, keep_checkpoints=2, keep_every=0))


def main() -> None:
  given = trust.arguments(workdir="")
  jax.distributed.initialize(given.coordinator, given.num_processes, given.process_id)
  place = jax.NamedSharding(jax.make_mesh((given.num_processes,), ("data",)), jax.P("data"))
  numbers = jax.jit(lambda n: jnp.full(64, n, jnp.float32), out_shardings=place)
  with checkpoint.Checkpoints(given.workdir, CONFIG) as checkpoints:
    for n in (1, 2):
      checkpoints.save(n, dict(x=numbers(n)), force=True)
  read = checkpoint._read_manifest

  def fails(path):
    if given.process_id == 1 and path.name == "2":
      raise RuntimeError("only here")
    return read(path)

  checkpoint._read_manifest = fails
  abstract = dict(x=jax.ShapeDtypeStruct((64,), jnp.float32, sharding=place))
  x = checkpoint.restore(given.workdir, abstract)["x"]
  print("restored", jax.device_get(x.addressable_shards[0].data)[0], file=sys.stderr)


if __name__ == "__main__":
  main()
