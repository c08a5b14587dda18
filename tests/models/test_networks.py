"""Properties of every network; a new one joins by one line of NETS."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.models.causal_transformer import CausalTransformer
from dfim.models.dit import DiT
from dfim.models.layers import embeddings
from dfim.models.mlp import MLP
from dfim.models.unet import UNet

pytestmark = pytest.mark.usefixtures("keys_unchecked")

CLASSES = 3
NETS = {  # network, shape of one example
  "mlp": (MLP(16, 2, CLASSES), (2,)),
  "mlp_tokens": (MLP(16, 2, CLASSES), (5, 2)),
  "unet": (UNet(8, (1, 2), 1, (), num_classes=CLASSES), (4, 4, 1)),
  "dit": (DiT(2, 16, 2, 2, num_classes=CLASSES), (4, 6, 1)),
  "dit_scan": (DiT(2, 16, 2, 2, num_classes=CLASSES, remat="block", scan=True), (4, 6, 1)),
  "causal_transformer": (CausalTransformer(16, 2, 2, num_classes=CLASSES), (5, 2)),
}
BATCH = 4
# Tiny networks compile for longer than they run.
quick_jit = functools.partial(
  jax.jit,
  compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)


SLOW = {"unet", "dit_scan"}  # to compile; they embed times as the others do


@pytest.fixture(params=NETS)
def case(request):
  return NETS[request.param]


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETS])
def timed(request):
  return NETS[request.param]


def inputs(shape, s=0.25, t=0.75, batch=BATCH, label=0):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, *shape)), jnp.float32)
  s, t = (jnp.full((batch,) + (1,) * len(shape), u) for u in (s, t))
  return x, s, t, {"label": jnp.full((BATCH,), label)}


@functools.cache
def compiled(net):
  return quick_jit(net.apply, static_argnames="train")


@functools.cache
def perturbed(net, shape):
  """Parameters without the zeros of an initialisation, under which all outputs are 0."""
  rng = np.random.default_rng(1)
  noise = lambda p: jnp.asarray(rng.normal(0, np.prod(p.shape[:-1]) ** -0.5, p.shape), jnp.float32)
  return jax.tree.map(noise, jax.eval_shape(net.init, jax.random.key(0), *inputs(shape)))


def run(net, shape, params=None, train=False, rngs=None, **kw):
  params = perturbed(net, shape) if params is None else params
  return compiled(net)(params, *inputs(shape, **kw), train=train, rngs=rngs)


def gap(a, b):
  return float(jnp.max(jnp.abs(a - b)))


close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def test_output_has_the_shape_of_x_and_is_float32_and_zero_at_init(case):
  out, params = run(*case), quick_jit(case[0].init)(jax.random.key(0), *inputs(case[1]))
  assert out.shape == (BATCH, *case[1]) and out.dtype == jnp.float32
  assert gap(out, 0) > 0.01 and gap(run(*case, params=params), 0) == 0


@pytest.mark.parametrize("move", [{"s": 0.251}, {"t": 0.751}], ids=str)
def test_sees_a_thousandth_of_either_time(case, move):
  assert gap(run(*case), run(*case, **move)) > 1e-3


def test_each_example_has_its_own_times_or_all_one(case):
  net, shape = case
  close(run(*case, batch=1), run(*case))
  x, s, t, cond = inputs(shape)
  out = compiled(net)(perturbed(net, shape), x, s, t.at[0].set(0.5), cond)
  close(out[1:], run(*case)[1:])
  assert gap(out[0], run(*case)[0]) > 1e-3


@pytest.mark.parametrize("second_time, moves", [("s", True), ("t-s", False)])
def test_second_embedding_is_of_s_or_of_t_minus_s(case, second_time, moves):
  net, shape = dataclasses.replace(case[0], second_time=second_time), case[1]
  deaf = jax.tree.map_with_path(
    lambda path, p: 0 * p if {k.key for k in path} & {"t", "map_t"} else p, perturbed(*case)
  )
  early, late = (run(net, shape, deaf, s=s, t=s + 0.25) for s in (0.25, 0.5))
  assert (gap(early, late) > 1e-3) == moves


def test_refuses_a_time_per_channel_and_a_time_of_lower_rank(case):
  net, shape = case
  x, s, t, cond = inputs(shape)
  wide = jnp.zeros((BATCH, *shape[:-1], shape[-1] + 1))
  for times in ((wide, t), (s, jnp.zeros((BATCH,)))):
    with pytest.raises(ValueError, match="does not fit x"):
      net.init(jax.random.key(0), x, *times, cond)


def test_null_is_a_class_of_its_own_and_is_the_label_left_out(case):
  null = run(*case, label=-1)
  classes = [run(*case, label=label) for label in range(CLASSES)]
  outputs = [null, *classes]
  gaps = [gap(a, b) for i, a in enumerate(outputs) for b in outputs[:i]]
  assert min(gaps) > 1e-3
  x, s, t, _ = inputs(case[1])
  np.testing.assert_array_equal(compiled(case[0])(perturbed(*case), x, s, t), null)
  net, shape = dataclasses.replace(case[0], num_classes=0), case[1]
  assert gap(run(net, shape, label=0), run(net, shape, label=1)) == 0


@pytest.mark.parametrize("dtype, label", [(bool, 1), (np.uint8, 127), (np.int8, -1)])
def test_labels_of_any_integers_are_the_same_classes(dtype, label):
  net = MLP(16, 2, 200)  # -1 + 200 is beyond int8
  x, s, t, _ = inputs((2,))
  apply = functools.partial(net.apply, perturbed(net, (2,)), x, s, t)
  narrow, wide = (dict(label=jnp.full(BATCH, label, kind)) for kind in (dtype, np.int32))
  np.testing.assert_array_equal(apply(narrow), apply(wide))


def test_a_label_beyond_the_classes_is_no_other_class(case):
  for label in (CLASSES, CLASSES + 1):
    assert np.all(np.isnan(run(*case, label=label)))


@pytest.mark.parametrize("name", NETS)
def test_conditions_that_a_network_does_not_read_are_refused(name):
  net, shape = NETS[name]
  x, s, t, cond = inputs(shape)
  wrong = [dict(label=jnp.zeros((BATCH, 1), int))]
  if name != "causal_transformer":
    wrong += [dict(goal=jnp.zeros((BATCH, 3))), dict(augment=jnp.zeros((BATCH, 9)))]
  for given in wrong:
    with pytest.raises(ValueError, match=rf"^(cond|model)\.({'|'.join(given)})"):
      net.init(jax.random.key(0), x, s, t, cond | given)


def test_dropout_follows_its_key_and_rests_outside_training(case):
  net, shape = dataclasses.replace(case[0], dropout=0.5), case[1]
  drop = lambda seed: run(net, shape, train=True, rngs={"dropout": jax.random.key(seed)})
  assert gap(drop(0), drop(0)) == 0
  assert gap(drop(0), drop(1)) > 1e-3
  close(run(net, shape), run(*case))


def test_bfloat16_keeps_parameters_times_and_output_in_float32(timed):
  net, shape = dataclasses.replace(timed[0], dtype="bfloat16"), timed[1]
  params = jax.eval_shape(net.init, jax.random.key(0), *inputs(shape))
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  out = run(net, shape)
  assert out.dtype == jnp.float32 and 0 < gap(out, run(*timed)) < 0.1 * gap(out, 0)
  assert gap(out, run(net, shape, t=0.751)) > 1e-3


def test_bfloat16_separates_close_times(timed):
  net, shape = dataclasses.replace(timed[0], dtype="bfloat16"), timed[1]
  of_times = lambda module, _: isinstance(module, embeddings.TimeMLP)
  embed = quick_jit(functools.partial(net.apply, capture_intermediates=of_times))
  a, b = (
    jax.tree.leaves(embed(perturbed(*timed), *inputs(shape, s=s, t=s + 0.5))[1]["intermediates"])
    for s in (0.25, 0.2501)
  )
  assert len(a) == 2 and {e.dtype for e in a} == {jnp.dtype("float32")}
  assert min(map(gap, a, b)) > 1e-3
  net = dataclasses.replace(net, second_time="t-s")
  assert gap(run(net, shape, s=0.75), run(net, shape, s=0.75 - 1e-4)) > 1e-3, "the paper's gap"


def test_gradient_is_finite_also_where_the_times_meet(timed):
  net, shape = timed
  grad = quick_jit(jax.grad(lambda params, *args: jnp.sum(net.apply(params, *args) ** 2)))
  for s, t in [(0.0, 0.0), (0.0, 1.0)]:
    grads = jax.tree.leaves(grad(perturbed(net, shape), *inputs(shape, s=s, t=t)))
    assert all(jnp.all(jnp.isfinite(g)) for g in grads) and max(gap(g, 0) for g in grads) > 0


def test_mlp_tokens_see_their_own_times_only():
  net, shape = NETS["mlp_tokens"]
  x, s, _, cond = inputs(shape)
  t = jnp.linspace(0.3, 0.9, 5).reshape(1, 5, 1)
  apply = functools.partial(compiled(net), perturbed(net, shape))
  close(apply(x, s, t, cond)[:, 1:2], apply(x[:, 1:2], s, t[:, 1:2], cond))


def test_unet_takes_augmentation_labels_and_zeros_mean_none():
  net, shape = dataclasses.replace(NETS["unet"][0], augment_dim=9), NETS["unet"][1]
  x, s, t, cond = inputs(shape)
  apply = lambda cond: compiled(net)(params, x, s, t, cond)
  params = perturbed(net, shape)
  none = apply(cond)
  close(apply({**cond, "augment": jnp.zeros((BATCH, 9))}), none)
  assert gap(apply({**cond, "augment": jnp.ones((BATCH, 9))}), none) > 1e-3
  with pytest.raises(ValueError, match=r"model.augment_dim=9: cond.augment of shape \(4, 5\)"):
    net.init(jax.random.key(0), x, s, t, {**cond, "augment": jnp.ones((BATCH, 5))})


@pytest.mark.parametrize(
  "net, shape, message",
  [
    (UNet(8, (1, 1, 1, 1), 1), (4, 4, 1), r"multipliers=\(1, 1, 1, 1\)"),
    (DiT(3, 16, 1, 2), (4, 4, 1), "patch=3"),
    (DiT(2, 16, 1, 3), (4, 4, 1), "heads=3"),
    (NETS["unet"][0], (4, 4), "is no image"),
  ],
)
def test_wrong_fields_and_sequences_are_refused(net, shape, message):
  with pytest.raises(ValueError, match=message):
    net.init(jax.random.key(0), *inputs(shape))


@pytest.mark.parametrize("scale", [0.5, 2.0, 16.0])
def test_fourier_features_of_two_times_have_the_product_of_normal_frequencies(scale):
  """Their mean product is exp(-2 (pi scale (u - v))^2), the characteristic function."""
  u, v = (jnp.asarray(np.random.default_rng(n).uniform(0, 1, (50, 1)), jnp.float32) for n in (1, 2))
  a, b = (embeddings.fourier(time, 1.0, 512, deviation=scale) for time in (u, v))
  assert a.shape == (50, 512)
  found = 2.0 * jnp.mean(a * b, axis=-1)
  exact = np.exp(-2.0 * (np.pi * scale * np.asarray(u - v)[:, 0]) ** 2)
  np.testing.assert_allclose(found, exact, atol=0.02)


@pytest.mark.parametrize(
  "name",
  ["mlp", "dit", "causal_transformer", pytest.param("unet", marks=pytest.mark.slow)],
)
def test_a_network_reads_its_times_by_the_features_that_it_is_given(name):
  """Of both times, with the parameters of sinusoids; constant features make it blind to them."""
  net, shape = NETS[name]
  of = lambda features: dataclasses.replace(net, time_scale=1.0, time_features=features)
  fourier = of(functools.partial(embeddings.fourier, deviation=2.0))
  params = perturbed(net, shape)
  shapes = jax.eval_shape(fourier.init, jax.random.key(0), *inputs(shape))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda p: p.shape, shapes)
  blind = of(lambda time, scale, width: jnp.ones((*time.shape[:-1], width), time.dtype))
  for changed in (dict(s=0.5), dict(t=0.5)):
    one, other = (run(fourier, shape, params, **given) for given in ({}, changed))
    assert gap(one, other) > 1e-3
    close(*(run(blind, shape, params, **given) for given in ({}, changed)))
