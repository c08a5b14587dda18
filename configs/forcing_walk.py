"""Diffusion Forcing on the turning walk: six points, each a coin's turn from the one before.

python -m dfim.main --config=configs/forcing_walk.py

Time: about ten minutes on two CPU cores, three of them scores.
Score: turn distance 0.331 / 0.085 / 0.0061 / 0.0034 / 0.0023 at 1 / 2 / 4 / 8 / 16 denoising steps
a token, joint distance 0.00058 at 16; medians of three seeds (docs/sequences.md).
"""

from typing import Any

import ml_collections

from configs import follow


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke"."""
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 3000
  c.batch_size = 256
  c.data = dict(name="data.synthetic.walk.walk", tokens=6, angle=50.0, branches=2, spread=5.0)
  c.model = dict(
    name="models.causal_transformer.CausalTransformer",
    width=96,
    depth=3,
    heads=4,
    window=c.data.get_ref("tokens").identity(),
    time_precision="default",  # enough for 64 steps a token
  )
  c.objective = dict(
    name="objectives.denoising.loss",
    f=dict(
      name="core.parameterization.EulerFlow",
      path=dict(name="core.interpolants.FlowMatching"),
      sigma_data=0.5,
    ),
    sample_times=dict(
      name="core.times.sample",
      pattern=dict(name="core.patterns.token"),
      t_max=0.994,
      t_min=0.006,
    ),
    weight=dict(name="core.weights.uniform"),
  )
  c.optimizer = dict(
    name="optax.adam",
    learning_rate=dict(
      name="optax.cosine_decay_schedule", init_value=1e-3, decay_steps=c.get_ref("steps")
    ),
  )
  c.ema = (0.998,)
  c.sampler = dict(
    rollout=dict(
      levels=dict(name="core.levels.autoregressive"),
      chunk=1,
      **follow(c.model, "window"),
      cached=True,
    ),
    step=dict(name="samplers.jump.Ancestral", eta=0.0),
    grid=dict(name="core.grids.uniform", **follow(c.objective.sample_times, "t_max", "t_min")),
    steps=(1, 2, 4, 8, 16, 32, 64),  # a token
    count=40,
    chunk=2000,
  )
  c.evaluators = scores(c)
  c.log_every = 100
  c.checkpoint_every = 500
  c.sample_every = 1000
  c.eval_every = 0
  return c if mode == "full" else dict(smoke=smoke)[mode](c)


def scores(c: ml_collections.ConfigDict) -> dict[str, Any]:
  """Distances to fresh walks, and the errors of walks four times as long."""
  walks = lambda: follow(c.data, "angle", "branches", "spread")
  return dict(
    walk=dict(
      name="evaluators.sequences.scores",
      reference=dict(
        name="data.synthetic.walk.load", size=20_000, **follow(c.data, "tokens"), **walks()
      ),
      **follow(c.sampler, "steps"),
    ),
    rollout=dict(
      name="evaluators.sequences.rollout",
      reference=dict(
        name="data.synthetic.walk.load", size=4000, tokens=4 * c.data.get_ref("tokens"), **walks()
      ),
      steps=16,
    ),
  )


def smoke(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A few steps of a small network, for tests."""
  c.steps, c.batch_size = 6, 32
  c.model.update(width=16, depth=1, heads=2)
  c.sampler.update(steps=(1, 2), chunk=64)
  c.evaluators.walk.reference.size = c.evaluators.rollout.reference.size = 64
  c.evaluators.rollout.steps = 2
  c.log_every, c.checkpoint_every = 2, 3
  return c
