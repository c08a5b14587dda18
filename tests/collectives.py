"""Collectives of programs that are compiled for many host devices: `test_parallel` starts this."""

import json
import math
import re
import sys

import jax

from configs import forcing_walk, imm_cifar, imm_imagenet256, moment_forcing_walk
from dfim import parallel, train
from dfim.training import experiment as experiment_lib, generator

CONFIGS = {
  "dit": (imm_imagenet256, dict(depth=4, width=64, heads=2, num_classes=99, remat=True), 128),
  "unet": (imm_cifar, dict(channels=16, multipliers=(1,), blocks=1, attention_resolutions=(8,)), 256),
  "causal_transformer": (forcing_walk, dict(width=128), 32768),
  "two_streams": (moment_forcing_walk, dict(width=128), 8192),
}
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_CALL = re.compile(rf" = (.*?) ({KINDS})(?:-start)?\(")


def experiment_of(name):
  """An experiment whose state is cut over all devices, without data."""
  module, model, batch_size = CONFIGS[name]
  config = module.get_config()
  config.model.update(model)
  config.update(batch_size=batch_size, fsdp=-1)
  if name == "unet":  # larger images take minutes to compile
    config.data.shape = (8, 8, 3)
  return experiment_lib.build(config, examples=generator.stated_examples(config))


def largest(program):
  """Numbers in the largest array of each kind of collective of a compiled program."""
  found = {}
  for shapes, kind in _CALL.findall(re.sub(r"/\*.*?\*/", "", program.as_text())):
    for dims in re.findall(r"\w+\[([\d,]*)\]", shapes):
      found[kind] = max(found.get(kind, 0), math.prod(map(int, filter(None, dims.split(",")))))
  return found


def step_of(experiment):
  place = lambda a, to: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=to)
  rows, whole = parallel.of_rows(experiment.mesh), jax.NamedSharding(experiment.mesh, jax.P())
  batch = jax.tree.map(lambda a: place(a, rows), experiment.batch)
  root = place(jax.eval_shape(experiment.root), whole)
  return train.step_of(experiment).lower(experiment.abstract_state(), batch, root).compile()


def main():
  count, *names = sys.argv[1:]
  jax.config.update("jax_num_cpu_devices", int(count))
  print(json.dumps({name: largest(step_of(experiment_of(name))) for name in names}))


if __name__ == "__main__":
  main()
