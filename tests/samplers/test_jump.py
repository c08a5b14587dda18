"""Sampling: grids of every rank, exact distributions for perfect models, released numbers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import grids, interpolants as ip, levels as levels_lib, parameterization as pz
from dfim.samplers import guidance, jump as jump_lib

PUSHFORWARD, RESTART = jump_lib.Pushforward(), jump_lib.Restart()
FM, COSINE = ip.FlowMatching(), ip.Cosine()
PATHS = pytest.mark.parametrize("path", [FM, COSINE], ids=repr)


def model(path, jump=None, denoise=None):
  """A model of these functions, with the noise of deviation 0.5."""
  return jump_lib.Model(jump, denoise, path, 0.5)


def sample(jump, x, grid, *, key=None, path=FM, step=PUSHFORWARD):
  return jump_lib.scan(model(path, jump), key or jax.random.key(0), x, grid, step=step)


def gaussian_jump(path, std=0.5):
  """The flow of N(0, std^2) data with a prior of deviation .5: x_s = x_t norm(s) / norm(t)."""
  norm = lambda u: jnp.sqrt((path.alpha(u) * std) ** 2 + (path.sigma(u) * 0.5) ** 2)
  return lambda x, s, t: x * norm(s) / norm(t)


def gaussian_clean(path, std=0.5):
  def clean(x, t):
    signal, noise = path.alpha(t) * std**2, (path.sigma(t) * 0.5) ** 2
    return x * signal / (path.alpha(t) * signal + noise)

  return clean


@PATHS
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_perfect_jump_gives_the_data_distribution(path, steps, key):
  x = 0.5 * jax.random.normal(key, (100_000, 1))
  grid = grids.uniform(steps, 1.0, 0.0)
  out = sample(gaussian_jump(path, 0.2), x, grid)
  np.testing.assert_allclose(out.std(), 0.2, rtol=0.01)
  again = sample(gaussian_jump(path, 0.2), x, grid, path=path, step=RESTART)
  np.testing.assert_allclose(again.std(), 0.2, rtol=0.01)


@PATHS
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_perfect_denoiser_gives_the_data_distribution(path, eta, key):
  x = 0.5 * jax.random.normal(key, (50_000, 1))
  perfect, grid = model(path, denoise=gaussian_clean(path, 0.2)), grids.uniform(200, 1.0, 0.0)
  out = jump_lib.scan(perfect, jax.random.key(1), x, grid, step=jump_lib.Ancestral(eta))
  np.testing.assert_allclose(out.std(), 0.2, rtol=0.03)


def test_restart_with_one_step_is_pushforward(key):
  x, grid = jax.random.normal(key, (6, 3)), grids.uniform(1, 0.994, 0.006)
  jump = lambda x, s, t: jnp.abs(x) + s - t  # rounded alike in any program, as tanh is not
  once = sample(jump, x, grid, step=RESTART)
  np.testing.assert_array_equal(once, sample(jump, x, grid))


def test_each_token_follows_its_own_column(key):
  """A matrix walks every token through its own times, and leaves waiting tokens untouched."""
  x = jax.random.normal(key, (4, 3, 2))
  grid = levels_lib.at(levels_lib.autoregressive(2, 3), grids.uniform(2, 1.0, 0.0))
  jump = gaussian_jump(FM, 0.2)
  out = sample(jump, x, grid)
  np.testing.assert_allclose(out, jump(x, jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1))), rtol=1e-5)
  half = sample(jump, x, grid[:3])  # the first token alone
  np.testing.assert_array_equal(half[:, 1:], x[:, 1:])
  assert jnp.all(half[:, 0] != x[:, 0])
  each = jnp.broadcast_to(grid[:, None], (len(grid), 4, 3))
  np.testing.assert_allclose(sample(jump, x, each), out, rtol=1e-6)


def test_noise_belongs_to_the_example_not_to_the_batch():
  keys = lambda *i: jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.array(i))
  jump, grid = gaussian_jump(FM, 0.2), grids.uniform(3, 1.0, 0.0)
  run = functools.partial(jump_lib.scan, model(FM, jump), grid=grid, step=RESTART)
  x = jnp.ones((4, 2))
  four = run(key=keys(0, 1, 2, 3), x=x)
  np.testing.assert_array_equal(four[2:], run(key=keys(2, 3), x=x[2:]))
  assert len(np.unique(four)) == 8


def test_sampling_is_one_program_with_one_copy_of_the_network():
  @chex.assert_max_traces(n=1)
  def jump(x, s, t):
    return jnp.tanh(x) * (t - s)

  jax.make_jaxpr(lambda x: sample(jump, x, grids.uniform(8, 1.0, 0.0)))(jnp.ones((2, 3)))


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4), (3, 2, 4, 1), (1,)])
def test_a_grid_of_the_wrong_rank_is_refused(shape):
  with pytest.raises(ValueError, match="grid of shape"):
    sample(lambda x, s, t: x, jnp.ones((2, 5)), jnp.ones(shape))


def golden_network(params, x, s, t, cond=None, *, stride):
  """The analytic network of the golden numbers, whose images are channels first."""
  flat = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
  second = (t - s) if stride else s
  raw = jnp.tanh(flat @ params.T).reshape(len(x), 3, 2, 2)
  raw = jnp.moveaxis(raw, 1, -1) + 0.1 * t - 0.2 * second
  label = 0.0 if cond is None else jnp.maximum(cond["label"], 0)
  return raw + 0.3 * jnp.reshape(label, (-1, 1, 1, 1))


GOLDEN = [
  ("fm", "euler_fm", FM, pz.EulerFlow(FM), 0.0),
  ("fm", "simple_edm", FM, pz.SimpleEDM(FM), 0.006),
  ("vp_cosine", "simple_edm", COSINE, pz.SimpleEDM(COSINE), 0.006),
]


@pytest.fixture(params=GOLDEN, ids=lambda case: f"{case[0]}-{case[1]}")
def released(request, golden, float64):
  """Noise, jump, path, t_min and the expected results of one released configuration."""
  schedule, name, path, f, t_min = request.param
  numbers = golden("imm_samplers.npz")
  last = lambda a: jnp.moveaxis(jnp.asarray(a), -3, -1)
  network = functools.partial(golden_network, stride=name == "euler_fm")
  jump = lambda x, s, t: f(network, jnp.asarray(numbers["A"]), x, s, t)
  expected = lambda rest: last(numbers[f"{schedule}/{name}/{rest}"])
  return last(numbers["z"]), jump, path, t_min, expected


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["uniform", "edm"])
def test_golden_pushforward(released, kind, steps):
  x, jump, path, t_min, expected = released
  ends = dict(t_max=0.994, t_min=t_min)
  grid = grids.uniform(steps, **ends) if kind == "uniform" else grids.edm(path, steps, **ends)
  out = sample(jump, x, grid)
  np.testing.assert_allclose(out, expected(f"pushforward/{kind}/{steps}"), rtol=1e-6, atol=1e-6)


def test_golden_pushforward_through_eta(released):
  x, jump, path, t_min, expected = released
  out = sample(jump, x, grids.through_eta(path, (1.4,), 0.994, t_min))
  np.testing.assert_allclose(out, expected("pushforward/mid_eta_1.4/2"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [2, 4])
def test_golden_restart(released, steps, monkeypatch):
  """With the noises that the released program drew, looked up by the step's key."""
  x, jump, path, t_min, expected = released
  drawn = expected(f"restart/uniform/{steps}/noises") / 0.5
  drawn = jnp.concatenate([drawn, jnp.zeros((1, *x.shape))])  # the last step's is not used
  fold = lambda i: jax.random.key_data(jax.random.fold_in(jax.random.key(0), i))
  keys = jax.vmap(fold)(jnp.arange(steps))

  def lookup(key, x):
    this = jnp.all(keys == jax.random.key_data(key)[None], axis=1)
    return drawn[jnp.argmax(this)]

  monkeypatch.setattr(ip, "noise_like", lookup)
  out = sample(jump, x, grids.uniform(steps, 0.994, t_min), path=path, step=RESTART)
  np.testing.assert_allclose(out, expected(f"restart/uniform/{steps}"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 1.5, 2.0])
def test_golden_guidance(weight, golden, float64):
  numbers = golden("imm_samplers.npz")
  last = lambda a: jnp.moveaxis(jnp.asarray(a), -3, -1)
  network = functools.partial(golden_network, stride=True)
  cond = dict(label=jnp.asarray(numbers["labels"]))
  model_of = functools.partial(
    jump_lib.of_network, network, jnp.asarray(numbers["A"]), pz.EulerFlow(FM)
  )
  guided = guidance.classifier_free(model_of, weight)(cond)
  grid = grids.uniform(2, 0.994, 0.0)
  out = jump_lib.scan(guided, jax.random.key(0), last(numbers["z"]), grid, step=PUSHFORWARD)
  np.testing.assert_allclose(out, last(numbers[f"cfg/{weight}/2"]), rtol=1e-6, atol=1e-6)
