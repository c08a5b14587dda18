"""The training loop: one for every objective."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import itertools
import pathlib
from typing import Any, NamedTuple

from absl import logging
import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np

from dfim import evaluate, parallel, sample
from dfim.checkpoints import checkpoint, workdir as workdir_lib
from dfim.data import examples as examples_lib
from dfim.training import experiment as experiment_lib, monitor, nonfinite, preemption, replay
from dfim.training.state import TrainState
from dfim.training.step import make_step
from dfim.training.writer import Writer


def train(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  devices: Any = None,
  profile: tuple[int, int] | None = None,
  new_data: bool = False,
) -> TrainState:
  """Trains by `config` from the newest checkpoint of `workdir`, if any; returns the last state.

  The same call again resumes, bit for bit, also after a kill. `profile` are the first and the last
  step to profile. `new_data` accepts other data than those that the run was trained on.

  Raises:
    ConfigError: before anything is compiled or written.
    NonFiniteError: after ten failed steps in a row, or if all have failed; names a replay bundle.
    PreemptedError: a signal asked to stop; all is saved.
    SaveError, ReadError: a checkpoint could not be written, or read.
  """
  with _open(config, workdir, devices, profile, new_data) as run:
    experiment, config, state = run.experiment, run.experiment.config, run.state
    seen, last, skipped = int(state.seen), config.steps, state.skipped
    step, root, batches = step_of(experiment), experiment.root(), experiment.batches(seen)
    guard = nonfinite.Guard(int(skipped), int(state.step))
    for n in range(seen + 1, last + 1):
      run.profile(n, state)
      with run.progress.waiting("data", busy=skipped):
        batch = next(batches)
      state, metrics = step(state, batch, root)
      skipped = metrics["skipped"]
      if n == seen + 1:  # compiled
        jax.block_until_ready(state)
        run.progress.start(n)
      if guard.failed(skipped, last=n == last):
        raise replay.failure(experiment, workdir, n, state, batch, guard.running)
      if is_due(n, config.log_every, last):
        run.log(n, jax.device_get(metrics))
      stop, due = run.notice.reached(n), run.evaluation.due(n)
      with run.progress.waiting("saving", busy=skipped):  # before evaluation, which may take long
        run.checkpoints.save(n, state, force=stop or n == last, pending=stop or any(due))
      if stop:
        raise preemption.PreemptedError(f"stopped by a signal after step {n}, and saved.")
      run.evaluation.run(n, state, run.writer, due)
  if guard.running:
    logging.warning("The last %d steps were skipped: not finite.", guard.running)
  if seen > last:
    logging.warning("The run is at step %d, beyond config.steps=%d; nothing to do.", seen, last)
  logging.info("Done: %s/samples/%d.png", workdir, max(seen, last))
  return state


class _Run(NamedTuple):
  experiment: experiment_lib.Experiment
  state: TrainState
  notice: preemption.Notice
  checkpoints: checkpoint.Checkpoints
  progress: monitor.Progress
  writer: Writer
  profile: Callable[[int, TrainState], None]
  log: Callable[[int, dict[str, jax.Array]], None]
  evaluation: "Evaluation"


@contextlib.contextmanager
def _open(
  config: ml_collections.ConfigDict, workdir: str, devices: Any, profile: Any, new_data: bool
) -> Iterator[_Run]:
  with contextlib.ExitStack() as stack:
    compilations = stack.enter_context(monitor.Compilations())
    notice = stack.enter_context(preemption.watch())
    experiment = experiment_lib.build(config, devices=devices)
    config = experiment.config
    monitor.check_window(profile, config.steps)
    evaluation = Evaluation(experiment, workdir)
    workdir_lib.check(workdir, config)
    data = experiment.data_identity()
    workdir_lib.check_data(workdir, data, accept=new_data)
    stack.enter_context(workdir_lib.lock(workdir))  # before a damaged checkpoint is set aside
    state, pending = start_state(experiment, workdir)
    seen, first_process = int(state.seen), jax.process_index() == 0
    progress = monitor.Progress(config, int(state.skipped))
    writer = stack.enter_context(Writer(workdir, seen, active=first_process))
    checkpoints = stack.enter_context(checkpoint.Checkpoints(workdir, config, data))
    profiler = stack.enter_context(monitor.Profile(workdir, profile, seen))
    workdir_lib.write_config(workdir, config)
    examples_lib.write(workdir, experiment.examples, experiment.sampler.count)
    log = monitor.make_log(experiment, writer, progress, compilations)
    if notice.early(seen):
      raise preemption.PreemptedError(f"stopped by a signal before step {seen + 1}.")
    size = sum(a.size for a in jax.tree.leaves(state.params)) / 1e6
    machine = f"{experiment.mesh.size} x {experiment.mesh.local_devices[0].device_kind}"
    text = "%s: %.3g million parameters, %s, from step %d; the first step is slow, it compiles."
    logging.info(text, workdir, size, machine, seen)
    if experiment.mesh.size > 1:
      logging.info("%s.", parallel.describe_state(experiment.abstract_state(), experiment.mesh))
    if pending:
      evaluation.run(seen, state, writer, evaluation.overdue(seen))
    hooks = progress, writer, profiler.before, log, evaluation
    yield _Run(experiment, state, notice, checkpoints, *hooks)


def step_of(
  experiment: experiment_lib.Experiment,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """The training step of an experiment, see `make_step`."""
  config, parts = experiment.config, (experiment.apply, experiment.loss, experiment.tx)
  options = dict(refresh_every=config.refresh_every, accumulate=config.accumulate)
  return make_step(*parts, **options, shardings=experiment.shardings())


def start_state(experiment: experiment_lib.Experiment, workdir: str) -> tuple[TrainState, bool]:
  """The newest checkpoint's state, or that of step 0; whether samples or scores are pending."""
  if not checkpoint.steps(workdir):
    return experiment.first_state(), False
  state = checkpoint.restore(workdir, experiment.abstract_state(), set_aside=True)
  return state, checkpoint.manifest(workdir, int(state.seen))["pending"]


def is_due(n: int, every: int, last: int) -> bool:
  """Whether step n is a multiple of `every`, or the last; `every=0` is the last alone."""
  return n == last or (every > 0 and n % every == 0)


class Evaluation:
  """The samples and scores of a run, each with steps of its own."""

  def __init__(self, experiment: experiment_lib.Experiment, workdir: str):
    self._experiment, self._workdir = experiment, workdir
    self._draw = sample.make_draw(experiment)
    self._evaluators = evaluate.build(experiment)

  def due(self, n: int) -> tuple[bool, bool]:
    """Whether samples are due after step n, and whether scores are."""
    config = self._experiment.config
    scores = bool(config.evaluators) and is_due(n, config.eval_every, config.steps)
    return is_due(n, config.sample_every, config.steps), scores

  def overdue(self, n: int) -> list[bool]:
    """`due(n)` without samples and scores that exist, as the first process sees it."""
    drawn = (pathlib.Path(self._workdir) / "samples" / f"{n}.png").exists()
    scored = evaluate.is_complete(evaluate.path_of(self._workdir, n), self._evaluators)
    done = multihost_utils.broadcast_one_to_all(np.array([drawn, scored]))
    return [due and not there for due, there in zip(self.due(n), done, strict=True)]

  def run(self, n: int, state: TrainState, writer: Writer, due: Sequence[bool]) -> None:
    """Draws and scores the state after step n, each if it is `due`.

    Failures are logged and training continues, except after the last step or with several
    processes, where they are raised.
    """
    errors, parts = [], dict(samples=self._draw_samples, scores=self._score)
    for name, make in itertools.compress(parts.items(), due):
      try:
        make(n, state, writer)
      except Exception as error:
        if jax.process_count() > 1:
          raise
        logging.exception("Not all %s after step %d were made.", name, n)
        errors.append(error)
    if errors and n == self._experiment.config.steps:
      raise errors[0]

  def _draw_samples(self, n: int, state: TrainState, writer: Writer) -> None:
    drawn = sample.draw_samples(self._experiment, self._draw, state)
    writer.image(n, "samples", sample.sample_grid(self._experiment, drawn))

  def _score(self, n: int, state: TrainState, writer: Writer) -> None:
    params, path = self._experiment.ema_params(state), evaluate.path_of(self._workdir, n)
    try:
      found = evaluate.run(self._evaluators, self._draw, params, path, n)
    except evaluate.ScoreError as error:  # the scores of the other evaluators are valid
      writer.scalars(n, evaluate.flat(error.found))
      raise
    writer.scalars(n, evaluate.flat(found))
