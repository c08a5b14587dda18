"""Flow matching on Fashion-MNIST: the network, data and optimizer of `imm_fashion`.

apt-get install dataset-fashion-mnist
python -m dfim.main --config=configs/flow_fashion.py
python -m dfim.main --config=configs/flow_fashion.py:gpu

Time: not measured yet.
Score: not measured yet.
"""

import ml_collections

from configs import flow_digits
from configs import imm_fashion


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full", "gpu" or "smoke", see `imm_fashion`."""
  c, flow = imm_fashion.get_config(mode), flow_digits.get_config()
  c.objective = flow.objective
  c.sampler.update(method=flow.sampler.method, grid=flow.sampler.grid)
  if mode != "smoke":
    c.sampler.steps = c.evaluators.images.steps = flow.sampler.steps
  return c
