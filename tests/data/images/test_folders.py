"""Which files of a folder are pictures, of which classes, and that each is decoded once."""

import logging
import os

import numpy as np
from PIL import Image
import pytest

from dfim.data.images import decode, folders
from tests.data.helpers import refused


def put(path, level):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("L", (4, 4), level).save(path, **dict(lossless=True) if path.suffix == ".webp" else {})


def levels(data):
  return data["x"][:, 0, 0, 0].tolist()


@pytest.fixture
def root(tmp_path):
  put(tmp_path / "root/ants/a.png", 10)
  put(tmp_path / "root/bees/b.webp", 20)
  put(tmp_path / "root/cats/deep/er/c.BMP", 30)
  return tmp_path / "root"


def test_every_format_counts_and_classes_are_in_order_of_their_names(root):
  put(root / "10/a.tif", 1)
  put(root / "9/a.jpg", 2)
  data = folders.read(root, 4)
  assert levels(data) == [1, 2, 10, 20, 30]  # "10" before "9", digits before letters
  assert data["label"].tolist() == [0, 1, 2, 3, 4] and data["label"].dtype == np.int32


def test_the_log_says_which_number_is_which_class_in_one_line(root, caplog):
  caplog.set_level(logging.INFO, "absl")
  folders.read(root, 4)
  folders.read(root, 4)
  (line,) = (r.getMessage() for r in caplog.records)
  assert line.endswith("3 images of 3 classes: ants, bees, cats.")


@pytest.mark.parametrize("place", [".git", "ants", "cats/.deep"])
def test_hidden_names_are_left_out_at_every_depth(place, root, caplog):
  before = folders.read(root, 4)
  put(root / place / ".hidden.png", 99)
  put(root / place / ".ipynb_checkpoints/seen.png", 99)
  after = folders.read(root, 4)
  assert levels(after) == levels(before)
  assert after["label"].tolist() == before["label"].tolist() and not caplog.records


def test_links_to_files_and_folders_are_followed(root, tmp_path):
  put(tmp_path / "else/inner/d.png", 40)
  put(tmp_path / "one.png", 50)
  (root / "dogs").symlink_to(tmp_path / "else", target_is_directory=True)
  (root / "ants/one.png").symlink_to(tmp_path / "one.png")
  data = folders.read(root, 4)
  assert levels(data) == [10, 50, 20, 30, 40] and data["label"].tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("place", ["loop", "cats/deep/er/loop"])
@pytest.mark.parametrize("target", ["root", "root/cats", "."])
def test_a_link_back_is_named_and_not_followed(place, target, root, tmp_path, caplog):
  inside = (root / place).is_relative_to(tmp_path / target)
  (root / place).symlink_to(tmp_path / target, target_is_directory=True)
  data = folders.read(root, 4)
  if inside:
    assert levels(data) == [10, 20, 30] and data["label"].tolist() == [0, 1, 2]
    assert place in caplog.text
  else:  # cats by another name
    assert levels(data) == [10, 20, 30, 30] and data["label"].tolist() == [0, 1, 2, 3]


def test_other_files_are_named_in_one_warning(root, caplog):
  for name in ("labels.csv", "ants/a.heic", "ants/a\nb.txt"):
    (root / name).write_text("")
  os.mkfifo(root / "ants/pipe.png")  # to open it would wait for ever
  assert levels(folders.read(root, 4)) == [10, 20, 30]
  (line,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
  assert "4 files" in line and "\n" not in line
  assert all(name in line for name in ("labels.csv", "ants/a.heic", "ants/a b.txt", "pipe.png"))


def test_a_class_without_a_picture_or_right_to_read_is_refused_and_moves_no_other(
  root, monkeypatch
):
  (root / "bats").mkdir()
  with refused("data.path", root / "bats"):
    folders.read(root, 4)
  (root / "bats/b.heic").write_text("")
  with refused("data.path", root / "bats"):
    folders.read(root, 4)
  put(root / "bats/b.gif", 15)
  assert levels(folders.read(root, 4)) == [10, 15, 20, 30]
  real = type(root).iterdir

  def iterdir(path):
    if path.name == "bees":
      raise PermissionError(13, "Permission denied", str(path))
    return real(path)

  monkeypatch.setattr(type(root), "iterdir", iterdir)
  with refused("data.path", root / "bees"):
    folders.read(root, 4)


@pytest.mark.parametrize("name", ["ants/gone.png", "gone"])
@pytest.mark.parametrize("target", ["nowhere", None])
def test_a_link_to_nothing_or_to_itself_is_refused(name, target, root):
  (root / name).symlink_to(root / (target or name))
  with refused("data.path", root / name):
    folders.read(root, 4)


def test_pictures_belong_to_classes_or_have_no_labels(tmp_path, root):
  alone = tmp_path / "alone"
  (alone / "empty").mkdir(parents=True)
  put(alone / "b.png", 2)
  put(alone / "a.webp", 1)
  data = folders.read(alone, 4)
  assert levels(data) == [1, 2] and "label" not in data
  put(root / "b.png", 1)
  with refused("data.path", root / "b.png"):
    folders.read(root, 4)


def test_a_picture_is_decoded_once_unless_the_folder_changes(root, monkeypatch):
  read, real = [], decode.picture
  monkeypatch.setattr(decode, "picture", lambda *a: read.append(a) or real(*a))
  before = folders.read(root, 4)
  assert levels(folders.read(root, 4)) == levels(before) and len(read) == 3
  status = (root / "ants/a.png").stat()
  put(root / "ants/a.png", 11)
  assert (root / "ants/a.png").stat().st_size == status.st_size
  os.utime(root / "ants/a.png", ns=(0, status.st_mtime_ns + 1))
  assert levels(folders.read(root, 4)) == [11, 20, 30]
  put(root / "ants/b.png", 12)
  assert levels(folders.read(root, 4)) == [11, 12, 20, 30]
  (root / "ants/a.png").unlink()
  assert levels(folders.read(root, 4)) == [12, 20, 30]
  assert folders.read(root, 2)["x"].shape == (3, 2, 2, 3)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_folder_and_no_picture_in_it_are_named(make, tmp_path):
  make(tmp_path / "new")
  with refused("data.path", tmp_path / "new", kind=FileNotFoundError):
    folders.read(tmp_path / "new", 4)
