"""The training loop: one for every objective."""

from collections.abc import Callable
import contextlib
import functools
import pathlib
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np

from dfim import evaluate
from dfim import sample
from dfim.checkpoints import checkpoint
from dfim.checkpoints import workdir as workdir_lib
from dfim.config.resolve import ConfigError
from dfim.training import experiment as experiment_lib
from dfim.training import nonfinite
from dfim.training import preemption
from dfim.training import progress
from dfim.training import replay
from dfim.training import state as train_state
from dfim.training import step as step_lib
from dfim.training import telemetry
from dfim.training import writer as writer_lib
from dfim.training.step import make_step


def train(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  devices: Any = None,
  profile: tuple[int, int] | None = None,
  new_data: bool = False,
) -> train_state.TrainState:
  """Trains what `config` describes, on from where `workdir` stands; returns the last state.

  The same call again resumes, bit for bit, also after a kill. Uses all devices, or those given.
  `profile` are the first and the last step to profile. `new_data` accepts other data than those
  that the run was trained on.

  Raises:
    ConfigError: before anything is compiled or written.
    NonFiniteError: after ten failed steps running, or where every step of the run has failed; it
      names the bundle that replays the last.
    PreemptedError: a signal asked to stop; all is saved.
    SaveError: a checkpoint could not be written.
    ReadError: one could not be read.
  """
  with (
    telemetry.Compilations() as compilations,
    preemption.watch() as notice,
    contextlib.ExitStack() as alone,
  ):
    experiment = experiment_lib.build(config, devices=devices)
    config = experiment.config
    if profile and profile[1] > config.steps:
      raise ConfigError(
        f"--profile={profile[0]}:{profile[1]}: the run ends at config.steps={config.steps}; choose"
        " steps up to there."
      )
    shape = experiment.batch["x"].shape[1:]
    draw = sample.make_draw(experiment)
    evaluators = evaluate.build(config, shape, experiment.labels)
    workdir_lib.check(workdir, config)
    data = experiment.data_identity()
    workdir_lib.check_data(workdir, data, accept=new_data)
    alone.enter_context(workdir_lib.held(workdir))  # before a damaged checkpoint is set aside
    state, pending = start_state(experiment, workdir)
    seen = int(state.seen)
    step, root, batches = step_of(experiment), experiment.root(), experiment.batches(seen)
    failures = nonfinite.Guard(int(state.skipped), int(state.step))
    line = progress.Progress(config, int(state.skipped))
    with (
      writer_lib.Writer(workdir, seen, active=jax.process_index() == 0) as writer,
      checkpoint.Checkpoints(workdir, config, data) as checkpoints,
      telemetry.Profile(workdir, profile, seen) as profiler,
    ):
      workdir_lib.claim(workdir, config)
      report = make_report(experiment, writer, line, compilations)
      look = make_look(experiment, writer, draw, evaluators, workdir)
      if notice.early(seen):
        raise preemption.PreemptedError(f"stopped by a signal before step {seen + 1}.")
      logging.info(
        "%s: %.3g million parameters, %d x %s, from step %d; the first step is slow, it compiles.",
        workdir,
        sum(a.size for a in jax.tree.leaves(state.params)) / 1e6,
        experiment.mesh.size,
        experiment.mesh.local_devices[0].device_kind,
        seen,
      )
      if pending:
        look(seen, state, *still_due(config, workdir, seen))
      skipped = state.skipped
      for n in range(seen + 1, config.steps + 1):
        profiler.before(n, state)
        with line.spent("data", busy=skipped):
          batch = next(batches)
        state, metrics = step(state, batch, root)
        skipped = metrics["skipped"]
        if n == seen + 1:  # compiled
          jax.block_until_ready(state)
          line.start(n)
        if failures.failed(skipped, last=n == config.steps):
          raise _failed(experiment, workdir, n, state, batch, failures.running)
        if is_due(n, config.log_every, config.steps):
          report(n, jax.device_get(metrics))
        stop = notice.reached(n)
        due = looks(config, n)
        with line.spent("saving", busy=skipped):  # before samples and scores, which may take long
          checkpoints.save(n, state, force=stop or n == config.steps, pending=stop or any(due))
        if stop:
          raise preemption.PreemptedError(f"stopped by a signal after step {n}, and saved.")
        look(n, state, *due)
  logging.info("Done: %s/samples/%d.png", workdir, config.steps)
  return state


def step_of(
  experiment: experiment_lib.Experiment,
) -> Callable[..., tuple[train_state.TrainState, dict[str, jax.Array]]]:
  """`make_step` with all that the experiment says."""
  return make_step(
    experiment.apply,
    experiment.loss,
    experiment.tx,
    refresh_every=experiment.config.refresh_every,
    accumulate=experiment.config.accumulate,
    places=experiment.places(),
  )


def start_state(
  experiment: experiment_lib.Experiment, workdir: str
) -> tuple[train_state.TrainState, bool]:
  """The newest checkpoint's state or that of step 0, and whether its samples are still to draw."""
  if not checkpoint.steps(workdir):
    return experiment.first_state(), False
  state = checkpoint.restore(workdir, experiment.abstract_state(), set_aside=True)
  return state, checkpoint.manifest(workdir, int(state.seen))["pending"]


def is_due(n: int, every: int, last: int) -> bool:
  """Whether step n is a multiple of `every`, or the last; `every=0` is the last alone."""
  return n == last or (every > 0 and n % every == 0)


def looks(config: ml_collections.ConfigDict, n: int) -> tuple[bool, bool]:
  """Whether samples are due after step n, and whether scores are."""
  samples = is_due(n, config.sample_every, config.steps)
  return samples, bool(config.evaluators) and is_due(n, config.eval_every, config.steps)


def make_look(
  experiment: experiment_lib.Experiment,
  writer: writer_lib.Writer,
  draw: sample.Draw,
  evaluators: dict[str, evaluate.Evaluator],
  workdir: str,
) -> Callable[[int, train_state.TrainState, bool, bool], None]:
  """Builds `look(n, state, samples, scores)`: draws and scores the state after step n.

  Failures are logged and training continues, except after the last step, where the first is raised
  once both are done, and with several processes, which would wait for the one that failed.
  """

  def draw_samples(n: int, state: train_state.TrainState) -> None:
    writer.image(n, "samples", sample.sheet(experiment, sample.draw_each(experiment, draw, state)))

  def score(n: int, state: train_state.TrainState) -> None:
    params, path = experiment.ema_params(state), evaluate.path_of(workdir, n)
    try:
      found = evaluate.run(evaluators, draw, params, path, n)
    except evaluate.ScoreError as error:  # the others' scores are sound
      writer.scalars(n, evaluate.flat(error.found))
      raise
    writer.scalars(n, evaluate.flat(found))

  def look(n: int, state: train_state.TrainState, samples: bool, scores: bool) -> None:
    errors = []
    for due, what, make in ((samples, "samples", draw_samples), (scores, "scores", score)):
      try:
        if due:
          make(n, state)
      except Exception as error:
        if jax.process_count() > 1:
          raise
        logging.exception("Not all %s after step %d were made.", what, n)
        errors.append(error)
    if errors and n == experiment.config.steps:
      raise errors[0]

  return look


def still_due(config: ml_collections.ConfigDict, workdir: str, n: int) -> list[bool]:
  """What of `looks(config, n)` a run that ended there left undone, as the first process sees it."""
  drawn = (pathlib.Path(workdir) / "samples" / f"{n}.png").exists()
  scored = evaluate.is_complete(evaluate.path_of(workdir, n), config.evaluators)
  done = multihost_utils.broadcast_one_to_all(np.array([drawn, scored]))
  return [due and not there for due, there in zip(looks(config, n), done, strict=True)]


def make_report(
  experiment: experiment_lib.Experiment,
  writer: writer_lib.Writer,
  line: progress.Progress,
  compilations: telemetry.Compilations,
) -> Callable[[int, dict[str, Any]], None]:
  """Builds `report(step, metrics)`: the progress line, and all numbers in the writer."""
  device, count = experiment.mesh.local_devices[0], experiment.mesh.size
  flops = functools.cache(functools.partial(step_lib.flops, experiment))
  peak = telemetry.peak_flops(device)

  def report(n: int, metrics: dict[str, Any]) -> None:
    text, rates = line.line(n, metrics)
    if rates:
      rates["flops_per_second"] = flops() * rates["steps_per_second"]
      if peak:
        rates["share_of_peak"] = rates["flops_per_second"] / (peak * count)
        text += f"  {rates['share_of_peak']:.0%} of peak"
    logging.info("%s", text)
    machine = dict(memory_bytes=telemetry.memory(device), compilations=compilations.count)
    writer.scalars(n, {**metrics, **rates, **machine})

  return report


def _failed(
  experiment: experiment_lib.Experiment,
  workdir: str,
  n: int,
  state: train_state.TrainState,
  batch: dict[str, Any],
  running: int,
) -> nonfinite.NonFiniteError:
  """Says so, and how to see it again, if that can be written."""
  what = f"step {n}: loss, gradient or update not finite in {running} steps running."
  try:
    bundle = replay.write(experiment, workdir, n, state, batch)
  except (OSError, checkpoint.SaveError) as error:
    return nonfinite.NonFiniteError(f"{what} What replays the last could not be written: {error}")
  again = f"python -m dfim.main --mode=replay --workdir={bundle}"
  return nonfinite.NonFiniteError(f"{what} To see the last again: {again}")
