"""The manifest of a checkpoint: config, code version, and a checksum of every array."""

from collections.abc import Mapping
import functools
import hashlib
import json
import pathlib
import subprocess
from typing import Any

import jax

from dfim.checkpoints import checksums
from dfim.io import version


class DamagedError(ValueError):
  """A checkpoint that differs from the state that was saved."""


def make(
  step: int,
  state: Any,
  sums: dict[str, jax.Array],
  config: Mapping[str, Any],
  *,
  data: Mapping[str, Any] | None = None,
  pending: bool = False,
) -> dict[str, Any]:
  """The manifest of `state`, whose checksums are `sums`, as JSON; waits for the checksums.

  `data` is the data's identity. `pending`: samples or scores of `step` have not been made yet.
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
  """Raises DamagedError if the manifest is altered, or of another step."""
  if manifest.get("sha256") != _sha256(manifest):
    raise DamagedError("its manifest is missing or altered")
  if manifest["step"] != step:
    raise DamagedError(f"it was saved as step {manifest['step']}")


def check_arrays(manifest: Mapping[str, Any], state: Any) -> None:
  """Raises DamagedError with the first array of `state` whose checksum differs."""
  sums = jax.device_get(checksums.checksums(state))
  for name, found in sums.items():
    if [*map(int, found)] != manifest["arrays"][name][1:]:
      raise DamagedError(f"the checksum of {name} differs")


def shapes_of(tree: Any) -> dict[str, str]:
  """'params/Dense_0/kernel' -> 'float32[3, 4]'."""
  return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in checksums.named(tree).items()}


def versions() -> dict[str, str | None]:
  """Of the running code: dfim, its commit, JAX."""
  return dict(dfim=version.VERSION, commit=_commit(), jax=jax.__version__)


@functools.cache  # of the code that was imported, even if the files change later
def _commit() -> str | None:
  """The commit, "-dirty" if the files are changed; None without git."""
  git = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"]
  try:
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None


def _sha256(manifest: Mapping[str, Any]) -> str:
  rest = {k: v for k, v in manifest.items() if k != "sha256"}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
