"""Jumps: every parameterization is a DDIM step from its reading of the network's output."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants as ip, parameterization as pz

FM, COSINE = ip.FlowMatching(), ip.Cosine()
ALL = [
  pz.EulerFlow(FM),
  *(kind(path) for kind in (pz.SimpleEDM, pz.Identity, pz.Noise) for path in (FM, COSINE)),
]
fs = pytest.mark.parametrize("f", ALL, ids=repr)


def draw(key, shape=(8, 3, 2)):
  k1, k2, k3 = jax.random.split(key, 3)
  x, eps = 0.5 * jax.random.normal(k1, (2, *shape), jnp.result_type(float))
  s, t = jnp.sort(jax.random.uniform(k2, (2, shape[0], 1, 1), minval=0.05, maxval=0.9), axis=0)
  return x, eps, s, t, jax.random.normal(k3, shape, jnp.result_type(float))


@fs
def test_a_jump_is_ddim_of_the_clean_estimate(f, key, float64):
  _, _, s, t, x_t = draw(key)
  net = lambda params, x, s, t, cond: jnp.tanh(params * x + 1.0)
  raw = net(0.7, f.c_in(t) * x_t, s, t, None)
  expected = ip.ddim(f.path, x_t, f.to_clean(x_t, raw, t), s, t)
  np.testing.assert_allclose(f(net, 0.7, x_t, s, t), expected, rtol=1e-9, atol=1e-12)


@fs
def test_the_perfect_output_jumps_along_the_path(f, key, float64):
  x, eps, s, t, _ = draw(key)
  x_t = ip.interpolate(f.path, x, eps, t)
  perfect = lambda *_: f.target(x, eps, t)
  np.testing.assert_allclose(
    f(perfect, None, x_t, s, t), ip.interpolate(f.path, x, eps, s), rtol=1e-9, atol=1e-12
  )
  np.testing.assert_allclose(f.clean(perfect, None, x_t, t), x, rtol=1e-9, atol=1e-12)


@fs
def test_the_velocity_of_the_perfect_output_is_that_of_the_path(f, key, float64):
  x, eps, _, t, _ = draw(key)
  along = lambda t: ip.interpolate(f.path, x, eps, t)
  x_t, expected = jax.jvp(along, (t,), (jnp.ones_like(t),))
  of_x, of_raw = f.velocity(t)
  found = of_x * x_t + of_raw * f.target(x, eps, t)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@fs
@pytest.mark.parametrize("time", [0.0, 0.3, 0.994])
def test_a_jump_of_no_length_is_the_identity_for_every_network(f, time, key):
  x_t = jax.random.normal(key, (4, 3))
  t = jnp.full((4, 1), time)
  net = lambda params, x, s, t, cond: params * x
  jump = lambda params, x_t: f(net, params, x_t, t, t)
  np.testing.assert_array_equal(jump(2.0, x_t), x_t)
  of_params, of_x = jax.grad(lambda p, x: jump(p, x).sum(), (0, 1))(2.0, x_t)
  assert of_params == 0.0
  np.testing.assert_array_equal(of_x, jnp.ones_like(x_t))


@fs
def test_input_has_unit_variance(f, key):
  k1, k2 = jax.random.split(key)
  x, eps = 0.5 * jax.random.normal(k1, (2, 100_000, 1))
  t = jax.random.uniform(k2, (100_000, 1))
  std = (f.c_in(t) * ip.interpolate(f.path, x, eps, t)).std()
  np.testing.assert_allclose(std, 1.0, atol=0.01)


def test_worked_values():
  """Coefficients printed in the paper's notation for sigma_data = .5, s = .25, t = .75."""
  s, t = jnp.full(1, 0.25), jnp.full(1, 0.75)
  expected = [
    (pz.SimpleEDM(FM), 0.6, -0.31622777),
    (pz.EulerFlow(FM), 1.0, -0.25),
    (pz.Identity(FM), 1 / 3, 2 / 3),
    (pz.SimpleEDM(COSINE), 0.70710678, -0.35355339),
  ]
  for f, skip, out in expected:
    np.testing.assert_allclose([f.c_skip(s, t)[0], f.c_out(s, t)[0]], [skip, out], rtol=1e-5)


def test_the_straight_step_needs_the_straight_path():
  with pytest.raises(ValueError, match="path=Cosine.*SimpleEDM"):
    pz.EulerFlow(COSINE)


@pytest.mark.parametrize("schedule,path", [("fm", FM), ("vp_cosine", COSINE)])
def test_golden_preconditioning(schedule, path, golden, float64):
  g = golden("imm_preconditioning.npz")
  as_time = lambda name: jnp.asarray(g[name]).reshape(-1, 1, 1, 1)
  s, t, x, raw = as_time("s"), as_time("t"), jnp.asarray(g["x"]), jnp.asarray(g["F"])
  ours = functools.partial(np.testing.assert_allclose, rtol=1e-9)
  ours(path.alpha(t).ravel(), g[f"{schedule}/alpha"])
  ours(path.sigma(t).ravel(), g[f"{schedule}/sigma"])
  ours(ip.log_snr(path, t).ravel(), g[f"{schedule}/logsnr"], atol=1e-12)
  ours(ip.eta(path, t).ravel(), g[f"{schedule}/eta"])
  ours(path.time(ip.eta(path, t)).ravel(), g[f"{schedule}/eta_inverse"])
  ours(ip.ddim(path, x, jnp.asarray(g["y"]), s, t), g[f"{schedule}/ddim"], atol=1e-12)
  kinds = dict(identity=pz.Identity, simple_edm=pz.SimpleEDM, euler_fm=pz.EulerFlow)
  for name, kind in kinds.items():
    if f"{schedule}/{name}" in g:
      f = kind(path, float(g["sigma_data"]))
      ours(f(lambda *_: raw, None, x, s, t), g[f"{schedule}/{name}"], atol=1e-12)
      ours(f.c_in(t) * x, g[f"{schedule}/net_input"], rtol=1e-6)


@pytest.mark.parametrize("betas", ["cosine", "sigmoid"])
def test_golden_velocity_per_token(betas, golden):
  numbers = golden("diffusion_forcing.npz")
  x, eps = (jnp.asarray(numbers[name]) for name in ("x", "eps"))
  t = (jnp.asarray(numbers["noise_levels"])[..., None] + 1) / 1000  # index -1 is clean
  found = pz.SimpleEDM(ip.DiscreteVP(betas), sigma_data=1.0).target(x, eps, t)
  np.testing.assert_allclose(found, numbers[f"v_target/{betas}"], rtol=1e-5, atol=1e-6)
