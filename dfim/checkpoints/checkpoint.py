"""Checkpoints: the whole `TrainState`, saved in the background, atomically, by Orbax.

Each carries a manifest, see `manifest`, and is not believed before its checksums agree. The only
file that knows Orbax (its v1 interface, still under `orbax.checkpoint.v1`).
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import copy
import os
import pathlib
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np
from orbax.checkpoint import v1 as ocp
import orbax.checkpoint.utils
import tensorstore

from dfim.checkpoints import manifest as manifest_lib
from dfim.config.resolve import ConfigError
from dfim.io import atomic
from dfim.training import nonfinite
from dfim.training import preemption


def _leak_less(to_json: Callable[..., Any]) -> Callable[..., Any]:
  """`tensorstore.KvStore.Spec.to_json`, which keeps the answer to what it was asked last.

  TensorStore, to 0.1.86 at least, never frees the strings and numbers that it turns from JSON into
  Python. Orbax asks for the folder's specification once for each array: 60 KB a save.
  """
  last = {}

  def kept(spec: tensorstore.KvStore.Spec, *args: Any, **kwargs: Any) -> Any:
    question = repr((spec, args, kwargs))
    answer = last.get(question)
    if answer is None:  # threads may ask at once
      answer = to_json(spec, *args, **kwargs)
      last.clear()
      last[question] = answer
    return copy.deepcopy(answer)

  return kept


tensorstore.KvStore.Spec.to_json = _leak_less(tensorstore.KvStore.Spec.to_json)
# Two times a save, for a line of Orbax's log, and never freed either: 10 KB.
tensorstore.experimental_collect_matching_metrics = lambda *args, **kwargs: []
# JAX lets all processes stop one step after the last that any has asked about. Orbax asks about the
# step that it writes, which lies behind: a signal then would name a step that is over.
orbax.checkpoint.utils.reached_preemption = lambda step: False


class SaveError(RuntimeError):
  """A checkpoint could not be written; those before it are whole."""


class ReadError(RuntimeError):
  """A disk did not give what is on it; nothing is known of the checkpoint."""


class Checkpoints:
  """The folder `<workdir>/checkpoints/<step>`; a context manager, so that saves are finished."""

  LATER = nonfinite.Guard.AHEAD  # steps: as far as the host runs ahead of the devices

  def __init__(
    self,
    workdir: str,
    config: ml_collections.ConfigDict,
    data: Mapping[str, Any] | None = None,
  ):
    """As often, and as many, as `config` says; it goes into every manifest, and `data` too.

    Milestones of a run that kept them stay, whatever `config.keep_every` is now.
    """
    self._config, self._data = config.to_dict(), data
    self._taken = None  # a copy that is not being written yet: step, state, checksums, `pending`
    self._writing = None  # the save in the background, and its step
    self._context = ocp.Context()
    saving = self._context.array.saving
    saving.use_compression = False  # weights hardly shrink, and it takes cores
    saving.enable_write_sharding_file = False  # `restore` brings a layout of its own
    policies = ocp.training.preservation_policies
    kept = [policies.LatestN(config.keep_checkpoints), policies.CustomSteps(_milestones(workdir))]
    if config.keep_every:
      kept.append(policies.EveryNSteps(config.keep_every))
    self._manager = ocp.training.Checkpointer(
      folder(workdir),
      preservation_policy=policies.AnyPreservationPolicy(kept),
      cleanup_tmp_directories=True,  # what a killed save left behind
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: Any, *error: Any) -> None:
    in_all = kind is None or issubclass(kind, preemption.PreemptedError | nonfinite.NonFiniteError)
    if jax.process_count() > 1 and not in_all:
      return  # the other processes are in a step, and not where a save would wait for them
    try:
      self._write()
      self._finish()
    except SaveError:
      if kind is None:  # else what is on its way says more
        raise
    finally:
      with contextlib.suppress(Exception):  # raises the background's error once more
        self._manager.close()

  def save(self, step: int, state: Any, *, force: bool = False, pending: bool = False) -> None:
    """Copies `state` to the host if a save is due; to be called after every step.

    The copy is written by the call `LATER` steps on, in the background: the devices have work for
    as long as Orbax takes to begin. `force` saves this state, and begins to write it at once.
    `pending` is kept in the manifest: what was due after `step` is still to be done. That may take
    long, so such a state is written at once too.

    Raises:
      SaveError: this save, or one before it, has failed.
    """
    if self._writing and not self._manager.is_saving_in_progress():
      self._finish()
    due = force or step % self._config["checkpoint_every"] == 0
    if self._taken and (due or step >= self._taken[0] + self.LATER):
      self._write()
    if due:
      self._taken = (step, _on_host(state), manifest_lib.checksums(state), pending)
      if force or pending:
        self._write()

  def _write(self) -> None:
    """Begins to write what was taken; waits only for the save before it."""
    if self._taken:
      self._finish()
      (step, state, sums, pending), self._taken = self._taken, None
      said = dict(data=self._data, pending=pending)
      manifest = manifest_lib.make(step, state, sums, self._config, **said)
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
  """A copy in the host's memory, laid out as `state`, whose own may then be used again."""
  places = jax.tree.map(lambda a: a.sharding.with_memory_kind("pinned_host"), state)
  return jax.device_put(state, places, may_alias=False)


@contextlib.contextmanager
def _save_errors(step: int) -> Iterator[None]:
  try:
    yield
  except Exception as error:  # of the file system, through any of the libraries below Orbax
    cause = " ".join(str(error).split())[:300]
    raise SaveError(f"the checkpoint of step {step} could not be written: {cause}") from error


def folder(workdir: str) -> pathlib.Path:
  """Where the checkpoints of `workdir` lie."""
  return pathlib.Path(workdir).absolute() / "checkpoints"


def steps(workdir: str) -> list[int]:
  """The steps that were saved, ascending; a save that was cut off has another name.

  Raises:
    ReadError: the disk fails.
  """
  try:
    names = [entry.name for entry in os.scandir(folder(workdir)) if entry.is_dir()]
  except (FileNotFoundError, NotADirectoryError):
    return []
  except OSError as error:
    raise ReadError(f"{folder(workdir)} could not be read: {error.strerror}.") from error
  return sorted(int(name) for name in names if name.isdigit())


def _milestones(workdir: str) -> list[int]:
  """The steps that were saved to stay, as their own manifests say."""
  found = []
  for step in steps(workdir):
    saved = (manifest(workdir, step) or {}).get("config", {})
    if saved.get("keep_every") and step % saved["keep_every"] == 0:
      found.append(step)
  return found


def restore(
  workdir: str, abstract: Any, *, step: int | None = None, set_aside: bool = False
) -> Any:
  """The newest whole state, or that after `step`, with the shapes and shardings of `abstract`.

  A damaged checkpoint is named and passed over; with `set_aside` it moves to `<workdir>/damaged`,
  so that training can save that step again.

  Raises:
    ConfigError: if there is none, if all are damaged, or if the newest whole one is another
      network's, naming the first difference.
    ReadError: the disk fails, which is no reason to go on without what is on it.
    ValueError: `abstract` has no shardings.
  """
  if any(a.sharding is None for a in jax.tree.leaves(abstract)):
    raise ValueError("abstract: has no shardings; pass those of `Experiment.abstract_state()`.")
  saved, damaged = steps(workdir), {}
  if not saved:
    raise ConfigError(
      f"workdir={workdir}: no checkpoint in {folder(workdir)}; train first, or pass another"
      " --workdir."
    )
  if step is not None and step not in saved:
    there = f"{folder(workdir)}; there are {', '.join(map(str, saved))}"
    raise ConfigError(f"--step={step}: no checkpoint of it in {there}.")
  for tried in reversed(saved) if step is None else [step]:
    path = folder(workdir) / str(tried)
    state, why = _load(path, abstract)
    if not why:
      break
    logging.error("%s is damaged: %s.", path, why)
    damaged[path] = why
  else:
    newest, why = next(iter(damaged.items()))
    what, other = "what --step names is", "step"
    if step is None:
      what, other = "every checkpoint is", "workdir to start anew"
    raise ConfigError(
      f"workdir={workdir}: {what} damaged ({newest}: {why}); nothing was changed."
      f" Restore {folder(workdir)} from a copy, or pass another --{other}."
    )
  if set_aside and jax.process_index() == 0:
    for path in damaged:
      _move_aside(path, pathlib.Path(workdir).absolute() / "damaged")
  return state


def manifest(workdir: str, step: int | None = None) -> Mapping[str, Any] | None:
  """The manifest of `step`'s checkpoint, or of the newest that has a whole one."""
  for saved in reversed(steps(workdir)) if step is None else [step]:
    with contextlib.suppress(Exception):  # whatever a damaged file does to its reader
      return _read_manifest(folder(workdir) / str(saved))
  return None


def _load(path: pathlib.Path, abstract: Any) -> tuple[Any, str]:
  """The state, or None and why it cannot be believed; all processes agree on which.

  Raises:
    ConfigError: it is another network's.
    ReadError: the disk fails.
  """

  def read() -> Any:
    state = ocp.load(path, abstract, checkpointable_name="state")
    manifest_lib.check_arrays(manifest, state)
    return state

  # All processes go on to `read`, where they wait, or none does.
  manifest, why = _agreed(path, lambda: _read_manifest(path))
  if why:
    return None, why
  _refuse_another(path, manifest, abstract)  # an error of ours in these two is no damage
  _warn_of_other_code(path, manifest)
  state, why = _agreed(path, read)
  if not why:
    logging.info("Restored %s", path)
  return state, why


def _agreed(path: pathlib.Path, read: Callable[[], Any]) -> tuple[Any, str]:
  """What `read` gives, or None and why any process could not; one process tries it twice.

  Raises:
    ReadError: the disk fails, or memory does not suffice, neither of which is damage.
  """
  found, why, disk = None, "", ""
  for _ in range(1 if jax.process_count() > 1 else 2):
    try:
      found, why = read(), ""
      break
    except Exception as error:  # a damaged file may raise anything, in any of the libraries below
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
    raise ReadError(
      f"{path} could not be read: {disk}. Nothing was changed; once that is mended the same command"
      " goes on, and from the checkpoint before, if you move this one away."
    )
  return (None if why else found), why


def _disk_error(path: pathlib.Path) -> str:
  """What the system says where something below `path` is there and cannot be read.

  The libraries that read a checkpoint do not tell this from damage, or pass over it.
  """

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
  """Of one checkpoint; raises whatever a damaged file makes of it."""
  manifest = ocp.metadata(path, checkpointable_name="state").custom_metadata or {}
  manifest_lib.check(manifest, int(path.name))
  return manifest


def _refuse_another(path: pathlib.Path, manifest: Mapping[str, Any], abstract: Any) -> None:
  """Compares names and shapes before any array is read."""
  saved = {name: shape for name, (shape, *_) in manifest["arrays"].items()}
  wanted = manifest_lib.shapes_of(abstract)
  for name in [*wanted, *saved]:
    if saved.get(name) != wanted.get(name):
      raise ConfigError(
        f"{path} holds another network or optimizer: {name} is {saved.get(name, 'absent')}"
        f" there and {wanted.get(name, 'absent')} in this config; pass another --workdir or"
        " the config that it was trained with."
      )


def _warn_of_other_code(path: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """What is saved restores whole under another version; what follows may differ in rounding."""
  for what, now in manifest_lib.versions().items():
    if manifest[what] != now:
      logging.warning("%s was saved by %s %s; this is %s.", path, what, manifest[what], now)


def _move_aside(path: pathlib.Path, where: pathlib.Path) -> None:
  """Into `where`, under a name that is free."""
  where.mkdir(exist_ok=True)
  target = atomic.free(where / path.name)
  path.rename(target)
  logging.error("%s is kept as %s; training goes on from before it.", path, target)
