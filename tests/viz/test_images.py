"""Pictures: where each image lies, which values are clipped, and that files are whole."""

import numpy as np
from PIL import Image
import pytest

from dfim.viz import images as pictures
from tests.data.helpers import refused


def test_grid_puts_images_in_rows_is_about_square_and_clips():
  images = np.stack([np.full((2, 2, 3), v) for v in (-9.0, 0.0, 0.5, 9.0, 0.0)])
  grid = pictures.image_grid(images, limits=(0, 0.5))
  assert grid.shape == (4, 6, 3)
  np.testing.assert_array_equal(grid[::2, ::2, 0], [[0, 0, 255], [255, 0, 0]])
  parted = pictures.image_grid(np.ones((2, 1, 1, 1)), columns=2, gap=1)
  np.testing.assert_array_equal(parted[..., 0], [[255, 128, 255, 128], [128] * 4])
  images = np.linspace(-1, 1, 5).reshape(5, 1, 1, 1) * np.ones((5, 2, 3, 1))
  grid = pictures.image_grid(images, columns=3, scale=2)
  assert grid.shape == (8, 18, 1) and grid.dtype == np.uint8
  np.testing.assert_array_equal(grid[::4, ::6, 0], [[0, 64, 128], [191, 255, 0]])


def test_a_png_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / "a.png"
  pictures.save_png(path, np.zeros((2, 2), np.uint8))
  with pytest.raises(TypeError):
    pictures.save_png(path, np.zeros((2, 2, 7), np.uint8))
  assert Image.open(path).size == (2, 2)
  assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_panels_lie_below_each_other_and_points_become_a_density():
  corner = np.full((10, 2), 0.99)
  image = pictures.picture(np.concatenate([corner, -corner[:1]]), (-1.0, 1.0))
  assert image[0, -1, 0] == 0, "ten points: black, top right"
  assert 0 < image[-1, 0, 0] < 255, "one point: grey, bottom left"
  assert image[0, 0, 0] == 255, "none: white"
  sheet = pictures.panels(dict(a=np.zeros((4, 40, 1), np.uint8), b=np.zeros((4, 20, 3), np.uint8)))
  assert sheet.shape == (2 * (4 + 22), 40, 3)
  assert (sheet[16:20] == 0).all()


@pytest.mark.parametrize("channels, shown", [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_latents_are_shown_by_their_first_channels(channels, shown):
  x = np.random.default_rng(0).uniform(-1, 1, (3, 2, 2, channels))
  image = pictures.picture(x, (-1.0, 1.0))
  np.testing.assert_array_equal(image, pictures.picture(x[..., :shown], (-1.0, 1.0)))
  assert image.shape[2] == shown


def test_tracks_join_points_of_the_plane_or_are_lines_over_time():
  x = np.array([[[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5]]])
  tile = pictures.tracks(x, (-1.0, 1.0), columns=1, side=41)[:41, :41, 0]
  dark = tile < 128
  assert dark[30:32, 15:30].any(axis=0).all(), "along the bottom"
  assert dark[15:28, 30:32].any(axis=1).all(), "then up"
  assert not dark[5, :].any() and not dark[:, 38].any()
  assert dark[31 - 2 : 31 + 3, 10 - 2 : 10 + 3].sum() > 6, "the ring"
  rising = np.linspace(-1, 1, 9)[None, :, None]
  both = np.concatenate([rising, -rising], axis=-1)[..., :1]
  tile = pictures.tracks(both, (-1.0, 1.0), columns=1, side=41)[:41, :41, 0] < 128
  first, last = np.flatnonzero(tile[:, 2]), np.flatnonzero(tile[:, 38])
  assert first.min() > 30 and last.max() < 10


PICTURES = [
  *[(pictures.pixels, (2, 3, 3, 1)), (pictures.tracks, (2, 4, 2))],
  *[(pictures.density, (5, 2)), (pictures.picture, (2, 3, 3, 1))],
]


@pytest.mark.parametrize("draw, shape", PICTURES)
def test_numbers_that_are_not_finite_have_no_picture(draw, shape):
  x = np.zeros(shape, np.float32)
  assert draw(x, (-1.0, 1.0)).dtype == np.uint8
  x[(-1,) * len(shape)] = -np.inf
  with refused("-inf at ", f" {shape[0] - 1}, ", f" {shape[-1] - 1}; "):
    draw(x, (-1.0, 1.0))
  for limits in [(1.0, 1.0), (1.0, -1.0), (0.0, np.nan), (0.0, np.inf)]:
    with refused("limits="):
      draw(np.zeros(shape), limits)
