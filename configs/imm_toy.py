"""IMM on a ring of eight Gaussians in the plane: the smallest whole experiment.

python -m dfim.main --config=configs/imm_toy.py

Time: 6 minutes on two CPU cores that were busy with other work.
Score: unbiased energy distance, 20,000 samples to fresh data: 0.00117 / 0.00687 / 0.00537 / 0.00373
at 1 / 2 / 4 / 8 steps, standard error 0.00014 (seed 0, 2026-11-22).
"""

import ml_collections

from configs import imm_digits


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke" (a few steps, for tests)."""
  full = dict(full=True, smoke=False)[mode]
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 3000 if full else 6
  c.batch_size = 1024 if full else 64
  c.data = dict(name="data.synthetic.toys.ring")
  c.model = dict(name="models.mlp.MLP", width=256 if full else 32, depth=3 if full else 1)
  c.objective = imm_digits.objective(mapping="eta_decrement", k=8.0, group_size=16 if full else 4)
  c.optimizer = dict(name="optax.adam", learning_rate=1e-3)
  c.ema = (0.999,)
  c.sampler = dict(
    step=dict(name="samplers.jump.Pushforward"),
    grid=dict(name="core.grids.uniform", **imm_digits.ENDS),
    steps=(1, 2, 4, 8),
    count=10000 if full else 100,
    chunk=10000 if full else 100,
  )
  c.evaluators = dict(
    points=dict(
      name="evaluators.points.scores",
      reference=dict(
        name="data.synthetic.toys.load",
        source=dict(name="data.synthetic.toys.ring"),
        size=20_000 if full else 200,
      ),
    )
  )
  c.log_every = 100 if full else 2
  c.checkpoint_every = 1000 if full else 3
  c.sample_every = 0
  c.eval_every = 0
  return c
