"""Loss weights: closed forms against the printed formula, finite at the ends."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants as ip, weights

FM, COSINE = ip.FlowMatching(), ip.Cosine()
WEIGHTS = [
  f for name, f in inspect.getmembers(weights, inspect.isfunction) if not name.startswith("_")
]


@pytest.mark.parametrize("path", [FM, COSINE], ids=repr)
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda f: f.__name__)
def test_weights_are_finite_and_not_negative(weight, path):
  if path == FM and weight in (weights.min_snr, weights.fused_snr):
    with pytest.raises(ValueError, match="FlowMatching.*DiscreteVP or Cosine"):
      weight(path, jnp.zeros(1), jnp.ones(1), target="x0")
    return
  t = jnp.linspace(0.0, 1.0, 101)[:, None]
  for target in ("x0", "eps", "v"):
    w = weight(path, jnp.zeros_like(t), t, target=target)
    assert w.shape == t.shape
    assert jnp.all(jnp.isfinite(w) & (w >= 0))


@pytest.mark.parametrize("path", [FM, COSINE], ids=repr)
@pytest.mark.parametrize("a,b", [(1.0, 4.0), (2.0, 4.0), (1.0, 5.0)])
def test_imm_weight_equals_the_printed_formula(path, a, b, float64):
  t = jnp.linspace(0.01, 0.99, 50)
  lam, slope = jax.jvp(functools.partial(ip.log_snr, path), (t,), (jnp.ones_like(t),))
  alpha, sigma = path.alpha(t), path.sigma(t)
  printed = 0.5 * jax.nn.sigmoid(b - lam) * -slope * alpha**a / (alpha**2 + sigma**2)
  np.testing.assert_allclose(weights.imm(path, t, t, a=a, b=b), printed, rtol=1e-10)


def test_linear_weight_runs_from_clean_to_noise_and_sigmoid_needs_its_target():
  t = jnp.array([0.0, 0.5, 1.0])
  np.testing.assert_allclose(weights.linear(FM, t, t), [1.0, 0.55, 0.1], rtol=1e-6)
  np.testing.assert_allclose(weights.linear(FM, t, t, clean=0.0, noise=4.0), [0.0, 2.0, 4.0])
  with pytest.raises(ValueError, match="target='score'"):
    weights.sigmoid(COSINE, jnp.ones(1), jnp.ones(1), target="score")


LEVELS = jnp.array([0, 999, 500, 250, 900])  # of the worked example


def of_levels(index):
  return (jnp.asarray(index)[None, :, None] + 1) / 1000


@pytest.mark.parametrize(
  "target,decay,expected",
  [
    ("v", 0.96, [0.001501, 0.827586, 0.824126, 0.823574, 0.817505]),
    ("x0", 0.96, [5.0, 4.8, 4.685882, 5.0, 4.47961]),
    ("v", 0.0, [0.001501, 0.0, 0.498343, 0.750685, 0.038989]),
    ("x0", 0.0, [5.0, 0.0, 0.993393, 5.0, 0.04057]),
  ],
)
def test_fused_snr_worked_example(target, decay, expected, float64):
  t = of_levels(LEVELS)
  fused = weights.fused_snr(ip.DiscreteVP("sigmoid"), t, t, decay=decay, target=target)
  np.testing.assert_allclose(fused[0, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_fused_snr_is_min_snr_without_memory_and_for_the_first_token(target, key):
  t = jax.random.uniform(key, (3, 6, 1))
  path = ip.DiscreteVP("cosine")
  expected = weights.min_snr(path, t, t, target=target)
  given = dict(target=target)
  forgetful, fused = (weights.fused_snr(path, t, t, decay=d, **given) for d in (0.0, 0.96))
  np.testing.assert_allclose(forgetful, expected, rtol=1e-5)
  np.testing.assert_allclose(fused[:, :1], expected[:, :1], rtol=1e-5)
  assert not np.allclose(fused[:, 1:], expected[:, 1:])


def test_fused_snr_looks_back_only(key):
  t = jax.random.uniform(key, (1, 5, 1))
  of_tokens = lambda u: weights.fused_snr(COSINE, u, u, target="x0")[0, :, 0]
  later = jax.jacobian(of_tokens)(t)[:, 0, :, 0]
  np.testing.assert_array_equal(np.triu(later, 1), 0.0)
  assert np.any(np.tril(later, -1) != 0.0)


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid"])
def test_golden_weights(betas, target, golden, float64):
  numbers = golden("diffusion_forcing.npz")
  t = (jnp.asarray(numbers["noise_levels"]).T[..., None] + 1) / 1000
  for name in ("min_snr", "fused_snr"):
    ours = getattr(weights, name)(ip.DiscreteVP(betas), t, t, target=target)
    released = "noise" if target == "eps" else target
    expected = numbers[f"loss_weight/pred_{released}/{betas}/{name}"].T
    np.testing.assert_allclose(ours[..., 0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0])
def test_sigmoid_weighs_noise_by_a_sigmoid_of_log_snr(bias, float64):
  t = jnp.linspace(0.01, 0.99, 50)
  expected = jax.nn.sigmoid(bias - ip.log_snr(COSINE, t))
  found = weights.sigmoid(COSINE, t, t, bias=bias, target="eps")
  np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("weight", [weights.min_snr, weights.sigmoid])
def test_the_same_error_weighs_the_same_in_every_prediction(weight, float64):
  """An error e of the noise is an error e sigma / alpha of the clean sample, e / alpha of v."""
  t = jnp.linspace(0.05, 0.95, 20)[None, :, None]
  alpha, sigma = COSINE.alpha(t), COSINE.sigma(t)
  of = lambda target: weight(COSINE, t, t, target=target)
  np.testing.assert_allclose(of("x0") * sigma**2 / alpha**2, of("eps"), rtol=1e-9)
  np.testing.assert_allclose(of("v") / alpha**2, of("eps"), rtol=1e-9)
