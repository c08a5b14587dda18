"""Moment Forcing on the turning walk: one or two denoising steps a token, by moment matching.

python -m dfim.main --config=configs/moment_forcing_walk.py

Time: about eight minutes on two CPU cores, one of them scores.
Score: joint / turn distance 0.00026 / 0.00071 at one denoising step a token, 0.00024 / 0.00032 at
two; medians of three seeds (docs/moment_forcing.md). With moment_forcing_walk.py:energy_score
0.0013 / 0.0022 at its one step after 1,500 training steps, one seed.
"""

import ml_collections

from configs import follow, forcing_walk


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full", "energy_score", a baseline, or "smoke", see `forcing_walk`.

  The data, the optimizer and the scores are those of `forcing_walk`. The network is narrower, since
  two streams are twice the tokens.
  """
  c = forcing_walk.get_config()
  c.model.update(width=64, time_precision="high")  # r is closer to t than two steps
  c.objective = dict(
    name="objectives.moment_matching.loss",
    f=dict(
      name="core.parameterization.SimpleEDM",
      path=dict(name="core.interpolants.FlowMatching"),
      sigma_data=0.5,
    ),
    sample_times=dict(
      name="core.times.sample",
      pattern=dict(name="core.patterns.two_stream", noisy=0.0),
      mapping=dict(name="core.mappings.log_snr_decrement", k=6.0),
      p_endpoint=0.3,
      p_one_step=0.5,
      t_max=0.994,
      t_min=0.006,
    ),
    particles=dict(name="core.particles.prefix"),
    kernel=dict(  # wide while the branches get their probabilities, then narrow, which keeps them
      name="core.kernels.laplace",
      bandwidth_multiplier=dict(
        name="optax.exponential_decay",
        init_value=8.0,
        decay_rate=1 / 8,
        transition_begin=c.get_ref("steps") // 3,
        transition_steps=c.get_ref("steps") // 2,
        end_value=1.0,
      ),
    ),
    weight=dict(name="core.weights.imm", a=1.0, b=2.0),
    group_size=4,
    conditioning=dict(
      name="core.two_stream.TwoStream",
      grouping=dict(name="core.grouping.by_prefix"),
      posterior=dict(name="core.posterior.minibatch_mean"),
      reference=4,
    ),
  )
  c.ema = (0.0,)  # the last weights: the learning rate falls to 0, and an average lags behind it
  c.sampler.step = dict(name="samplers.jump.Restart")  # fresh noise between a token's steps
  c.sampler.grid = dict(
    name="core.grids.uniform", **follow(c.objective.sample_times, "t_max", "t_min")
  )
  c.sampler.steps = (1, 2, 4)  # a token
  c.evaluators.rollout.steps = 2
  modes = dict(energy_score=energy_score, smoke=forcing_walk.smoke)
  return c if mode == "full" else modes[mode](c)


def energy_score(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """One pass a token from pure noise, two samples of it scored against the datum."""
  c.objective = dict(
    name="objectives.energy_score.loss",
    f=dict(
      name="core.parameterization.Identity",
      path=dict(name="core.interpolants.FlowMatching"),
      sigma_data=0.5,
    ),
    sample_times=dict(
      name="core.times.from_noise",
      pattern=dict(name="core.patterns.two_stream", noisy=0.0),
      t_max=1.0,
      t_min=0.0,
    ),
    samples=2,
    beta=1.0,
    streams=2,
  )
  c.sampler.step = dict(name="samplers.jump.Pushforward")
  c.sampler.grid = dict(
    name="core.grids.uniform", **follow(c.objective.sample_times, "t_max", "t_min")
  )
  c.sampler.steps = (1,)
  c.evaluators.rollout.steps = 1
  return c
