"""The state of training: arrays only, saved whole."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Array = jax.Array
Transformation = optax.GradientTransformation


@flax.struct.dataclass
class TrainState:
  """Everything that a checkpoint holds."""

  step: Array  # int32, optimizer steps taken
  params: Any  # theta_n, trained
  frozen: Any  # theta_{n-1}; None: the current weights under stop-gradient
  ema: dict[str, Any]  # averages of params, by decay; jit sorts the keys as strings
  opt_state: optax.OptState
  skipped: Array  # int32, steps that were not taken because something was not finite

  @property
  def seen(self) -> Array:
    """Batches seen: the number of checkpoints, samples, scores, and of each step's key."""
    return self.step + self.skipped


def init(
  params: Any, tx: Transformation, *, ema: Sequence[float] = (0.999,), refresh_every: int = 1
) -> TrainState:
  """The state at step 0. Every tree is a copy: donated buffers must not be aliased.

  `frozen` is None if it is refreshed every step: the weights before the update are theta_{n-1}.
  """
  copy = lambda: jax.tree.map(jnp.copy, params)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=copy(),
    frozen=copy() if refresh_every > 1 else None,
    ema={str(decay): copy() for decay in ema},
    opt_state=tx.init(params),
    skipped=jnp.zeros((), jnp.int32),
  )


def advance(
  state: TrainState, grads: Any, finite: Array, *, tx: Transformation, refresh_every: int = 1
) -> TrainState:
  """One optimizer step; if not `finite`, or with an update that is not, a step `skipped`."""
  new = proposed(state, grads, tx=tx, refresh_every=refresh_every)
  finite &= _stays_finite((new.params, new.opt_state), (state.params, state.opt_state))
  old = state.replace(skipped=state.skipped + 1)
  return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)


def proposed(
  state: TrainState, grads: Any, *, tx: Transformation, refresh_every: int = 1
) -> TrainState:
  """The state after one optimizer step, whatever its numbers are."""
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  step = state.step + 1
  ema = {d: optax.incremental_update(params, tree, 1.0 - float(d)) for d, tree in state.ema.items()}
  frozen = None
  if state.frozen is not None:
    refresh = step % refresh_every == 0
    frozen = jax.tree.map(lambda new, old: jnp.where(refresh, new, old), params, state.frozen)
  return TrainState(step, params, frozen, ema, opt_state, state.skipped)


def _stays_finite(new: Any, old: Any) -> Array:
  """Whether every number that was finite still is; some optimizers start from infinity."""
  pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
  floating = [(a, b) for a, b in pairs if jnp.issubdtype(a.dtype, jnp.inexact)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a) | ~jnp.isfinite(b)) for a, b in floating]))
