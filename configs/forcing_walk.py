"""Diffusion Forcing on the turning walk: six points, each a coin's turn from the one before.

python -m dfim.main --config=configs/forcing_walk.py

Time: about ten minutes on two CPU cores, three of them scores.
Score: turn distance .331 / .085 / .0061 / .0034 / .0023 at 1 / 2 / 4 / 8 / 16 calls a token, joint
distance .00058 at 16; medians of three seeds (docs/sequences.md).
"""

import ml_collections

ENDS = dict(t_max=0.994, t_min=0.006)  # of training and of sampling
STEPS = (1, 2, 4, 8, 16, 32, 64)  # grid steps a token


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke" (a few steps, for tests)."""
  full = dict(full=True, smoke=False)[mode]
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 3000 if full else 6
  c.batch_size = 256 if full else 32
  c.data = dict(name="data.synthetic.walk.walk", tokens=6, angle=50.0, branches=2, spread=5.0)
  of_data = lambda name: c.data.get_ref(name).identity()  # follows the data, does not lead them
  fresh = lambda: {name: of_data(name) for name in ("angle", "branches", "spread")}
  c.model = dict(
    name="models.causal_transformer.CausalTransformer",
    width=96 if full else 16,
    depth=3 if full else 1,
    heads=4 if full else 2,
    window=of_data("tokens"),
  )
  c.objective = dict(
    name="objectives.denoising.loss",
    f=dict(
      name="core.parameterization.EulerFlow",
      path=dict(name="core.interpolants.FlowMatching"),
      sigma_data=0.5,
    ),
    sample_times=dict(name="core.times.sample", pattern=dict(name="core.patterns.token"), **ENDS),
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
      window=of_data("tokens"),
      chunk=1,
      cached=True,
    ),
    step=dict(name="samplers.jump.Ancestral", eta=0.0),
    grid=dict(name="core.grids.uniform", **ENDS),
    steps=STEPS if full else STEPS[:2],
    count=40,
    chunk=2000 if full else 64,
  )
  size = 20_000 if full else 64
  c.evaluators = dict(
    walk=dict(
      name="evaluators.sequences.scores",
      reference=dict(
        name="data.synthetic.walk.load", size=size, tokens=of_data("tokens"), **fresh()
      ),
      steps=STEPS if full else STEPS[:2],
    ),
    rollout=dict(
      name="evaluators.sequences.rollout",
      reference=dict(
        name="data.synthetic.walk.load",
        size=min(size, 4000),
        tokens=4 * of_data("tokens"),
        **fresh(),
      ),
      steps=16 if full else 2,
    ),
  )
  c.log_every = 100 if full else 2
  c.checkpoint_every = 500 if full else 3
  c.sample_every = 1000
  c.eval_every = 0
  return c
