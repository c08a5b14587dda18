"""IMM on Fashion-MNIST, class-conditional: a U-Net small enough for a CPU.

apt-get install dataset-fashion-mnist
python -m dfim.main --config=configs/imm_fashion.py
python -m dfim.main --config=configs/imm_fashion.py --config.data.path=where/the/idx/files/are
python -m dfim.main --config=configs/imm_fashion.py:gpu

The 28 x 28 images are padded to 32 x 32. On a CPU they are then pooled to 16 x 16; mode gpu leaves
them whole, in a larger network. Scores are in the features of a classifier of these very images,
and compare with no other data or size.

Time: half an hour of one CPU core for training, at 0.40 s of processor time a step; gpu: not
measured yet.
Score: not measured yet.
"""

import ml_collections

from configs import imm_digits
from dfim.data import idx


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full", "gpu" or "smoke" (a few steps, for tests; needs the data too)."""
  full = dict(full=True, gpu=True, smoke=False)[mode]
  gpu = mode == "gpu"
  limit = 0.75 if gpu else 0.8  # gives the pixels a std of .50, sigma_data
  c = imm_digits.get_config("full" if full else "smoke")
  c.steps = 2000 if full else 4
  c.batch_size = 512 if gpu else 128 if full else 32
  c.data = dict(name="data.idx.idx", path=idx.FASHION, split="train")
  c.data.update(size=32, pool=1 if gpu else 2, limit=limit)
  c.model = dict(
    name="models.unet.UNet",
    channels=64 if gpu else 16 if full else 8,
    multipliers=(1, 2, 2) if full else (1, 1),
    blocks=2 if gpu else 1,
    attention_resolutions=(8,) if gpu else (),
    num_classes=10,
    dropout=0.0,
  )
  c.optimizer.learning_rate.init_value = 5e-4
  c.ema = (0.999,)
  c.sampler.update(limits=(-limit, limit), chunk=500 if full else 60)
  images = {field: c.data.get_ref(field) for field in ("path", "size", "pool", "limit")}
  c.evaluators.images.update(
    dataset="fashion",
    reference=dict(name="data.idx.load", split="train", **images),
    held_out=dict(name="data.idx.load", split="test", **images),
    training_steps=2000 if full else 20,
    limits=(-limit, limit),
  )
  if not full:
    c.sampler.steps = c.evaluators.images.steps = (1, 2)
  c.checkpoint_every = 500 if full else 2
  c.sample_every = 1000
  return c
