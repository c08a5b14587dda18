"""A run's folder: its config, its data, and a lock against a second trainer."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import fcntl
import json
import pathlib
import socket
from typing import Any

from absl import logging
import jax
import ml_collections

from dfim.checkpoints import checkpoint
from dfim.config import moved
from dfim.config.errors import ConfigError, FieldError
from dfim.data import identity
from dfim.io import atomic

# Fields that may not change within a run; steps, accumulate, logging, evaluators ... may.
FIXED = "seed batch_size data model objective optimizer ema refresh_every".split()
# Fields below them that may: where the data are, how they are read, how the network is computed.
FREE = """data.path data.data_dir data.shape data.workers data.threads data.augment.threads
  model.remat model.time_precision""".split()


def check(workdir: str, config: ml_collections.ConfigDict, fields: Sequence[str] = FIXED) -> None:
  """Refuses a URL, a file, and the folder of a run that differs in `fields`, except in `FREE`.

  The error names the first field that differs, and the field that it follows, if any.
  """
  if "://" in workdir:
    raise FieldError("workdir", workdir, "give a folder; mount a bucket as in launch/README.md.")
  if pathlib.Path(workdir).is_file():
    raise FieldError("workdir", workdir, "is a file; pass the path of a folder.")
  if not checkpoint.steps(workdir):
    return
  saved, given = _flat(load(workdir)), _flat(json.loads(json.dumps(config.to_dict())))
  fixed = lambda name: name.split(".")[0] in fields and name not in FREE
  for field in filter(fixed, (*saved, *given)):
    if saved.get(field) != given.get(field):  # None equals absent
      before, now = saved.get(field, "absent"), given.get(field, "absent")
      others = (name for name in saved if not fixed(name))
      alike = (name for name in others if (saved[name], given.get(name)) == (before, now))
      why = next((f" (it follows {name})" for name in alike), "")
      steps, wanted = saved.get("steps"), given.get("steps")
      if not why and steps != wanted:  # a schedule's length may follow the steps
        why = f" (steps={steps} there and {wanted} here, which it may follow)"
      fix = f"holds a run with {field}={before!r}, and this config has {now!r}{why}"
      fix += ": pass another --workdir, or the old value (docs/getting_started.md, Train on)."
      raise FieldError("workdir", workdir, fix)


def check_data(workdir: str, found: Mapping[str, Any], *, accept: bool = False) -> None:
  """Refuses other data than the run was trained on, if that is known; `accept` only warns."""
  manifest = checkpoint.manifest(workdir)
  if manifest is None or manifest.get("data") == found:
    return
  before = manifest.get("data")
  if before is None:
    logging.info("%s does not say which data it was trained on; this run notes them.", workdir)
    return
  was, now = identity.describe(before), identity.describe(found)
  line = f"workdir={workdir}: the run was trained on {was}, and data gives {now}"
  if not accept:
    raise ConfigError(f"{line}; restore the former data, or pass --new_data to go on with these.")
  logging.warning("%s, which --new_data accepts.", line)


def write_config(workdir: str, config: ml_collections.ConfigDict) -> None:
  """Writes `config.json` into the folder, in the first process."""
  if jax.process_index() == 0:
    atomic.replace_json(pathlib.Path(workdir) / "config.json", config.to_dict())


@contextlib.contextmanager
def lock(workdir: str) -> Iterator[None]:
  """Locks the folder, made if needed, against a second trainer, in the first process.

  The lock ends with this process, but on a network's disk it may outlive a machine that was taken
  away: a lock of another machine only warns.
  """
  if jax.process_index() != 0:
    yield
    return
  pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
  with (pathlib.Path(workdir) / "lock").open("a+") as file:
    try:
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      file.truncate(0)
      print(socket.gethostname(), file=file, flush=True)
    except (BlockingIOError, PermissionError) as error:  # depends on the system
      file.seek(0)
      where = file.read().strip()
      if where == socket.gethostname():
        fix = "a process trains there; let it end, or pass another --workdir."
        raise FieldError("workdir", workdir, fix) from error
      logging.warning("%s is locked from %s; two trainers would spoil it.", workdir, where)
    except OSError as error:
      logging.warning("%s: no lock against a second trainer: %s.", workdir, error.strerror)
    yield


def load(workdir: str) -> dict[str, Any]:
  """The config of a folder's run, from `config.json` or the newest checkpoint."""
  path = pathlib.Path(workdir) / "config.json"
  try:
    return moved.translated(json.loads(path.read_text()))
  except (FileNotFoundError, NotADirectoryError, ValueError):
    if manifest := checkpoint.manifest(workdir):
      return moved.translated(manifest["config"])
  except OSError as error:
    raise checkpoint.ReadError(f"{path} could not be read: {error.strerror}.") from error
  raise FieldError("workdir", workdir, "no config.json there; train first, or pass --config.")


def load_config(workdir: str) -> ml_collections.ConfigDict:
  """`load`, as a config: JSON has lists where a config has tuples."""

  def tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {key: tuples(each) for key, each in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  return ml_collections.ConfigDict(tuples(load(workdir)))


def _flat(tree: object, prefix: str = "") -> dict[str, object]:
  """The leaves of nested dicts by their paths, joined by dots."""
  if not isinstance(tree, dict):
    return {prefix: tree}
  pairs = [_flat(v, f"{prefix}.{k}" if prefix else k) for k, v in tree.items()]
  return {k: v for pair in pairs for k, v in pair.items()}
