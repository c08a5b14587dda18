"""Moment matching: worked numbers, gradients, conditions, and sequences in two streams."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import (
  grouping,
  interpolants,
  kernels,
  mappings,
  mmd,
  parameterization as pz,
  particles,
  patterns,
  posterior,
  prefixes,
  scales,
  times as times_lib,
  two_stream,
  weights,
)
from dfim.models import causal_transformer
from dfim.objectives import moment_matching

FM = interpolants.FlowMatching()
Y = [[[0.1, -0.2, 0.3], [0, 0.5, -0.1]], [[1, 0, -1], [0.5, 0.5, 0.5]]]
Z = [[[0.15, -0.25, 0.35], [0.05, 0.45, -0.2]], [[0.9, 0.1, -1.1], [0.4, 0.6, 0.45]]]
GOLDEN = {  # (parameterization, a, b) -> loss
  ("EulerFlow", 2, 4): 0.808454363488,
  ("EulerFlow", 1, 4): 1.246165970786,
  ("EulerFlow", 1, 5): 1.312568821327,
  ("SimpleEDM", 2, 4): 0.652149059868,
  ("SimpleEDM", 1, 4): 1.002316967684,
  ("SimpleEDM", 1, 5): 1.056003785181,
  ("Identity", 2, 4): 0.162442852870,
  ("Identity", 1, 4): 0.265518042446,
  ("Identity", 1, 5): 0.278226822416,
}


def worked_times():
  pair = lambda a, b: jnp.repeat(jnp.array([a, b], float), 2)[:, None]
  s, t = pair(0.2, 0.1), pair(0.7, 0.3)
  return times_lib.Times(s=s, r=t, t=t, active=jnp.ones_like(t, bool))


def mmd2(y, z, kernel, scale, similarity=1.0):
  """Of clouds `[..., M, D]`."""
  k_yy, k_zz, k_yz = mmd.grams(y, z, kernel, scale)
  return jnp.mean(similarity * (k_yy + k_zz - 2.0 * k_yz), axis=(-1, -2))


def worked_loss(y, z, f, a, b):
  times = worked_times()
  w = weights.imm(FM, times.s, times.t, a=a, b=b)
  c = particles.example(y.reshape(4, 3), z.reshape(4, 3), None, w, times, f, group_size=2)
  return jnp.mean(c.weight[..., 0, 0] * mmd2(c.y, c.z, kernels.laplace, c.scale))


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_golden_losses(case, float64):
  name, a, b = case
  value = worked_loss(jnp.array(Y), jnp.array(Z), getattr(pz, name)(FM), float(a), float(b))
  np.testing.assert_allclose(value, GOLDEN[case], rtol=1e-10)


def test_golden_gradient(float64):
  grad = jax.grad(worked_loss)(jnp.array(Y), jnp.array(Z), pz.EulerFlow(FM), 2.0, 4.0)
  expected = [
    [[-0.1315048512, 0.1329288471, -0.1172300456], [-0.087598319, 0.0770637935, 0.1730219924]],
    [[0.9884364909, -0.9884364909, 0.9892973621], [1.2338155037, -1.2338155037, 0.6154156147]],
  ]
  np.testing.assert_allclose(grad, expected, atol=1e-9)


@pytest.mark.parametrize(
  "kernel,scale,expected",
  [
    (kernels.laplace, [4 / 3, 10 / 3], [0.13007561, 0.41581013]),
    (kernels.rbf, [4 / 3, 10 / 3], [0.00772994, 0.04321828]),
    (kernels.energy, [1.0, 1.0], [0.01125, 0.05125]),
  ],
)
def test_golden_discrepancies(kernel, scale, expected, float64):
  found = mmd2(jnp.array(Y), jnp.array(Z), kernel, jnp.array(scale)[:, None, None])
  np.testing.assert_allclose(found, expected, atol=1e-8)


def mask_key(rngs):
  return jax.random.fold_in(rngs["dropout"], 0)  # as flax does; the same key in every call


def apply(params, x, s, t, cond=None, *, rngs=None):
  keep = 1.0 if rngs is None else jax.random.bernoulli(mask_key(rngs), 0.5, x.shape)
  label = 0.0 if cond is None else 0.1 * cond["label"].astype(float)[:, None]
  return keep * jnp.tanh(params["a"] * x + params["b"] * (s - t) + label)


PARAMS = dict(a=jnp.float32(0.7), b=jnp.float32(-0.4))


def sample_times(**kwargs):
  mapping = functools.partial(mappings.eta_decrement, k=6.0)
  given = dict(pattern=patterns.example, mapping=mapping, t_max=0.994, t_min=0.006)
  return functools.partial(times_lib.sample, **{**given, **kwargs})


def loss(params, frozen, batch, apply=apply, **changed):
  given = dict(
    f=pz.EulerFlow(FM),
    sample_times=sample_times(),
    particles=particles.example,
    kernel=kernels.laplace,
    weight=weights.imm,
    group_size=4,
  )
  key = jax.random.key(0)
  return moment_matching.loss(apply, params, frozen, batch, key, **{**given, **changed})


def passes(net, x, draw, cond=None, group_size=4):
  """The times, x_t and both outputs of the loss on these data, whose draws it repeats."""
  f, k = pz.EulerFlow(FM), jax.random.split(jax.random.key(0), 4)
  times = draw(k[0], x.shape, path=FM, group_size=group_size)
  eps = 0.5 * jax.random.normal(k[1], x.shape)
  x_t, x_r = (interpolants.interpolate(FM, x, eps, u) for u in (times.t, times.r))
  y = f(net, PARAMS, x_t, times.s, times.t, cond)
  return times, x_t, y, f(net, PARAMS, x_r, times.s, times.r, cond)


def scale_of(times, size=3):
  """1 / (D |c_out|)."""
  return 1 / (np.abs(pz.EulerFlow(FM).c_out(times.s, times.t)) * size)


def without_dropout(*args, rngs):
  return apply(*args)


@pytest.fixture
def batch():
  x = 0.5 * jax.random.normal(jax.random.key(7), (32, 3))
  return dict(x=x, cond=dict(label=jnp.arange(32) % 5))


def test_no_gradient_through_the_frozen_model(batch):
  of_frozen = jax.grad(lambda frozen: loss(PARAMS, frozen, batch)[0])(PARAMS)
  chex.assert_trees_all_equal(of_frozen, jax.tree.map(jnp.zeros_like, PARAMS))
  of_params = jax.grad(lambda params: loss(params, PARAMS, batch)[0])(PARAMS)
  assert all(jnp.isfinite(g) and g != 0 for g in jax.tree.leaves(of_params))


def test_both_passes_share_one_dropout_mask(batch):
  """With r = t and equal weights y is z, mask and all, and the loss is 0."""
  stay = sample_times(mapping=lambda path, s, t, *, t_max, t_min: t)
  value, _ = loss(PARAMS, PARAMS, batch, sample_times=stay)
  assert abs(value) < 1e-6
  other, _ = loss(PARAMS, dict(a=jnp.float32(0.1), b=jnp.float32(0.0)), batch, sample_times=stay)
  assert other > 1e-4


@pytest.mark.parametrize("in_target", [True, False])
def test_dropped_labels_reach_the_target_only_if_asked_and_augmentation_both_passes(
  in_target, batch
):
  seen = []
  batch["cond"]["augment"] = jnp.ones((32, 9))

  def spy(params, x, s, t, cond=None, *, rngs=None):
    seen.append(cond)
    return apply(params, x, s, t, cond, rngs=rngs)

  loss(PARAMS, PARAMS, batch, apply=spy, drop_rate=0.5, drop_in_target=in_target)
  trained, target = (np.asarray(cond["label"]) for cond in seen)
  assert 0 < np.mean(trained == -1) < 1
  np.testing.assert_array_equal(target, trained if in_target else batch["cond"]["label"])
  for cond in seen:
    np.testing.assert_array_equal(cond["augment"], 1.0)


def test_the_consistency_model_is_one_particle_and_the_energy_kernel(batch):
  """IMM lemma 1: s at t_min, M = 1: a weighted squared distance between y and z."""
  draw = sample_times(p_endpoint=1.0)
  given = dict(apply=without_dropout, kernel=kernels.energy, weight=weights.uniform, group_size=1)
  value, metrics = loss(PARAMS, PARAMS, batch, sample_times=draw, **given)
  times, _, y, z = passes(apply, batch["x"], draw, batch["cond"], group_size=1)
  expected = jnp.mean(2 * scale_of(times)[:, 0] * jnp.sum((y - z) ** 2, -1))
  np.testing.assert_allclose(value, expected, rtol=1e-3)
  assert set(metrics) == {"loss", "mmd2"}, "no other particle, no kernel of two"


@pytest.mark.parametrize("group_size,m", [(2, 1.0), (4, 1.0), (4, 3.0)])
def test_the_kernel_of_different_particles_is_logged_by_time(batch, group_size, m):
  kernel = functools.partial(kernels.laplace, bandwidth_multiplier=m)
  given = dict(apply=without_dropout, group_size=group_size, kernel=kernel)
  _, metrics = loss(PARAMS, PARAMS, batch, **given)
  times, _, y, _ = passes(apply, batch["x"], sample_times(), batch["cond"], group_size)
  y, scale = np.asarray(y), scale_of(times)[:, 0]
  found = [[] for _ in range(4)]
  for g in range(0, 32, group_size):
    pairs = itertools.permutations(range(g, g + group_size), 2)
    floor = 1e-4  # of a distance, which a particle has from itself
    values = [np.exp(-scale[g] / m * (np.linalg.norm(y[i] - y[j]) - floor)) for i, j in pairs]
    found[int(4 * times.t[g, 0])].append(np.mean(values))
  expected = [np.mean(v) if v else np.inf for v in found]
  logged = [float(v) for name, v in metrics.items() if name.startswith("kernel_t_")]
  np.testing.assert_allclose(logged, expected, rtol=1e-3)
  assert len(set(logged)) > 1


def test_the_naive_objective_meets_data_and_a_mask_is_refused(batch):
  """r = s: the target is the data at time s, whatever the frozen model."""
  naive = sample_times(mapping=mappings.to_target)
  one = loss(PARAMS, PARAMS, batch, sample_times=naive)[0]
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  same = loss(PARAMS, zeros, batch, sample_times=naive)[0]
  np.testing.assert_allclose(one, same)
  assert one > 0
  with pytest.raises(ValueError, match="data: a batch with a mask"):
    loss(PARAMS, PARAMS, dict(batch, mask=jnp.ones((32, 1), bool)))


def test_value_at_initialisation():
  """G = 0 and Gaussian data of std 0.5 at CIFAR-10's size: 0.0035, by Monte Carlo."""
  x = 0.5 * jax.random.normal(jax.random.key(1), (2048, 3072))
  zero = lambda params, x, s, t, cond, rngs: jnp.zeros_like(x)
  times = sample_times(mapping=functools.partial(mappings.eta_decrement, k=15.0))
  given = dict(f=pz.SimpleEDM(FM), weight=functools.partial(weights.imm, a=1.0, b=5.0))
  value, _ = loss(PARAMS, PARAMS, dict(x=x), apply=zero, sample_times=times, **given)
  np.testing.assert_allclose(value, 0.0035, rtol=0.15)


def tokens(params, x, s, t, cond=None, *, rngs=None):
  return jnp.tanh(params["a"] * jnp.cumsum(x, axis=1) + params["b"] * (s - t))


@pytest.mark.parametrize("rule", ["example", "prefix", "sequence"])
def test_the_value_is_the_mean_over_active_clouds_and_its_gradient_of_params(rule):
  """Tokens, or groups, that are held fixed are not counted."""

  def pattern(key, shape, *, t_max, t_min):
    of = patterns.example if rule == "example" else patterns.context
    t, active = of(key, shape, t_max=t_max, t_min=t_min)
    return t, active.at[:2].set(False)

  x, of_group = 0.5 * jax.random.normal(jax.random.key(7), (32, 5, 3)), getattr(particles, rule)
  draw = sample_times(pattern=pattern)
  of = lambda *both: loss(*both, dict(x=x), tokens, particles=of_group, sample_times=draw)

  def by_hand():
    times, x_t, y, z = passes(tokens, x, draw)
    w = weights.imm(FM, times.s, times.t)
    of_x_t = prefixes.of_batch(dict(x=x_t))
    c = of_group(y, z, of_x_t, w, times, pz.EulerFlow(FM), group_size=4)
    distance = mmd2(c.y, c.z, kernels.laplace, c.scale, c.similarity)
    return distance, times.active[::4, :, 0], w[::4, :, 0]

  both = jax.jit(lambda *p: (jax.value_and_grad(of, (0, 1), has_aux=True)(*p), by_hand()))
  with jax.debug_key_reuse(False):
    ((value, metrics), (of_params, of_frozen)), (distance, active, w) = both(PARAMS, PARAMS)
  assert all(np.isfinite(g) and g != 0 for g in jax.tree.leaves(of_params))
  assert all(g == 0 for g in jax.tree.leaves(of_frozen))
  active = np.asarray(active)
  if distance.ndim == 1:
    w = np.sum(w, axis=1, where=active) / np.maximum(np.sum(active, axis=1), 1)
    active = np.any(active, axis=1)
  assert 0 < np.mean(active) < 1
  np.testing.assert_allclose(metrics["mmd2"], np.mean(distance, where=active), rtol=1e-5)
  np.testing.assert_allclose(value, np.mean(w * distance, where=active), rtol=1e-5)


def test_in_two_streams_active_tokens_are_matched_given_the_context_before_them_alone():
  net = causal_transformer.CausalTransformer(width=16, depth=1, heads=2)
  rng = np.random.default_rng(3)
  draw = lambda *shape: jnp.asarray(rng.normal(0, 0.5, shape), jnp.float32)
  x, cond, one = draw(8, 5, 2), dict(action=draw(8, 5, 3)), jnp.ones((1, 5, 1))
  params = jax.eval_shape(net.init, jax.random.key(0), x, one, one, cond)
  params = jax.tree.map(lambda p: draw(*p.shape) / np.sqrt(np.prod(p.shape[:-1])), params)

  def outputs(params, frozen, x):
    seen = {}

    def spy(y, z, of_x_t, w, times, f, **given):
      c = particles.prefix(y, z, of_x_t, w, times, f, **given)
      distance = mmd2(c.y, c.z, kernels.laplace, c.scale, c.similarity)
      seen.update(y=y, x_t=of_x_t.x, times=times, distance=distance)
      return c

    given = dict(conditioning=two_stream.TwoStream())
    given |= dict(sample_times=sample_times(pattern=patterns.two_stream))
    batch = dict(x=x, cond=cond)
    value, _ = loss(params, frozen, batch, net.apply, particles=spy, **given)
    return jnp.append(jnp.sum(seen["y"], axis=(0, 2)), value), seen

  rows = jax.jit(jax.jacrev(outputs, (0, 1, 2), has_aux=True))
  (of_params, of_frozen, of_x), seen = rows(params, params, x)
  depends = np.any(np.asarray(of_x[:-1]) != 0, axis=(1, 3))
  np.testing.assert_array_equal(depends, np.concatenate([np.eye(5), np.tri(5)]))
  np.testing.assert_array_equal(seen["y"][:, :5], seen["x_t"][:, :5])
  assert seen["times"].streams == 2 and not np.any(seen["times"].active[:, :5])
  np.testing.assert_allclose(seen["distance"][:, :5], 0.0, atol=1e-6)
  assert np.all(seen["distance"][:, 5:] > 1e-4)
  assert all(np.all(np.isfinite(g)) and np.any(g[-1] != 0) for g in jax.tree.leaves(of_params))
  assert all(np.all(g[-1] == 0) for g in jax.tree.leaves(of_frozen))


SCALES = scales.Scales(dict(x=1.0), (1.0,) * 4, (1.0,) * 4, (4.0,) * 4)


def two_streams(x, net, params=None, particles=particles.prefix, **given):
  times = sample_times(pattern=functools.partial(patterns.two_stream, noisy=0.0))
  spec = two_stream.TwoStream(**dict(scales=SCALES) | given)
  how = dict(conditioning=spec, sample_times=times, particles=particles)
  return loss(params, params, dict(x=x), net, **how)[0]


X = jnp.asarray(np.random.default_rng(4).normal(0, 0.5, (16, 4, 2)), jnp.float32)


def sines(params, x, s, t, cond, *, streams, rngs):
  return jnp.sin(params * x + t) * (1.0 + s)


def test_the_frozen_model_alone_starts_from_the_datum_of_the_posterior():
  seen = []

  def spy(y, z, *args, **given):
    seen.append((y, z))
    return particles.token(y, z, *args, **given)

  def moved(x, eps, x_t, times, f, reference, scales):
    np.testing.assert_allclose(x_t, interpolants.interpolate(FM, x, eps, times.t), atol=1e-6)
    return x + 1.0, eps

  for rule in (posterior.conditional, moved):
    two_streams(X, sines, 3.0, spy, posterior=rule)
  (y, z), (same, other) = seen
  np.testing.assert_array_equal(y, same)
  assert np.all(z[:, 4:] != other[:, 4:])


def test_the_frozen_model_alone_starts_with_the_noise_of_the_interpolant():
  """The DDPM posterior's; context keeps its noise, as r = t there."""
  seen = []

  def spy(params, x, s, t, cond, *, streams, rngs):
    seen.append((x, t))
    return sines(params, x, s, t, cond, streams=streams, rngs=rngs)

  for interpolant in (interpolants.same_noise, interpolants.renewed_noise):
    two_streams(X, spy, 3.0, interpolant=interpolant)
  (x_t, _), (x_r, r), (same, t), (other, _) = seen
  np.testing.assert_array_equal(x_t, same)
  np.testing.assert_array_equal(x_r[:, :4], other[:, :4])
  moved = np.asarray(r < t)[..., 0] & (np.asarray(r)[..., 0] > 0.1)
  assert np.any(moved) and np.all((x_r != other)[moved])


def test_the_posterior_mean_lowers_the_loss():
  how = dict(grouping=grouping.by_prefix)
  value = lambda params, rule: two_streams(X, sines, params, posterior=rule, **how)
  found, slope = jax.value_and_grad(value)(3.0, posterior.minibatch_mean)
  other, other_slope = jax.value_and_grad(value)(3.0, posterior.conditional)
  assert np.isfinite(slope) and slope != other_slope
  assert 0.0 < found < other, "targets of less variance are nearer"


def test_the_network_sees_the_first_of_each_few_rows_and_the_posterior_all():
  same = lambda x, eps, *_: (x, eps)

  def of_all(x, eps, x_t, times, f, reference, scales):
    np.testing.assert_array_equal(x, reference.x[::2])
    return x + jnp.mean(reference.x), eps

  value = lambda x, rule, count: two_streams(x, sines, 3.0, posterior=rule, reference=count)
  expected, other = value(X[::2], same, 1), X.at[1::2].add(1.0)
  assert value(X, same, 2) == expected == value(other, same, 2)
  assert value(X, of_all, 2) != value(other, of_all, 2)


class Plain(pz.Identity):
  def c_skip(self, s, t):
    return jnp.zeros_like(t)

  def c_out(self, s, t):
    return jnp.ones_like(t)


def test_a_rule_gets_the_outputs_of_the_examples_in_its_slots(key):
  """A network whose output is its label and the time from which it starts."""
  batch = dict(x=jax.random.normal(key, (24, 4, 2)), cond=dict(label=jnp.arange(24)))
  seen = {}

  def label_and_time(params, x, s, t, cond, *, streams, rngs):
    return cond["label"].reshape(-1, 1, 1) + t + 0.0 * x

  def spy(y, z, of_x_t, w, times, f, **given):
    seen.update(y=y, z=z, times=times)
    return particles.prefix(y, z, of_x_t, w, times, f, **given)

  times = sample_times(pattern=functools.partial(patterns.two_stream, noisy=0.0))
  spec = two_stream.TwoStream(grouping=grouping.by_prefix, scales=SCALES)
  given = dict(conditioning=spec, sample_times=times)
  loss({}, {}, batch, label_and_time, f=Plain(FM), particles=spy, **given)
  y, z, examples = seen["y"][:, 4:, 0], seen["z"][:, 4:, 0], seen["times"].assignment[:, 4:]
  s, r, t = (u[:, 4:, 0] for u in (seen["times"].s, seen["times"].r, seen["times"].t))
  jumps = np.asarray(r > s)  # a jump of no length is no output of the network
  assert 0.1 < np.mean(jumps) and np.any(examples != np.arange(24)[:, None])
  np.testing.assert_array_equal(np.floor(y), examples)
  np.testing.assert_allclose(y % 1, t, atol=1e-5)
  np.testing.assert_array_equal(np.floor(z)[jumps], examples[jumps])
  np.testing.assert_allclose((z % 1)[jumps], r[jumps], atol=1e-5)


def conditioned(params, batch, **given):
  """A network that reads its conditions, in two streams, by the default rules of prefixes."""

  def net(params, x, s, t, cond, *, streams, rngs):
    read = cond["action"] + cond["label"].reshape(-1, 1, 1)
    return jnp.sin(params * (x + read) + t) * (1.0 + s)

  rules = dict(grouping=grouping.by_prefix, posterior=posterior.minibatch_mean, reference=2)
  times = sample_times(pattern=functools.partial(patterns.two_stream, noisy=0.0))
  spec = two_stream.TwoStream(**rules)
  rule = functools.partial(moment_matching.loss, f=pz.EulerFlow(FM), conditioning=spec)
  rule = two_stream.fitted(rule, jax.tree.map(np.asarray, batch))
  how = dict(sample_times=times, particles=particles.prefix)
  return loss(params, params, batch, net, **how | rule.keywords | given)


def masked_batch(seed=5):
  rng = np.random.default_rng(seed)
  mask = np.arange(4).reshape(1, 4, 1) < rng.integers(1, 5, (64, 1, 1))
  cond = dict(label=rng.integers(0, 3, 64), action=rng.normal(size=(64, 4, 2)))
  x = rng.normal(0, 0.5, (64, 4, 2))
  return jax.tree.map(jnp.asarray, dict(x=x, mask=mask, cond=cond))


def test_padding_is_not_read_and_has_no_loss():
  batch = masked_batch()
  hidden = lambda a: jnp.where(batch["mask"], a, 7.0)
  cond = batch["cond"] | dict(action=hidden(batch["cond"]["action"]))
  other = batch | dict(x=hidden(batch["x"]), cond=cond)
  both = [jax.value_and_grad(lambda p: conditioned(p, b)[0])(3.0) for b in (batch, other)]  # noqa: B023
  np.testing.assert_array_equal(both[0], both[1])
  assert both[0][0] > 0 and both[0][1] != 0


@pytest.mark.parametrize("name", ["label", "action"])
def test_a_condition_decides_who_is_compared_and_what_is_averaged(name):
  """Of the datum alone, for the network reads the same conditions in both."""
  seen = []

  def spy(y, z, given, w, times, f, **rest):
    c = particles.prefix(y, z, given, w, times, f, **rest)
    seen.append((np.asarray(times.assignment), np.asarray(c.similarity)))
    return c

  spy.padded = True
  batch = masked_batch()
  for cond in (batch["cond"], batch["cond"] | {name: batch["cond"][name][::-1]}):
    conditioned(3.0, batch | dict(cond=cond), particles=spy)
  (slots, similarity), (others, less) = seen
  assert np.any(slots != others) and np.any(similarity != less)


def test_dropped_conditions_are_neither_compared_nor_averaged_by():
  value, metrics = conditioned(3.0, masked_batch(), drop_rate=0.5)
  assert np.isfinite(value) and 1.0 < metrics["particles_least"] <= metrics["particles"] <= 4.0
