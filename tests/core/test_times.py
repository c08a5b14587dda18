"""Training times: order, spread, who shares them, and the gap that keeps kernels finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants
from dfim.core import mappings
from dfim.core import times

PATH = interpolants.FlowMatching()
ENDS = dict(t_max=0.994, t_min=0.006)
sample = functools.partial(times.sample, path=PATH, pattern=times.example, **ENDS)
PATTERNS = [times.example, times.token]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.__name__)
def test_times_have_the_rank_of_x_and_are_ordered(pattern, key):
  mapping = functools.partial(mappings.eta_decrement, k=8.0)
  drawn = sample(key, (64, 5, 3), pattern=pattern, mapping=mapping, group_size=4)
  shape = dict(example=(64, 1, 1), token=(64, 5, 1))[pattern.__name__]
  assert {a.shape for a in jax.tree.leaves(drawn)} == {shape}
  assert drawn.active.dtype == bool and jnp.all(drawn.active)
  assert jnp.all((ENDS["t_min"] <= drawn.s) & (drawn.s <= drawn.r) & (drawn.r < drawn.t))
  assert jnp.all(drawn.t <= ENDS["t_max"])


def test_a_group_is_consecutive_examples_of_one_time(key):
  drawn = sample(key, (12, 2), group_size=4)
  for a in (drawn.s, drawn.t):
    groups = np.asarray(a).reshape(3, 4)
    assert np.all(groups == groups[:, :1])
    assert len(np.unique(groups)) == 3


@pytest.mark.parametrize("gap", [1e-5, 1e-3])
def test_active_times_are_never_closer_than_the_gap(gap, key):
  """10^7 draws: without the gap, float32 gives s = t about twice here, and the loss is NaN."""
  draw = jax.jit(lambda k: sample(k, (10**6, 1), gap=gap))
  for k in jax.random.split(key, 10):
    drawn = draw(k)
    assert jnp.min(drawn.t - drawn.s) >= jnp.float32(gap)
    assert jnp.min(drawn.s) >= jnp.float32(ENDS["t_min"])


def test_t_and_s_are_uniform(key):
  drawn = sample(key, (100_000, 1))
  t = (drawn.t - 0.006) / (0.994 - 0.006)
  s = (drawn.s - 0.006) / (drawn.t - 0.006)
  for u in (t, s):
    quantiles = jnp.quantile(u, jnp.linspace(0.1, 0.9, 9))
    np.testing.assert_allclose(quantiles, np.linspace(0.1, 0.9, 9), atol=0.01)


def test_part_of_the_mass_of_s_can_lie_on_t_min(key):
  at_end = sample(key, (10_000, 1), s_at_t_min=0.3).s == jnp.float32(0.006)
  assert abs(jnp.mean(at_end) - 0.3) < 0.02


def test_everything_on_t_min_is_the_consistency_model(key):
  assert jnp.all(sample(key, (1000, 1), s_at_t_min=1.0).s == jnp.float32(0.006))


def test_reach_bounds_the_length_of_a_jump(key):
  drawn = sample(key, (10_000, 1), reach=jnp.float32(0.1))
  length = drawn.t - drawn.s
  assert jnp.max(length) <= 0.1 + 1e-6
  assert jnp.max(length) > 0.099
  corner = sample(jax.random.key(1), (10_000, 1), reach=0.1, s_at_t_min=1.0)
  assert jnp.max(corner.t - corner.s) <= 0.1 + 1e-6, "also where s is drawn to t_min"


def test_without_a_mapping_r_is_t(key):
  drawn = sample(key, (8, 1))
  np.testing.assert_array_equal(drawn.r, drawn.t)


def test_context_stands_still(key):
  def half(key, shape, *, t_max, t_min):
    t, _ = times.token(key, shape, t_max=t_max, t_min=t_min)
    return t.at[:, 0].set(0.0), jnp.ones_like(t, bool).at[:, 0].set(False)

  mapping = functools.partial(mappings.eta_decrement, k=8.0)
  drawn = sample(key, (8, 3, 2), pattern=half, mapping=mapping)
  for a in (drawn.s, drawn.r, drawn.t):
    np.testing.assert_array_equal(a[:, 0], 0.0)
  assert jnp.all(drawn.s[:, 1:] < drawn.t[:, 1:])


@pytest.mark.parametrize(
  "wrong,message",
  [
    (dict(t_max=0.1, t_min=0.2), "t_min=0.2, t_max=0.1: set 0 <= t_min < t_max <= 1"),
    (dict(t_max=1.2), "t_max=1.2"),
    (dict(gap=0.0), "gap=0.0: set 0 < gap"),
    (dict(group_size=3), "group_size=3 does not divide batch_size=8"),
    (dict(group_size=0), "group_size=0"),
  ],
)
def test_wrong_fields_are_named(wrong, message, key):
  with pytest.raises(ValueError, match=message):
    sample(key, (8, 1), **wrong)
