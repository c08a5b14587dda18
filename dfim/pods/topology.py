"""The devices of slices that are not there, for which XLA compiles all the same."""

from collections.abc import Iterable
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from dfim import parallel
from dfim.config.errors import ConfigError, FieldError
from dfim.pods import h100

_KINDS = {  # axes of a slice, and the most chips of one job; of H100s slices, hosts and GPUs
  "v4": (3, 4096),
  "v5e": (2, 256),
  "v5p": (3, 6144),
  "v6e": (2, 256),
  "h100": (3, 4096),
}
_COMPILERS = {"libtpu": "pip install -e '.[tpu]'", "jax_cuda12_plugin": "pip install 'jax[cuda12]'"}
_QUIET = dict(  # libtpu looks for chips and their hosts, and says what it misses
  TPU_SKIP_MDS_QUERY="1",
  TPU_ACCELERATOR_TYPE="v5litepod-4",
  TPU_WORKER_HOSTNAMES="localhost",
  TPU_LOG_DIR="disabled",
  ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # it holds no chip: several may compile at a time
  JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1",
)


def devices(name: str | None, slices: int = 1) -> list[Any]:
  """The chips of `slices` slices of a topology such as "v5e:16x16", as JAX's devices.

  A chip is one device, of v4 too. "h100:1x2x8" are one slice, two hosts, eight GPUs each. Keeps JAX
  from the accelerators of this machine: call it first.
  """
  kind, _, shape = (name or "").partition(":")
  if kind not in _KINDS or not re.fullmatch(r"\d+(x\d+)*", shape):
    raise FieldError("--topology", name, f"give one of {', '.join(_KINDS)}, as in v5e:16x16.")
  lengths, (axes, most) = [int(n) for n in shape.split("x")], _KINDS[kind]
  if len(lengths) != axes or not 1 <= math.prod(lengths) <= most:
    raise FieldError("--topology", name, f"a slice of {kind} has {axes} axes, up to {most} chips.")
  if slices < 1 or (kind == "h100" and slices > 1):
    raise FieldError("--slices", slices, "give 1 or more; of h100 the topology has them.")
  _host_alone("jax_cuda12_plugin" if kind == "h100" else "libtpu")
  try:
    return list(_topology(kind, name, shape, slices).devices)
  except jax.errors.JaxRuntimeError as error:
    fix = f"no such slice ({' '.join(str(error).split())}); give one that is sold, as v5e:2x2."
    raise FieldError("--topology", name, fix) from error


def domains(devices: Iterable[Any]) -> list[int]:
  """The slice of each device or, of GPUs, its host: between them is a network."""
  gpu = lambda device: device.platform == "gpu"
  return [d.process_index if gpu(d) else parallel.slice_of(d) for d in devices]


def _topology(kind: str, name: str, shape: str, slices: int) -> topologies.TopologyDescription:
  if kind == "h100":
    how = dict(target_config=h100.TARGET, topology=shape)
    return topologies.get_topology_desc("h100", "cuda", **how)
  how = dict(num_slices=slices) if slices > 1 else {}
  how |= dict(chip_config_name="megacore") if kind == "v4" else {}
  how |= dict(chips_per_host_bounds=(1, 1, 1)) if not re.search(r"[2-9]|\d\d", shape) else {}
  return topologies.get_topology_desc(platform="tpu", topology_name=name, **how)


def _host_alone(compiler: str) -> None:
  """Computes on the CPU, and asks a plugin for its compiler alone."""
  if importlib.util.find_spec(compiler) is None:
    line = f"{compiler} is missing; {_COMPILERS[compiler]} (Linux on x86-64)"
    raise ConfigError(f"--topology: {line}, which brings the compiler.")
  for name, value in _QUIET.items():
    os.environ.setdefault(name, value)
  jax.config.update("jax_platforms", "cpu")
