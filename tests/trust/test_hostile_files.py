"""Hostile files run nothing, get no memory that they do not fill, and are refused in one line.

They stand for data, weights, statistics or an exported network of others. A reader that trusted one
would leave a trap file behind, or allocate far more than `ALLOWED`: each refusal is checked for it.
"""

import contextlib
import gzip
import io
import json
import os
import pathlib
import pickle
import resource
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from dfim.config.errors import ConfigError
from dfim.data import sequences
from dfim.data.images import cifar, idx, latents, sets
from dfim.data.series import forecasting
from dfim.evaluators import fid
from dfim.interop import export, pickles, safetensors, weights
from dfim.io import npz as npz_lib
from dfim.metrics import classifier, frechet, inception

ALLOWED = 50e6  # bytes; the files are of a few thousand
# Of every npz that dfim reads, so that each reader finds a hostile array.
NAMES = ["x", "y", "train_bytes", "train_offsets", "train_labels", "mu", "sigma", "w"]
A = np.arange(6, dtype=np.float32).reshape(2, 3)


class Trap:
  """Pickled as a call that leaves a file behind."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return (os.mkdir, (self.path,))


# By reader: the call, the suffix of its file, and the start of the error.
READERS = {
  "data.images.sets.npz": (lambda p: sets.npz(4, 0, path=p), ".npz", "data.path: {}"),
  "data.images.sets.folder": (lambda p: sets.folder(4, 0, path=p.parent, size=8), ".png", "{}"),
  "data.sequences.npz": (lambda p: sequences.npz(4, 0, path=p), ".npz", "data.path: {}"),
  "data.cifar": (lambda p: cifar.load(p, "train"), ".npz", "data.path: {}"),
  "data.series.forecasting.ett": (forecasting.ett, ".csv", "data.series.path: {}"),
  "metrics.frechet": (frechet.load, ".npz", "{}: "),
  "metrics.classifier": (lambda p: classifier.load(p, {}), ".npz", "{}: "),
  "evaluators.fid npz": (fid.network, ".npz", "network.path: {}"),
  "evaluators.fid pth": (fid.network, ".pth", "network.path: {}"),
  "evaluators.fid safetensors": (fid.network, ".safetensors", "network.path: {}"),
  "interop.weights npz": (weights.read, ".npz", "{} is no sound npz"),
  "interop.weights safetensors": (weights.read, ".safetensors", "{} is no sound safetensors"),
  "interop.weights pt": (lambda p: weights.read(p, allow_pickle=True), ".pt", "{}"),
}


@pytest.fixture(scope="module", autouse=True)
def compiled():
  """What the readers compile by themselves, before memory is limited: XLA cannot take that."""
  inception.kernels()


@contextlib.contextmanager
def small(limited=True):
  """Fails if more than `ALLOWED` is allocated at a time, or asked for in vain.

  NumPy and Python are traced. The address space is limited too, except where a network is traced,
  for XLA starts threads, and ends the process where it cannot.
  """
  now = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
  limit = resource.getrlimit(resource.RLIMIT_AS)
  if limited:
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**29, limit[1]))
  tracemalloc.start()
  try:
    yield
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    resource.setrlimit(resource.RLIMIT_AS, limit)
    allowed = ALLOWED if limited else 2 * ALLOWED  # to trace a network takes some by itself
    assert peak < allowed, f"{peak / 1e6:.0f} MB were asked for"


@pytest.fixture
def refused(tmp_path):
  """`refused(read, message)`: the error's one line, once it is known that nothing else was done."""

  def check(read, message, kind=ValueError):
    before = sorted(tmp_path.rglob("*"))
    with small(limited=kind is ValueError), pytest.raises(kind) as error:
      read()
    line = str(error.value)
    assert "\n" not in line and message in line and len(line) < 1500, line
    assert sorted(tmp_path.rglob("*")) == before, "it made a file"

  return check


@pytest.mark.parametrize("size", [2**27, 2**43], ids=["given", "in vain"])
def test_too_much_memory_is_noticed(size):
  with pytest.raises(AssertionError, match="MB were asked for"), small():
    np.empty(size, np.uint8)


def packed(members, compression=zipfile.ZIP_STORED):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", compression) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return file.getvalue()


def npz(data, names=NAMES, compression=zipfile.ZIP_STORED):
  """One array's bytes under every name that a reader may look for."""
  return packed({f"{name}.npy": data for name in names}, compression)


def npy(shape, data=b"", descr="|u1", version=(1, 0), order=False):
  header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
  size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
  return b"\x93NUMPY" + bytes(version) + size + header + data


def objects(trap):
  file = io.BytesIO()
  np.save(file, np.array([Trap(trap)], dtype=object))
  return file.getvalue()


def stream(trap):
  """PyTorch's older format: magic number, version, system, the object, keys."""
  system = dict(protocol_version=1001, little_endian=True)
  parts = [pickles.TORCH_MAGIC, 1001, system, [Trap(trap)], []]
  return b"".join(pickle.dumps(part, 2) for part in parts)


PICKLED = {
  "an array of objects in an npz": lambda t: npz(objects(t)),
  "records with objects": lambda t: npz(npy((1,), pickle.dumps([Trap(t)]), [("a", "|O")])),
  "pickles in an npz": lambda t: npz(pickle.dumps(Trap(t))),
  "an npy of objects": objects,
  "a pickle": lambda t: pickle.dumps(dict(w=Trap(t))),
  "a pickle in PyTorch's zip": lambda t: packed({"net/data.pkl": pickle.dumps([Trap(t)], 2)}),
  "PyTorch's older stream": stream,
  "a header that is code": lambda t: npz(npy(f"(__import__('os').mkdir({str(t)!r}),)")),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("made", PICKLED)
def test_nothing_in_a_file_is_run(reader, made, refused, tmp_path):
  read, suffix, said = READERS[reader]
  path = tmp_path / f"file{suffix}"
  path.write_bytes(PICKLED[made](tmp_path / "trap"))
  refused(lambda: read(path), said.format(path))


@pytest.mark.parametrize("made", PICKLED)
def test_nothing_in_a_folder_of_arrays_is_run(made, refused, tmp_path):
  data = PICKLED[made](tmp_path / "trap")
  for name in ("mean.npy", "std.npy", "label.npy"):
    (tmp_path / name).write_bytes(data)
  refused(lambda: next(latents.latents(4, 0, path=tmp_path)), f"data.path: {tmp_path}/mean.npy")
  for split in ("train", "t10k"):
    (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(data)
    (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(data, mtime=0))
  refused(lambda: idx.load(tmp_path), f"data.path: {tmp_path}/t10k-images")


def patched(data, sizes, offset):
  """An archive whose entries say other sizes, at `offset` in their headers, in both directories."""
  data = bytearray(data)
  for mark, extra in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
    at = data.find(mark)
    while at >= 0:
      data[at + offset + extra : at + offset + extra + len(sizes)] = sizes
      at = data.find(mark, at + 4)
  return bytes(data)


STORED, SMALL = 22, 18  # where a zip entry says its size, and its size in the archive
GIGABYTES = b"\xff\xff\xff\x7f"
LONE = npz(npy((4,), bytes(4)))
DEFLATED = npz(npy((2**15,), bytes(2**15)), compression=zipfile.ZIP_DEFLATED)
LIES = {
  "2^50 numbers": npz(npy((2**50,), bytes(64))),
  "a number of numbers that memory could hold": npz(npy((2**28,), bytes(64))),
  "more than a word counts": npz(npy((2**40, 2**40))),
  "a negative shape": npz(npy((-4,), bytes(4))),
  "a bomb": npz(npy((2**20,), bytes(10**8)), NAMES[:1], zipfile.ZIP_DEFLATED),
  "a long header": npz(b"\x93NUMPY\2\0\xff\xff\xff\x7f{"),
  "entries of 2 GB, stored": patched(patched(LONE, GIGABYTES, STORED), GIGABYTES, SMALL),
  "deflated entries of 2 GB": patched(DEFLATED, GIGABYTES, STORED),
  "a secret": patched(LONE, b"\1\0", 6),
  "another compression": patched(LONE, b"\x63\0", 8),
  "a file cut short": LONE[:-30],
  "nothing": b"",
  "an empty archive": packed({}),
}
NPZ = [name for name in READERS if READERS[name][1] == ".npz"]
HARMLESS = [("an empty archive", n) for n in ("interop.weights npz", "metrics.classifier")]


@pytest.mark.parametrize("reader", NPZ)
@pytest.mark.parametrize("lie", LIES)
def test_an_npz_that_lies_is_refused_before_room_is_made(reader, lie, refused, tmp_path):
  read, suffix, said = READERS[reader]
  path = tmp_path / f"file{suffix}"
  path.write_bytes(LIES[lie])
  if (lie, reader) in HARMLESS:
    assert sum(a.nbytes for a in read(path).values()) == 0
  else:
    refused(lambda: read(path), said.format(path))


def test_two_arrays_of_one_name_are_refused(refused, tmp_path):
  path = tmp_path / "file.npz"
  with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
    for value in (b"\0", b"\1"):
      archive.writestr("x.npy", npy((1,), value))
  refused(lambda: npz_lib.read_npz(path), "two arrays have one name")


def test_an_honest_npz_is_read_as_numpy_reads_it(tmp_path):
  arrays = dict(a=A, f=np.asfortranarray(A), none=np.zeros((0, 3)), scalar=np.float64(2))
  for save in (np.savez, np.savez_compressed):
    save(tmp_path / "a.npz", zeros=np.zeros(10**6), **arrays)
    found = npz_lib.read_npz(tmp_path / "a.npz")
    assert npz_lib.names(tmp_path / "a.npz") == list(found) == ["zeros", *arrays]
    for name, array in arrays.items():
      np.testing.assert_array_equal(found[name], array)
      assert found[name].dtype == np.asarray(array).dtype and found[name].shape == np.shape(array)
    assert set(npz_lib.read_npz(tmp_path / "a.npz", "a", "absent")) == {"a"}


def head(rank, *shape):
  return struct.pack(f">4B{len(shape)}I", 0, 0, 8, rank, *shape)


IDX = {
  "2^32 images of 2^32": head(3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100),
  "as many as memory could hold": head(3, 2**18, 32, 32) + bytes(100),
  "one too few": head(3, 2, 8, 8) + bytes(127),
  "one too many": head(3, 2, 8, 8) + bytes(129),
  "another type": b"\0\0\x0d\3" + head(3, 2, 8, 8)[4:] + bytes(128),
  "nothing": b"",
  "a bomb": head(3, 1, 8, 8) + bytes(10**8),
}


HONEST = gzip.compress(head(3, 2, 8, 8) + bytes(128), mtime=0)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("lie", [*IDX, HONEST[:5], HONEST[:30]])
def test_an_idx_file_that_lies_is_refused(lie, zipped, refused, tmp_path):
  name = f"t10k-images-idx3-ubyte{'.gz' if zipped else ''}"
  data = IDX.get(lie, lie)
  (tmp_path / name).write_bytes(gzip.compress(data, 1, mtime=0) if zipped and lie in IDX else data)
  (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(head(1, 2) + bytes(2))
  refused(lambda: idx.load(tmp_path), f"data.path: {tmp_path / name} is damaged")


NPY = {
  "2^50 numbers": npy((2**50, 1, 1, 1), bytes(64), "<f4"),
  "more than a word counts": npy((2**40, 2**40, 1, 1), b"", "<f4"),
  "a negative shape": npy((-4, 2, 2, 1), bytes(64), "<f4"),
  "a long header": b"\x93NUMPY\2\0\xff\xff\xff\x7f{",
  "nothing": b"",
}


@pytest.mark.parametrize("lie", NPY)
def test_latents_that_lie_are_refused(lie, refused, tmp_path):
  np.save(tmp_path / "mean.npy", np.zeros((4, 2, 2, 1), np.float32))
  (tmp_path / "std.npy").write_bytes(NPY[lie])
  said = f"data.path: {tmp_path / 'std.npy'} is damaged"
  refused(lambda: next(latents.latents(4, 0, path=tmp_path)), said)


def entry(begin, end, shape=(2,), dtype="F32"):
  return dict(dtype=dtype, shape=list(shape), data_offsets=[begin, end])


TWICE = '{"a": %s, "a": %s}'
TENSORS = {  # a header, above 16 bytes of numbers
  "overlapping": dict(a=entry(0, 8), b=entry(4, 12)),
  "beyond the file": dict(a=entry(0, 8), b=entry(8, 2**40, (2**38,))),
  "below 0": dict(a=entry(-8, 0), b=entry(0, 16, (4,))),
  "backwards": dict(a=entry(8, 0), b=entry(8, 16)),
  "not all": dict(a=entry(0, 8)),
  "more than a word counts": dict(a=entry(0, 16, (2**40, 2**40))),
  "2^62 times none": dict(a=entry(0, 0, (2**62, 0)), b=entry(0, 16, (4,))),
  "no text": dict(a=dict(dtype=["F32"], shape=[4], data_offsets=[0, 16])),
  "a type that there is not": dict(a=entry(0, 16, (4,), "F31")),
  "one name twice": TWICE % ((json.dumps(entry(0, 16, (4,))),) * 2),
  "no UTF-8": b'{"\xff": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
  "too deep": "[" * 100_000,
}


def tensors(header, length=None):
  header = json.dumps(header) if isinstance(header, dict) else header
  header = header.encode() if isinstance(header, str) else header
  return struct.pack("<Q", len(header) if length is None else length) + header + bytes(16)


LENGTHS = [2**64 - 1, 2**63, 2**40, 10**8, 1000, 0, 1]  # of a header of 64 bytes or so


@pytest.mark.parametrize("lie", [*TENSORS, *LENGTHS])
def test_a_safetensors_header_that_lies_is_refused(lie, refused, tmp_path):
  path = tmp_path / "file.safetensors"
  honest = dict(a=entry(0, 16, (4,)))
  path.write_bytes(tensors(honest, lie) if lie in LENGTHS else tensors(TENSORS[lie]))
  refused(lambda: safetensors.read(path), f"{path} is no sound safetensors file")


def ops(*parts):
  return b"\x80\x04" + b"".join(parts) + b"."


def constructor(name):
  module, _, last = name.rpartition(".")
  return f"c{module}\n{last}\n".encode()


TEXT = b"X" + struct.pack("<I", 2**17) + b"a" * 2**17  # 128 KB
ENCODE = b"(h\0X\x06\0\0\0latin1tR"  # _codecs.encode(memo[0], "latin1")
BOMBS = {  # a few hundred KB at most
  "a place 2^31 in the memory of objects": ops(b"K\1r\xff\xff\xff\x7f"),
  "a place 2^60 in it": ops(b"K\1p1152921504606846976\n"),
  "as many bytes as memory could hold": ops(b"B" + struct.pack("<I", 2**28)),
  "a bytearray of 2^33": ops(b"\x96" + struct.pack("<Q", 2**33)),
  "a number of 2^30 digits": ops(b"\x8b" + struct.pack("<I", 2**30)),
  "one text as bytes 1,000 times": ops(
    TEXT, b"q\0(", (constructor("_codecs.encode") + ENCODE) * 1000, b"l"
  ),
  "one list as a tuple 1,000 times": ops(
    b"](" + b"K\1" * 2**17, b"eq\0(", (constructor("torch.Size") + b"(h\0tR") * 1000, b"l"
  ),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("where", ["alone", "in a zip", "within"])
def test_a_pickle_that_asks_for_much_is_refused(bomb, where, refused, tmp_path):
  path, data = tmp_path / "file.pkl", BOMBS[bomb]
  if where == "in a zip":
    data = packed({"net/data.pkl": data})
  if where == "within":
    inner = b"B" + struct.pack("<I", len(data)) + data
    data = ops(constructor("torch.storage._load_from_bytes"), inner, b"\x85R")
  path.write_bytes(data)
  refused(lambda: pickles.read(path), f"{path}")


def persistent(key, count):
  pid = b"(X\x07\0\0\0storagectorch\nByteStorage\nX\1\0\0\0" + key + b"X\3\0\0\0cpu"
  return pid + b"J" + struct.pack("<i", count) + b"tQ"


def test_one_storage_many_times_is_kept_once(tmp_path):
  size = 2**20
  tensor = constructor("torch._utils._rebuild_tensor_v2") + b"(" + persistent(b"0", size)
  tensor += b"K\0K\2\x85K\1\x85\x89}tR"
  path = tmp_path / "file.pt"
  listed = ops(b"(" + tensor * 200, b"l")
  path.write_bytes(packed({"net/data.pkl": listed, "net/data/0": bytes(size)}))
  with small(), pytest.raises(ValueError, match="it holds no arrays"):  # of a list, none are taken
    pickles.read(path)


def test_a_storage_larger_than_its_archive_is_refused(tmp_path, refused):
  path = tmp_path / "file.pt"
  data = packed({"net/data.pkl": ops(persistent(b"0", 2**31 - 1)), "net/data/0": bytes(8)})
  at = data.rindex(b"PK\3\4", 0, data.index(b"PK\1\2")) + SMALL
  data = bytearray(data)
  for place in (at, data.rindex(b"PK\1\2") + SMALL + 2):
    data[place : place + 8] = GIGABYTES * 2
  path.write_bytes(data)
  refused(lambda: pickles.read(path), f"{path}")


def png(width, height):
  chunk = lambda kind, data: (
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  )
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
  "picture",
  [png(60_000, 60_000), png(2**31 - 1, 2**31 - 1), png(0, 5), png(8, 8), png(8, 8)[:20], b"GIF89a"],
)
def test_a_picture_that_lies_is_refused(picture, refused, tmp_path):
  (tmp_path / "a.png").write_bytes(picture)
  refused(lambda: sets.folder(4, 0, path=tmp_path, size=8), f"data.path: {tmp_path}/a.png cannot")


def webp(width, height):
  """The header of a lossless picture without any pixels."""
  bits = (width - 1) | (height - 1) << 14
  body = b"VP8L" + struct.pack("<IBI", 5, 0x2F, bits) + b"\0"
  return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


OFFSETS = [[0, 2**50], [-5, 8], [8, 0], [0.0, 8.0], [[0, 8]], []]
PACKED = [(webp(*size), [0, len(webp(*size))]) for size in ((16_384, 16_384), (33, 32), (32, 32))]


@pytest.mark.parametrize("raw, offsets", [*PACKED, *[(bytes(64), offsets) for offsets in OFFSETS]])
def test_packed_pictures_that_lie_are_refused(raw, offsets, refused, tmp_path):
  path, raw = tmp_path / "cifar.npz", np.frombuffer(raw, np.uint8)
  np.savez(path, train_bytes=raw, train_offsets=offsets, train_labels=[3])
  refused(lambda: cifar.load(path, "train"), f"data.path: {path} is damaged")


DESCRIBED = dict(
  model=dict(name="models.mlp.MLP"),
  f=dict(name="core.parameterization.EulerFlow", path=dict(name="core.interpolants.FlowMatching")),
  inputs=dict(x=dict(shape=[2], dtype="float32")),
)
FOLDERS = {  # what is changed in config.json, or its bytes
  "2^60 wide": dict(model=dict(name="models.mlp.MLP", width=2**60)),
  "10^9 deep": dict(model=dict(name="models.mlp.MLP", depth=10**9)),
  "2^60 long": dict(inputs=dict(x=dict(shape=[2**60], dtype="float32"))),
  "of no shape": dict(inputs=dict(x=dict(shape="x", dtype="float32"))),
  "too deep": b"[" * 100_000,
  "no UTF-8": b'{"a": "\xff"}',
  "empty": b"",
  "an empty dict": b"{}",
}


@pytest.mark.parametrize("lie", FOLDERS)
def test_an_exported_folder_that_lies_is_refused(lie, refused, tmp_path):
  data = FOLDERS[lie]
  data = data if isinstance(data, bytes) else json.dumps(DESCRIBED | data).encode()
  (tmp_path / "config.json").write_bytes(data)
  (tmp_path / "model.safetensors").write_bytes(tensors(dict(a=entry(0, 16, (4,)))))
  refused(lambda: export.load(tmp_path), str(tmp_path), ConfigError)
