"""Checkpoints: the whole `TrainState`, saved in the background, atomically, by Orbax.

Each has a manifest, see `manifest`, and is restored only if its checksums agree.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import os
import pathlib
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np
from orbax.checkpoint import v1 as ocp

from dfim.checkpoints import checksums, manifest as manifest_lib, orbax_workarounds
from dfim.config.errors import ConfigError, FieldError
from dfim.io import atomic
from dfim.training import nonfinite, preemption


class SaveError(RuntimeError):
  """A checkpoint could not be written; those before it are whole."""


class ReadError(RuntimeError):
  """The disk failed while a checkpoint was read; it may be whole."""


class Checkpoints:
  """Saves `<workdir>/checkpoints/<step>`; a context manager, which finishes the saves."""

  DELAY = nonfinite.Guard.AHEAD  # steps that the host runs ahead of the devices

  def __init__(
    self, workdir: str, config: ml_collections.ConfigDict, data: Mapping[str, Any] | None = None
  ):
    """Saves and keeps as `config` says; milestones kept so far stay. Both go into manifests."""
    orbax_workarounds.apply()
    self._config, self._data = config.to_dict(), data
    self._copied = None  # a copy not yet written: step, state, checksums, `pending`
    self._writing = None  # the save in the background, and its step
    self._context = ocp.Context()
    saving = self._context.array.saving
    saving.use_compression = False  # weights hardly shrink, and compression takes cores
    saving.enable_write_sharding_file = False  # `restore` is given the layout
    policies = ocp.training.preservation_policies
    milestones = policies.CustomSteps(_milestones(workdir))
    preserved = [policies.LatestN(config.keep_checkpoints), milestones]
    if config.keep_every:
      preserved.append(policies.EveryNSteps(config.keep_every))
    self._manager = ocp.training.Checkpointer(
      folder(workdir),
      preservation_policy=policies.AnyPreservationPolicy(preserved),
      cleanup_tmp_directories=True,  # of killed saves
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: Any, *error: Any) -> None:
    common = preemption.PreemptedError, nonfinite.NonFiniteError  # raised in every process
    if jax.process_count() > 1 and not (kind is None or issubclass(kind, common)):
      return  # a save would wait for the other processes, which are in a step
    try:
      self._write()
      self._finish()
    except SaveError:
      if kind is None:  # else the error on its way says more
        raise
    finally:
      with contextlib.suppress(Exception):  # raises the error of the save once more
        self._manager.close()

  def save(self, step: int, state: Any, *, force: bool = False, pending: bool = False) -> None:
    """Copies `state` to the host if a save is due; called after every step.

    The copy is written, in the background, by the call `DELAY` steps later, so that the devices
    have work meanwhile. `force` saves this state, and starts to write at once; so does `pending`,
    noted in the manifest: samples or scores due after `step` come next. A SaveError is of this save
    or one before.
    """
    if self._writing and not self._manager.is_saving_in_progress():
      self._finish()
    due = force or step % self._config["checkpoint_every"] == 0
    if self._copied and (due or step >= self._copied[0] + self.DELAY):
      self._write()
    if due:
      self._copied = (step, _on_host(state), checksums.checksums(state), pending)
      if force or pending:
        self._write()

  def _write(self) -> None:
    """Starts to write the copy; waits only for the save before it."""
    if self._copied:
      self._finish()
      (step, state, sums, pending), self._copied = self._copied, None
      context = dict(config=self._config, data=self._data, pending=pending)
      manifest = manifest_lib.make(step, state, sums, **context)
      with _save_errors(step), self._context:
        response = self._manager.save_async(step, state, force=True, custom_metadata=manifest)
      self._writing = (response, step)

  def _finish(self) -> None:
    """Waits for the save in the background."""
    if self._writing:
      (response, step), self._writing = self._writing, None
      with _save_errors(step):
        response.result()


def _on_host(state: Any) -> Any:
  """A copy in the host's memory with the layout of `state`, which may then be donated."""
  shardings = jax.tree.map(lambda a: a.sharding.with_memory_kind("pinned_host"), state)
  return jax.device_put(state, shardings, may_alias=False)


@contextlib.contextmanager
def _save_errors(step: int) -> Iterator[None]:
  try:
    yield
  except Exception as error:  # of the file system, through any of the libraries below Orbax
    cause = " ".join(str(error).split())[:300]
    raise SaveError(f"the checkpoint of step {step} could not be written: {cause}") from error


def folder(workdir: str) -> pathlib.Path:
  """The folder of the checkpoints of `workdir`."""
  return pathlib.Path(workdir).absolute() / "checkpoints"


def steps(workdir: str) -> list[int]:
  """The saved steps, ascending; an unfinished save has another name."""
  try:
    names = [entry.name for entry in os.scandir(folder(workdir)) if entry.is_dir()]
  except (FileNotFoundError, NotADirectoryError):
    return []
  except OSError as error:
    raise ReadError(f"{folder(workdir)} could not be read: {error.strerror}.") from error
  return sorted(int(name) for name in names if name.isdigit())


def _milestones(workdir: str) -> list[int]:
  """The saved steps that are milestones by their own manifests."""
  every = lambda step: (manifest(workdir, step) or {}).get("config", {}).get("keep_every")
  return [step for step in steps(workdir) if (n := every(step)) and step % n == 0]


def restore(
  workdir: str,
  abstract: Any,
  *,
  step: int | None = None,
  set_aside: bool = False,
  partial: bool = False,
) -> Any:
  """The newest whole state, or that after `step`, with the shapes and shardings of `abstract`.

  A damaged checkpoint is logged and skipped; with `set_aside` it moves to `<workdir>/damaged`, so
  that training can save that step again. With `partial`, fields that are None are not read.

  Raises:
    ConfigError: there is none, all are damaged, or the newest whole one is of another network.
    ReadError: the disk fails: a run must not go on from an older checkpoint then.
  """
  if any(a.sharding is None for a in jax.tree.leaves(abstract)):
    raise ValueError("abstract: has no shardings; pass those of `Experiment.abstract_state()`.")
  saved, damaged = steps(workdir), {}
  if not saved:
    fix = f"no checkpoint in {folder(workdir)}; train first, or pass another --workdir."
    raise FieldError("workdir", workdir, fix)
  if step is not None and step not in saved:
    there = f"{folder(workdir)}; there are {', '.join(map(str, saved))}"
    raise FieldError("--step", step, f"no checkpoint of it in {there}.")
  for tried in reversed(saved) if step is None else [step]:
    path = folder(workdir) / str(tried)
    state, why = _load(path, abstract, partial)
    if not why:
      break
    logging.error("%s is damaged: %s.", path, why)
    damaged[path] = why
  else:
    newest, why = next(iter(damaged.items()))
    which = "every checkpoint" if step is None else f"the checkpoint of --step={step}"
    fix = "restore it from a copy, or pass another --workdir or --step."
    raise FieldError("workdir", workdir, f"{which} is damaged ({newest}: {why}); {fix}")
  aside = pathlib.Path(workdir).absolute() / "damaged"
  for path in damaged if set_aside and jax.process_index() == 0 else ():
    aside.mkdir(exist_ok=True)
    target = atomic.free(aside / path.name)
    path.rename(target)
    logging.error("%s is kept as %s; training goes on from before it.", path, target)
  return state


def manifest(workdir: str, step: int | None = None) -> Mapping[str, Any] | None:
  """The manifest of `step`'s checkpoint, or of the newest that has a whole one."""
  for saved in reversed(steps(workdir)) if step is None else [step]:
    with contextlib.suppress(Exception):  # a damaged file may raise anything
      return _read_manifest(folder(workdir) / str(saved))
  return None


def _load(path: pathlib.Path, abstract: Any, partial: bool) -> tuple[Any, str]:
  """The state and "", or None and the damage, the same in all processes; raises as `restore`."""

  def read() -> Any:
    wanted, context = abstract, ocp.Context()
    if partial:
      wanted = {field: tree for field, tree in vars(abstract).items() if tree is not None}
      context.pytree.loading.partial_load = True
    with context:
      state = ocp.load(path, wanted, checkpointable_name="state")
    state = abstract.replace(**state) if partial else state
    manifest_lib.check_arrays(manifest, state)
    return state

  # `read` waits for all processes: either all call it or none.
  manifest, why = _agreed(path, lambda: _read_manifest(path))
  if why:
    return None, why
  _refuse_another(path, manifest, abstract, partial)  # no damage
  for name, now in manifest_lib.versions().items():  # later steps may differ in rounding
    if manifest[name] != now:
      logging.warning("%s was saved by %s %s; this is %s.", path, name, manifest[name], now)
  state, why = _agreed(path, read)
  if not why:
    logging.info("Restored %s", path)
  return state, why


def _agreed(path: pathlib.Path, read: Callable[[], Any]) -> tuple[Any, str]:
  """The result of `read` and "", or None and its damage in any process; one process tries twice."""
  found, why, disk = None, "", ""
  for _ in range(1 if jax.process_count() > 1 else 2):
    try:
      found, why = read(), ""
      break
    except Exception as error:  # a damaged file may raise anything
      why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
      memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in why
      disk = why if memory else _disk_error(path)
    if disk:
      break
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(np.array([bool(why), bool(disk)])).reshape(-1, 2)
    elsewhere = ["in another process" if any_failed else "" for any_failed in failed.any(axis=0)]
    why, disk = why or elsewhere[0], disk or elsewhere[1]
  if disk:
    fix = "the same command goes on once that is fixed, or from before once this is moved away"
    raise ReadError(f"{path} could not be read: {disk}. Nothing was changed; {fix}.")
  return (None if why else found), why


def _disk_error(path: pathlib.Path) -> str:
  """The system's error for a file below `path`, which Orbax takes for damage or ignores, or ""."""

  def fail(error: OSError) -> None:
    raise error

  try:
    for where, _, names in os.walk(path, onerror=fail):
      for name in names:
        with (pathlib.Path(where) / name).open("rb") as file:
          while file.read(1 << 24):
            pass
  except FileNotFoundError:
    return ""
  except OSError as error:
    return f"{error.filename or where}: {error.strerror}"
  return ""


def _read_manifest(path: pathlib.Path) -> Mapping[str, Any]:
  """The manifest of one checkpoint; a damaged file may raise anything."""
  manifest = ocp.metadata(path, checkpointable_name="state").custom_metadata or {}
  manifest_lib.check(manifest, int(path.name))
  return manifest


def _refuse_another(path: pathlib.Path, manifest: Any, abstract: Any, partial: bool) -> None:
  """Refuses a checkpoint with other names or shapes, before any array is read."""
  wanted = manifest_lib.shapes_of(abstract)
  trees = set(map(_tree, wanted))
  arrays = {name: shape for name, (shape, *_) in manifest["arrays"].items()}
  saved = {n: shape for n, shape in arrays.items() if not partial or _tree(n) in trees}
  for name in [*wanted, *saved]:
    there, here = saved.get(name, "absent"), wanted.get(name, "absent")
    if there != here:
      found = f"{path} holds another network or optimizer: {name} is {there}, {here} in this config"
      raise ConfigError(f"{found}; pass another --workdir or its config.")


def _tree(name: str) -> str:
  """The tree of a state that an array belongs to, such as "params" or "ema/0.999"."""
  return "/".join(name.split("/")[: 2 if name.startswith("ema/") else 1])
