"""Drawing: a sample belongs to its index, not to its batch or chunk."""

import jax
import numpy as np
import pytest

from configs import imm_digits
from dfim import experiment as experiment_lib
from dfim import sample
from dfim.resolve import ConfigError


def build(**sampler):
  config = imm_digits.get_config("smoke")
  config.sampler.update(sampler)
  return experiment_lib.build(config, devices=jax.devices()[:1])


def params_of(experiment):
  """Random weights: at initialisation the network's output is zero."""
  params = experiment.init(jax.random.key(0)).params
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [a + 0.05 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
  return jax.tree.unflatten(tree, noisy)


@pytest.fixture(autouse=True)
def relaxed():
  with jax.debug_key_reuse(False):
    yield


@pytest.mark.parametrize("method", ["pushforward", "restart"])
def test_a_sample_does_not_depend_on_its_batch(method):
  experiment = build(method=dict(name=f"samplers.jump.{method}"), chunk=16)
  params, draw = params_of(experiment), sample.make_draw(experiment)
  other = sample.make_draw(build(method=dict(name=f"samplers.jump.{method}"), chunk=5))
  all_of_them = draw(params, 24, 3)
  np.testing.assert_allclose(other(params, 24, 3), all_of_them, atol=1e-5)
  np.testing.assert_allclose(draw(params, 4, 3, first=20), all_of_them[20:], atol=1e-5)
  assert len(np.unique(all_of_them[:, 0, 0, 0])) == 24


def test_labels_count_through_the_classes_and_guidance_uses_them():
  experiment = build()
  params = params_of(experiment)
  plain = sample.make_draw(experiment)(params, 12, 1)
  guided = sample.make_draw(build(guidance=2.0))(params, 12, 1)
  assert np.abs(plain - guided).max() > 1e-3


@pytest.mark.parametrize(
  "sampler,message",
  [
    (dict(guidence=2.0), "sampler.guidence: no such field"),
    (dict(grid=dict(name="core.grids.uniform", steps=2, t_max=0.9, t_min=0.1)), "sampler.steps"),
    (dict(grid=dict(name="core.grids.uniform", t_max=0.1, t_min=0.9)), "t_min=0.9, t_max=0.1"),
    (dict(steps=(0,)), "steps=0"),
  ],
)
def test_a_wrong_sampler_is_told(sampler, message):
  with pytest.raises(ConfigError, match=message):
    sample.make_draw(build(**sampler))
