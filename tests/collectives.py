"""Collectives of programs that are compiled for many host devices: `test_parallel` starts this."""

import json
import math
import sys

import jax

from configs import forcing_walk, imm_cifar, imm_imagenet256, moment_forcing_walk
from dfim.pods import compile as compile_lib, counts
from dfim.training import experiment as experiment_lib, generator

CONFIGS = {
  "dit": (imm_imagenet256, dict(depth=4, width=64, heads=2, num_classes=99, remat=True), 128),
  "unet": (
    imm_cifar,
    dict(channels=16, multipliers=(1,), blocks=1, attention_resolutions=(8,)),
    256,
  ),
  "causal_transformer": (forcing_walk, dict(width=128), 32768),
  "two_streams": (moment_forcing_walk, dict(width=128), 8192),
}


def experiment_of(name):
  """An experiment whose state is cut over all devices, without data."""
  module, model, batch_size = CONFIGS[name]
  config = module.get_config()
  config.model.update(model)
  config.update(batch_size=batch_size, fsdp=-1)
  if name == "unet":  # larger images take minutes to compile
    config.data.shape = (16, 16, 3)
  return experiment_lib.build(config, examples=generator.stated_examples(config))


def largest(experiment):
  """Numbers in the largest array of each kind of collective of the compiled step."""
  found, text = {}, compile_lib.lower_step(experiment).compile().as_text()
  for one in counts.count(text, experiment.mesh.size).collectives:
    found[one.kind] = max([found.get(one.kind, 0), *(math.prod(a.dims) for a in one.arrays)])
  return found


def main():
  count, *names = sys.argv[1:]
  jax.config.update("jax_num_cpu_devices", int(count))
  print(json.dumps({name: largest(experiment_of(name)) for name in names}))


if __name__ == "__main__":
  main()
