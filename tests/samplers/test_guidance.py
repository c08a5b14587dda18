"""Guidance: classifier-free, and by the energy of a clean estimate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dfim.core import conditioning, interpolants as ip, parameterization as pz
from dfim.samplers import guidance, jump

COND = dict(label=jnp.array([2, 0, 4]))


def apply(params, x, s, t, cond):
  return params * x + (t - s) + cond["label"].astype(float)[:, None]


def inputs():
  x = jax.random.normal(jax.random.key(0), (3, 2))
  return x, jnp.full((1, 1), 0.2), jnp.full((1, 1), 0.8)


def guided(apply, f, weight):
  model_of = functools.partial(jump.of_network, apply, 0.7, f)
  return guidance.classifier_free(model_of, weight)(COND)


FS = pytest.mark.parametrize("f", [pz.EulerFlow(ip.FlowMatching()), pz.SimpleEDM(ip.Cosine())])


@FS
@pytest.mark.parametrize("weight,cond", [(1.0, COND), (0.0, conditioning.null(COND))])
def test_weight_one_is_conditional_and_zero_unconditional(f, weight, cond):
  found = guided(apply, f, weight).jump(*inputs())
  np.testing.assert_allclose(found, f(apply, 0.7, *inputs(), cond), rtol=1e-6)


@FS
def test_guiding_a_jump_or_an_estimate_guides_the_output(f):
  """G(null) + weight (G(cond) - G(null)), as the paper has it, through an affine f."""
  x, s, t = inputs()
  null = conditioning.null(COND)
  mixed = lambda p, *a: apply(p, *a[:-1], null) + 1.5 * (apply(p, *a) - apply(p, *a[:-1], null))
  found = guided(apply, f, 1.5)
  np.testing.assert_allclose(found.jump(x, s, t), f(mixed, 0.7, x, s, t, COND), rtol=1e-5)
  np.testing.assert_allclose(found.denoise(x, t), f.clean(mixed, 0.7, x, t, COND), rtol=1e-5)


def test_one_doubled_batch_and_times_of_every_example():
  sizes = []

  def spy(params, x, s, t, cond):
    sizes.append((len(x), len(s), len(t), len(cond["label"])))
    return apply(params, x, s, t, cond)

  x, s, t = inputs()
  guided(spy, pz.EulerFlow(ip.FlowMatching()), 2.0).jump(x, s, jnp.repeat(t, 3, 0))
  assert sizes == [(6, 1, 6, 6)]


COVARIANCE = 0.25 * 0.8 ** np.abs(np.subtract.outer(np.arange(3), np.arange(3)))  # of three tokens


def joint_clean(path):
  """E[x | x_t] of three correlated Gaussian tokens, and its covariance, at one time for all."""

  def clean(x, t):
    a, noise = path.alpha(t[0, 0, 0]), 0.25 * path.sigma(t[0, 0, 0]) ** 2
    gain = a * COVARIANCE @ jnp.linalg.inv(a**2 * COVARIANCE + noise * jnp.eye(3))
    return jnp.einsum("ij,bjd->bid", gain, x)

  return clean


def energy(denoise, log_density, scale=1.0, *, path):
  """The guided estimate of a denoiser whose noise has deviation 0.5."""
  model = jump.Model(None, denoise, path, 0.5)
  return guidance.energy(model, log_density, scale).denoise


def time(t):
  return jnp.full((1, 1, 1), t)


def wants(token, value, variance=0.01):
  """The log-density of seeing `value` at `token` through noise of `variance`."""
  return lambda x: -jnp.sum(jnp.square(x[:, token] - value), axis=-1) / (2 * variance)


@pytest.mark.parametrize("path", [ip.FlowMatching(), ip.Cosine()], ids=repr)
@pytest.mark.parametrize("t", [0.2, 0.6, 0.9])
def test_with_the_exact_likelihood_guidance_is_the_posterior(path, t, float64):
  """Token 2 observed through noise: E[x | x_t, y] by conditioning the joint Gaussian at once."""
  v, y = 0.05, 0.7
  a, noise = path.alpha(jnp.asarray(t)), 0.25 * path.sigma(jnp.asarray(t)) ** 2
  seen = np.block([[a * np.eye(3)], [np.eye(3)[2:]]])  # x_t, then y, of x
  spread = seen @ COVARIANCE @ seen.T + np.diag([noise, noise, noise, v])
  gain = COVARIANCE @ seen.T @ np.linalg.inv(spread)
  x_t = jax.random.normal(jax.random.key(0), (4, 3, 1))
  given = jnp.concatenate([x_t[..., 0], jnp.full((4, 1), y)], axis=1)
  exact = jnp.einsum("ij,bj->bi", gain, given)[..., None]

  known = a**2 * COVARIANCE + noise * np.eye(3)
  left = COVARIANCE - a**2 * COVARIANCE @ np.linalg.inv(known) @ COVARIANCE
  guided = energy(joint_clean(path), wants(2, y, v + left[2, 2]), path=path)
  np.testing.assert_allclose(guided(x_t, time(t)), exact, atol=1e-8)


def test_what_is_asked_of_the_future_moves_the_past(key):
  clean, x = joint_clean(ip.FlowMatching()), jax.random.normal(key, (4, 3, 1))
  path = ip.FlowMatching()
  guide = lambda scale: energy(clean, wants(2, 3.0), scale, path=path)(x, time(0.5))
  np.testing.assert_array_equal(guide(0.0), clean(x, time(0.5)))
  weak, strong = (guide(s) - clean(x, time(0.5)) for s in (0.01, 0.02))
  assert jnp.all(weak[:, 0] > 0) and jnp.all(weak[:, 2] > weak[:, 0])
  np.testing.assert_allclose(strong, 2 * weak, rtol=1e-3)


def test_a_doubled_batch_changes_no_example(key):
  """The released program averages the energy over the batch: its strength falls as 1 / B."""
  x = jax.random.normal(key, (4, 3, 1))
  guide = energy(joint_clean(ip.Cosine()), wants(1, 2.0), path=ip.Cosine())
  np.testing.assert_allclose(guide(jnp.concatenate([x, x]), time(0.4))[:4], guide(x, time(0.4)))


def test_without_signal_there_is_nothing_to_guide():
  x, path = jnp.ones((2, 3, 1)), ip.FlowMatching()
  clean = lambda x, t: 0.0 * x
  guided = energy(clean, wants(1, 2.0), 100.0, path=path)(x, time(1.0))
  np.testing.assert_array_equal(guided, 0.0)


@pytest.mark.parametrize("token", [0, 1, -1])
def test_near_is_a_gaussian_about_the_point_at_that_token_alone(token, key, float64):
  x, point, width = jax.random.normal(key, (5, 3, 2), jnp.float64), (0.3, -0.4), 0.2
  near = functools.partial(guidance.near_point, point=point, token=token, width=width)
  density = scipy.stats.multivariate_normal(point, width**2).logpdf(x[:, token])
  at_point = scipy.stats.multivariate_normal(point, width**2).logpdf(point)
  np.testing.assert_allclose(near(x), density - at_point, rtol=1e-9)
  slope = jax.grad(lambda x: near(x).sum())(x)
  np.testing.assert_array_equal(jnp.delete(slope, jnp.array([token]), axis=1), 0.0)


def test_near_pulls_a_denoiser_towards_the_point(key):
  clean, x = joint_clean(ip.FlowMatching()), jax.random.normal(key, (4, 3, 1))
  near = functools.partial(guidance.near_point, point=(0.5,), width=0.5)
  guided = energy(clean, near, path=ip.FlowMatching())(x, time(0.5))
  assert jnp.all(jnp.abs(guided[:, -1] - 0.5) < jnp.abs(clean(x, time(0.5))[:, -1] - 0.5))


@pytest.mark.parametrize("wrong", [dict(point=(0.5,)), dict(token=3), dict(token=-4)])
def test_near_refuses_a_token_or_a_point_that_is_not_there(wrong):
  given = dict(point=(0.5, 0.5), width=1.0) | wrong
  with pytest.raises(ValueError, match="near_point: point="):
    guidance.near_point(jnp.zeros((2, 3, 2)), **given)
