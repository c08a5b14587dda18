"""IMM on Fashion-MNIST, class-conditional: an MLP on a CPU, a U-Net on a GPU.

apt-get install dataset-fashion-mnist
python -m dfim.main --config=configs/imm_fashion.py
python -m dfim.main --config=configs/imm_fashion.py --config.data.path=where/the/idx/files/are
python -m dfim.main --config=configs/imm_fashion.py:gpu

The 28 x 28 images are padded to 32 x 32. On a CPU they are then pooled to 16 x 16, for a residual
MLP: the garments are centred, and a U-Net learns little in the same time. Mode gpu leaves them
whole. Scores are in the features of a classifier of the same images, and compare with no other data
or size.

Time: six minutes of one CPU core, scores included; gpu: not measured yet.
Score: Frechet distance 7.91 / 7.98 / 8.66 / 9.33 at 1 / 2 / 4 / 8 NFE, medians of
three seeds in the features of fashion-cnn64-seed0-c5d354 (docs/results.md); gpu: not measured yet.
"""

import ml_collections

from configs import follow, imm_digits
from dfim.data.images import idx


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full", "gpu" or "smoke" (which needs the data too)."""
  c = imm_digits.get_config()
  c.batch_size = 256
  c.data = dict(
    name="data.images.idx.idx",
    path=idx.FASHION,
    split="train",
    size=32,
    pool=2,
    limit=0.8,  # of the pixels, whose std is then 0.50, sigma_data
  )
  c.model.update(width=512, depth=4)
  c.ema = (0.999,)
  c.sampler.update(limits=(-0.8, 0.8), chunk=500)
  images = lambda: follow(c.data, "path", "size", "pool", "limit")
  c.evaluators.images.update(
    dataset="fashion",
    reference=dict(name="data.images.idx.load", split="train", **images()),
    held_out=dict(name="data.images.idx.load", split="test", **images()),
    training_steps=2000,
  )
  c.sample_every = 1000
  return c if mode == "full" else dict(gpu=gpu, smoke=smoke)[mode](c)


def gpu(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Whole images, and a U-Net."""
  c.steps, c.batch_size = 2000, 512
  c.data.update(pool=1, limit=0.75)  # std 0.50 again
  c.sampler.limits = (-0.75, 0.75)
  c.model = dict(
    name="models.unet.UNet",
    channels=64,
    multipliers=(1, 2, 2),
    blocks=2,
    attention_resolutions=(8,),
    num_classes=10,
    dropout=0.0,
  )
  c.optimizer.learning_rate.init_value = 5e-4
  return c


def smoke(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A few steps of a small network, for tests."""
  c = imm_digits.smoke(c)
  c.steps, c.batch_size = 4, 32
  c.sampler.update(steps=(1, 2), chunk=60)
  c.evaluators.images.training_steps = 20
  c.checkpoint_every = 2
  return c
