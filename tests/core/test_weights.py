"""Loss weights: closed forms against the printed formula, finite at the ends."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import interpolants as ip
from dfim.core import weights

FM, COSINE = ip.FlowMatching(), ip.Cosine()
WEIGHTS = [
  f for name, f in inspect.getmembers(weights, inspect.isfunction) if not name.startswith("_")
]


@pytest.mark.parametrize("path", [FM, COSINE], ids=repr)
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda f: f.__name__)
def test_weights_are_finite_and_not_negative(weight, path):
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


def test_imm_weight_table(float64):
  """Worked values, straight path then cosine path."""
  t = jnp.array([0.0, 0.006, 0.1, 0.5, 0.994])
  a1b4 = [0.0, 0.334892, 4.91033, 3.92806, 1.01818]
  a2b4 = [0.0, 0.332883, 4.41929, 1.96403, 0.00610908]
  cosine = [0.0, 0.804451, 5.80377, 2.18149, 1.57086]
  imm = functools.partial(weights.imm, b=4.0)
  np.testing.assert_allclose(imm(FM, t, t, a=1.0), a1b4, rtol=1e-5)
  np.testing.assert_allclose(imm(FM, t, t, a=2.0), a2b4, rtol=1e-5)
  np.testing.assert_allclose(imm(COSINE, t, t, a=1.0)[:-1], cosine[:-1], rtol=1e-5)
