"""Classifier-free guidance: on the raw output, which is the same as on the jump."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.core import conditions
from dfim.core import interpolants as ip
from dfim.core import parameterization as pz
from dfim.samplers import guidance

COND = dict(label=jnp.array([2, 0, 4]))


def apply(params, x, s, t, cond):
  return params * x + (t - s) + cond["label"].astype(float)[:, None]


def inputs():
  x = jax.random.normal(jax.random.key(0), (3, 2))
  return 0.7, x, jnp.full((1, 1), 0.2), jnp.full((1, 1), 0.8)


@pytest.mark.parametrize("weight,cond", [(1.0, COND), (0.0, conditions.null(COND))])
def test_weight_one_is_conditional_and_zero_unconditional(weight, cond):
  guided = guidance.classifier_free(apply, weight)(*inputs(), COND)
  np.testing.assert_allclose(guided, apply(*inputs(), cond), rtol=1e-6)


@pytest.mark.parametrize("f", [pz.EulerFlow(ip.FlowMatching()), pz.SimpleEDM(ip.Cosine())])
def test_guiding_the_output_guides_the_jump(f):
  params, x, s, t = inputs()
  guided = f(guidance.classifier_free(apply, 1.5), params, x, s, t, COND)
  without, given = (f(apply, params, x, s, t, c) for c in (conditions.null(COND), COND))
  np.testing.assert_allclose(guided, without + 1.5 * (given - without), rtol=1e-5)


def test_one_doubled_batch_and_times_of_every_example():
  sizes = []

  def spy(params, x, s, t, cond):
    sizes.append((len(x), len(s), len(t), len(cond["label"])))
    return apply(params, x, s, t, cond)

  params, x, s, t = inputs()
  guidance.classifier_free(spy, 2.0)(params, x, s, jnp.repeat(t, 3, 0), COND)
  assert sizes == [(6, 1, 6, 6)]
