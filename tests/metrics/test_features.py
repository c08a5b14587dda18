import numpy as np
import pytest

from dfim.metrics import features


def test_the_last_batch_is_filled_up_and_cut_and_there_must_be_one():
  x = np.arange(7, dtype=np.uint8).reshape(7, 1)
  shapes = []

  def network(scale, x):
    shapes.append(x.shape)
    return scale * x.astype(float)

  np.testing.assert_array_equal(features.in_batches(network, 2.0, x, 3), 2.0 * x)
  assert shapes == [(3, 1)], "one program for all batches"
  network = lambda scale, x: scale * x.astype(float)
  for x, size, line in ((np.zeros((0, 2)), 3, "images: "), (np.zeros((2, 2)), 0, "batch_size=0")):
    with pytest.raises(ValueError, match=line):
      features.in_batches(network, 2.0, x, size)


def test_a_digest_tells_names_shapes_types_and_values():
  a = np.arange(4.0)
  same = features.digest(dict(x=a, y=a + 1))
  assert same == features.digest(dict(y=a + 1, x=a)), "in whatever order"
  others = [dict(x=a, z=a + 1), dict(x=a.reshape(2, 2), y=a + 1), dict(x=a, y=a + 2)]
  others.append(dict(x=a.astype(np.float32), y=a + 1))
  assert same not in {features.digest(o) for o in others}
  assert features.digest(dict(x=a), 12)[:6] == features.digest(dict(x=a)) and len(same) == 6
