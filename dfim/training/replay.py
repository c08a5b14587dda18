"""Bundles of the inputs of a failed step, and the step run again (`--mode=replay`).

A bundle is a workdir, `<workdir>/replay/<step>`: the state before the step as a checkpoint,
`config.json`, and `batch_<process>.npz`, each process's rows of the batch.
"""

from collections.abc import Iterator
import functools
import pathlib
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from dfim import parallel
from dfim.checkpoints import checkpoint, checksums, workdir as workdir_lib
from dfim.config.errors import config_errors, FieldError
from dfim.io import atomic
from dfim.training import nonfinite
from dfim.training.experiment import build, Experiment
from dfim.training.state import proposed, TrainState
from dfim.training.step import make_gradient


def failure(
  experiment: Experiment, workdir: str, step: int, state: TrainState, batch: Any, running: int
) -> nonfinite.NonFiniteError:
  """The error of the last of `running` failed steps in a row, which names the bundle of `write`."""
  cause = f"step {step}: loss, gradient or update not finite in {running} steps running."
  try:
    bundle = write(experiment, workdir, step, state, batch)
  except (OSError, checkpoint.SaveError) as error:
    return nonfinite.NonFiniteError(f"{cause} The bundle of the last was not written: {error}")
  again = f"python -m dfim.main --mode=replay --workdir={bundle}"
  return nonfinite.NonFiniteError(f"{cause} To see the last again: {again}")


def write(
  experiment: Experiment, workdir: str, step: int, state: TrainState, batch: dict[str, Any]
) -> pathlib.Path:
  """Writes the bundle of number `step`, which was skipped and left `state`; returns its folder."""
  bundle, config = _free(pathlib.Path(workdir) / "replay", step), experiment.config
  workdir_lib.write_config(str(bundle), config)
  rows = {name: _local(a) for name, a in checksums.named(batch).items()}
  path = bundle / f"batch_{jax.process_index()}.npz"
  atomic.replace(path, lambda file: np.savez(file, **rows))
  with checkpoint.Checkpoints(str(bundle), config) as checkpoints:
    checkpoints.save(step - 1, state.replace(skipped=state.skipped - 1), force=True)
  return bundle


def _free(folder: pathlib.Path, step: int) -> pathlib.Path:
  """A new folder for the bundle, the same in all processes: the choice of the first."""
  name = atomic.free(folder / str(step)).name
  if jax.process_count() > 1:
    which = int(name.partition(".")[2] or 0)
    which = int(multihost_utils.broadcast_one_to_all(np.int32(which)))
    name = f"{step}.{which}" if which else str(step)
  return folder / name


def replay(workdir: str, *, devices: Any = None) -> list[str]:
  """Runs the step of a bundle again; logs which arrays are not finite, and the first NaN.

  Returns their names: "batch/x", "loss", the gradient's "params/Dense_0/kernel" or, if all these
  are finite, "update/params/Dense_0/kernel". A `workdir` that is not a bundle is a ConfigError.
  """
  experiment = build(workdir_lib.load_config(workdir), devices=devices)
  state = checkpoint.restore(workdir, experiment.abstract_state())
  batch, count = _batch(experiment, pathlib.Path(workdir)), experiment.config.accumulate
  gradient = make_gradient(experiment.apply, experiment.loss, accumulate=count)
  args = state, batch, experiment.root()
  (loss, _), grads = jax.jit(gradient)(*args)
  grads_by_name = grads if set(grads) == {"params"} else {"params": grads}  # linen has the key
  found = list(_not_finite({"batch": batch, "loss": loss, **grads_by_name}))
  if not found:
    propose = functools.partial(proposed, tx=experiment.tx)
    new = jax.jit(propose)(state, grads)
    found = list(_not_finite({"update": {"params": new.params, "optimizer": new.opt_state}}))
  elif not found[0].startswith("batch"):
    _show_where(gradient, *args)
  largest = {name: float(np.abs(a).max()) for name, a in checksums.named(state.params).items()}
  name = max(largest, key=largest.get)
  logging.info("Step %d again: loss %s.", int(state.seen) + 1, loss)
  logging.info("The largest parameter before it: %.3g, in %s.", largest[name], name)
  logging.info("Not finite: %s.", ", ".join(found) or "nothing; it does not happen again here")
  return found


def _show_where(gradient: Any, *args: Any) -> None:
  """Logs the first operation whose result is NaN."""
  try:
    with jax.debug_nans(True):
      jax.jit(gradient)(*args)
  except FloatingPointError as error:
    logging.exception("The first NaN: %s", str(error).splitlines()[0])


def _not_finite(tree: Any) -> Iterator[str]:
  for name, a in checksums.named(tree).items():
    if np.issubdtype(a.dtype, np.floating) and not bool(jax.numpy.isfinite(a).all()):
      yield name


def _local(a: jax.Array) -> np.ndarray:
  """This process's rows, in order."""
  shards = {s.index[0].start or 0: s for s in a.addressable_shards}
  return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def _batch(experiment: Experiment, bundle: pathlib.Path) -> dict[str, Any]:
  path = bundle / f"batch_{jax.process_index()}.npz"
  if not path.is_file():
    fix = f"no {path.name} there; pass a bundle, in as many processes as the run had."
    raise FieldError("workdir", bundle, fix)

  with config_errors(str(path)), np.load(path, allow_pickle=False) as rows:
    names = list(checksums.named(experiment.batch))
    tree = jax.tree.unflatten(jax.tree.structure(experiment.batch), [rows[n] for n in names])
  return parallel.put_batch(tree, experiment.mesh)
