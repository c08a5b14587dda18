"""A consistency model on the digits: `imm_digits` with one particle, its own kernel and s at t_min.

python -m dfim.main --config=configs/consistency_digits.py

Time: about a minute on two CPU cores, scores included.
Score: Frechet distance 1.0 / 0.96 / 1.2 / 1.4 at 1 / 2 / 4 / 8 NFE, one seed, in the features of
digits-cnn64-seed0-48cd60 (docs/results.md).
"""

import ml_collections

from configs import imm_digits


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full" or "smoke", see `imm_digits`."""
  c = imm_digits.get_config(mode)
  c.objective.group_size = 1
  c.objective.kernel = dict(name="core.kernels.pseudo_huber")
  c.objective.sample_times.p_endpoint = 1.0
  c.sampler.step = dict(name="samplers.jump.Restart")
  return c
