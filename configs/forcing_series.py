"""Diffusion Forcing of a series of several values a step: probabilistic forecasts of 24 hours.

python -m dfim.main --config=configs/forcing_series.py
python -m dfim.main --config=configs/forcing_series.py --workdir=runs/etth1 \
  --config.data.series.name=data.series.forecasting.ett --config.data.series.path=.../ETTh1.csv

The default is a made-up series that needs no file and whose best possible forecast is known.
Time: about five minutes on two CPU cores, two of them scores.
Score: CRPS-sum 0.069 at 20 denoising steps a token; the best possible forecast has 0.066, the last
day repeated 0.104; one seed. ETTh1 0.170 and ETTh2 0.085, medians of three seeds
(docs/sequences.md).
"""

from typing import Any

import ml_collections

from configs import follow


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke"."""
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 2000
  c.batch_size = 64
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
    width=64,
    depth=3,
    heads=4,
    window=24,
    dropout=0.1,
    time_precision="high",  # neighbours among 1,000 levels
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
      chunk=1,
      **follow(c.model, "window"),
      cached=True,
      t_context=0.01,
      mode="label",
    ),
    step=dict(name="samplers.jump.Ancestral", eta=1.0),
    grid=dict(name="core.grids.discrete", levels=1000),
    steps=(20,),
    limits=(-4.0, 4.0),
    count=20,
    chunk=2000,
  )
  c.evaluators = scores(c.data)
  c.log_every = 100
  c.checkpoint_every = 500
  c.sample_every = 1000
  c.eval_every = 0
  return c if mode == "full" else dict(smoke=smoke)[mode](c)


def scores(data: ml_collections.ConfigDict) -> dict[str, Any]:
  """Of the test part, in the windows of `data`; `rollout` goes on for four horizons."""
  windows = lambda: dict(
    name="data.series.forecasting.load",
    series=data.series,
    split="test",
    **follow(data, "context", "horizon", "stack", "lags", "anchor", "regression"),
  )
  return dict(
    forecast=dict(
      name="evaluators.forecasting.scores",
      data=dict(count=None, **windows()),
      series=data.series,
      steps=(5, 20),
      paths=100,
    ),
    rollout=dict(
      name="evaluators.forecasting.rollout",
      data=dict(length=4 * data.get_ref("horizon"), count=20, **windows()),
      steps=20,
      paths=20,
    ),
  )


def smoke(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A few steps of a small network, for tests."""
  c.steps, c.batch_size = 6, 16
  c.model.update(width=16, depth=1, heads=2)
  c.sampler.update(steps=(2,), chunk=64)
  c.evaluators.forecast.update(steps=(2,), paths=4)
  c.evaluators.forecast.data.count = 6
  c.evaluators.rollout.update(steps=2, paths=2)
  c.evaluators.rollout.data.count = 3
  c.log_every, c.checkpoint_every = 2, 3
  return c
