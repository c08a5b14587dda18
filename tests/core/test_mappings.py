"""Where the frozen model starts: order, monotony, and the closed forms of the paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants as ip, mappings

FM, COSINE = ip.FlowMatching(), ip.Cosine()
SMALL_STEPS = [
  mappings.eta_decrement,
  mappings.log_snr_decrement,
  mappings.time_decrement,
  mappings.inverse_eta_increment,
]
ENDS = dict(t_max=0.994, t_min=0.006)
mapped = pytest.mark.parametrize("mapping", SMALL_STEPS, ids=lambda m: m.__name__)
on_paths = pytest.mark.parametrize("path", [FM, COSINE], ids=repr)


@on_paths
@mapped
@pytest.mark.parametrize("k", [6.0, 12.0])
def test_s_below_r_below_t(mapping, path, k, key):
  s, t = jnp.sort(jax.random.uniform(key, (2, 20_000), minval=0.006, maxval=0.994), axis=0)
  r = mapping(path, s, t, k=k, **ENDS)
  assert jnp.all((s <= r) & (r < t)), "r is at least s and below t"
  assert jnp.any(r > s), "and above s somewhere"


@on_paths
@mapped
def test_two_to_the_k_steps_lead_from_one_end_to_the_other(mapping, path, float64):
  t, s = jnp.full(1, ENDS["t_max"]), jnp.full(1, ENDS["t_min"])
  for _ in range(2**5 - 1):
    t = mapping(path, s, t, k=5.0, **ENDS)
    assert t[0] > s[0]
  np.testing.assert_allclose(mapping(path, s, t, k=5.0, **ENDS), s, rtol=1e-6)


@mapped
def test_min_gap_keeps_r_away_from_t_but_not_below_s(mapping, key):
  s, t = jnp.sort(jax.random.uniform(key, (2, 5000), minval=0.006, maxval=0.994), axis=0)
  r = mapping(FM, s, t, k=15.0, min_gap=1e-2, **ENDS)
  assert jnp.all((t - r >= 1e-2 - 1e-6) | (r == s))
  assert jnp.all(r >= s)


def test_eta_decrement_against_the_closed_form(float64):
  """On the straight path t - r = u (1 - t)^2 / (1 - u (1 - t)), u the decrement."""
  decrement = functools.partial(mappings.eta_decrement, FM, t_max=0.994, t_min=0.0)
  t = jnp.array([0.1, 0.5, 0.9, 0.99, 0.994])
  gap = t - decrement(jnp.zeros_like(t), t, k=12.0)
  np.testing.assert_allclose(gap, [0.0339988, 0.0103202, 4.061e-4, 4.046e-6, 1.456e-6], rtol=5e-4)


@on_paths
def test_log_snr_decrement_against_its_definition(path, float64):
  t, low, high = jnp.linspace(0.05, 0.994, 50), jnp.full(50, 0.006), jnp.full(50, 0.994)
  r = mappings.log_snr_decrement(path, low, t, k=8.0, **ENDS)
  lam = functools.partial(ip.log_snr, path)
  step = (lam(low) - lam(high)) / 2**8
  np.testing.assert_allclose(lam(r), jnp.minimum(lam(t) + step, lam(low)), rtol=1e-9)


@pytest.mark.parametrize(
  "mapping,ends,field",
  [
    (mappings.eta_decrement, dict(t_max=1.0, t_min=0.0), "t_max=1.0"),
    (mappings.log_snr_decrement, dict(t_max=0.9, t_min=0.0), "t_min=0.0"),
    (mappings.inverse_eta_increment, dict(t_max=1.0, t_min=0.0), "t_min=0.0"),
  ],
)
def test_an_infinite_measure_is_refused(mapping, ends, field):
  with pytest.raises(ValueError, match=f"^{field}"):
    mapping(FM, jnp.zeros(1), jnp.ones(1) * 0.5, k=5.0, **ends)
