"""Flow matching on Fashion-MNIST: the network, data and optimizer of `imm_fashion`.

apt-get install dataset-fashion-mnist
python -m dfim.main --config=configs/flow_fashion.py
python -m dfim.main --config=configs/flow_fashion.py:gpu

Time: six minutes of one CPU core, scores included; gpu: not measured yet.
Score: Frechet distance 38.1 / 17.9 / 10.3 / 8.12 at 1 / 2 / 4 / 8 NFE, medians of
three seeds in the features of fashion-cnn64-seed0-c5d354 (docs/results.md); gpu: not measured yet.
"""

import ml_collections

from configs import flow_digits, imm_fashion


def get_config(mode: str = "full") -> ml_collections.ConfigDict:
  """`mode` is "full", "gpu" or "smoke", see `imm_fashion`."""
  c = flow_digits.flow(imm_fashion.get_config())
  return c if mode == "full" else dict(gpu=imm_fashion.gpu, smoke=imm_fashion.smoke)[mode](c)
