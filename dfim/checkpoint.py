"""Checkpoints: the whole `TrainState`, saved in the background, atomically, by Orbax.

The only file that knows Orbax (its v1 interface, still under `orbax.checkpoint.v1`).
"""

import pathlib
from typing import Any

from absl import logging
import jax
from orbax.checkpoint import v1 as ocp

from dfim.resolve import ConfigError


class Checkpoints:
  """The folder `<workdir>/checkpoints/<step>`; a context manager, so that saves are finished."""

  def __init__(self, workdir: str, *, every: int, keep: int):
    """Saves each `every` steps (and when the scheduler preempts), keeps the last `keep`."""
    policies = ocp.training.save_decision_policies
    self._manager = ocp.training.Checkpointer(
      folder(workdir),
      save_decision_policy=policies.AnySavePolicy(
        [policies.FixedIntervalPolicy(every), policies.PreemptionCheckpointingPolicy()]
      ),
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,  # what a killed save left behind
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *error: Any) -> None:
    self._manager.close()

  def save(self, step: int, state: Any, *, force: bool = False) -> None:
    """Starts a save if one is due; waits only for the one before it."""
    if force or self._manager.should_save(step):
      self._manager.save_async(step, state, force=force)


def folder(workdir: str) -> pathlib.Path:
  """Where the checkpoints of `workdir` lie."""
  return pathlib.Path(workdir).absolute() / "checkpoints"


def steps(workdir: str) -> list[int]:
  """The steps that can be restored, ascending."""
  found = folder(workdir)
  if not found.is_dir():
    return []
  names = [p.name for p in found.iterdir() if p.name.isdigit() and ocp.is_orbax_checkpoint(p)]
  return sorted(map(int, names))


def restore(workdir: str, abstract: Any) -> Any:
  """The newest state, with the shapes and shardings of `abstract`.

  Raises:
    ConfigError: if there is none, or if it is another network's, naming the first difference.
  """
  found = steps(workdir)
  if not found:
    raise ConfigError(
      f"workdir={workdir}: no checkpoint in {folder(workdir)}; train first, or pass another"
      " --workdir."
    )
  path = folder(workdir) / str(found[-1])
  _refuse_another(path, abstract)
  logging.info("Restoring %s", path)
  return ocp.load(path, abstract, checkpointable_name="state")


def _refuse_another(path: pathlib.Path, abstract: Any) -> None:
  """Compares names and shapes before any array is read."""
  saved = _shapes(ocp.metadata(path, checkpointable_name="state").metadata)
  wanted = _shapes(abstract)
  for name in [*wanted, *saved]:
    if saved.get(name) != wanted.get(name):
      raise ConfigError(
        f"{path} holds another network or optimizer: {name} is {saved.get(name, 'absent')}"
        f" there and {wanted.get(name, 'absent')} in this config; pass another --workdir or"
        " the config that it was trained with."
      )


def _shapes(tree: Any) -> dict[str, str]:
  """'params/Dense_0/kernel' -> 'float32[3, 4]'."""
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
  return {n: f"{leaf.dtype}{list(leaf.shape)}" for n, (_, leaf) in zip(names, flat, strict=True)}
