"""Pictures: where each image stands, what is clipped, and that files are whole."""

import numpy as np
from PIL import Image
import pytest

from dfim import pictures


def test_grid_puts_images_in_rows():
  images = np.linspace(-1, 1, 5).reshape(5, 1, 1, 1) * np.ones((5, 2, 3, 1))
  grid = pictures.image_grid(images, columns=3, scale=2)
  assert grid.shape == (8, 18, 1) and grid.dtype == np.uint8
  np.testing.assert_array_equal(grid[::4, ::6, 0], [[0, 64, 128], [191, 255, 0]])


def test_grid_is_about_square_and_clips():
  images = np.stack([np.full((2, 2, 3), v) for v in (-9.0, np.nan, 0.5, 9.0, 0.0)])
  grid = pictures.image_grid(images, limits=(0, 0.5))
  assert grid.shape == (4, 6, 3)
  np.testing.assert_array_equal(grid[::2, ::2, 0], [[0, 0, 255], [255, 0, 0]])


def test_a_png_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / "a.png"
  pictures.save_png(path, np.zeros((2, 2), np.uint8))
  with pytest.raises(TypeError):
    pictures.save_png(path, np.zeros((2, 2, 7), np.uint8))
  assert Image.open(path).size == (2, 2)
  assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_gap_parts_the_images():
  grid = pictures.image_grid(np.ones((2, 1, 1, 1)), columns=2, gap=1)
  np.testing.assert_array_equal(grid[..., 0], [[255, 128, 255, 128], [128] * 4])


def test_points_become_a_density():
  corner = np.full((10, 2), 0.99)
  image = pictures.picture(np.concatenate([corner, -corner[:1]]), (-1.0, 1.0))
  assert image[0, -1, 0] == 0, "ten points: black, top right"
  assert 0 < image[-1, 0, 0] < 255, "one point: grey, bottom left"
  assert image[0, 0, 0] == 255, "none: white"


def test_panels_stand_below_each_other():
  sheet = pictures.panels(dict(a=np.zeros((4, 40, 1), np.uint8), b=np.zeros((4, 20, 3), np.uint8)))
  assert sheet.shape == (2 * (4 + 22), 40, 3)
  assert (sheet[16:20] == 0).all()
