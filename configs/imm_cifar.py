"""IMM on CIFAR-10, unconditional: the DDPM++ U-Net and the constants of the paper's table 5.

python -m dfim.main --config=configs/imm_cifar.py --config.data.data_dir=~/tensorflow_datasets

Reads the prepared set through tfds; where it is not there, one line says how to prepare it.

Time: 400,000 steps at batch 4,096, days on a pod; never run whole by this project.
Score: the paper reports FID 3.20 at one step and 1.98 at two. Not here yet: EDM's augmentation and
FID's Inception features.
"""

import ml_collections


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke" (a few steps of a small network; needs the data too)."""
  full = dict(full=True, smoke=False)[mode]
  t_max, t_min = 0.994, 0.006
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 400_000 if full else 4
  c.batch_size = 4096 if full else 32
  c.data = dict(
    name="data.images.tfds",
    dataset="cifar10",
    split="train",
    data_dir="~/tensorflow_datasets",
    flip=True,
  )
  c.model = dict(
    name="models.unet.UNet",
    channels=128 if full else 16,
    multipliers=(2, 2, 2) if full else (1, 1, 1),
    blocks=4 if full else 1,
    attention_resolutions=(16,),
    dropout=0.2,
  )
  c.objective = dict(
    name="objectives.moment_matching.loss",
    f=dict(
      name="core.parameterization.SimpleEDM",
      path=dict(name="core.interpolants.FlowMatching"),
      sigma_data=0.5,
    ),
    sample_times=dict(
      name="core.times.sample",
      pattern=dict(name="core.times.example"),
      mapping=dict(name="core.mappings.eta_decrement", k=15.0),
      t_max=t_max,
      t_min=t_min,
    ),
    particles=dict(name="core.particles.example"),
    kernel=dict(name="core.kernels.laplace"),
    weight=dict(name="core.weights.imm", a=1.0, b=5.0),
    group_size=4,
  )
  c.optimizer = dict(name="optax.radam", learning_rate=1e-4)
  c.ema = (0.9999,)
  c.sampler = dict(
    method=dict(name="samplers.jump.pushforward"),
    grid=dict(name="core.grids.through_eta", etas=(1.4,), t_max=t_max, t_min=t_min),
    steps=(2,),
    count=60 if full else 4,
    chunk=60 if full else 4,
  )
  c.log_every = 100 if full else 2
  c.checkpoint_every = 5000 if full else 2
  c.sample_every = 5000 if full else 0
  c.eval_every = 0
  return c
