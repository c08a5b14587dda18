"""Pickles as data: the arrays in a released file, without running any code that it names.

Nothing is imported by a name in a file. A name of the allow-list gives a constructor of this module
that checks its arguments and returns numbers, a dictionary or an inert `Module`; any other name is
refused. Three containers are read: a pickle (numpy arrays, or whole networks as EDM (Karras et al.,
2022) saves them, whose source code stays text), PyTorch's zip archives, and its older streams.
"""

from collections import OrderedDict
from collections.abc import Callable
import functools
import io
import math
import os
import pathlib
import pickle
import pickletools
import sys
from typing import Any, IO
import zipfile

import ml_dtypes
import numpy as np

_TYPES = dict(Float="<f4", Double="<f8", Half="<f2", BFloat16=ml_dtypes.bfloat16, Long="<i8")
_TYPES |= dict(Int="<i4", Short="<i2", Char="<i1", Byte="<u1", Bool=np.bool_)
_STORAGES = {f"{name}Storage": np.dtype(code) for name, code in _TYPES.items()}
_LAYERS = ("torch.nn.modules.", "timm.layers.", "timm.models.")  # inert containers here
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # of PyTorch's older streams
_MAX_PARTS = 100_000  # dictionaries, networks and arrays in a file


class Refused(ValueError):
  """A pickle names something that is not an array, or contradicts itself."""


class Module:
  """A network as a file describes it: its attributes, and no behaviour."""

  def __init__(self, *args: Any, **kwargs: Any):
    del args, kwargs

  def __setstate__(self, state: Any) -> None:
    object.__setattr__(self, "state", state)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays of a pickle or a PyTorch file, by path, keys joined by dots; else a ValueError."""
  room = _Room(os.path.getsize(path))
  try:
    if zipfile.is_zipfile(path):
      with zipfile.ZipFile(path) as archive:
        return _arrays(_zip(archive, room))
    return _arrays(_stream(io.BytesIO(pathlib.Path(path).read_bytes()), room))
  except Refused as error:
    raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
  except Exception as error:  # a damaged pickle may raise anything; nothing of it was run
    line = " ".join(f"{type(error).__name__}, {error}".split())[:120]
    raise ValueError(f"{path} is no sound pickle: {line}.") from None


class _Room:
  """A bound on the memory of all pickles of a file: four times its size, and 16 MiB."""

  def __init__(self, size: int):
    self.size = size
    self._left = 4 * size + 2**24

  def take(self, count: int) -> None:
    """Refuses a file that makes much out of little, such as one large constant many times."""
    self._left -= count
    if self._left < 0:
      raise Refused(f"it makes far more than its {self.size} bytes.")


class _Constructor:
  """The function that a name of the allow-list gives; a file cannot alter it."""

  __slots__ = ("_call",)

  def __init__(self, call: Callable[..., Any]):
    self._call = call

  def __call__(self, *args: Any) -> Any:
    return self._call(*args)

  def __setstate__(self, state: Any) -> None:
    raise Refused("it alters a function.")


class _Unpickler(pickle.Unpickler):
  """A pickle's data; `storage(dtype, key, count)` finds the numbers of tensors outside of it."""

  def __init__(
    self, file: IO[bytes], room: _Room, storage: Callable[..., np.ndarray] | None = None
  ):
    _check_sizes(file)
    super().__init__(file, encoding="latin1")
    self._room, self._storage = room, storage

  def find_class(self, module: str, name: str) -> Any:
    """The constructor of a name in the file; nothing is imported."""
    full = f"{module}.{name}"
    if full == "collections.OrderedDict":
      return OrderedDict
    if full == "dnnlib.util.EasyDict":
      return dict
    if module.startswith(_LAYERS) and "." not in name:
      return Module
    if module == "torch" and name in _STORAGES:
      return name
    if full == "torch.storage._load_from_bytes":
      return _Constructor(lambda data: _stream(io.BytesIO(data), self._room))
    if full in _CONSTRUCTORS:
      return _Constructor(functools.partial(self._call, _CONSTRUCTORS[full]))
    fix = "only arrays are read; where you trust the file, save them as npz or safetensors."
    raise Refused(f"it asks for {full[:80]!a}: {fix}")

  def _call(self, function: Callable[..., Any], *args: Any) -> Any:
    made = function(*args)
    if isinstance(made, bytes | tuple | set):  # a copy; arrays are views
      self._room.take(sys.getsizeof(made))
    return made

  def persistent_load(self, pid: Any) -> np.ndarray:
    """The storage of a tensor, `[count]`."""
    kind, storage, key, _, count, *_ = pid
    if kind != "storage" or self._storage is None or type(count) is not int or count < 0:
      raise Refused(f"it refers to {str(pid)[:80]}, which is not in it.")
    return self._storage(_STORAGES[storage], str(key), count)


def _check_sizes(file: IO[bytes]) -> None:
  """Refuses lengths and memo places for which the unpickler would allocate memory in vain."""
  start = file.tell()
  for count, (code, argument, _) in enumerate(pickletools.genops(file)):  # refuses false lengths
    if "PUT" in code.name and argument > count:
      raise Refused(f"it counts {argument} objects where there are {count} at most.")
  file.seek(start)


def _zip(archive: zipfile.ZipFile, room: _Room) -> Any:
  """The object in a file of `torch.save`."""
  pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
  if len(pickles) != 1:
    raise Refused("a zip archive without the one data.pkl of PyTorch's files.")
  root = pickles[0].removesuffix("data.pkl")
  if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
    raise Refused("its numbers are not little-endian.")

  @functools.cache
  def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
    info = archive.getinfo(f"{root}data/{key}")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * dtype.itemsize:
      raise Refused(f"storage {key[:40]} is compressed, or not of {count} {dtype}.")
    room.take(max(info.file_size, info.compress_size))
    return np.frombuffer(archive.read(info), dtype)

  if archive.getinfo(pickles[0]).compress_type != zipfile.ZIP_STORED:
    raise Refused("its pickle is compressed, which PyTorch's never are.")
  room.take(archive.getinfo(pickles[0]).compress_size)
  return _Unpickler(io.BytesIO(archive.read(pickles[0])), room, storage).load()


def _stream(file: io.BytesIO, room: _Room) -> Any:
  """The object of a plain pickle, or of one of PyTorch's older streams."""
  first = _Unpickler(file, room).load()
  return _old_torch(file, room) if type(first) is int and first == TORCH_MAGIC else first


def _old_torch(file: io.BytesIO, room: _Room) -> Any:
  """After the magic number: version, system, object, keys, then the storages in their order."""
  head = lambda: _Unpickler(file, room).load()
  if head() != 1001 or not head()["little_endian"]:
    raise Refused("another version of PyTorch's streams, or not little-endian.")
  storages, left = {}, len(file.getbuffer())

  def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
    nonlocal left
    if key not in storages:
      left -= count * dtype.itemsize
      if left < 0:
        raise Refused(f"storage {key[:40]} of {count} {dtype} is more than the file holds.")
      room.take(count * dtype.itemsize)
      storages[key] = np.zeros(count, dtype)
    return storages[key]  # filled below; tensors are views of it

  found = _Unpickler(file, room, storage).load()
  for key in head():
    count = int.from_bytes(file.read(8), "little")
    if count != len(storages[key]):
      raise Refused(f"storage {key[:40]} is of {count}, not of {len(storages[key])}.")
    data = file.read(storages[key].nbytes)
    storages[key][:] = np.frombuffer(data, storages[key].dtype)
  return found


def _rebuild_tensor(
  storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
  """A view of a storage; one that would reach out of it, or repeat it, is refused."""
  numbers = (offset, *shape, *strides)
  whole = isinstance(storage, np.ndarray) and all(type(n) is int and n >= 0 for n in numbers)
  if not whole or len(shape) != len(strides) or math.prod(shape) > storage.size:
    raise Refused(f"a tensor of shape {str(shape)[:80]} and strides {str(strides)[:80]}.")
  last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  if math.prod(shape) and last >= storage.size:
    raise Refused(f"a tensor of shape {str(shape)[:80]} in a storage of {storage.size}.")
  steps = [stride * storage.itemsize for stride in strides]
  return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _reconstruct_persistent_obj(meta: Any) -> Module:
  """An EDM network: its state; its source code stays text."""
  module = Module()
  module.__setstate__(dict(meta)["state"])
  return module


class _Dtype:
  """numpy.dtype's pickle: a name such as "f4", then its byte order."""

  def __init__(self, name: Any, *_: Any):
    self.dtype = np.dtype(name) if isinstance(name, str) else None
    if self.dtype is None or self.dtype.kind not in "biuf" or self.dtype.fields:
      raise Refused(f"arrays of {str(name)[:40]}; numbers alone are read.")

  def __setstate__(self, state: Any) -> None:
    order = state[1] if state[1] in ("<", ">", "|", "=") else "<"
    self.dtype = self.dtype.newbyteorder(order)


class _Array:
  """numpy.ndarray's pickle: version, shape, type, order, bytes."""

  def __init__(self, *_: Any):
    self.value = None

  def __setstate__(self, state: Any) -> None:
    _, shape, dtype, fortran, data = state
    self.value = _from_bytes(data, dtype, shape, "F" if fortran else "C")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
  data = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
  if not isinstance(data, bytes | bytearray | pickle.PickleBuffer) or type(dtype) is not _Dtype:
    raise Refused("an array of Python objects.")
  return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


_CONSTRUCTORS = {
  "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
  "torch._utils._rebuild_parameter": lambda data, *rest: data,  # requires_grad, hooks
  "_codecs.encode": lambda text, latin1: text.encode("latin1"),  # how protocols 0 to 2 write bytes
  "torch.Size": tuple,
  "builtins.set": set,
  "__builtin__.set": set,  # as Python 2 called it, and protocol 2 still does
  "torch_utils.persistence._reconstruct_persistent_obj": _reconstruct_persistent_obj,
  "numpy.dtype": _Dtype,
  "numpy.ndarray": _Array,
}
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
  _CONSTRUCTORS |= {
    f"{_core}.multiarray._reconstruct": _Array,
    f"{_core}.multiarray.scalar": lambda dtype, data: _from_bytes(data, dtype, (), "C"),
    f"{_core}.numeric._frombuffer": _from_bytes,
  }


def _arrays(found: Any) -> dict[str, np.ndarray]:
  """The arrays in dictionaries and networks, by path; a network's by the names of its layers."""
  arrays, todo, parts = {}, [("", found)], 0
  while todo:
    path, value = todo.pop()
    parts += 1
    if parts > _MAX_PARTS:
      raise Refused(f"it holds more than {_MAX_PARTS} parts.")
    if isinstance(value, _Array):
      value = value.value
    if isinstance(value, np.ndarray):
      arrays[path.removeprefix(".")] = value
    for name, part in _parts(value).items():
      todo.append((f"{path}.{name}", part))
  if not arrays:
    raise Refused("it holds no arrays.")
  return arrays


def _parts(value: Any) -> dict[str, Any]:
  if isinstance(value, Module):
    state = getattr(value, "state", {})
    groups = [state.get(f"_{kind}") or {} for kind in ("parameters", "buffers", "modules")]
    return {name: part for group in groups for name, part in dict(group).items()}
  return dict(value) if isinstance(value, dict) else {}
