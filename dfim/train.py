"""The training loop: one for every objective."""

from collections.abc import Callable
import functools
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import optax

from dfim import checkpoint
from dfim import evaluate
from dfim import experiment as experiment_lib
from dfim import progress
from dfim import sample
from dfim import sharding
from dfim import train_state
from dfim import workdir as workdir_lib
from dfim import writer as writer_lib

Array = jax.Array


def make_step(
  apply: Callable[..., Array],
  loss: Callable[..., tuple[Array, dict[str, Array]]],
  tx: optax.GradientTransformation,
  *,
  refresh_every: int = 1,
  reach: Callable[[Array], Array] | float = 1.0,
  accumulate: int = 1,
  places: Any = None,
) -> Callable[..., tuple[train_state.TrainState, dict[str, Array]]]:
  """Builds `step(state, batch, root) -> (state, metrics)`, compiled once; donates the state.

  Args:
    apply: the network's `apply`.
    loss: an objective with its hyper-parameters bound, as `resolve` returns it.
    tx: the optimizer.
    refresh_every: steps between copies of the weights into `frozen`.
    reach: the greatest t - s of `times.sample`, or a schedule of it by step. IMM uses 1.
    accumulate: micro-batches whose gradients make one step, see `accumulated`.
    places: the state's shardings, kept from step to step; None leaves them to the compiler.
  """
  train_apply = functools.partial(apply, train=True)
  group_size = getattr(loss, "keywords", {}).get("group_size", 1)

  @functools.partial(jax.jit, donate_argnames="state", out_shardings=(places, None))
  def step(state: train_state.TrainState, batch: dict[str, Any], root: Array):
    objective = _reaching(loss, reach(state.seen) if callable(reach) else reach)
    frozen = state.params if state.frozen is None else state.frozen
    key = jax.random.fold_in(root, state.seen)
    gradient = jax.value_and_grad(functools.partial(objective, train_apply), has_aux=True)
    of_part = lambda part, key: gradient(state.params, frozen, part, key)
    (value, metrics), grads = accumulated(of_part, batch, key, accumulate, group_size)
    norm = optax.global_norm(grads)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    state = train_state.advance(state, grads, finite, tx=tx, refresh_every=refresh_every)
    return state, {**metrics, "grad_norm": norm, "skipped": state.skipped}

  return step


def accumulated(
  gradient: Callable[[dict[str, Any], Array], tuple[Any, Any]],
  batch: dict[str, Any],
  key: Array,
  count: int,
  group_size: int,
) -> tuple[Any, Any]:
  """`gradient(batch, key)`, or its mean over `count` micro-batches, taken one after another.

  Each draws its times and noise from a key of its own, so `count` changes the draws, not their law;
  and where an objective averages over what moves, each micro-batch counts alike. Sums are in
  float32 at least. An accelerator holds one micro-batch's activations at a time; a CPU, all.
  """
  if count == 1:
    return gradient(batch, key)
  parts = sharding.micro_batches(batch, count, group_size)
  like = jax.eval_shape(gradient, jax.tree.map(lambda a: a[0], parts), key)

  def add(total: Any, numbered: tuple[Array, dict[str, Any]]) -> tuple[Any, None]:
    n, part = numbered
    return jax.tree.map(jnp.add, total, gradient(part, jax.random.fold_in(key, n))), None

  zero = lambda a: jnp.zeros(a.shape, jnp.promote_types(a.dtype, jnp.float32))
  # No loop on a CPU, where it slows the gradient of a convolution: a small U-Net takes 0.6 s a step
  # without micro-batches or with four unrolled, 8.5 s with four in a loop.
  unroll = count if jax.default_backend() == "cpu" else 1
  start = jax.tree.map(zero, like), (jnp.arange(count), parts)
  total, _ = jax.lax.scan(add, *start, unroll=unroll)
  return jax.tree.map(lambda a, like: (a / count).astype(like.dtype), total, like)


def _reaching(loss: Callable[..., Any], reach: Array | float) -> Callable[..., Any]:
  """The objective whose times are at most `reach` apart."""
  if isinstance(reach, float) and reach >= 1.0:
    return loss
  times = functools.partial(loss.keywords["sample_times"], reach=reach)
  return functools.partial(loss, sample_times=times)


def train(
  config: ml_collections.ConfigDict, workdir: str, *, devices: Any = None
) -> train_state.TrainState:
  """Trains what `config` describes, on from where `workdir` stands; returns the last state.

  The same call again resumes, bit for bit, also after a kill. Uses all devices, or those given.

  Raises:
    ConfigError: before anything is compiled or written.
    FloatingPointError: if every step between two log lines had to be skipped.
  """
  experiment = experiment_lib.build(config, devices=devices)
  config = experiment.config
  draw, evaluators = sample.make_draw(experiment), evaluate.build(config)
  workdir_lib.check(workdir, config)
  state = start_state(experiment, workdir)
  seen = int(state.seen)
  step = step_of(experiment)
  root = jax.random.fold_in(jax.random.key(config.seed), 1)
  batches = experiment.batches(seen)
  workdir_lib.claim(workdir, config)
  with (
    writer_lib.Writer(workdir, seen, active=jax.process_index() == 0) as writer,
    checkpoint.Checkpoints(
      workdir, every=config.checkpoint_every, keep=config.keep_checkpoints
    ) as checkpoints,
  ):
    report = make_report(
      writer,
      progress.Progress(seen, config.steps, config.batch_size),
      steps=seen,
      skipped=int(state.skipped),
    )
    for n in range(seen + 1, config.steps + 1):
      state, metrics = step(state, next(batches), root)
      if is_due(n, config.log_every, config.steps):
        report(n, jax.device_get(metrics))
      if is_due(n, config.sample_every, config.steps):
        drawn = sample.draw_each(experiment, draw, state)
        writer.image(n, "samples", sample.sheet(experiment, drawn))
      if evaluators and is_due(n, config.eval_every, config.steps):
        writer.scalars(n, evaluate.flat(evaluate.run(evaluators, draw, state, workdir)))
      checkpoints.save(n, state, force=n == config.steps)  # last: what a kill cut off is done again
  logging.info("Done: %s/samples/%d.png", workdir, config.steps)
  return state


def step_of(
  experiment: experiment_lib.Experiment,
) -> Callable[..., tuple[train_state.TrainState, dict[str, Array]]]:
  """`make_step` with all that the experiment says."""
  return make_step(
    experiment.apply,
    experiment.loss,
    experiment.tx,
    refresh_every=experiment.config.refresh_every,
    reach=experiment.reach,
    accumulate=experiment.config.accumulate,
    places=experiment.places(),
  )


def start_state(experiment: experiment_lib.Experiment, workdir: str) -> train_state.TrainState:
  """The newest checkpoint's state, or the one of step 0, laid out on the mesh."""
  if checkpoint.steps(workdir):
    return checkpoint.restore(workdir, experiment.abstract_state())
  return experiment.first_state()


def is_due(n: int, every: int, last: int) -> bool:
  """Whether step n is a multiple of `every`, or the last; `every=0` is the last alone."""
  return n == last or (every > 0 and n % every == 0)


def make_report(
  writer: writer_lib.Writer, line: progress.Progress, *, steps: int, skipped: int
) -> Callable[[int, dict[str, Any]], None]:
  """Builds `report(step, metrics)`: the progress line, and the metrics in the writer.

  `steps` and `skipped` are where the run stands.
  """

  def report(n: int, metrics: dict[str, Any]) -> None:
    nonlocal skipped, steps
    new, skipped = int(metrics["skipped"]) - skipped, int(metrics["skipped"])
    text, rates = line.line(n, float(metrics["loss"]))
    logging.info("%s%s", text, f"  skipped {new} not finite" if new else "")
    writer.scalars(n, {**metrics, **rates})
    if new and new == n - steps:
      raise FloatingPointError(f"step {n}: loss or gradient not finite in {new} steps running.")
    steps = n

  return report
