"""IMM on the 8x8 digits, class-conditional.

python -m dfim.main --config=configs/imm_digits.py

Time: about a minute on two CPU cores, scores included.
Score: Frechet distance 1.2 / 0.76 / 0.70 / 0.59 at 1 / 2 / 4 / 8 steps, medians of three seeds in
the features of digits-cnn64-seed0-48cd60 (docs/results.md).
"""

from typing import Any

import ml_collections

ENDS = dict(t_max=0.994, t_min=0.006)  # of training and of sampling


def objective(*, mapping: str, k: float, group_size: int) -> dict[str, Any]:
  """IMM on the straight path, with the paper's kernel and weight (table 5), and a mapping."""
  return dict(
    name="objectives.moment_matching.loss",
    f=dict(
      name="core.parameterization.EulerFlow",
      path=dict(name="core.interpolants.FlowMatching"),
      sigma_data=0.5,
    ),
    sample_times=dict(
      name="core.times.sample",
      pattern=dict(name="core.patterns.example"),
      mapping=dict(name=f"core.mappings.{mapping}", k=k),
      **ENDS,
    ),
    particles=dict(name="core.particles.example"),
    kernel=dict(name="core.kernels.laplace"),
    weight=dict(name="core.weights.imm", a=1.0, b=4.0),
    group_size=group_size,
  )


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke" (a few steps, for tests)."""
  full = dict(full=True, smoke=False)[mode]
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 3000 if full else 6
  c.batch_size = 256 if full else 64
  c.data = dict(name="data.images.digits.digits", split="train")
  c.model = dict(
    name="models.mlp.MLP",
    width=256 if full else 32,
    depth=3 if full else 1,
    flatten=True,
    num_classes=10,
  )
  c.objective = objective(mapping="log_snr_decrement", k=8.0, group_size=4)
  c.objective.drop_rate = 0.1
  c.optimizer = dict(
    name="optax.adam",
    learning_rate=dict(
      name="optax.cosine_decay_schedule", init_value=1e-3, decay_steps=c.get_ref("steps")
    ),
  )
  c.ema = (0.998,)
  c.sampler = dict(
    step=dict(name="samplers.jump.Pushforward"),
    grid=dict(name="core.grids.uniform", **ENDS),
    steps=(1, 2, 4, 8),
    limits=(-2 / 3, 2 / 3),
    count=60,
    chunk=1000 if full else 64,
  )
  c.evaluators = dict(
    images=dict(
      name="evaluators.images.scores",
      dataset="digits",
      reference=dict(name="data.images.digits.load", split="train"),
      held_out=dict(name="data.images.digits.load", split="test"),
      samples=5000 if full else 64,
      steps=(1, 2, 4, 8),
      limits=(-2 / 3, 2 / 3),
    )
  )
  c.log_every = 100 if full else 2
  c.checkpoint_every = 500 if full else 3
  c.sample_every = 500
  c.eval_every = 0
  return c
