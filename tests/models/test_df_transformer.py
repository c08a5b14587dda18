"""The released transformer: what it sees, and what a mask hides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.models.df_transformer import ReleasedTransformer
from dfim.models.layers import attention, embeddings

pytestmark = pytest.mark.usefixtures("keys_unchecked")

NET = ReleasedTransformer(width=16, depth=2, heads=2, mlp_width=32)
SHAPE = (3, 5, 2)


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
  return x, jnp.asarray(rng.uniform(0.1, 0.9, (3, 5, 1)), jnp.float32)


@functools.cache
def perturbed(net, actions=False):
  x, t = inputs()
  cond = dict(action=jnp.zeros((3, 5, 4))) if actions else None
  rng = np.random.default_rng(1)
  noise = lambda p: jnp.asarray(rng.normal(0, np.prod(p.shape[:-1]) ** -0.5, p.shape), jnp.float32)
  return jax.tree.map(noise, jax.eval_shape(net.init, jax.random.key(0), x, t, t, cond))


def run(net, x, t, cond=None):
  return net.apply(perturbed(net, cond is not None), x, t, t, cond)


def test_shape_zero_at_init_and_near_in_bfloat16():
  x, t = inputs()
  params = NET.init(jax.random.key(0), x, t, t)
  np.testing.assert_array_equal(NET.apply(params, x, t, t), np.zeros(SHAPE))
  exact = run(NET, x, t)
  assert exact.shape == SHAPE and jnp.std(exact) > 0.01
  out = NET.clone(dtype="bfloat16").apply(perturbed(NET), x, t, t)
  assert out.dtype == jnp.float32
  assert 0 < jnp.max(jnp.abs(out - exact)) < 0.1 * jnp.max(jnp.abs(exact))


@pytest.mark.parametrize("causal", [True, False])
def test_the_future_is_unseen_exactly_when_causal(causal):
  net = NET.clone(causal=causal)
  jacobians = jax.jacobian(lambda x, t: run(net, x, t).sum(-1), argnums=(0, 1))(*inputs())
  for jacobian, channels in zip(jacobians, (2, 1), strict=True):
    seen = np.abs(np.einsum("bibjc->bijc", jacobian)).max((0, 3))  # [T, T]: of i by j
    assert channels == jacobian.shape[-1]
    future = np.triu(np.ones((5, 5), bool), 1)
    assert np.all(seen[~future] > 0)
    assert np.all(seen[future] == 0) if causal else np.all(seen[future] > 0)


def test_it_depends_on_t_and_not_on_s():
  x, t = inputs()
  shared = run(NET, x, jnp.full((1, 1, 1), 0.3)), run(NET, x, jnp.full_like(t, 0.3))
  np.testing.assert_allclose(*shared, rtol=1e-5, atol=1e-5)
  apply = functools.partial(NET.apply, perturbed(NET), x)
  np.testing.assert_array_equal(apply(t, t), apply(0 * t, t))
  assert jnp.max(jnp.abs(apply(t, t) - apply(t, t + 1e-3))) > 1e-3


def test_actions_of_a_token_are_joined_zeros_where_left_out_and_of_one_width():
  x, t = inputs()
  net, action = NET.clone(causal=True), jnp.ones((3, 5, 4))
  a, b = (run(net, x, t, dict(action=a)) for a in (action, action.at[:, 3].set(0.0)))
  np.testing.assert_array_equal(a[:, :3], b[:, :3])
  assert jnp.all(jnp.any(a[:, 3:] != b[:, 3:], axis=-1))
  x, t = inputs()
  params = perturbed(NET, actions=True)
  apply = functools.partial(NET.apply, params, x, t, t)
  np.testing.assert_array_equal(apply(), apply(dict(action=jnp.zeros((3, 5, 4)))))
  assert jnp.max(jnp.abs(apply() - apply(dict(action=jnp.ones((3, 5, 4)))))) > 1e-3
  x, t = inputs()
  with pytest.raises(ValueError, match=r"cond\.action of shape \(3, 5, 3\)"):
    NET.apply(perturbed(NET, actions=True), x, t, t, dict(action=jnp.ones((3, 5, 3))))


@pytest.mark.parametrize(
  "net, cond, message",
  [
    (NET.clone(heads=3), None, "heads=3"),
    (NET.clone(width=6), None, "width=6"),
    (NET, dict(label=jnp.zeros(3, int)), "cond.label"),
    (NET, dict(button=jnp.zeros((3, 5), int)), r"cond.button of shape \(3, 5\)"),
    (NET, dict(action=jnp.zeros((3, 4, 2))), r"cond.action of shape \(3, 4, 2\)"),
  ],
)
def test_refusals(net, cond, message):
  x, t = inputs()
  with pytest.raises(ValueError, match=message):
    net.init(jax.random.key(0), x, t, t, cond)


def heads(key, dtype=jnp.float32):
  return jax.random.normal(key, (3, 2, 4, 2, 8), dtype)


def test_masked_attention_is_among_the_keys_of_each_example(key):
  q, k, v = heads(key)
  masks = jnp.stack([jnp.tile(jnp.arange(4) < 3, (4, 1)), jnp.eye(4, dtype=bool)])
  found = attention.attention(q, k, v, masks[:, None])
  among = attention.attention(q[:1], k[:1, :3], v[:1, :3])
  np.testing.assert_allclose(found[0], among[0], atol=1e-6)
  np.testing.assert_allclose(found[1], v[1].reshape(4, -1), atol=1e-6)


def test_attention_times_and_network_keep_float64(float64):
  q, k, v = heads(jax.random.key(0), jnp.float64)
  out = attention.attention(q, k, v)
  logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(8)
  weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  expected = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(2, 4, -1)
  np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)
  t = jnp.full((2, 1), 1 / 3, jnp.float64)
  first, second = embeddings.network_times(t, t, "s")
  assert first.dtype == second.dtype == jnp.float64
  expected = np.array([[np.cos(1e3), np.sin(1e3)]] * 2)
  np.testing.assert_allclose(embeddings.dit_sinusoids(first, 3000.0, 2), expected, rtol=1e-9)
  x, t = (jnp.asarray(a, jnp.float64) for a in inputs())
  params = jax.tree.map(lambda p: p.astype(jnp.float64), perturbed(NET))
  assert NET.apply(params, x, t, t).dtype == jnp.float64
