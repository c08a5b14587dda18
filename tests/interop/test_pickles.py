"""Pickles give their arrays; anything else that they name is refused and never run.

PyTorch is no dependency: its files are made here by its formats' rules, with stand-ins of its names
that pickle writes down and a reader must not import.
"""

import collections
import contextlib
import io
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from dfim.interop import pickles

A = np.arange(6, dtype=np.float32).reshape(2, 3)
NAMES = {  # by module, what a file of PyTorch or EDM may name
  "torch": ("FloatStorage", "HalfStorage"),
  "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
  "torch.storage": ("_load_from_bytes",),
  "torch.nn.modules.container": ("ModuleDict",),
  "torch_utils.persistence": ("_reconstruct_persistent_obj",),
}


class Named:
  """Pickled as a call of, or an instance made by, what `module.name` is."""

  def __init__(self, function, *args, state=None):
    self.reduced = (function, args) if state is None else (function, args, state)

  def __reduce__(self):
    return self.reduced


class Storage:
  """A tensor's memory: outside the pickle, by key."""

  def __init__(self, key, array, kind="FloatStorage"):
    self.key, self.array, self.kind = key, array, kind


class Pickler(pickle.Pickler):
  def persistent_id(self, obj):
    if not isinstance(obj, Storage):
      return None
    return ("storage", getattr(sys.modules["torch"], obj.kind), obj.key, "cpu", obj.array.size)


@pytest.fixture
def torch(monkeypatch):
  """Functions and classes by the names of PyTorch, which raise where they are called."""
  found = types.SimpleNamespace()
  for package in ("torch.nn", "torch.nn.modules", "torch_utils"):
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
  for module, names in NAMES.items():
    stand_in = types.ModuleType(module)
    for name in names:
      made = type(name, (), {"__module__": module, "__qualname__": name})
      setattr(stand_in, name, made)
      setattr(found, name, made)
    monkeypatch.setitem(sys.modules, module, stand_in)
  return found


def dumped(value, protocol=2):
  file = io.BytesIO()
  Pickler(file, protocol).dump(value)
  return file.getvalue()


def tensor(torch, storage, shape, strides, offset=0):
  hooks = collections.OrderedDict()
  return Named(torch._rebuild_tensor_v2, storage, offset, shape, strides, False, hooks)


def write_zip(path, value, storages, compression=zipfile.ZIP_STORED, byteorder=b"little"):
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr("net/data.pkl", dumped(value))
    archive.writestr("net/byteorder", byteorder)
    for s in storages:
      archive.writestr(f"net/data/{s.key}", s.array.tobytes())
  return path


def old_stream(value, storages):
  system = dict(protocol_version=1001, little_endian=True, type_sizes=dict(short=2, int=4, long=4))
  heads = [pickles.TORCH_MAGIC, 1001, system, value, [s.key for s in storages]]
  return b"".join(map(dumped, heads)) + b"".join(
    s.array.size.to_bytes(8, "little") + s.array.tobytes() for s in storages
  )


def write(path, data):
  path.write_bytes(data)
  return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_numpy(protocol, tmp_path):
  value = dict(a=A, f=np.asfortranarray(A), deep=collections.OrderedDict(big=A.astype(">f8")))
  value |= dict(scalar=np.float32(2.5), step=3, note="text", empty=None)
  found = pickles.read(write(tmp_path / "a.pkl", pickle.dumps(value, protocol)))
  assert set(found) == {"a", "f", "deep.big", "scalar"} and found["scalar"] == 2.5
  for name in ("a", "f", "deep.big"):
    np.testing.assert_array_equal(found[name], A)


@pytest.mark.parametrize("kind", ["zip", "stream"])
def test_tensors_of_a_torch_file(kind, torch, tmp_path):
  whole, half = Storage("0", A.ravel()), Storage("1", A.astype("f2").ravel(), "HalfStorage")
  value = dict(
    ema=collections.OrderedDict(w=tensor(torch, whole, (2, 3), (3, 1))),
    transposed=tensor(torch, whole, (3, 2), (1, 3)),
    part=Named(torch._rebuild_parameter, tensor(torch, whole, (2,), (1,), offset=4), True, {}),
    half=tensor(torch, half, (6,), (1,)),
    scalar=tensor(torch, whole, (), (), offset=5),
  )
  if kind == "zip":
    path = write_zip(tmp_path / "net.pt", value, [whole, half])
  else:
    path = write(tmp_path / "net.pt", old_stream(value, [whole, half]))
  found = pickles.read(path)
  np.testing.assert_array_equal(found["ema.w"], A)
  np.testing.assert_array_equal(found["transposed"], A.T)
  np.testing.assert_array_equal(found["part"], [4, 5])
  np.testing.assert_array_equal(found["half"], np.arange(6))
  assert found["half"].dtype == np.float16 and found["scalar"] == 5


def test_the_network_in_an_edm_pickle_is_read_and_its_source_not(torch, tmp_path):
  storage = Storage("0", A.ravel())
  memory = Named(torch._load_from_bytes, old_stream(storage, [storage]))
  weight = Named(torch._rebuild_parameter, tensor(torch, memory, (2, 3), (3, 1)), True, {})
  layer = dict(_parameters=dict(weight=weight, bias=None), _buffers={}, _modules={}, training=False)
  layers = Named(torch.ModuleDict, state=dict(_modules={"16x16_conv": persistent(torch, layer)}))
  net = dict(_parameters={}, _buffers=dict(filter=A), _modules=dict(enc=layers), sigma=0.5)
  value = dict(ema=persistent(torch, net), loss_fn=None)
  found = pickles.read(write(tmp_path / "edm.pkl", dumped(value)))
  assert set(found) == {"ema.filter", "ema.enc.16x16_conv.weight"}
  np.testing.assert_array_equal(found["ema.enc.16x16_conv.weight"], A)


def persistent(torch, state):
  source = "raise AssertionError('its source code was run')"
  meta = dict(type="class", version=6, module_src=source, class_name="Net", state=state)
  return Named(torch._reconstruct_persistent_obj, meta)


ATTACKS = {  # what a pickle calls, with what: each would leave a file behind
  "os.system": (os.system, "touch {}"),
  "builtins.exec": (exec, "open('{}', 'w')"),
  "builtins.eval": (eval, "open('{}', 'w')"),
  "numpy.load": (np.load, "{}"),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("within", [False, True])
def test_a_hostile_pickle_runs_nothing_and_is_refused_in_one_line(name, within, torch, tmp_path):
  function, *args = ATTACKS[name]
  old = name.replace("builtins", "__builtin__").replace("os.system", f"{os.name}.system")
  trap = tmp_path / "trap"
  attack = Named(function, *(a.format(trap) if isinstance(a, str) else a for a in args))
  value = Named(torch._load_from_bytes, dumped(attack)) if within else [A, attack]
  path = write(tmp_path / "net.pkl", dumped(value))
  with pytest.raises(ValueError, match=f"it asks for '({name}|{old})'") as error:
    pickles.read(path)
  assert "\n" not in str(error.value) and str(path) in str(error.value)
  assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_imported_for_a_file(tmp_path):
  before = set(sys.modules)
  for asked in (b"cthis\nd\n.", b"ctorch.nn.modules.linear\nLinear\n.", b"ctimm.layers\nMlp\n."):
    with pytest.raises(ValueError):
      pickles.read(write(tmp_path / "x.pkl", asked))
  assert set(sys.modules) == before


@pytest.mark.parametrize(
  "module, name",
  [(b"collections", b"OrderedDict.__init__.__globals__"), (b"torch.nn.modules.linear", b"x.y.foo")],
)
def test_an_allowed_class_gives_no_way_to_its_attributes(module, name, tmp_path):
  """Protocol 4 reaches `OrderedDict.fromkeys.__globals__` and the like by names with dots."""
  text = lambda word: b"\x8c" + bytes([len(word)]) + word
  with pytest.raises(ValueError, match=f"it asks for '{module.decode()}.{name.decode()}'"):
    pickles.read(write(tmp_path / "x.pkl", b"\x80\x04" + text(module) + text(name) + b"\x93."))


@pytest.mark.parametrize("name", [b"torch._utils\n_rebuild_parameter", b"torch.nn.modules.a\nB"])
def test_a_file_cannot_alter_what_stands_for_a_name(name, tmp_path):
  before = dict(vars(pickles.Module))
  alter = b"}(X\x03\x00\x00\x00fooK\x01u"  # {"foo": 1}
  for state in (alter, b"N" + alter + b"\x86"):  # its dictionary, or its attributes
    with pytest.raises(ValueError):
      pickles.read(write(tmp_path / "x.pkl", b"\x80\x02c" + name + b"\n" + state + b"b."))
  assert dict(vars(pickles.Module)) == before


TENSORS = {
  "beyond its storage": ((2, 4), (3, 1), 0),
  "by its offset": ((2, 3), (3, 1), 1),
  "repeated": ((10**9, 10**9), (0, 0), 0),
  "negative strides": ((2, 3), (-3, 1), 5),
  "ranks": ((2, 3), (1,), 0),
}


@pytest.mark.parametrize("case", TENSORS)
def test_refuses_a_tensor_that_reaches_out_of_its_storage(case, torch, tmp_path):
  storage = Storage("0", A.ravel())
  path = write_zip(tmp_path / "net.pt", [tensor(torch, storage, *TENSORS[case])], [storage])
  with pytest.raises(ValueError, match="net.pt: a tensor of shape"):
    pickles.read(path)


def test_refuses_false_storages_and_archives(torch, tmp_path):
  true, false = Storage("0", A.ravel()), Storage("0", np.zeros(7, np.float32))
  value = dict(a=tensor(torch, true, (2, 3), (3, 1)))
  path = tmp_path / "x.pt"
  refused = lambda message: pytest.raises(ValueError, match=message)
  with refused("not of 6"):
    pickles.read(write_zip(path, value, [false]))
  with refused("compressed"):
    pickles.read(write_zip(path, value, [true], zipfile.ZIP_DEFLATED))
  with refused("little-endian"):
    pickles.read(write_zip(path, value, [true], byteorder=b"big"))
  with refused("is of 7, not of 6"):
    data = old_stream(value, [true])[: -6 * 4 - 8] + old_stream(0, [false])[-36:]
    pickles.read(write(path, data))
  huge = types.SimpleNamespace(size=2**40, tobytes=lambda: b"")
  with refused("more than the file holds"):
    pickles.read(write(path, old_stream(Storage("0", huge), [])))
  with refused("not in it"):
    pickles.read(write(path, dumped(true)))


def test_refuses_objects_loops_and_bombs(tmp_path):
  path = tmp_path / "x.pkl"
  loop = {}
  loop["again"] = loop
  laughs = {"a": A}
  for _ in range(40):
    laughs = {"a": laughs, "b": laughs}
  for value, message in [
    (dict(a=np.array([None, 1], object)), "arrays of O"),
    (dict(a=np.zeros(2, "f4,i4")), "arrays of V"),
    (loop, "more than 100000 parts"),
    (laughs, "more than 100000 parts"),
    (dict(step=3), "holds no arrays"),
  ]:
    with pytest.raises(ValueError, match=message):
      pickles.read(write(path, pickle.dumps(value)))


def test_refuses_a_file_cut_short_or_altered_anywhere(tmp_path):
  data = pickle.dumps(dict(a=A, b=collections.OrderedDict(c=A)))
  for n in range(len(data)):
    with pytest.raises(ValueError) as error:
      pickles.read(write(tmp_path / "x.pkl", data[:n]))
    assert "\n" not in str(error.value)
  rng = np.random.default_rng(0)
  for _ in range(500):
    altered = bytearray(data)
    altered[rng.integers(len(data))] = rng.integers(256)
    with contextlib.suppress(ValueError):
      pickles.read(write(tmp_path / "x.pkl", bytes(altered)))
