"""Images from files, and from a tfds set that is prepared here, offline, as "cifar10"."""

import builtins
import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time

import jax
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
import nbformat
import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from dfim.data.images import augment, sets

ROOT = pathlib.Path(__file__).parents[2]
EXTRA = all(importlib.util.find_spec(m) for m in ("array_record", "grain", "importlib_resources"))
needs_extra = pytest.mark.skipif(not EXTRA, reason="pip install -e '.[tfds]'")

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), np.uint8)
LABELS = np.arange(30) % 10


def png(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


class Thin(tfds.core.GeneratorBasedBuilder):
  """Grey pictures one pixel wide, `PIXELS[i, :, :1, :1]`; some splits have no labels."""

  VERSION = tfds.core.Version("1.0.0")
  skip_registration = True
  LABELS = dict(train=[0, 2, 1], test=[-1, -1, -1], some=[0, -1, 1], first=[-1, 0, 1])

  def _info(self):
    features = dict(
      image=tfds.features.Image(shape=(6, 1, 1)), label=tfds.features.ClassLabel(num_classes=4)
    )
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(labels) for split, labels in self.LABELS.items()}

  def _generate_examples(self, labels):
    for i, label in enumerate(labels):
      yield i, dict(image=png(PIXELS[i, :, :1, 0]), label=label)


class Cifar10(tfds.core.GeneratorBasedBuilder):
  """The official set's name, version and features; 6x6 pictures of noise."""

  name = "cifar10"
  VERSION = tfds.core.Version("3.0.2")
  skip_registration = True

  def _info(self):
    features = dict(
      id=tfds.features.Text(),
      image=tfds.features.Image(shape=(6, 6, 3)),
      label=tfds.features.ClassLabel(num_classes=10),
    )
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return dict(train=self._generate_examples(30), test=self._generate_examples(8))

  def _generate_examples(self, count):
    for i in range(count):
      yield i, dict(id=f"{i}", image=png(PIXELS[i]), label=int(LABELS[i]))


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
def source(request, data):
  """(batch_size, seed, start, *, flip, process) -> iterator."""
  kwargs = dict(
    npz=dict(path=data / "a.npz"),
    folder=dict(path=data / "folder", size=6),
    tfds=dict(dataset="cifar10", data_dir=data / "tfds"),
  )[request.param]
  return lambda *args, **more: getattr(sets, request.param)(*args, **kwargs, **more)


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("flip", [False, True])
def test_starting_at_n_equals_skipping_n(source, flip):
  skipped = itertools.islice(source(8, 3, flip=flip), 9, 12)
  for a, b in zip(skipped, source(8, 3, 9, flip=flip), strict=False):
    assert_equal(a, b)


def test_processes_hold_contiguous_parts_of_one_batch(source):
  whole = next(source(12, 1, 2, flip=True))
  parts = [next(source(12, 1, 2, flip=True, process=(i, 3))) for i in range(3)]
  assert_equal(whole, jax.tree.map(lambda *p: np.concatenate(p), *parts))


def test_an_epoch_holds_each_image_once_with_its_label(source):
  batches = list(itertools.islice(source(15, 0), 2))
  x = np.concatenate([b["x"] for b in batches])
  assert x.dtype == np.float32 and x.shape == PIXELS.shape
  pixels = np.rint((x + 1) * 127.5).astype(np.uint8)
  order = [int(np.argmax((PIXELS == p).all((1, 2, 3)))) for p in pixels]
  assert sorted(order) == list(range(30)) != order
  np.testing.assert_array_equal(
    np.concatenate([b["cond"]["label"] for b in batches]), LABELS[order]
  )


def test_flip_mirrors_about_half_of_the_images_and_nothing_else(source):
  plain, flipped = next(source(60, 0))["x"], next(source(60, 0, flip=True))["x"]
  same, mirrored = ((a == flipped).all((1, 2, 3)) for a in (plain, plain[:, :, ::-1]))
  assert np.all(same ^ mirrored) and 15 < mirrored.sum() < 45


def test_refusals_come_before_the_first_batch(source):
  with pytest.raises(ValueError, match="batch_size: 8 .* 3 processes"):
    source(8, 0, process=(0, 3))
  with pytest.raises(ValueError, match="start: -1"):
    source(8, 0, -1)


def test_a_source_gives_its_examples_as_they_are_stored(source):
  batches = source(4, 0, flip=True)
  assert batches.size == 30
  np.testing.assert_array_equal(batches.labels, np.arange(10))
  rows = np.array([0, 29, 7, 7])
  found = batches.examples(rows)
  assert found["x"].dtype == np.uint8 and found["label"].dtype == np.int32
  stored = batches.examples(np.arange(30))["x"]  # in an order of their own
  order = np.array([int(np.argmax((PIXELS == p).all((1, 2, 3)))) for p in stored])
  assert sorted(order) == list(range(30))
  assert_equal(found, dict(x=PIXELS[order][rows], label=LABELS[order][rows].astype(np.int32)))
  batches.close()


@needs_extra
def test_the_three_forms_load_the_same_arrays(data):
  a = sets.load_npz(data / "a.npz")
  b = sets.load_folder(data / "folder", 6)
  c = sets.load_tfds("cifar10", "train", data / "tfds")
  assert (a["x"].min(), a["x"].max()) == (-1, 1) and a["label"].dtype == np.int32
  for other in b, c:
    order = [int(np.argmax((a["x"] == x).all((1, 2, 3)))) for x in other["x"]]
    assert_equal(jax.tree.map(lambda a, o=order: a[o], a), other)


def test_grey_images_without_labels_gain_a_channel_and_no_condition(tmp_path):
  np.savez(tmp_path / "a.npz", x=PIXELS[..., 0])
  batch = next(sets.npz(4, 0, path=tmp_path / "a.npz"))
  assert batch["x"].shape == (4, 6, 6, 1) and "cond" not in batch


def test_pictures_are_cut_to_a_square_and_resized(tmp_path):
  wide = np.zeros((10, 30, 3), np.uint8)
  wide[:, 10:20] = 255
  Image.fromarray(wide).save(tmp_path / "wide.jpg", quality=100)
  (tmp_path / "notes.txt").write_text("not a picture")
  loaded = sets.load_folder(tmp_path, 5)
  assert loaded["x"].shape == (1, 5, 5, 3) and "label" not in loaded
  assert loaded["x"].min() > 0.9


@needs_extra
def test_tfds_takes_slices_and_resizes(data):
  kwargs = dict(data_dir=data / "tfds", size=4)
  assert sets.load_tfds("cifar10", "train[:10%]", **kwargs)["x"].shape == (3, 4, 4, 3)


def one_line(error, *parts):
  message = str(error.value)
  assert "\n" not in message
  for part in parts:
    assert str(part) in message


def test_missing_files_are_named_with_the_fix(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    sets.npz(4, 0, path=tmp_path / "no.npz")
  one_line(error, "data.path", tmp_path / "no.npz", "numpy.savez")
  with pytest.raises(FileNotFoundError) as error:
    sets.folder(4, 0, path=tmp_path / "no", size=8)
  one_line(error, "data.path", tmp_path / "no")
  with pytest.raises(FileNotFoundError) as error:
    sets.folder(4, 0, path=tmp_path, size=8)
  one_line(error, "data.path", tmp_path, "PNG")


@pytest.mark.parametrize(
  "content, message",
  [
    (dict(x=np.zeros((4, 6, 6, 3), np.float32)), "needs uint8 .* has float32 .* np.rint"),
    (dict(x=PIXELS.astype(np.uint16)), "needs uint8 .* has uint16"),
    (dict(x=PIXELS.astype(np.int64)), "needs uint8 .* has int64"),
    (dict(x=PIXELS > 127), "needs uint8 .* has bool"),
    (dict(x=np.zeros((4, 6), np.uint8)), r"has uint8 \[4, 6\]"),
    (dict(pictures=PIXELS), "'x' or 'images', has none but pictures"),
    (dict(x=PIXELS, images=PIXELS[::-1]), "'x' and 'images' differ"),
    (dict(x=PIXELS, y=LABELS, label=LABELS[::-1]), "'y' and 'label' differ"),
    (dict(x=PIXELS, labels=LABELS, label=LABELS[:, None]), "'labels' and 'label' differ"),
    (dict(x=PIXELS, y=LABELS[:7]), r"y of shape \(7,\)"),
    (dict(x=PIXELS, labels=LABELS[:, None]), r"labels of shape \(30, 1\)"),
    (dict(x=PIXELS, y=LABELS * 0.5), "y of float64"),
    (dict(x=PIXELS, y=LABELS.astype("U")), "y of <U"),
    (dict(x=PIXELS, label=LABELS + 2**31 - 9), "label: 2147483648 at example 9"),
    (dict(x=PIXELS, label=(LABELS + 2**33).astype(np.uint64)), "label: 8589934592 at example 0"),
    (dict(x=PIXELS, y=LABELS - 3), "y: -3 at example 0"),
    (dict(x=np.array([None, {}])), "no .npz of plain arrays"),
  ],
)
def test_a_bad_npz_is_refused_in_one_line(tmp_path, content, message):
  np.savez(tmp_path / "a.npz", **content)
  with pytest.raises(ValueError, match=message) as error:
    sets.npz(4, 0, path=tmp_path / "a.npz")
  one_line(error, "data.path", tmp_path / "a.npz")


@pytest.mark.parametrize("names", [("y",), ("labels",), ("label",), ("y", "label")])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint64])
def test_labels_have_one_of_three_names(names, kind, tmp_path, caplog):
  np.savez(tmp_path / "a.npz", images=PIXELS, **dict.fromkeys(names, LABELS.astype(kind)))
  np.testing.assert_array_equal(sets.load_npz(tmp_path / "a.npz")["label"], LABELS)
  batch = next(sets.npz(30, 0, path=tmp_path / "a.npz"))
  found = [int(np.argmax((PIXELS == p).all((1, 2, 3)))) for p in np.rint(127.5 * (batch["x"] + 1))]
  np.testing.assert_array_equal(batch["cond"]["label"], LABELS[found])
  assert not caplog.records


def test_arrays_by_other_names_are_named_in_a_warning(tmp_path, caplog):
  np.savez(tmp_path / "a.npz", x=PIXELS, targets=LABELS, **{"a\nb": LABELS})
  assert "label" not in sets.load_npz(tmp_path / "a.npz")
  (line,) = (r.getMessage() for r in caplog.records)
  assert "targets, a b;" in line and "\n" not in line and str(tmp_path / "a.npz") in line


@pytest.mark.parametrize(
  "load, field",
  [
    (lambda: sets.load_npz(None), "data.path=None"),
    (lambda: sets.load_npz(3), "data.path=3"),
    (lambda: sets.load_npz(""), "data.path=''"),
    (lambda: sets.load_folder(3, 8), "data.path=3"),
  ],
)
def test_what_is_no_path_is_named(load, field):
  with pytest.raises(ValueError, match=f"^{field}: give a path"):
    load()


@needs_extra
@pytest.mark.parametrize(
  "wrong, field",
  [
    (dict(size=0), "data.size=0"),
    (dict(size=2.5), "data.size=2.5"),
    (dict(dataset=3), "data.dataset: 3"),
    (dict(split=None), "data.split: .* not None"),
    (dict(split=3), "data.split: .* not 3"),
    (dict(split=["train"]), r"data.split: .* not \['train'\]"),
    (dict(split="train[:0]"), "data.split: .* not"),
    (dict(split="train[5:2]"), "data.split: .* not"),
    (dict(data_dir=3), "data.data_dir=3"),
  ],
)
def test_a_wrong_argument_of_tfds_is_named(wrong, field, data):
  with pytest.raises(ValueError, match=f"^{field}") as error:
    sets.load_tfds(**(dict(dataset="cifar10", split="train", data_dir=data / "tfds") | wrong))
  one_line(error)


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
  with pytest.raises(ValueError, match=f"data.dataset: label: {labels[bad]} at example") as error:
    sets.load_tfds("thin", split, data / "tfds")
  one_line(error)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut short"])
def test_damaged_files_are_refused_in_one_line(tmp_path, content):
  for name in "a.npz", "a.png":
    (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError) as error:
    sets.load_npz(tmp_path / "a.npz")
  one_line(error, "data.path", tmp_path / "a.npz")
  with pytest.raises(ValueError) as error:
    sets.load_folder(tmp_path, 8)
  one_line(error, "data.path", tmp_path / "a.png")


def test_a_picture_beside_class_folders_is_refused(tmp_path):
  (tmp_path / "cats").mkdir()
  for path in tmp_path / "cats/a.png", tmp_path / "b.png":
    path.write_bytes(png(PIXELS[0]))
  with pytest.raises(ValueError) as error:
    sets.load_folder(tmp_path, 6)
  one_line(error, "b.png")


@needs_extra
@pytest.mark.parametrize("dataset", ["cifar10", "imagenet2012", "no_such_set"])
def test_an_unprepared_set_is_named_at_once_with_the_command(tmp_path, dataset):
  began = time.monotonic()
  with pytest.raises(FileNotFoundError) as error:
    sets.tfds(4, 0, dataset=dataset, data_dir=tmp_path)
  assert time.monotonic() - began < 3
  one_line(error, "data.dataset", tmp_path, f"tfds.builder('{dataset}'", ".[tfds,tensorflow]")


@needs_extra
def test_an_unknown_split_is_named_with_those_there_are(data):
  with pytest.raises(ValueError) as error:
    sets.tfds(4, 0, dataset="cifar10", split="val", data_dir=data / "tfds")
  one_line(error, "data.split", "train, test", "'val'")


@needs_extra
@pytest.mark.parametrize("missing", ["grain", "array_record", "importlib_resources"])
def test_a_missing_extra_is_named(monkeypatch, missing):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name == missing:
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", without)
  with pytest.raises(ImportError) as error:
    sets.tfds(4, 0, dataset="cifar10")
  one_line(error, missing, "pip install -e '.[tfds]'")


@needs_extra
@pytest.mark.parametrize("how", [dict(threads=0), dict(workers=2, threads=1)])
def test_tfds_reads_the_same_whoever_reads(data, how):
  kwargs = dict(dataset="cifar10", data_dir=data / "tfds", size=4, flip=True, process=(1, 2))
  kwargs |= dict(augment=augment.EDM(rate=1.0, threads=1))
  one, other = (sets.tfds(8, 3, 2, **kwargs, **more) for more in (how, {}))
  for a, b in zip(itertools.islice(one, 5), other, strict=False):
    assert_equal(a, b)
  for batches in one, other:
    batches.close()
  assert not multiprocessing.active_children()


CONFIG = """
from configs import imm_digits

def get_config():
  config = imm_digits.get_config("smoke")
  config.data = dict(name="data.images.sets.tfds", dataset="cifar10", data_dir={path!r}, workers=0)
  config.evaluators, config.sampler.steps = dict(), (1,)
  return config
"""


@needs_extra
@pytest.mark.slow
def test_the_program_trains_the_same_with_workers(data, tmp_path):
  (tmp_path / "config.py").write_text(CONFIG.format(path=str(data / "tfds")))
  command = [sys.executable, "-m", "dfim.main", f"--config={tmp_path}/config.py"]
  losses = []
  for workers in "0", "2":
    flags = [f"--config.data.workers={workers}", f"--workdir={tmp_path / workers}"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([*command, *flags], cwd=ROOT, env=env, check=True, timeout=300)
    lines = (tmp_path / workers / "metrics.jsonl").read_text().splitlines()
    losses.append([json.loads(line).get("loss") for line in lines])
  assert losses[0] == losses[1] and losses[0][0] is not None


@needs_extra
@pytest.mark.slow
def test_a_notebook_reads_with_workers(data, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  code = (
    "from dfim.data import images\n"
    f"kwargs = dict(dataset='cifar10', data_dir={str(data / 'tfds')!r}, workers=2)\n"
    "batches = images.tfds(4, 0, **kwargs)\n"
    "[next(batches)['cond']['label'].tolist() for _ in range(5)]"
  )
  notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
  specs = KernelSpecManager(kernel_dirs=[])  # none but ipykernel's own: this interpreter
  manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
  resources = dict(metadata=dict(path=str(ROOT)))
  NotebookClient(notebook, km=manager, resources=resources, timeout=120).execute()
  batches = sets.tfds(4, 0, dataset="cifar10", data_dir=data / "tfds")
  labels = [next(batches)["cond"]["label"].tolist() for _ in range(5)]
  shown = [o["data"]["text/plain"] for o in notebook.cells[0].outputs if "data" in o]
  assert shown == [str(labels)]
