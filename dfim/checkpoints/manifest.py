"""What a checkpoint says of itself: config, code version, and a checksum of every array.

A checksum is a sum over the bits of an array's numbers, each mixed with its place. Integer sums do
not depend on their order, so it is the same on any layout of devices and processes, and is computed
where the array lies. To change one number changes it for certain, to change several but for a
chance of 2^-64.
"""

from collections.abc import Mapping
import functools
import hashlib
import json
import pathlib
import subprocess
from typing import Any

import jax
import jax.numpy as jnp

from dfim.io import version

Array = jax.Array
_SALTS = (0x9E3779B9, 0x7F4A7C15)  # any two numbers


class DamagedError(ValueError):
  """A checkpoint that is not what was saved."""


def make(
  step: int,
  state: Any,
  sums: dict[str, Array],
  config: Mapping[str, Any],
  *,
  data: Mapping[str, Any] | None = None,
  pending: bool = False,
) -> dict[str, Any]:
  """The manifest of `state`, whose `checksums` are `sums`, as JSON takes it; waits for these.

  `data` says which data the run is of, see `data.identity`; `pending`, that samples and scores that
  were due after `step` are still to be made.
  """
  shapes, sums = shapes_of(state), jax.device_get(sums)
  manifest = dict(
    step=step,
    pending=pending,
    **versions(),
    data=data,
    config=json.loads(json.dumps(config)),  # as it is read back: tuples become lists
    arrays={name: [shape, *map(int, sums[name])] for name, shape in shapes.items()},
  )
  return {**manifest, "sha256": _sha256(manifest)}


def check(manifest: Mapping[str, Any], step: int) -> None:
  """Whether the manifest itself is whole, and of this step.

  Raises:
    DamagedError: saying what is wrong.
  """
  if manifest.get("sha256") != _sha256(manifest):
    raise DamagedError("its manifest is missing or altered")
  if manifest["step"] != step:
    raise DamagedError(f"it was saved as step {manifest['step']}")


def check_arrays(manifest: Mapping[str, Any], state: Any) -> None:
  """Compares the checksums of a restored `state`.

  Raises:
    DamagedError: naming the first array that differs.
  """
  sums = jax.device_get(checksums(state))
  for name, (_, *saved) in manifest["arrays"].items():
    if [*map(int, sums[name])] != saved:
      raise DamagedError(f"the checksum of {name} differs")


def shapes_of(tree: Any) -> dict[str, str]:
  """'params/Dense_0/kernel' -> 'float32[3, 4]'."""
  return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in named(tree).items()}


def versions() -> dict[str, str | None]:
  """Of the code that runs."""
  return dict(dfim=version.VERSION, commit=commit(), jax=jax.__version__)


@functools.cache  # what runs is what was imported, whatever becomes of the files
def commit() -> str | None:
  """The commit of the code that runs, "-dirty" if it is changed; None where git does not tell."""
  git = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"]
  try:
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def named(tree: Any) -> dict[str, Any]:
  """The leaves of `tree` by path: "params/Dense_0/kernel"."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def _sha256(manifest: Mapping[str, Any]) -> str:
  """Of all but the hash itself."""
  rest = {k: v for k, v in manifest.items() if k != "sha256"}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@jax.jit
def checksums(state: Any) -> dict[str, Array]:
  """uint32 `[2]` for each array of `state`, by name."""
  return {name: _checksum(a) for name, a in named(state).items()}


@jax.jit  # so that arrays of one shape are traced once
def _checksum(a: Array) -> Array:
  words = _words(a)
  place = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):  # its index in row-major order, modulo 2^32
    place = place * (size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
  mixed = tuple(_mix(words ^ _mix(place ^ jnp.uint32(salt))) for salt in _SALTS)
  zeros = (jnp.uint32(0),) * len(mixed)
  add = lambda sums, more: tuple(a + b for a, b in zip(sums, more, strict=True))
  # In one reduction, which XLA's CPU backend makes vector instructions of: a quarter of the time.
  return jnp.stack(jax.lax.reduce(mixed, zeros, add, range(words.ndim)))


def _words(a: Array) -> Array:
  """The bits of `a` as uint32, an axis more where a number has 64 of them."""
  if a.dtype == jnp.bool_:
    return a.astype(jnp.uint32)
  width = min(a.dtype.itemsize, 4)
  return jax.lax.bitcast_convert_type(a, f"uint{8 * width}").astype(jnp.uint32)


def _mix(x: Array) -> Array:
  """One-to-one, and each bit of the result depends on all of `x`: MurmurHash3's last step."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
