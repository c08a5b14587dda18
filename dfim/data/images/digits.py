"""The 1,797 handwritten digits that scikit-learn ships: 8x8 pixels of 17 levels, no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

import numpy as np
import sklearn.datasets

from dfim.data import base

Process = base.Process
LIMITS = (-2 / 3, 2 / 3)  # the values of black and of white
CLASSES = 10


def digits(
  batch_size: int, seed: int, start: int = 0, *, split: str = "train", process: Process = (0, 1)
) -> base.Batches:
  """Batches `x [B, 8, 8, 1]`, `cond.label [B]` of a split; see `data.base` and `load`."""
  data = load(split)
  examples = dict(x=data["x"], cond=dict(label=data["label"]))
  return base.batches(examples, batch_size, seed, start, process=process)


def load(split: str = "train") -> dict[str, np.ndarray]:
  """1,437 or 360 digits, `x [N, 8, 8, 1]` float32 of std 0.501 in `LIMITS`, `label [N]` int32."""
  cuts = dict(train=slice(None, 1437), test=slice(1437, None))
  base.check_split(split, cuts)
  images, label = sklearn.datasets.load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(len(label))[cuts[split]]
  x = (images[order].reshape(-1, 8, 8, 1) - 8) / 12
  return dict(x=x.astype(np.float32), label=label[order].astype(np.int32))
