"""Remat policies save more from name to name, and change no value and no gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.config.errors import FieldError
from dfim.models.causal_transformer import CausalTransformer
from dfim.models.dit import DiT
from dfim.models.layers import remat
from dfim.models.unet import UNet

pytestmark = pytest.mark.usefixtures("keys_unchecked")

BATCH = 3
NETS = {  # network, shape of one example, sizes of an activation and of a softmax of one block
  "dit": (DiT(1, 16, 1, 2, dropout=0.5), (2, 4, 1), (8, 64), (2, 8, 8)),
  "dit_scan": (DiT(1, 16, 2, 2, scan=True), (2, 4, 1), (8, 64), (2, 8, 8)),
  "causal_transformer": (CausalTransformer(16, 1, 2, dropout=0.5), (8, 2), (8, 64), (2, 8, 8)),
  "unet": (UNet(4, (1,), 1, (4,), heads=2, dropout=0.5), (4, 4, 1), (4, 4, 4), (2, 16, 16)),
}
SLOW = {"unet"}  # to compile


@pytest.fixture(params=NETS)
def case(request):
  return NETS[request.param]


def setup(net, shape):
  """Parameters without the zeros of an initialisation, the network, and its inputs."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(BATCH, *shape)))
  t = jnp.full((1,) * x.ndim, 0.75)
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, t / 3, t)
  params = jax.tree.map(lambda p: jnp.asarray(rng.normal(0, 0.2, p.shape)), shapes)
  return params, functools.partial(net.apply, rngs={"dropout": jax.random.key(1)}), (x, t / 3, t)


def kept(net, shape):
  """Numbers that the gradient keeps of a forward pass, parameters and outputs included."""
  params, apply, inputs = setup(net, shape)
  backward = lambda p: jax.vjp(lambda p: apply(p, *inputs, train=True), p)[1]
  return sum(a.size for a in jax.tree.leaves(jax.eval_shape(backward, params)))


def test_each_policy_keeps_less_than_the_one_before(case):
  net, shape, activation, softmax = case
  none, gelu, attention, block = (kept(net.clone(remat=name), shape) for name in remat.NAMES)
  assert none - gelu >= BATCH * np.prod(activation)
  assert gelu - attention >= BATCH * np.prod(softmax)
  assert attention - block >= BATCH * np.prod(activation)


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETS]
)
def test_policies_change_no_value_and_no_gradient(name, float64):
  net, shape, *_ = NETS[name]
  params, _, inputs = setup(net, shape)

  def value_and_gradient(name):
    _, apply, _ = setup(net.clone(remat=name), shape)
    loss = lambda p: jnp.mean(apply(p, *inputs, train=True) ** 2)
    return jax.jit(jax.value_and_grad(loss))(params)

  value, grads = value_and_gradient("none")
  largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
  assert largest > 1e-3
  for name in remat.NAMES[1:]:
    other, other_grads = value_and_gradient(name)
    np.testing.assert_allclose(other, value, rtol=1e-12)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12 * largest)
    jax.tree.map(close, other_grads, grads)


@pytest.mark.parametrize("name, near", [("atention", "'attention'"), (True, "use 'none'")])
def test_an_unknown_policy_is_refused_with_the_nearest(name, near):
  for net, shape, *_ in NETS.values():
    with pytest.raises(FieldError, match=near) as error:
      setup(net.clone(remat=name), shape)
    assert error.value.field == "remat" and error.value.value == name
