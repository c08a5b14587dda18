"""Diffusion Forcing of a series of several values a step: probabilistic forecasts of 24 hours.

python -m dfim.main --config=configs/forcing_series.py
python -m dfim.main --config=configs/forcing_series.py --workdir=runs/etth1 \
  --config.data.series.name=data.series.forecasting.ett --config.data.series.path=.../ETTh1.csv

By default a made-up series that needs no file and whose best possible forecast is known.
Time: about five minutes on two CPU cores, two of them scores.
Score: CRPS-sum .069 at 20 calls; of the best possible forecast .066, of the last day again .104.
One seed; ETTh1 .170 and ETTh2 .085, medians of three seeds (docs/sequences.md).
"""

from typing import Any

import ml_collections


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke" (a few steps, for tests)."""
  full = dict(full=True, smoke=False)[mode]
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 2000 if full else 6
  c.batch_size = 64 if full else 16
  c.data = dict(
    name="data.series.forecasting.windows",
    series=dict(name="data.series.forecasting.vector_autoregression"),
    context=72,
    horizon=24,
    stack=4,
    lags=(168,),
    anchor="last",
    regression=(1, 100.0),  # of anchor="ridge"
  )
  c.model = dict(
    name="models.causal_transformer.CausalTransformer",
    width=64 if full else 16,
    depth=3 if full else 1,
    heads=4 if full else 2,
    window=24,
    dropout=0.1,
  )
  c.objective = dict(
    name="objectives.denoising.loss",
    f=dict(
      name="core.parameterization.SimpleEDM",
      path=dict(name="core.interpolants.DiscreteVP", betas="cosine"),
      sigma_data=1.0,
    ),
    sample_times=dict(
      name="core.times.sample", pattern=dict(name="core.patterns.token"), t_max=1.0, t_min=0.0
    ),
    weight=dict(name="core.weights.uniform"),
  )
  c.optimizer = dict(
    name="optax.adamw",
    learning_rate=dict(
      name="optax.cosine_decay_schedule", init_value=1e-3, decay_steps=c.get_ref("steps")
    ),
    weight_decay=1e-2,
  )
  c.ema = (0.998,)
  c.sampler = dict(
    rollout=dict(
      levels=dict(name="core.levels.autoregressive"),
      window=24,
      chunk=1,
      cached=True,
      t_context=0.01,
      mode="label",
    ),
    step=dict(name="samplers.jump.Ancestral", eta=1.0),
    grid=dict(name="core.grids.discrete", levels=1000),
    steps=(20,) if full else (2,),
    limits=(-4.0, 4.0),
    count=20,
    chunk=2000 if full else 64,
  )
  c.evaluators = evaluators(c.data, full)
  c.log_every = 100 if full else 2
  c.checkpoint_every = 500 if full else 3
  c.sample_every = 1000
  c.eval_every = 0
  return c


def evaluators(data: ml_collections.ConfigDict, full: bool) -> dict[str, Any]:
  """Scores of the test part, whose windows follow what `data` is set to."""
  fields = ("context", "horizon", "stack", "lags", "anchor", "regression")
  window = dict(name="data.series.forecasting.load", series=data.series, split="test")
  window |= {field: data.get_ref(field) for field in fields}
  return dict(
    forecast=dict(
      name="evaluators.forecasting.scores",
      data=dict(count=None if full else 6, **window),
      series=data.series,
      steps=(5, 20) if full else (2,),
      paths=100 if full else 4,
    ),
    rollout=dict(
      name="evaluators.forecasting.rollout",
      data=dict(length=96, count=20 if full else 3, **window),
      steps=20 if full else 2,
      paths=20 if full else 2,
    ),
  )
