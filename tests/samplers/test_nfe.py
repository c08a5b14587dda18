"""NFE equals how often a network is really called."""

import jax
import numpy as np
import pytest

from configs import forcing_walk, imm_digits
from dfim import sample
from dfim.core import levels as levels_lib
from dfim.samplers import nfe
from dfim.training import experiment as experiment_lib


def counted(config, **given):
  """Calls of the network on the host while one sample is drawn, for each example of its batch."""
  experiment, calls = experiment_lib.build(config, devices=jax.devices()[:1]), []
  apply = experiment.apply

  def counting(params, x, *args, **kwargs):
    jax.debug.callback(lambda n: calls.append(int(n)), x.shape[0])
    return apply(params, x, *args, **kwargs)

  object.__setattr__(experiment, "apply", counting)
  draw = sample.make_draw(experiment)
  state = experiment.first_state()
  calls.clear()
  draw(experiment.ema_params(state), 1, 2, **given)
  jax.effects_barrier()
  return sum(calls) / config.sampler.chunk


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_of_steps(guidance):
  config = imm_digits.get_config("smoke")
  config.sampler.guidance = guidance
  assert counted(config) == nfe.of_steps(2, guidance=guidance)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("levels, chunk", [("autoregressive", 1), ("pyramid", 3)])
def test_of_token(levels, chunk, cached):
  config = forcing_walk.get_config("smoke")
  levels_of = dict(name=f"core.levels.{levels}")
  config.sampler.rollout.update(levels=levels_of, chunk=chunk, cached=cached)
  how = dict(levels=getattr(levels_lib, levels), chunk=chunk, cached=cached)
  with jax.debug_key_reuse(False):
    assert np.isclose(counted(config) / 6, nfe.of_token(2, **how))
