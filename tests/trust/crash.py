"""Saves six checkpoints and is killed at every file operation in turn; `test_crashes` starts it.

A process that has imported everything and started nothing forks one child for each point, so that
a hundred of them take minutes. Prints a line a point: the step that is restored after it, and the
last step whose save had ended before it.
"""

import functools
import itertools
import json
import os
import pathlib
import signal
import sys
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint  # noqa: F401  so that a child need not

from dfim.checkpoints import checkpoint

STEPS, KEEP = 6, 2
OPERATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree"}
CONFIG = ml_collections.ConfigDict(dict(checkpoint_every=1, keep_checkpoints=KEEP, keep_every=0))


def state_of(step: int) -> dict[str, jax.Array]:
  return dict(x=jnp.full((64, 8), step, jnp.float32))


def save_all(workdir: pathlib.Path) -> None:
  """Saves the steps from 1 on, and notes which have ended."""
  for step in range(1, STEPS + 1):
    with checkpoint.Checkpoints(str(workdir), CONFIG) as checkpoints:
      checkpoints.save(step, state_of(step), force=True)
    with (workdir / "ended").open("a") as file:
      file.write(f"{step}\n")


def die_at(point: int) -> None:
  """Lets this process be killed right before a file operation, counted from 0.

  Audit hooks see every operation of Python's, also those that a library has kept a reference to.
  """
  count = itertools.count()

  def hook(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event in OPERATIONS) and next(count) == point:
      os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)


def restore(workdir: pathlib.Path) -> None:
  """Restores what can be restored, checks that saving goes on from there, prints the line."""
  ended = (workdir / "ended").read_text().split() if (workdir / "ended").exists() else ["0"]
  restored = 0
  if checkpoint.steps(str(workdir)):
    abstract = jax.eval_shape(lambda: state_of(0))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place)
    abstract = jax.tree.map(placed, abstract)
    x = checkpoint.restore(str(workdir), abstract)["x"]
    restored = int(x[0, 0])
    assert bool((x == restored).all())
  with checkpoint.Checkpoints(str(workdir), CONFIG) as checkpoints:
    checkpoints.save(STEPS + 1, state_of(STEPS + 1), force=True)
  assert checkpoint.steps(str(workdir))[-1] == STEPS + 1
  left = sorted(p.name for p in (workdir / "checkpoints").iterdir())
  print(json.dumps(dict(restored=restored, ended=int(ended[-1]), left=left)), flush=True)


def child(work) -> int:
  """Runs `work` in a fork of this process; its exit status."""
  if pid := os.fork():
    return os.waitpid(pid, 0)[1]
  try:
    work()
    os._exit(0)
  except BaseException:
    traceback.print_exc()
    os._exit(1)


def main(folder: str, first: int, stride: int) -> None:
  """Points first, first + stride, ... until a child is not killed any more."""
  point, status = first, signal.SIGKILL
  while status == signal.SIGKILL:
    workdir = pathlib.Path(folder) / str(point)
    workdir.mkdir()

    def saves(point=point, workdir=workdir):
      die_at(point)
      save_all(workdir)

    status = child(saves)
    assert status in (0, signal.SIGKILL), f"point {point} ended with {status}"
    assert child(functools.partial(restore, workdir)) == 0, f"point {point}: nothing to restore"
    point += stride


if __name__ == "__main__":
  main(sys.argv[1], *map(int, sys.argv[2:]))
