"""Images from files, and from a tfds set that is prepared here, offline, as "cifar10"."""

import itertools
import multiprocessing
import sys
import time

import jax
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from dfim.data.images import augment, sets
from tests.data.helpers import assert_equal, numbers_of, refused
from tests.data.stand_ins import EXTRA, needs_extra, Stored

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), np.uint8)
LABELS = np.arange(30) % 10


class Thin(Stored):
  """Grey pictures one pixel wide; some splits have no labels."""

  VERSION, CLASSES, PIXELS = tfds.core.Version("1.0.0"), 4, PIXELS[:, :, :1, :1]
  SPLITS = dict(train=[0, 2, 1], test=[-1, -1, -1], some=[0, -1, 1], first=[-1, 0, 1])


class Cifar10(Stored):
  name, VERSION = "cifar10", tfds.core.Version("3.0.2")
  CLASSES, PIXELS = 10, PIXELS
  SPLITS = dict(train=LABELS, test=LABELS[:8])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """A directory with the same 30 images in the three forms."""
  root = tmp_path_factory.mktemp("data")
  np.savez(root / "a.npz", images=PIXELS, labels=LABELS)
  for i, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
    path = root / "folder" / f"class{label}" / f"{i:02}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
  if EXTRA:
    for builder in Cifar10, Thin:
      builder(data_dir=root / "tfds", file_format="array_record").download_and_prepare()
  return root


@pytest.fixture(params=["npz", "folder", pytest.param("tfds", marks=needs_extra)])
def form(request, data):
  kwargs = dict(
    npz=dict(path=data / "a.npz"),
    folder=dict(path=data / "folder", size=6),
    tfds=dict(dataset="cifar10", split="train", data_dir=data / "tfds"),
  )
  return request.param, kwargs[request.param]


@pytest.fixture
def source(form):
  return lambda *args, **more: getattr(sets, form[0])(*args, **form[1], **more)


AUGMENTED = dict(flip=True, augment=augment.EDM(rate=1.0, threads=1))


@pytest.mark.parametrize("how", [dict(), AUGMENTED])
def test_starting_at_n_equals_skipping_n(source, how):
  skipped = itertools.islice(source(8, 3, **how), 9, 12)
  for a, b in zip(skipped, source(8, 3, 9, **how), strict=False):
    assert_equal(a, b)


def test_processes_hold_contiguous_parts_of_one_batch(source):
  whole = next(source(12, 1, 2, **AUGMENTED))
  parts = [next(source(12, 1, 2, **AUGMENTED, process=(i, 3))) for i in range(3)]
  assert whole["cond"]["augment"].shape == (12, 9) and whole["cond"]["label"].shape == (12,)
  assert_equal(whole, jax.tree.map(lambda *p: np.concatenate(p), *parts))


def test_an_epoch_holds_each_image_once_with_its_label(source):
  batches = list(itertools.islice(source(15, 0), 2))
  x = np.concatenate([b["x"] for b in batches])
  assert x.dtype == np.float32 and x.shape == PIXELS.shape
  order = numbers_of(x, PIXELS)
  assert sorted(order) == list(range(30)) != order
  labels = np.concatenate([b["cond"]["label"] for b in batches])
  np.testing.assert_array_equal(labels, LABELS[order])


def test_flip_mirrors_about_half_of_the_images_and_nothing_else(source):
  plain, flipped = next(source(60, 0))["x"], next(source(60, 0, flip=True))["x"]
  same, mirrored = ((a == flipped).all((1, 2, 3)) for a in (plain, plain[:, :, ::-1]))
  assert np.all(same ^ mirrored) and 15 < mirrored.sum() < 45
  nothing = augment.EDM(rate=0.0, x_flip=False)
  batch = next(source(60, 0, flip=True, augment=nothing))
  np.testing.assert_array_equal(batch["x"], flipped)
  np.testing.assert_array_equal(batch["cond"]["augment"], np.zeros((60, 9)))


def test_refusals_come_before_the_first_batch(source):
  with refused("batch_size", 8):
    source(8, 0, process=(0, 3))
  with refused("start", -1):
    source(8, 0, -1)


def test_a_source_gives_its_examples_as_they_are_stored(source):
  batches = source(4, 0, flip=True)
  assert batches.size == 30
  np.testing.assert_array_equal(batches.labels, np.arange(10))
  stored = batches.examples(np.arange(30))  # in an order of their own
  assert stored["x"].dtype == np.uint8 and stored["label"].dtype == np.int32
  order = numbers_of(stored["x"] / 127.5 - 1, PIXELS)
  assert sorted(order) == list(range(30))
  rows = np.array([0, 29, 7, 7])
  assert_equal(batches.examples(rows), dict(x=PIXELS[order][rows], label=LABELS[order][rows]))
  batches.close()


def test_all_forms_load_the_same_arrays(form):
  name, kwargs = form
  found = getattr(sets, f"load_{name}")(**kwargs)
  order = numbers_of(found["x"], PIXELS)
  assert sorted(order) == list(range(30)) and found["label"].dtype == np.int32
  np.testing.assert_array_equal(found["label"], LABELS[order])
  assert (found["x"].min(), found["x"].max()) == (-1, 1)


@needs_extra
def test_tfds_takes_slices_and_resizes(data):
  kwargs = dict(data_dir=data / "tfds", size=4)
  assert sets.load_tfds("cifar10", "train[:10%]", **kwargs)["x"].shape == (3, 4, 4, 3)


@pytest.mark.parametrize(
  "content, place",
  [
    (dict(x=np.zeros((4, 6, 6, 3), np.float32)), "float32"),
    (dict(x=np.zeros((4, 6), np.uint8)), "[4, 6]"),
    (dict(x=PIXELS, y=LABELS, label=LABELS[::-1]), "'label'"),
    (dict(x=PIXELS, y=LABELS[:7]), "y of shape (7,)"),
    (dict(x=PIXELS, label=LABELS + 2**31 - 9), "label: 2147483648 at example 9"),
  ],
)
def test_a_bad_npz_is_refused(tmp_path, content, place):
  np.savez(tmp_path / "a.npz", **content)
  with refused("data.path", tmp_path / "a.npz", place):
    sets.npz(4, 0, path=tmp_path / "a.npz")


@pytest.mark.parametrize("names", [("y",), ("labels",), ("label",), ("y", "label")])
@pytest.mark.parametrize("kind", [np.uint8, np.uint64])
def test_labels_have_one_of_three_names(names, kind, tmp_path, caplog):
  np.savez(tmp_path / "a.npz", images=PIXELS, **dict.fromkeys(names, LABELS.astype(kind)))
  np.testing.assert_array_equal(sets.load_npz(tmp_path / "a.npz")["label"], LABELS)
  batch = next(sets.npz(30, 0, path=tmp_path / "a.npz"))
  np.testing.assert_array_equal(batch["cond"]["label"], LABELS[numbers_of(batch["x"], PIXELS)])
  assert not caplog.records


def test_labels_by_other_names_are_named_and_without_any_there_is_no_condition(tmp_path, caplog):
  np.savez(tmp_path / "a.npz", x=PIXELS, targets=LABELS, **{"a\nb": LABELS})
  assert "label" not in sets.load_npz(tmp_path / "a.npz")
  (line,) = (r.getMessage() for r in caplog.records)
  assert "targets, a b;" in line and "\n" not in line and str(tmp_path / "a.npz") in line
  np.savez(tmp_path / "a.npz", x=PIXELS[..., 0])
  batch = next(sets.npz(4, 0, path=tmp_path / "a.npz"))
  assert batch["x"].shape == (4, 6, 6, 1) and "cond" not in batch


@needs_extra
@pytest.mark.parametrize(
  "field, value", [("size", 0), ("dataset", 3), ("split", "val"), ("split", "train[5:2]")]
)
def test_a_wrong_argument_of_tfds_is_named(field, value, data):
  how = dict(dataset="cifar10", split="train", data_dir=data / "tfds")
  with refused(f"data.{field}", value):
    sets.load_tfds(**how | {field: value})


@needs_extra
@pytest.mark.parametrize("size", [None, 1])
def test_pictures_one_pixel_wide_keep_their_axes(size, data):
  x = sets.load_tfds("thin", "train", data / "tfds", size=size)["x"]
  wanted = PIXELS[:3, :, :1, :1] if size is None else PIXELS[:3, 2:3, :1, :1]  # the centred square
  assert x.shape == wanted.shape
  found = sorted(np.rint(127.5 * (x + 1)).astype(int).reshape(3, -1).tolist())
  assert found == sorted(wanted.reshape(3, -1).tolist())


@needs_extra
def test_a_split_whose_labels_are_hidden_has_none(data):
  kwargs = dict(dataset="thin", data_dir=data / "tfds")
  hidden = sets.tfds(2, 0, split="test", **kwargs)
  assert set(next(hidden)) == {"x"} and hidden.labels is None
  assert set(hidden.examples(np.array([0, 2]))) == {"x"}
  shown = sets.tfds(2, 0, split="train", **kwargs)
  assert "label" in next(shown)["cond"]
  np.testing.assert_array_equal(shown.labels, np.arange(4))


@needs_extra
@pytest.mark.parametrize("split", ["some", "first"])
def test_a_split_with_some_labels_is_refused_with_an_example(split, data):
  stored = sets._records("thin", split, data / "tfds")
  labels = [stored[i]["label"] for i in range(3)]
  bad = next(i for i, label in enumerate(labels) if (label == -1) != (labels[0] == -1))
  with refused(f"data.dataset: label: {labels[bad]} at example"):
    sets.load_tfds("thin", split, data / "tfds")


@needs_extra
@pytest.mark.parametrize("dataset", ["cifar10", "no_such_set"])
def test_an_unprepared_set_is_named_at_once_with_the_command(tmp_path, dataset):
  began = time.monotonic()
  command = f"tfds.builder('{dataset}'", ".[tfds,tensorflow]"
  with refused("data.dataset", tmp_path, *command, kind=FileNotFoundError):
    sets.tfds(4, 0, dataset=dataset, data_dir=tmp_path)
  assert time.monotonic() - began < 3


@needs_extra
@pytest.mark.parametrize("missing", ["grain", "array_record", "importlib_resources"])
def test_a_missing_extra_is_named(monkeypatch, missing):
  monkeypatch.setitem(sys.modules, missing, None)
  with refused(missing, "pip install -e '.[tfds]'", kind=ImportError):
    sets.tfds(4, 0, dataset="cifar10")


@needs_extra
@pytest.mark.parametrize("how", [dict(threads=0), dict(workers=2, threads=1)])
def test_tfds_reads_the_same_whoever_reads(data, how):
  kwargs = dict(dataset="cifar10", data_dir=data / "tfds", size=4, process=(1, 2), **AUGMENTED)
  one, other = (sets.tfds(8, 3, 2, **kwargs, **more) for more in (how, {}))
  for a, b in zip(itertools.islice(one, 5), other, strict=False):
    assert_equal(a, b)
  for batches in one, other:
    batches.close()
  assert not multiprocessing.active_children()
