"""One step of training, for every objective: a pure function of the state, a batch and a key."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dfim import parallel
from dfim.config import schedules
from dfim.training import experiment as experiment_lib, state as train_state

Array = jax.Array
Loss = Callable[..., tuple[Array, dict[str, Array]]]
Gradient = Callable[[dict[str, Any], Array], tuple[Any, Any]]


def make_step(
  apply: Callable[..., Array],
  loss: Loss,
  tx: optax.GradientTransformation,
  *,
  refresh_every: int = 1,
  accumulate: int = 1,
  shardings: Any = None,
) -> Callable[..., tuple[train_state.TrainState, dict[str, Array]]]:
  """Builds `step(state, batch, root) -> (state, metrics)`, compiled once; donates the state.

  `loss` is an objective with its arguments bound; its schedules are evaluated at the number of
  batches seen. The weights are copied into `frozen` every `refresh_every` steps. `accumulate`
  micro-batches make one step. `shardings` are those of the state, or None for the compiler's.
  """
  gradient = make_gradient(apply, loss, accumulate=accumulate)

  @functools.partial(jax.jit, donate_argnames="state", out_shardings=(shardings, None))
  def step(state: train_state.TrainState, batch: dict[str, Any], root: Array):
    (value, metrics), grads = gradient(state, batch, root)
    norm = optax.global_norm(grads)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)  # `advance` checks the update
    new = train_state.advance(state, grads, finite, tx=tx, refresh_every=refresh_every)
    update = optax.global_norm(jax.tree.map(jnp.subtract, new.params, state.params))
    return new, {**metrics, "grad_norm": norm, "update_norm": update, "skipped": new.skipped}

  return step


def make_gradient(
  apply: Callable[..., Array], loss: Loss, *, accumulate: int = 1
) -> Callable[..., tuple[tuple[Array, dict[str, Array]], Any]]:
  """Builds `gradient(state, batch, root) -> ((loss, metrics), gradient)`; see `make_step`."""
  train_apply = functools.partial(apply, train=True)
  group_size = getattr(loss, "keywords", {}).get("group_size", 1)

  def gradient(state: train_state.TrainState, batch: dict[str, Any], root: Array):
    objective = schedules.at_step(loss, state.seen)
    frozen = state.params if state.frozen is None else state.frozen
    key = jax.random.fold_in(root, state.seen)
    whole = jax.value_and_grad(functools.partial(objective, train_apply), has_aux=True)
    of_part = lambda part, key: whole(state.params, frozen, part, key)
    return accumulated(of_part, batch, key, accumulate, group_size)

  return gradient


def accumulated(
  gradient: Gradient, batch: dict[str, Any], key: Array, count: int, group_size: int
) -> tuple[Any, Any]:
  """`gradient(batch, key)`, or its mean over `count` micro-batches, taken one after another.

  Each has its own key, reads its own rows alone in `core.grouping` and `core.posterior`, and has
  the same weight, whatever the number of its active tokens. Sums are in float32 at least. An
  accelerator holds one micro-batch's activations at a time; a CPU, all.
  """
  if count == 1:
    return gradient(batch, key)
  parts = parallel.micro_batches(batch, count, group_size)
  like = jax.eval_shape(gradient, jax.tree.map(lambda a: a[0], parts), key)

  def add(total: Any, numbered: tuple[Array, dict[str, Any]]) -> tuple[Any, None]:
    n, part = numbered
    return jax.tree.map(jnp.add, total, gradient(part, jax.random.fold_in(key, n))), None

  zero = lambda a: jnp.zeros(a.shape, jnp.promote_types(a.dtype, jnp.float32))
  start = jax.tree.map(zero, like), (jnp.arange(count), parts)
  loop = lambda unroll: lambda *start: jax.lax.scan(add, *start, unroll=unroll)[0]
  # A loop slows the gradient of a convolution on a CPU: a small U-Net takes 0.6 s a step with four
  # micro-batches unrolled, 8.5 s in a loop. The platform is that of the program, not of the host.
  total = jax.lax.platform_dependent(*start, cpu=loop(count), default=loop(1))
  return jax.tree.map(lambda a, like: (a / count).astype(like.dtype), total, like)


def flops(experiment: experiment_lib.Experiment) -> float:
  """Operations of one step's gradient over the whole batch, as XLA counts them.

  Without rematerialization or the layers' loop, whose body XLA counts once; compiles nothing.
  """
  net, plain = experiment.net, dict(scan=False, remat="none")
  unrolled = net.clone(**{field: value for field, value in plain.items() if hasattr(net, field)})
  gradient = jax.jit(make_gradient(unrolled.apply, experiment.loss))
  shapes = dataclasses.replace(experiment, net=unrolled).shapes
  return gradient.lower(shapes, experiment.batch, experiment.root()).cost_analysis()["flops"]
