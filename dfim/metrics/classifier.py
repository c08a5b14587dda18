"""A feature space of one's own: the last hidden layer of a small classifier of the same data.

For labelled images of 8 to 32 pixels or so. It learns in seconds to minutes on a CPU, once.
Distances compare runs with one classifier, which `name_of` names; they are no FID.
"""

import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dfim.io import atomic, inputs, npz
from dfim.metrics import features as features_lib

Array = jax.Array
Params = dict[str, Array]

WIDTH = 64  # features
_SMALL = 16  # pixels: images up to this high keep all of them in the first convolution
_SEED = 0  # part of the name: other weights are another feature space
_TRAINING_BATCH, _BATCH, _LEARNING_RATE = 128, 512, 2e-3


def train(x: np.ndarray, labels: np.ndarray, *, steps: int = 600) -> Params:
  """Trains on images `[N, H, W, C]` and labels `[N]`, counted from 0; reproducible bit for bit."""
  x = inputs.examples(x, "x", 4, dtype=np.float32)
  labels = checked_labels(labels, len(x), "labels")
  steps = inputs.whole(steps, "steps", low=1)
  root, key = jax.random.split(jax.random.key(_SEED))
  params = _init(key, x.shape[1:], int(np.max(labels)) + 1)
  tx = optax.adamw(optax.cosine_decay_schedule(_LEARNING_RATE, steps), weight_decay=1e-2)

  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  loss = lambda params, x, labels: jnp.mean(cross_entropy(_logits(params, x), labels))

  @jax.jit
  def step(params: Params, opt_state: optax.OptState, data: tuple[Array, Array], n: int):
    rows = jax.random.randint(jax.random.fold_in(root, n), (_TRAINING_BATCH,), 0, len(x))
    grads = jax.grad(loss)(params, *(a[rows] for a in data))
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  opt_state = tx.init(params)
  data = jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32)
  for n in range(steps):  # in `lax.scan`, gradients of convolutions are 30 times slower on a CPU
    params, opt_state = step(params, opt_state, data, n)
  return params


def checked_labels(labels: Any, count: int, field: str) -> np.ndarray:
  """Labels int32 `[count]`, from 0 on, as `inputs.numbers` takes them."""
  return inputs.numbers(labels, field, (count,), axes=("image",), dtype=np.int32, low=0)


def features(params: Params, x: np.ndarray) -> np.ndarray:
  """`[N, H, W, C]` to float32 `[N, 64]`."""
  x = inputs.examples(x, "x", 4, dtype=np.float32)
  return features_lib.in_batches(_features, params, x, _BATCH)


def accuracy(params: Params, x: np.ndarray, labels: np.ndarray) -> float:
  """The share of images `[N, H, W, C]` whose label, of `[N]`, is the likeliest."""
  x = inputs.examples(x, "x", 4, dtype=np.float32)
  labels = checked_labels(labels, len(x), "labels")
  logits = features_lib.in_batches(_logits, params, x, _BATCH)
  return float(np.mean(logits.argmax(-1) == labels))


def name_of(params: Params, dataset: str) -> str:
  """The name of this feature space in results, such as "digits-cnn64-seed0-3f9ac2"."""
  return f"{dataset}-cnn{WIDTH}-seed{_SEED}-{features_lib.digest(params)}"


def cached(
  directory: str | os.PathLike, dataset: str, x: np.ndarray, labels: np.ndarray, *, steps: int = 600
) -> Params:
  """`train`, or its weights if `directory` holds them for this very data and `steps`."""
  path = path_of(directory, dataset, x, labels, steps)
  if path.exists():
    return load(path, _shapes(x, labels))
  params = train(x, labels, steps=steps)
  atomic.replace(path, lambda file: np.savez(file, **params))
  return params


def path_of(
  directory: str | os.PathLike, dataset: str, x: np.ndarray, labels: np.ndarray, steps: int
) -> pathlib.Path:
  """The file in which `cached` keeps the weights."""
  data = features_lib.digest(dict(x=x, labels=labels))
  name = f"{dataset}-cnn{WIDTH}-seed{_SEED}-steps{steps}-data{data}.npz"
  return pathlib.Path(directory) / name


def check_cache(
  directory: str | os.PathLike, dataset: str, x: np.ndarray, labels: np.ndarray, *, steps: int = 600
) -> None:
  """Raises ValueError where `directory` cannot keep the weights, or holds damaged ones."""
  path = path_of(directory, dataset, x, labels, steps)
  if path.exists():
    load(path, _shapes(x, labels))
    return
  try:
    atomic.check_writable(path)
  except OSError as error:
    raise ValueError(f"{path} cannot be written: {error.strerror}") from None


def _shapes(x: np.ndarray, labels: np.ndarray) -> Params:
  classes = int(np.max(labels)) + 1
  return jax.eval_shape(lambda key: _init(key, x.shape[1:], classes), jax.random.key(0))


def load(path: str | os.PathLike, like: Params) -> Params:
  """The weights in an .npz; every array must have the shape and type in `like`."""
  try:
    params = npz.read_npz(path)
  except ValueError as error:
    raise ValueError(f"{path}: damaged ({error}); delete it to train the classifier anew") from None
  found, wanted = ({k: (a.shape, a.dtype) for k, a in tree.items()} for tree in (params, like))
  if found != wanted or not all(np.isfinite(a).all() for a in params.values()):
    raise ValueError(f"{path}: weights of another network; delete it to train the classifier anew")
  return jax.tree.map(jnp.asarray, params)


def _convolutions(height: int) -> dict[str, tuple[int, int]]:
  return dict(conv0=(32, 1 if height <= _SMALL else 2), conv1=(64, 2), conv2=(64, 2))


def _init(key: Array, shape: tuple[int, ...], classes: int) -> Params:
  height, width, channels = shape
  shapes = {}
  for name, (out, stride) in _convolutions(height).items():
    shapes[name] = (3, 3, channels, out)
    height, width, channels = -(-height // stride), -(-width // stride), out
  shapes |= dict(hidden=(height * width * channels, WIDTH), logits=(WIDTH, classes))
  he = jax.nn.initializers.he_normal()
  keys = jax.random.split(key, len(shapes))
  weights = {name: he(k, s) for k, (name, s) in zip(keys, shapes.items(), strict=True)}
  return weights | {f"{name}_bias": jnp.zeros(s[-1]) for name, s in shapes.items()}


def _features(params: Params, x: Array) -> Array:
  for name, (_, stride) in _convolutions(x.shape[1]).items():
    how = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=features_lib.EXACT)
    x = jax.lax.conv_general_dilated(x, params[name], (stride,) * 2, "SAME", **how)
    x = jax.nn.gelu(x + params[f"{name}_bias"][None, None, None])
  return jax.nn.gelu(_dense(params, "hidden", x.reshape(len(x), -1)))


def _logits(params: Params, x: Array) -> Array:
  return _dense(params, "logits", _features(params, x))


def _dense(params: Params, name: str, x: Array) -> Array:
  return jnp.dot(x, params[name], precision=features_lib.EXACT) + params[f"{name}_bias"][None]
