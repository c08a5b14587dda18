"""IMM on a ring of eight Gaussians in the plane: the smallest whole experiment.

python -m dfim.main --config=configs/imm_toy.py

Time: 6 minutes on two busy CPU cores.
Score: unbiased energy distance, 20,000 samples to fresh data: 0.00117 / 0.00687 / 0.00537 / 0.00373
at 1 / 2 / 4 / 8 NFE, standard error 0.00014 (seed 0, 2026-11-22).
"""

import ml_collections

from configs import follow


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke"."""
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 3000
  c.batch_size = 1024
  c.data = dict(name="data.synthetic.toys.ring")
  c.model = dict(name="models.mlp.MLP", width=256, depth=3)
  c.objective = dict(
    name="objectives.moment_matching.loss",
    f=dict(
      name="core.parameterization.EulerFlow",
      path=dict(name="core.interpolants.FlowMatching"),
      sigma_data=0.5,
    ),
    sample_times=dict(
      name="core.times.sample",
      pattern=dict(name="core.patterns.example"),
      mapping=dict(name="core.mappings.eta_decrement", k=8.0),
      t_max=0.994,
      t_min=0.006,
    ),
    particles=dict(name="core.particles.example"),
    kernel=dict(name="core.kernels.laplace"),
    weight=dict(name="core.weights.imm", a=1.0, b=4.0),
    group_size=16,
  )
  c.optimizer = dict(name="optax.adam", learning_rate=1e-3)
  c.ema = (0.999,)
  c.sampler = dict(
    step=dict(name="samplers.jump.Pushforward"),
    grid=dict(name="core.grids.uniform", **follow(c.objective.sample_times, "t_max", "t_min")),
    steps=(1, 2, 4, 8),
    count=10_000,
    chunk=10_000,
  )
  c.evaluators = dict(
    points=dict(
      name="evaluators.points.scores",
      reference=dict(
        name="data.synthetic.toys.load",
        source=dict(name="data.synthetic.toys.ring"),
        size=20_000,
      ),
    )
  )
  c.log_every = 100
  c.checkpoint_every = 1000
  c.sample_every = 0
  c.eval_every = 0
  return c if mode == "full" else dict(smoke=smoke)[mode](c)


def smoke(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A few steps of a small network, for tests."""
  c.steps, c.batch_size = 6, 64
  c.model.update(width=32, depth=1)
  c.objective.group_size = 4
  c.sampler.count = c.sampler.chunk = 100
  c.evaluators.points.reference.size = 200
  c.log_every, c.checkpoint_every = 2, 3
  return c
