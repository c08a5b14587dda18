"""Flow matching on the digits: the network, data and optimizer of `imm_digits`, the denoising loss.

python -m dfim.main --config=configs/flow_digits.py

Time: about a minute on two CPU cores, scores included.
Score: Frechet distance 48 / 12 / 4.1 / 2.0 / 1.2 / 0.81 at 1 / 2 / 4 / 8 / 16 / 64 NFE, medians
of three seeds in the features of digits-cnn64-seed0-48cd60 (docs/results.md). With
flow_digits.py:self_distillation 1.9 / 0.88 / 0.66 / 0.59 at 1 / 2 / 4 / 8 NFE, one seed.
"""

import ml_collections

from configs import follow, imm_digits


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full", "self_distillation", for few steps, or "smoke", see `imm_digits`."""
  if mode == "self_distillation":
    return self_distillation(get_config())
  return flow(imm_digits.get_config(mode))


def flow(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A config of IMM on images with the denoising loss, sampled by Euler's steps."""
  c.objective = dict(
    name="objectives.denoising.loss",
    f=c.objective.f,
    sample_times=dict(
      name="core.times.sample",
      pattern=dict(name="core.patterns.example"),
      t_max=1.0,
      t_min=0.0,
    ),
    weight=dict(name="core.weights.uniform"),
    drop_rate=c.objective.drop_rate,
  )
  c.sampler.step = dict(name="samplers.jump.Ancestral", eta=0.0)
  c.sampler.grid = dict(
    name="core.grids.uniform", **follow(c.objective.sample_times, "t_max", "t_min")
  )
  c.sampler.steps = (1, 2, 4, 8, 16, 64)
  return c


def self_distillation(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The flow map, learnt with the flow: a quarter of the batch is distilled."""
  c.model.time_scale = 10.0  # slow features of s: with 1000 the map leaves its flow
  c.objective.name = "objectives.self_distillation.loss"
  c.objective.share = 0.25
  c.sampler.step = dict(name="samplers.jump.Pushforward")
  c.sampler.steps = (1, 2, 4, 8)
  return c
