"""Latents of an image autoencoder, from a folder of .npy files that its encoder has filled once.

  mean.npy   float16 or float32 [N, H, W, C]   the posterior's mean, raw: not scaled by 0.18215
  std.npy    the same                          its standard deviation
  label.npy  integers [N], or no such file     the classes, from 0

IMM's are of ImageNet at 256 x 256, centred squares, not mirrored, in the latents of Stable
Diffusion's VAE (sd-vae-ft-mse or -ema), H = W = 32 and C = 4 (arXiv 2503.07565, appendix I.1).
"""

from collections.abc import Sequence
import functools
import os
import pathlib
from typing import Any

import numpy as np

from dfim.data import base, prefetch
from dfim.data.images import pixels
from dfim.io import inputs, npz

# Of raw latents of ImageNet, by channel: arXiv 2503.07565, appendix I.1.
CHANNEL_MEAN = (0.86488, -0.27787343, 0.21616915, 0.3738409)
CHANNEL_STD = (4.85503674, 5.31922414, 3.93725398, 3.9870003)
SIGMA_DATA = 0.5  # the std that a network sees
Floats, Path = Sequence[float], str | os.PathLike
_AXES = ("example", "row", "column", "channel")
_NOISE = 1  # which stream of random numbers


def latents(
  batch_size: int,
  seed: int,
  start: int = 0,
  *,
  path: Path,
  channel_mean: Floats = CHANNEL_MEAN,
  channel_std: Floats = CHANNEL_STD,
  workers: int = 0,
  process: base.Process = (0, 1),
) -> base.Batches:
  """Batches `x [B, H, W, C]` of std 0.5, and maybe `cond.label [B]`; see `data.base`.

  Row i of batch n is a sample of its posterior, mean + std noise, with noise of (seed, n, i).
  """
  read = functools.partial(_open, path, (channel_mean, channel_std), batch_size, seed, process)
  batches = prefetch.ahead(read, start, workers=workers)
  data = _read(path)
  examples = lambda i: {name: array[i] for name, array in data.items()}
  labels = np.unique(data["label"]) if "label" in data else None
  return base.Batches(batches, len(data["mean"]), examples, labels)


def load(
  path: Path, channel_mean: Floats = CHANNEL_MEAN, channel_std: Floats = CHANNEL_STD
) -> dict[str, np.ndarray]:
  """All of the means as a network would see them, `x [N, H, W, C]`, and `label [N]` if there is."""
  data = _read(path)
  mean = data.pop("mean")
  del data["std"]
  x = _normalised(mean, *_moments(channel_mean, channel_std, mean.shape[-1]))
  if not np.isfinite(x).all():
    _check(path, dict(mean=mean), np.arange(len(mean)), x)
  return data | dict(x=x)


def to_latents(
  x: np.ndarray, channel_mean: Floats = CHANNEL_MEAN, channel_std: Floats = CHANNEL_STD
) -> np.ndarray:
  """Samples `[..., C]` back to raw latents, which the VAE's decoder takes: the inverse."""
  mean, std = _moments(channel_mean, channel_std, x.shape[-1])
  return np.asarray(x, np.float32) / SIGMA_DATA * std + mean


def _open(
  path: Path, moments: tuple[Floats, Floats], batch_size: int, seed: int, process: base.Process
) -> prefetch.Read:
  data = _read(path)
  mean, std = _moments(*moments, data["mean"].shape[-1])
  take = base.rows(len(data["mean"]), batch_size, seed, process=process)
  numbers = range(batch_size)[base.share(batch_size, process)]

  def read(n: int) -> dict[str, Any]:
    index = take(n)
    rows = {name: array[index] for name, array in data.items()}
    noise = (np.random.default_rng((seed, n, _NOISE, i)) for i in numbers)
    noise = np.stack([rng.standard_normal(rows["mean"].shape[1:], np.float32) for rng in noise])
    x = _normalised(rows["mean"] + rows["std"] * noise, mean, std)
    if not np.isfinite(x).all() or np.signbit(rows["std"]).any():  # cheaper than the check itself
      _check(path, rows, index, x)
    return dict(x=x) | ({"cond": dict(label=rows["label"])} if "label" in rows else {})

  return read


def _normalised(raw: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
  with np.errstate(over="ignore", invalid="ignore"):  # `_check` says where
    return (np.asarray(raw, np.float32) - mean) / std * np.float32(SIGMA_DATA)


def _check(path: Path, rows: dict[str, np.ndarray], index: np.ndarray, x: np.ndarray) -> None:
  for name, low in dict(mean=None, std=0).items():
    if name in rows:
      field = f"data.path: {pathlib.Path(path).expanduser() / name}.npy"
      how = dict(axes=_AXES, dtype=np.float32, low=low, rows=index)
      inputs.numbers(rows[name], field, rows[name].shape, **how)
  inputs.refuse_where(~np.isfinite(x), x, "data.channel_std", _AXES, "give larger ones", index)


def _moments(mean: Floats, std: Floats, channels: int) -> tuple[np.ndarray, np.ndarray]:
  how = dict(axes=("channel",), dtype=np.float32)
  mean = inputs.numbers(mean, "data.channel_mean", (channels,), **how)
  std = inputs.numbers(std, "data.channel_std", (channels,), **how)
  inputs.refuse_where(std <= 0, std, "data.channel_std", how["axes"], "give more than 0")
  return mean, std


def _read(path: Path) -> dict[str, np.ndarray]:
  """The mapped `mean` and `std` `[N, H, W, C]` and, perhaps, int32 `label [N]`."""
  path = inputs.path(path, "data.path")
  mean, std = (_mapped(path / f"{name}.npy") for name in ("mean", "std"))
  if mean.ndim != 4 or mean.shape != std.shape or {mean.dtype.kind, std.dtype.kind} != {"f"}:
    found = f"{mean.dtype} {list(mean.shape)} and {std.dtype} {list(std.shape)}"
    raise ValueError(f"data.path: {path} needs floating mean and std [N, H, W, C], has {found}")
  data, label = dict(mean=mean, std=std), path / "label.npy"
  if not label.exists():
    return data
  return data | dict(label=pixels.labels(_mapped(label), f"data.path: {label}", len(mean)))


def _mapped(path: pathlib.Path) -> np.ndarray:
  if not path.is_file():
    raise FileNotFoundError(f"data.path: no file {path}; write it as data.images.latents says")
  try:
    return npz.map_npy(path)
  except ValueError as error:
    raise ValueError(f"data.path: {path} is damaged ({error}); write it anew") from None
