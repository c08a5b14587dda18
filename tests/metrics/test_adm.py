"""The file of samples for ADM's suite, and a killed export that goes on."""

import numpy as np
import pytest

from dfim.metrics import adm
from tests.data.helpers import refused

LIMITS = (-1.0, 1.0)


def test_pixels_are_rounded_and_clipped_and_grey_is_repeated():
  x = np.array([-1.0, -2.0, 0.0, 1.0, 3.0, 1 / 127.5]).reshape(1, 2, 3, 1)
  found = adm.pixels(x, LIMITS)
  assert found.dtype == np.uint8 and found.shape == (1, 2, 3, 3)
  for channel in range(3):
    np.testing.assert_array_equal(found[..., channel].ravel(), [0, 0, 128, 255, 255, 128])


@pytest.mark.parametrize(
  "x, place",
  [
    (np.zeros((2, 4, 4, 4)), "latents"),
    (np.zeros((2, 6, 2)), "[6, 2]"),
    (np.full((1, 2, 2, 3), np.nan), "nan at image 0, row 0, column 0, channel 0"),
  ],
)
def test_refuses_other_arrays_than_images(x, place):
  with refused(place):
    adm.pixels(x, LIMITS)


COUNT, SHAPE = 7, (7, 2, 3, 3)
ALL = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)


def pieces(size, until=COUNT):
  """Samples from an index on, `size` at a time, and a kill at `until`."""

  def images(first):
    for n in range(first, COUNT, size):
      if n + size > until:
        raise KeyboardInterrupt
      yield ALL[n : n + size]

  return images


def read(path):
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


def test_writes_what_the_suite_reads_and_overwrites_nothing(tmp_path):
  path, labels = tmp_path / "new" / "a.npz", np.arange(COUNT) % 3
  adm.write(path, pieces(1), SHAPE, labels)
  found = read(path)
  assert sorted(found) == ["arr_0", "arr_1"] and found["arr_0"].dtype == np.uint8
  np.testing.assert_array_equal(found["arr_0"], ALL)
  np.testing.assert_array_equal(found["arr_1"], labels)
  assert [p.name for p in path.parent.iterdir()] == ["a.npz"]
  adm.write(tmp_path / "b.npz", pieces(1), SHAPE)
  assert sorted(read(tmp_path / "b.npz")) == ["arr_0"]
  path = tmp_path / "a.npz"
  path.write_bytes(b"mine")
  adm.write(path, pytest.fail, SHAPE)
  assert path.read_bytes() == b"mine"


def test_a_killed_export_goes_on_in_pieces_of_any_size(tmp_path):
  path = tmp_path / "a.npz"
  with pytest.raises(KeyboardInterrupt):
    adm.write(path, pieces(2, until=5), SHAPE)
  assert not path.exists()
  part = tmp_path / "a.npz.part"
  assert part.stat().st_size == 4 * 18
  part.write_bytes(part.read_bytes()[:-5])  # killed in the middle of a write
  asked = []
  adm.write(path, lambda first: asked.append(first) or pieces(1)(first), SHAPE)
  assert asked == [3]
  np.testing.assert_array_equal(read(path)["arr_0"], ALL)


def test_samples_are_drawn_by_index(monkeypatch):
  monkeypatch.setattr(adm, "_PIECE", 3)
  calls = []

  def draw(params, count, steps, first):
    calls.append((count, first))
    indices = np.arange(first, first + count).reshape(-1, 1, 1, 1)
    return np.broadcast_to(params * steps * indices, (count, 2, 2, 1))

  found = np.concatenate(list(adm.drawn(draw, 2, 8, 5, (0.0, 255.0), first=1)))
  assert calls == [(3, 1), (3, 4), (1, 7)]
  np.testing.assert_array_equal(found[:, 0, 0, 0], 10 * np.arange(1, 8))
