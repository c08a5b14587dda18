"""Products of times and conditions have a stated precision in every network's program."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from dfim.models.causal_transformer import CausalTransformer
from dfim.models.df_transformer import ReleasedTransformer
from dfim.models.dit import DiT
from dfim.models.mlp import MLP
from dfim.models.unet import UNet
from tests.models import time_path

pytestmark = pytest.mark.usefixtures("keys_unchecked")

MARKS = (time_path.PARAMS, time_path.X, *[time_path.TIME] * 3)
IMAGE, SEQUENCE = (4, 4, 1), (4, 2)
LABEL = dict(label=jnp.zeros(2, int))
EACH_KIND = LABEL | dict(
  action=jnp.ones((2, 4, 3)), button=jnp.zeros((2, 4), int), goal=jnp.ones((2, 5))
)
CAUSAL = CausalTransformer(16, 2, 2, num_classes=3)
NETS = {  # network, shape of an example, conditions, products of the time path
  "mlp": (MLP(16, 2, 3), (2,), LABEL, 7),
  "unet": (UNet(8, (1, 2), 1, (4,), 1, num_classes=3), IMAGE, LABEL, 14),
  "unet_augment": (UNet(8, (1,), 1, (), augment_dim=9), IMAGE, dict(augment=jnp.ones((2, 9))), 10),
  "dit": (DiT(2, 16, 2, 2, num_classes=3), IMAGE, LABEL, 7),
  "dit_remat": (DiT(2, 16, 2, 2, num_classes=3, remat=True), IMAGE, LABEL, 7),
  "dit_scan": (DiT(2, 16, 2, 2, num_classes=3, scan=True), IMAGE, LABEL, 6),
  "dit_scan_remat": (DiT(2, 16, 2, 2, num_classes=3, scan=True, remat=True), IMAGE, LABEL, 6),
  "causal": (CAUSAL, SEQUENCE, None, 7),
  "causal_conditions": (CAUSAL, SEQUENCE, EACH_KIND, 9),
  "causal_two_streams": (CAUSAL, SEQUENCE, LABEL, 7),
  "causal_cache": (CAUSAL, SEQUENCE, EACH_KIND, 9),
  "released": (ReleasedTransformer(16, 2, 2, 32), SEQUENCE, dict(a=jnp.ones((2, 4, 3))), 0),
}


def stated(product):
  """Whether it is the same whatever the platform's default, in float32 or more."""
  return product.precision is not None and time_path.is_wide(product)


def on_time_path(found):
  return [p for p in found if p.of_time and not p.of_x]


def inputs(shape, cond):
  x = jnp.ones((2, *shape))
  u = jnp.ones((2, shape[0], 1) if len(shape) == 2 else (2,) + (1,) * len(shape))
  return x, 0.3 * u, 0.7 * u, cond


@functools.cache
def products(name, dtype):
  net, shape, cond, _ = NETS[name]
  net, args = net.clone(dtype=dtype), inputs(shape, cond)
  params = jax.eval_shape(net.init, jax.random.key(0), *args)
  if name == "causal_cache":
    apply = lambda params, x, s, t, cond, cache: net.apply(params, x, s, t, cond, cache=cache)
    marks = *MARKS, time_path.X
    return time_path.products(apply, marks, params, *args, net.empty_cache(2, 3))
  streams = dict(streams=2) if name == "causal_two_streams" else {}
  return time_path.products(functools.partial(net.apply, **streams), MARKS, params, *args)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("name", NETS)
def test_products_of_the_time_path_state_their_precision_and_are_in_float32(name, dtype):
  found = on_time_path(products(name, dtype))
  assert len(found) == NETS[name][-1] and all(map(stated, found))
  assert name.startswith("causal") or all(map(time_path.exact, found))
  others = [p for p in products(name, dtype) if p.of_x]
  assert others and not all(map(stated, others)), "x has the platform's precision"


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_released_level_joins_x_at_the_highest_precision(dtype):
  found = [p for p in products("released", dtype) if p.of_x]
  assert found[0].of_time and time_path.exact(found[0]) and not any(map(stated, found[1:]))


class Unstated(nn.Module):
  """A network whose time path is left to the platform, or to its own dtype."""

  given: dict

  @nn.compact
  def __call__(self, x, s, t, cond=None):
    return x * nn.Dense(x.shape[-1], **self.given)(t)


@pytest.mark.parametrize("given", [{}, dict(dtype="bfloat16", precision="highest")], ids=str)
def test_a_network_without_them_is_found(given):
  net, args = Unstated(given), inputs((2,), None)
  params = jax.eval_shape(net.init, jax.random.key(0), *args)
  (found,) = on_time_path(time_path.products(net.apply, MARKS, params, *args))
  assert not stated(found)


def _scan(x, t):
  """x joins the product's input in the second round."""
  return jax.lax.scan(lambda c, _: (c @ jnp.ones((2, 2)) + x, None), t, None, length=3)[0]


LOOPS = {  # function of x and t with one product, whether it depends on x
  "scan": (_scan, True),
  "scan_of_t": (lambda x, t: x + _scan(jnp.ones((2, 2)), t), False),
  "while": (
    lambda x, t: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: _scan(c, c), t),
    False,
  ),
  "while_test": (
    lambda x, t: jax.lax.while_loop(lambda c: c[0, 0] < x[0, 0], lambda c: c @ c, t),
    True,
  ),
  "cond": (lambda x, t: x + jax.lax.cond(t[0, 0] > 0, lambda: t @ t, lambda: t), False),
  "remat": (lambda x, t: x + jax.checkpoint(lambda t: t @ t)(t), False),
  "custom_jvp": (lambda x, t: jax.nn.relu(x) + jax.nn.relu(t) @ t, False),
}


@pytest.mark.parametrize("name", LOOPS)
def test_marks_go_through_loops_branches_and_calls(name):
  function, of_x = LOOPS[name]
  marks = time_path.X, time_path.TIME
  (found,) = time_path.products(function, marks, jnp.ones((2, 2)), jnp.ones((2, 2)))
  assert found.of_time and found.of_x == of_x
