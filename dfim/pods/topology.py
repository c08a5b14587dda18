"""The devices of slices that are not there, for which XLA compiles all the same."""

import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from dfim.config.errors import ConfigError, FieldError

_TPUS = {  # axes of a slice, and the most chips of one; a pod of v5p has 8,960
  "v4": (3, 4096),
  "v5e": (2, 256),
  "v5p": (3, 6144),
  "v6e": (2, 256),
}
_QUIET = dict(  # for libtpu, which looks for chips and their hosts, and then says what it misses
  TPU_SKIP_MDS_QUERY="1",
  TPU_ACCELERATOR_TYPE="v5litepod-4",
  TPU_WORKER_HOSTNAMES="localhost",
  TPU_LOG_DIR="disabled",
  ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # it holds no chip: several may compile at a time
)


def devices(name: str | None, slices: int = 1) -> list[Any]:
  """The chips of `slices` slices of a topology such as "v5e:16x16", as JAX's devices.

  A chip is one device, of v4 too. Keeps JAX from the accelerators of this machine: call it first.
  """
  kind, _, shape = (name or "").partition(":")
  if kind not in _TPUS or not re.fullmatch(r"\d+(x\d+)*", shape):
    raise FieldError("--topology", name, f"give one of {', '.join(_TPUS)}, as in v5e:16x16.")
  if not isinstance(slices, int) or slices < 1:
    raise FieldError("--slices", slices, "give 1 or more.")
  lengths, (axes, most) = [int(n) for n in shape.split("x")], _TPUS[kind]
  if len(lengths) != axes or not 1 <= math.prod(lengths) <= most:
    raise FieldError(
      "--topology", name, f"a slice of {kind} has {axes} axes, and up to {most} chips."
    )
  _host_alone()
  how = dict(num_slices=slices) if slices > 1 else {}
  how |= dict(chip_config_name="megacore") if kind == "v4" else {}
  how |= dict(chips_per_host_bounds=(1, 1, 1)) if math.prod(lengths) == 1 else {}
  try:
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **how).devices)
  except jax.errors.JaxRuntimeError as error:
    raise FieldError("--topology", name, " ".join(str(error).split())) from error


def _host_alone() -> None:
  """Computes on the CPU, and asks libtpu for its compiler alone."""
  if importlib.util.find_spec("libtpu") is None:
    fix = "pip install -e '.[tpu]' (Linux on x86-64), which brings the TPU's compiler"
    raise ConfigError(f"--topology: libtpu is missing; {fix}.")
  for name, value in _QUIET.items():
    os.environ.setdefault(name, value)
  jax.config.update("jax_platforms", "cpu")
