"""The state and its one step: copies, averages, the frozen model, steps that are not finite."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dfim import train
from dfim.training import state as train_state

PARAMS = dict(a=jnp.array([1.0, 2.0]))
GRADS = dict(a=jnp.array([0.5, -0.5]))
SGD = optax.sgd(1.0)


def leaf(tree):
  return np.asarray(tree["a"])


def advance(state, grads=GRADS, finite=True, **kwargs):
  return train_state.advance(state, grads, jnp.asarray(finite), tx=SGD, **kwargs)


def test_trees_share_no_buffer_and_each_average_has_its_own_decay():
  """Donating a state whose trees are aliased fails at step 0."""
  state = train_state.init(PARAMS, SGD, ema=(0.9, 0.99), refresh_every=2)
  pointers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves(state)]
  assert len(set(pointers)) == len(pointers)
  state = advance(train_state.init(PARAMS, SGD, ema=(0.9, 0.5)))
  np.testing.assert_allclose(leaf(state.params), [0.5, 2.5])
  np.testing.assert_allclose(leaf(state.ema["0.9"]), [0.95, 2.05])
  np.testing.assert_allclose(leaf(state.ema["0.5"]), [0.75, 2.25])


def seen_by(refresh_every, steps):
  def loss(apply, params, frozen, batch, key):
    return jnp.sum(params["a"]), {"loss": params["a"][0], "frozen": frozen["a"][0]}

  step = train.make_step(lambda *a, train: None, loss, SGD, refresh_every=refresh_every)
  state = train_state.init(PARAMS, SGD, refresh_every=refresh_every)
  found = []
  for _ in range(steps):
    state, metrics = step(state, {}, jax.random.key(0))
    found.append((float(metrics["loss"]), float(metrics["frozen"])))
  return found


def test_the_frozen_copy_is_refreshed_every_k_steps_and_the_loss_sees_it():
  assert seen_by(1, 3) == [(1.0, 1.0), (0.0, 0.0), (-1.0, -1.0)]
  assert seen_by(2, 4) == [(1.0, 1.0), (0.0, 1.0), (-1.0, -1.0), (-2.0, -1.0)]
  state = train_state.init(PARAMS, SGD, refresh_every=3)
  for n in range(1, 5):
    state = advance(state, refresh_every=3)
    expected = 1.0 - 0.5 * (n // 3 * 3)
    np.testing.assert_allclose(leaf(state.frozen)[0], expected)
  assert advance(train_state.init(PARAMS, SGD)).frozen is None, "no third copy by default"


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_with_a_loss_or_gradient_that_is_not_finite_is_skipped(where):
  def loss(apply, params, frozen, batch, key):
    if where == "loss":
      fault = jnp.where(batch["bad"], jnp.nan, 0.0)
    else:
      fault = jnp.sqrt(jnp.where(batch["bad"], 0.0, 1.0) * params["a"][0] ** 2)
    return jnp.sum(params["a"]) + fault, {}

  step = train.make_step(lambda *a, train: None, loss, SGD)
  state = train_state.init(PARAMS, SGD)
  for bad in (False, True, False):
    state, metrics = step(state, dict(bad=jnp.asarray(bad)), jax.random.key(0))
  assert (int(state.step), int(state.skipped)) == (2, 1)
  assert np.isfinite(leaf(state.params)).all()


def test_an_update_that_is_not_finite_is_skipped_and_an_optimizer_may_start_from_infinity():
  """Adam without eps divides 0 by 0 where a gradient is 0, and its second moment may overflow."""
  for tx, grads in (
    (optax.adam(1e-3, eps=0.0), jnp.array([0.5, 0.0])),
    (optax.adam(1e-3), jnp.array([1e30, 0.5])),
  ):
    before = train_state.init(PARAMS, tx)
    after = train_state.advance(before, dict(a=grads), jnp.asarray(True), tx=tx)
    assert (int(after.step), int(after.skipped)) == (0, 1)
    chex.assert_trees_all_equal(after.replace(skipped=before.skipped), before)
  infinite = lambda params: dict(best=jnp.array(jnp.inf))
  tx = optax.GradientTransformation(infinite, lambda grads, state, params: (grads, state))
  after = train_state.advance(train_state.init(PARAMS, tx), GRADS, jnp.asarray(True), tx=tx)
  assert (int(after.step), int(after.skipped)) == (1, 0)
