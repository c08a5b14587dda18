"""IMM on Fashion-MNIST, class-conditional: an MLP on a CPU, a U-Net on a GPU.

apt-get install dataset-fashion-mnist
python -m dfim.main --config=configs/imm_fashion.py
python -m dfim.main --config=configs/imm_fashion.py --config.data.path=where/the/idx/files/are
python -m dfim.main --config=configs/imm_fashion.py:gpu

The 28 x 28 images are padded to 32 x 32. On a CPU they are then pooled to 16 x 16, for a residual
MLP: the garments are centred, and a U-Net of the same time has hardly begun. Mode gpu leaves them
whole. Scores are in the features of a classifier of these very images, and compare with no other
data or size.

Time: six minutes of one CPU core, scores included; gpu: not measured yet.
Score: Frechet distance 7.91 / 7.98 / 8.66 / 9.33 at 1 / 2 / 4 / 8 steps, medians of
three seeds in the features of fashion-cnn64-seed0-c5d354 (docs/results.md); gpu: not measured yet.
"""

import ml_collections

from configs import imm_digits
from dfim.data.images import idx


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full", "gpu" or "smoke" (a few steps, for tests; needs the data too)."""
  full = dict(full=True, gpu=True, smoke=False)[mode]
  gpu = mode == "gpu"
  limit = 0.75 if gpu else 0.8  # gives the pixels a std of .50, sigma_data
  c = imm_digits.get_config("full" if full else "smoke")
  c.steps = (2000 if gpu else 3000) if full else 4
  c.batch_size = 512 if gpu else 256 if full else 32
  c.data = dict(name="data.images.idx.idx", path=idx.FASHION, split="train")
  c.data.update(size=32, pool=1 if gpu else 2, limit=limit)
  if gpu:
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
  else:
    c.model.update(width=512 if full else 32, depth=4 if full else 1)
  c.ema = (0.999,)
  c.sampler.update(limits=(-limit, limit), chunk=500 if full else 60)
  images = {field: c.data.get_ref(field) for field in ("path", "size", "pool", "limit")}
  c.evaluators.images.update(
    dataset="fashion",
    reference=dict(name="data.images.idx.load", split="train", **images),
    held_out=dict(name="data.images.idx.load", split="test", **images),
    training_steps=2000 if full else 20,
    limits=(-limit, limit),
  )
  if not full:
    c.sampler.steps = c.evaluators.images.steps = (1, 2)
  c.checkpoint_every = 500 if full else 2
  c.sample_every = 1000
  return c
