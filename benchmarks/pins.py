"""Pins: runs two trees of this repository side by side and compares what they compute.

python -m benchmarks.pins --before REV [--after REV] [--only NAME ...] [--quick] [--fresh]
python -m benchmarks.pins --before REV --only speed
python -m benchmarks.pins --list

One tree is REV, extracted to runs/pins/REV; the other is the working tree, or --after. Each probe
is one process a tree, on one CPU device, with that tree first on the path. It writes JSON lines,
arrays and texts to runs/pins/results; the results of unchanged trees are read again, unless --fresh
says otherwise. Prints one line a pin:

equal              every bit.
equal to 1e-12     float32 or the lowered text differs; the same numbers in float64 agree.
other words        a line for people differs. No failure, except with --strict.
DIFFERENT          with the first difference; the exit code is 1.

The probe finds moved modules, functions and config fields through the tables below: extend them
when something moves. Delete this file when the restructuring is done.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import contextlib
import dataclasses
import fnmatch
import functools
import hashlib
import importlib
import io
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tarfile
import time
import traceback
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "pins"
TOLERANCE = 1e-12  # relative, in float64
SECONDS = 1200  # a probe may take
BEGIN = time.perf_counter()

# ---- Tables: for each entry point its dotted names, the first that exists counts.

ENTRY = dict(
  build=("dfim.training.experiment.build", "dfim.experiment.build"),
  step_of=("dfim.training.step.step_of", "dfim.train.step_of"),
  make_draw=("dfim.samplers.sampler.make_draw", "dfim.sample.make_draw"),
  train=("dfim.train.train",),
  sample=("dfim.sample.sample",),
  evaluate=("dfim.evaluate.evaluate",),
  export=("dfim.interop.export.export_run", "dfim.exchange.export_run"),
  import_weights=("dfim.interop.export.import_weights", "dfim.exchange.import_weights"),
  load=("dfim.interop.export.load", "dfim.exchange.load"),
  write_bundle=("dfim.training.replay.write", "dfim.replay.write"),
  replay=("dfim.training.replay.replay", "dfim.replay.replay"),
  kernels=("dfim.core.kernels",),
  times=("dfim.core.times",),
  npz=("dfim.data.images.sets.npz", "dfim.data.images.npz"),
)
CONFIGS = dict(  # by the names of before: modules, the first that exists counts
  consistency_digits=("configs.consistency_digits",),
  dfim_walk=("configs.moment_forcing_walk", "configs.dfim_walk"),
  flow_digits=("configs.flow_digits",),
  flow_fashion=("configs.flow_fashion",),
  forcing_series=("configs.forcing_series",),
  forcing_walk=("configs.forcing_walk",),
  imm_cifar=("configs.imm_cifar",),
  imm_digits=("configs.imm_digits",),
  imm_fashion=("configs.imm_fashion",),
  imm_imagenet256=("configs.imm_imagenet256",),
  imm_toy=("configs.imm_toy",),
)
FIELD = dict(  # config fields that probes set: paths, the first whose parent exists counts
  reference=("objective.conditioning.reference", "objective.reference"),
  reach=("objective.sample_times.reach",),
  kernel=("objective.kernel",),
)
ARGUMENT = dict(  # old names of arguments that are recorded, by the new ones
  bandwidth_multiplier="width", p_endpoint="s_at_t_min", p_one_step="s_at_r"
)
MODES = dict(  # whose lowered step is compared at full size, other than "full"
  imm_cifar=("npz",),
  imm_fashion=("gpu",),
  flow_fashion=("gpu",),
  imm_imagenet256=("S", "B", "L", "XL", "best"),
)
SCHEDULED = ("dfim_walk", "imm_digits", "consistency_digits")
SEQUENCES = ("dfim_walk", "forcing_walk", "forcing_series")
OLD = ("imm_toy", "imm_digits", "dfim_walk", "forcing_series")  # runs of before, used by both
TIMED = dict(imm_digits=(300, 8), forcing_walk=(40, 4), dfim_walk=(40, 2))  # steps; of a sample


def shardings_of(experiment: Any) -> Any:
  """The sharding of every array of the state."""
  return (getattr(experiment, "shardings", None) or experiment.places)()


def labels_of(experiment: Any) -> Any:
  """The classes that are sampled."""
  return getattr(experiment, "examples", experiment).labels


def first_of(*names: str) -> Any:
  """The module, or the attribute of a module, that the first existing dotted name means."""
  for name in names:
    with contextlib.suppress(LookupError):
      return _named(name)
  raise LookupError(f"none of {', '.join(names)} exists: extend the tables of benchmarks/pins.py")


def _named(name: str) -> Any:
  head, _, last = name.rpartition(".")
  for module, attribute in ((name, None), (head, last)):
    try:
      found = importlib.import_module(module)
    except ModuleNotFoundError as error:
      if error.name and (module == error.name or module.startswith(f"{error.name}.")):
        continue
      raise  # the module exists, what it imports does not
    if attribute is None or hasattr(found, attribute):
      return found if attribute is None else getattr(found, attribute)
  raise LookupError(name)


def entry(name: str) -> Any:
  """An entry point of the tree under test."""
  return first_of(*ENTRY[name])


def put(config: ml_collections.ConfigDict, field: str, value: Any) -> None:
  """Sets a field where the tree under test has it."""
  for path in FIELD.get(field, (field,)):
    *parents, last = path.split(".")
    parent = config
    for name in parents:
      parent = parent.get(name) if parent is not None else None
    if parent is not None:
      parent[last] = value
      return
  raise LookupError(f"no parent of {field}: extend FIELD of benchmarks/pins.py")


# ---- The probe: runs in one tree, writes what it finds to one folder.


class Writer:
  """Writes pins as JSON lines, and beside them the arrays and texts that they are hashes of."""

  def __init__(self, folder: pathlib.Path):
    """`folder` exists."""
    self.folder = folder
    self._file = (folder / "pins.jsonl").open("a")

  def value(self, name: str, value: Any) -> None:
    """Pins a JSON value."""
    self._line(name, "value", value)

  def words(self, name: str, value: str) -> None:
    """Pins a line for people, which may change."""
    self._line(name, "words", value)

  def numbers(self, name: str, tree: Any) -> None:
    """Pins arrays by their hash, and keeps them."""
    arrays = flat(tree)
    np.savez(
      self.folder / f"{_slug(name)}.npz", **{k.replace("/", "|"): a for k, a in arrays.items()}
    )
    self._line(name, "numbers", digest(arrays))

  def text(self, name: str, text: str) -> None:
    """Pins a long text by its hash, and keeps it."""
    (self.folder / f"{_slug(name)}.txt").write_text(text)
    self._line(name, "text", hashlib.sha256(text.encode()).hexdigest())

  @contextlib.contextmanager
  def section(self, name: str) -> Iterator[None]:
    """Pins the failure of a part of a probe as such; the other parts follow."""
    begin = time.perf_counter()
    try:
      yield
    except Exception as error:
      traceback.print_exc()
      self._line(name, "error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)

  def _line(self, name: str, kind: str, value: Any) -> None:
    print(json.dumps(dict(pin=name, kind=kind, value=value)), file=self._file, flush=True)


def flat(tree: Any) -> dict[str, np.ndarray]:
  """The arrays of a tree by path."""
  leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def digest(tree: Any) -> str:
  """A hash of paths, dtypes, shapes and bytes."""
  found = hashlib.sha256()
  for path, a in sorted(flat(tree).items()):
    found.update(f"{path} {a.dtype} {a.shape}".encode())
    found.update(np.ascontiguousarray(a).tobytes())
  return found.hexdigest()


def _slug(name: str) -> str:
  return re.sub(r"[^\w.-]+", "_", name)


def config_of(name: str, mode: str, folder: pathlib.Path) -> ml_collections.ConfigDict:
  """A config of the tree under test; it reads stand-ins for data that cannot travel."""
  config = first_of(*CONFIGS[name]).get_config(mode)
  folder = folder / "data"
  folder.mkdir(exist_ok=True)
  rng = np.random.default_rng(0)
  pixels, labels = rng.integers(0, 256, (64, 32, 32, 3), np.uint8), np.arange(64) % 10
  source = config.data.name.rpartition(".")[2]
  if source in ("tfds", "cifar10"):
    np.savez(folder / "images.npz", x=pixels, y=labels)
    how = {field: config.data[field] for field in ("flip", "augment")}
    config.data = dict(name=_dotted("npz"), path=str(folder / "images.npz"), **how)
  elif source == "idx":
    for channel, prefix in enumerate(("train", "t10k")):
      _write_idx(folder / f"{prefix}-images-idx3-ubyte", pixels[:, :28, :28, channel])
      _write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    config.data.path = str(folder)
  elif source == "latents":
    for part in ("mean", "std"):
      x = np.abs(rng.standard_normal((64, 32, 32, 4), np.float32))
      np.save(folder / f"{part}.npy", x)
    np.save(folder / "label.npy", labels)
    config.data.path = str(folder)
  return config


def _write_idx(path: pathlib.Path, array: np.ndarray) -> None:
  header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
  path.write_bytes(header + array.astype(np.uint8).tobytes())


def _dotted(name: str) -> str:
  """The dotted name of an entry point that exists, as a config gives it."""
  return next(n for n in ENTRY[name] if _exists(n)).removeprefix("dfim.")


def _exists(name: str) -> bool:
  with contextlib.suppress(LookupError):
    return _named(name) is not None
  return False


def build(config: ml_collections.ConfigDict) -> Any:
  """The experiment of a config, on one device."""
  return entry("build")(config, devices=jax.devices()[:1])


def probe_config(write: Writer, name: str, *, quick: bool) -> None:
  """Pins everything of one config in smoke mode, and its lowered step at full size."""
  make = functools.partial(config_of, name, "smoke", write.folder)
  with write.section("first"):
    pin_first(write, build(make()))
  for accumulate in (1, 2):
    with write.section(f"lowered/accumulate {accumulate}"):
      config = make()
      config.accumulate = accumulate
      pin_lowered(write, f"smoke, accumulate {accumulate}", config)
  with write.section("float32"):
    pin_numbers(write, "float32", make)
  with write.section("draws"):
    pin_draws(write, build(make()))
  if name in SCHEDULED:
    pin_schedules(write, make)
  for mode in () if quick else ("full", *MODES.get(name, ())):
    with write.section(f"lowered/{mode}"):
      pin_lowered(write, mode, config_of(name, mode, write.folder))
  if not quick:
    with write.section("float64"), float64():
      pin_numbers(write, "float64", make)


@contextlib.contextmanager
def float64() -> Iterator[None]:
  """Computes in float64; for the end of a probe."""
  jax.clear_caches()  # functions that JAX has traced hold tables in float32
  with jax.enable_x64(True):
    yield


def pin_first(write: Writer, experiment: Any) -> None:
  """Pins keys, batches, labels and the state at step 0."""
  root = experiment.root()
  keys = [root, jax.random.fold_in(root, 0), *jax.random.split(jax.random.fold_in(root, 0), 4)]
  write.value("first/keys", [jax.random.key_data(key).tolist() for key in keys])
  write.value("first/labels", [int(label) for label in labels_of(experiment)])
  stream = experiment.batches(0)
  for n in range(3):
    write.numbers(f"first/batch {n}", next(stream))
  write.numbers("first/batch 2 by itself", next(experiment.batches(2)))
  state = experiment.first_state()
  shapes = {path: f"{a.dtype} {list(a.shape)}" for path, a in sorted(flat(state).items())}
  write.value("first/state", shapes)
  write.value("first/places", [str(p.spec) for p in jax.tree.leaves(shardings_of(experiment))])
  write.numbers("first/values", state)
  write.numbers("first/averaged", experiment.ema_params(state))


def pin_lowered(write: Writer, name: str, config: ml_collections.ConfigDict) -> None:
  """Pins the step's lowered text, the rows read and the rows that the network sees."""
  experiment = build(config)
  state = jax.eval_shape(experiment.first_state)
  step = entry("step_of")(experiment)
  with rows_seen() as rows:
    text = step.lower(state, experiment.batch, experiment.root()).as_text()
  write.text(f"lowered/{name}", normalised(text))
  read = {path: list(a.shape) for path, a in _shapes(experiment.batch).items()}
  write.value(f"rows/{name}", dict(read=read, seen=sorted(set(rows))))


def _shapes(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@contextlib.contextmanager
def rows_seen() -> Iterator[list[str]]:
  """Collects the shape of what any network is given, while it is traced."""
  from flax import linen

  shapes = []

  def look(call, args, kwargs, context):
    if context.method_name == "__call__" and not context.module.scope.path:
      shapes.append(str(list(args[0].shape)))
    return call(*args, **kwargs)

  with linen.intercept_methods(look):
    yield shapes


def normalised(text: str) -> str:
  """Lowered text without locations, the module's name and the names of functions and results."""
  text = re.sub(r"^#loc.*\n|^module @\S+", "", text, flags=re.MULTILINE)
  text = re.sub(r" loc\((?:[^()]|\([^()]*\))*\)", "", text)
  text = re.sub(r'(, )?jax\.result_info = "[^"]*"(, )?', "", text)
  names = dict.fromkeys(re.findall(r"func\.func \w+ @([\w.$-]+)", text))
  number = {name: f"@f{n}" for n, name in enumerate(names)}
  return re.sub(r"@([\w.$-]+)", lambda m: number.get(m[1], m[0]), text)


def pin_numbers(write: Writer, precision: str, make: Callable[[], Any]) -> None:
  """Pins what 1 and 3 steps make of a perturbed state, and samples of perturbed weights."""
  for accumulate in (1, 2):
    config = make()
    config.accumulate = accumulate
    pin_steps(write, f"{precision}/accumulate {accumulate}", build(config), precision)
  config = make()
  config.sampler.chunk = 8
  pin_samples(write, precision, build(config), precision)


def pin_steps(write: Writer, name: str, experiment: Any, precision: str) -> None:
  """Pins metrics and the state, whose optimizer holds the gradient, after 1 and 3 steps."""
  step, root = entry("step_of")(experiment), experiment.root()
  state, stream = perturbed_state(experiment, precision), experiment.batches(0)
  for n in (1, 2, 3):
    state, metrics = step(state, cast(next(stream), precision), root)
    if n == 1:
      write.value(f"{name}/metric names", sorted(metrics))
    if n != 2:
      write.numbers(f"{name}/metrics after {n}", metrics)
      write.numbers(f"{name}/state after {n}", state)


def perturbed_state(experiment: Any, precision: str) -> Any:
  """The first state with all weights away from 0, where some layers start."""
  state = experiment.first_state()
  trees = {f: perturbed(getattr(state, f), f) for f in ("params", "frozen", "ema")}
  state = cast(state.replace(**trees), precision)
  return jax.device_put(state, shardings_of(experiment))  # or the second step would compile again


def perturbed(tree: Any, salt: str) -> Any:
  """Adds noise to each array, seeded by its path."""

  def add(path, a):
    seed = zlib.crc32(f"{salt}{jax.tree_util.keystr(path)}".encode())
    noise = 0.05 * np.random.default_rng(seed).standard_normal(a.shape)
    return jnp.asarray(np.asarray(a) + noise, a.dtype)

  return jax.tree_util.tree_map_with_path(add, tree)


def cast(tree: Any, precision: str) -> Any:
  """Copies of all arrays, floating ones in `precision`."""
  of = lambda a: precision if jnp.issubdtype(a.dtype, jnp.floating) else a.dtype
  return jax.tree.map(lambda a: jax.device_put(np.asarray(a, of(a)), a.sharding), tree)


def pin_samples(write: Writer, name: str, experiment: Any, precision: str) -> None:
  """Pins samples of each number of steps, and what a rollout takes beyond them."""
  params = experiment.ema_params(experiment.first_state())
  params = cast(perturbed(params, "samples"), precision)
  draw, steps = entry("make_draw")(experiment), experiment.config.sampler.steps
  given = conditions(experiment, 5)
  for k in sorted({k for k in (1, 2, 3, 4, 8) if k <= max(steps)} | {k for k in steps if k < 30}):
    drawn = _or_refused(draw, params, 5, k, 3, **given)
    write.numbers(f"{name}/samples of {k} steps", drawn)
  for title, options in rollouts(experiment).items():
    write.numbers(f"{name}/rollout {title}", _or_refused(draw, params, 5, 2, 3, **options))


def _or_refused(draw: Callable[..., Any], *args: Any, **options: Any) -> Any:
  """Samples, or the type of the error that refuses to draw them, as an array."""
  try:
    return draw(*args, **options)
  except ValueError as error:
    return np.frombuffer(type(error).__name__.encode(), np.uint8)


def conditions(experiment: Any, count: int) -> dict[str, Any]:
  """Conditions of the first examples, of which each token has one."""
  cond = jax.device_get(next(experiment.batches(0))).get("cond") or {}
  found = {name: a[:count] for name, a in cond.items() if a.ndim > 2}
  return dict(cond=found) if found else {}


def rollouts(experiment: Any) -> dict[str, dict[str, Any]]:
  """Arguments of a rollout by name; none of images."""
  x = np.asarray(next(experiment.batches(0))["x"])[:5]
  sampler = experiment.config.sampler
  if x.ndim != 3 or not (sampler.get("rollout") or "rollout" in str(sampler.get("method"))):
    return {}
  if jax.config.jax_enable_x64 and x.dtype != np.float64:  # a context has the dtype of the data
    return {}
  tokens, given = x.shape[1], conditions(experiment, 5)
  lengths = np.minimum(2 + np.arange(5), tokens)
  known = dict(context=x[:, :2], **given)
  found = {"after a context": known, "of lengths": dict(known, lengths=lengths)}
  if not given:
    found["of a length"] = dict(length=tokens + 3)
    found["at a position"] = dict(context=x[:, 1:2], length=2, position=4)
  return found


def pin_draws(write: Writer, experiment: Any) -> None:
  """Pins every random number that a step and a sampler draw, by function, key and value."""
  state, batch = experiment.first_state(), next(experiment.batches(0))
  params = experiment.ema_params(experiment.first_state())
  with recorded_draws() as drawn:
    jax.block_until_ready(entry("step_of")(experiment)(state, batch, experiment.root()))
  write.text("draws/step", "\n".join(sorted(drawn)))
  config = ml_collections.ConfigDict(experiment.config.to_dict())
  config.sampler.chunk, steps = 2, experiment.config.sampler.steps[-1]
  given = conditions(experiment, 2)
  with recorded_draws() as drawn:
    entry("make_draw")(build(config))(params, 2, min(steps, 8), **given)
  write.text("draws/samples", "\n".join(sorted(drawn)))


@contextlib.contextmanager
def recorded_draws() -> Iterator[list[str]]:
  """Collects what the functions of `jax.random` return at run time, in any order."""
  names = "normal uniform bernoulli randint permutation categorical choice gumbel rademacher"
  before = {name: getattr(jax.random, name) for name in names.split()}
  drawn = []

  def note(name, key, value):
    drawn.append(f"{name} {np.asarray(key).tolist()} {np.shape(value)} {digest(value)[:12]}")

  def recorded(name, function):
    def call(key, *args, **kwargs):
      value = function(key, *args, **kwargs)
      jax.debug.callback(functools.partial(note, name), jax.random.key_data(key), value)
      return value

    return functools.wraps(function)(call)

  for name, function in before.items():
    setattr(jax.random, name, recorded(name, function))
  try:
    yield drawn
    jax.effects_barrier()
  finally:
    for name, function in before.items():
      setattr(jax.random, name, function)


def pin_schedules(write: Writer, make: Callable[[], Any]) -> None:
  """Pins the kernel's and the times' numbers that the step uses at 0, 1/3, 1/2 and its end."""
  config = make()
  config.steps = 300
  ramp = dict(name="optax.linear_schedule", init_value=0.2, end_value=1.0, transition_steps=300)
  put(config, "reach", ramp)
  if "pseudo_huber" in config.objective.kernel.name:
    config.objective.kernel.c = dict(ramp)
  with write.section("schedules"), recorded_arguments() as found:
    experiment = build(config)
    step, batch = entry("step_of")(experiment), next(experiment.batches(0))
    for n in (0, 100, 150, 300):
      found.clear()
      state = perturbed_state(experiment, "float32")
      state = state.replace(step=jnp.full((), n, jnp.int32))
      metrics = step(state, batch, experiment.root())[1]
      jax.effects_barrier()
      write.value(f"schedules/at {n}", sorted(found))
      write.numbers(f"float32/scheduled loss at {n}", metrics)


@contextlib.contextmanager
def recorded_arguments() -> Iterator[set[str]]:
  """Collects the numbers that kernels and `times.sample` are given by name, at run time."""
  kernels, times = entry("kernels"), entry("times")
  wanted = {"laplace": kernels, "pseudo_huber": kernels, "rbf": kernels, "sample": times}
  before = {name: getattr(module, name) for name, module in wanted.items()}
  found = set()

  def note(label, value):
    found.add(f"{label}={float(value):.7g}")

  def recorded(name, function):
    @functools.wraps(function)  # keeps annotations, by which schedules are found
    def call(*args, **kwargs):
      for argument, value in kwargs.items():
        if isinstance(value, float | jax.Array) and jnp.ndim(value) == 0:
          label = f"{name}.{ARGUMENT.get(argument, argument)}"
          jax.debug.callback(functools.partial(note, label), value)
      return function(*args, **kwargs)

    return call

  for name, module in wanted.items():
    setattr(module, name, recorded(name, before[name]))
  try:
    yield found
  finally:
    for name, module in wanted.items():
      setattr(module, name, before[name])


def probe_small_best(write: Writer, *, quick: bool) -> None:
  """Pins the paper's best run on ImageNet, which no smoke mode covers, by a small network."""

  def make() -> ml_collections.ConfigDict:
    config = config_of("imm_imagenet256", "best", write.folder)
    config.batch_size, config.fsdp = 8, 1
    config.model.update(depth=2, width=32, heads=2)
    config.sampler.update(steps=(1, 2), count=4, chunk=4)
    return config

  with write.section("float32"):
    pin_numbers(write, "float32", make)
  if quick:
    return

  def whole() -> ml_collections.ConfigDict:
    config = make()
    config.model.dtype = None
    return config

  with write.section("float64"), float64():
    pin_numbers(write, "float64", whole)


def probe_rows(write: Writer, *, quick: bool) -> None:
  """Pins rows read and seen of Moment Forcing for references, groups and micro-batches."""
  del quick
  choices = (1, 1, 4), (2, 1, 4), (4, 1, 4), (4, 2, 4), (4, 2, 1)
  for reference, accumulate, group_size in choices:
    name = f"reference {reference}, accumulate {accumulate}, groups of {group_size}"
    with write.section(f"rows/{name}"):
      config = config_of("dfim_walk", "smoke", write.folder)
      put(config, "reference", reference)
      config.accumulate = accumulate
      put(config, "objective.group_size", group_size)
      pin_lowered(write, name, config)


def probe_devices(write: Writer, *, quick: bool) -> None:
  """Pins shardings and numbers on two devices, whose state is cut."""
  del quick
  for name in ("imm_digits", "dfim_walk"):
    with write.section(name):
      config = config_of(name, "smoke", write.folder)
      config.fsdp, config.model.width = -1, 256
      experiment = entry("build")(config)
      places = [str(p.spec) for p in jax.tree.leaves(shardings_of(experiment))]
      write.value(f"{name}/places", places)
      step, stream = entry("step_of")(experiment), experiment.batches(0)
      state, metrics = step(experiment.first_state(), next(stream), experiment.root())
      write.numbers(f"{name}/metrics", metrics)
      write.numbers(f"{name}/state", state)


def probe_make_old(write: Writer, *, quick: bool) -> None:
  """Leaves runs, exports and replay bundles of this tree, for `probe_old` of both."""
  del quick
  for name in OLD:
    with write.section(name):
      config, run = config_of(name, "smoke", write.folder), write.folder / name / "run"
      entry("train")(config, str(run), devices=jax.devices()[:1])
      entry("export")(config, str(run), str(write.folder / name / "export"))
      newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
      shutil.rmtree(newest)  # so that both trees go on from the one before
      make_bundle(config, run)


def make_bundle(config: ml_collections.ConfigDict, run: pathlib.Path) -> None:
  """Writes the bundle of a step that was skipped, although its numbers are finite."""
  experiment = build(config)
  stream, step = experiment.batches(0), entry("step_of")(experiment)
  state, _ = step(experiment.first_state(), next(stream), experiment.root())
  state = state.replace(skipped=state.skipped + 1)
  entry("write_bundle")(experiment, str(run), 2, state, next(stream))


def probe_old(write: Writer, *, quick: bool) -> None:
  """Pins what this tree makes of the runs that the tree before left."""
  del quick
  for name in OLD:
    old, new = pathlib.Path(os.environ["PINS_OLD"]) / name, write.folder / name
    shutil.copytree(old, new, dirs_exist_ok=True)
    use_old(write, name, new)


def use_old(write: Writer, name: str, folder: pathlib.Path) -> None:
  """Samples, resumes, scores, exports, imports and replays one of them."""
  config, run, one = config_of(name, "smoke", write.folder), str(folder / "run"), devices()
  with write.section(f"{name}/sample"):
    drawn = np.load(entry("sample")(config, run, **one).with_suffix(".npz"))
    write.numbers(f"{name}/samples of the old state", dict(drawn))
  with write.section(f"{name}/resume"):
    write.numbers(f"{name}/resumed state", entry("train")(config, run, **one))
    write.value(f"{name}/metric names", metric_names(folder / "run"))
  with write.section(f"{name}/score"):
    scores = json.loads(json.dumps(entry("evaluate")(config, run, **one), default=float))
    write.value(f"{name}/score names", sorted(flat_names(scores)))
    write.numbers(f"{name}/scores", numbers_of(scores))
  with write.section(f"{name}/export"):
    out = entry("export")(config, run, str(folder / "new"), **one)
    write.value(
      f"{name}/exported", hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    )
    write.value(f"{name}/config.json", sorted(json.loads((out / "config.json").read_text())))
  with write.section(f"{name}/import"):
    net, f, params = entry("load")(folder / "export")
    write.value(f"{name}/loaded", [type(net).__name__, type(f).__name__])
    write.numbers(f"{name}/loaded weights", params)
    imported = str(folder / "imported")
    write.numbers(
      f"{name}/imported state",
      entry("import_weights")(config, imported, str(folder / "export"), **one),
    )
  with write.section(f"{name}/replay"):
    write.value(f"{name}/replayed", entry("replay")(str(folder / "run" / "replay" / "2"), **one))


def devices() -> dict[str, Any]:
  """The one device that runs use."""
  return dict(devices=jax.devices()[:1])


def metric_names(run: pathlib.Path) -> list[str]:
  """All names in a run's metrics.jsonl."""
  lines = (run / "metrics.jsonl").read_text().splitlines()
  return sorted({name for line in lines for name in json.loads(line)})


def flat_names(scores: Any, path: str = "") -> Iterator[str]:
  """The paths of nested dicts."""
  for name, value in scores.items():
    yield f"{path}/{name}"
    yield from flat_names(value, f"{path}/{name}") if isinstance(value, dict) else ()


def numbers_of(scores: dict[str, Any]) -> dict[str, Any]:
  """Nested dicts with their numbers alone, as arrays."""
  found = {}
  for name, value in scores.items():
    if isinstance(value, dict):
      found[name] = numbers_of(value)
    elif isinstance(value, int | float):
      found[name] = np.float64(value)
  return found


DIGITS = "--config=configs/imm_digits.py:smoke"
CALLS = {  # the command line: {run} and the like are folders of the probe
  "train": (DIGITS, "--workdir={run}"),
  "sample": (DIGITS, "--workdir={run}", "--mode=sample", "--config.sampler.adm=12"),
  "eval": (DIGITS, "--workdir={run}", "--mode=eval"),
  "export": (DIGITS, "--workdir={run}", "--mode=export", "--out={out}"),
  "import": (DIGITS, "--workdir={new}", "--mode=import", "--weights={out}"),
  "sample what was imported": (DIGITS, "--workdir={new}", "--mode=sample"),
  "train again": (DIGITS, "--workdir={run}"),
  "another seed": (DIGITS, "--workdir={run}", "--config.seed=1"),
  "export into it": (DIGITS, "--workdir={run}", "--mode=export", "--out={out}"),
  "replay without a bundle": ("--mode=replay", "--workdir={run}"),
  "unknown field": (DIGITS, "--workdir={none}", "--config.stepz=3"),
  "unknown argument": (DIGITS, "--workdir={none}", "--config.model.widht=3"),
  "wrong value": (DIGITS, "--workdir={none}", "--config.batch_size=7"),
  "missing config": ("--config=configs/none.py", "--workdir={none}"),
  "unknown mode": ("--config=configs/imm_digits.py:none", "--workdir={none}"),
  "bad workdir": (DIGITS, "--workdir={file}"),
  "empty workdir": (DIGITS, "--workdir={none}", "--mode=sample"),
  "step of training": (DIGITS, "--workdir={none}", "--step=3"),
}


def probe_cli(write: Writer, *, quick: bool) -> None:
  """Pins exit codes, last lines and what the modes of the command line leave."""
  folders = {name: str(write.folder / name) for name in ("run", "out", "new", "none", "file")}
  pathlib.Path(folders["file"]).write_text("a file")
  for name, given in CALLS.items():
    if quick and name in ("eval", "sample what was imported"):
      continue
    with write.section(name):
      call_main(write, name, [part.format(**folders) for part in given])
  with write.section("files"):
    pin_files(write, write.folder / "run")


def call_main(write: Writer, name: str, given: list[str]) -> None:
  """Pins the exit code and the last line of one call."""
  command = [sys.executable, "-m", "dfim.main", *given]
  done = subprocess.run(command, capture_output=True, text=True)
  line = (done.stderr.strip().splitlines() or [""])[-1]
  for path, short in ((write.folder, "FOLDER"), (pathlib.Path.cwd(), "TREE")):
    line = line.replace(str(path), short)
  line = re.sub(r"^[IWE]\d{4} [\d:.]+ +\d+ |\w+\.py:\d+\] |\d\d:\d\d:\d\d ", "", line)
  write.value(f"{name}/exit code", done.returncode)
  write.words(f"{name}/last line", line)


def pin_files(write: Writer, run: pathlib.Path) -> None:
  """Pins the names of what is in a run, its arrays, metric names, scores and ADM's files."""
  names = {
    re.sub(r"_[0-9a-f]{6}\.npz$", "_HASH.npz", str(p.relative_to(run))) for p in run.rglob("*")
  }
  inside = lambda name: name.startswith("checkpoints/") and name.count("/") > 1
  write.value("files/names", sorted(name for name in names if not inside(name)))
  write.value("files/metric names", metric_names(run))
  for path in sorted(run.glob("eval/*.json")):
    scores = json.loads(path.read_text())
    write.value(f"files/{path.name}/names", sorted(flat_names(scores)))
    write.numbers(f"files/{path.name}", numbers_of(scores))
  for path in sorted(run.glob("samples/*.npz")):
    name = re.sub(r"_[0-9a-f]{6}\.npz$", "_HASH.npz", path.name)
    write.numbers(f"files/{name}", dict(np.load(path)))
    write.value(f"files/{name}/file", hashlib.sha256(path.read_bytes()).hexdigest())


def probe_speed(write: Writer, *, quick: bool) -> None:
  """Times training and sampling at full width."""
  for name, (count, k) in TIMED.items():
    with write.section(name):
      config = config_of(name, "full", write.folder)
      begin = time.perf_counter()
      experiment = build(config)
      step, root, stream = entry("step_of")(experiment), experiment.root(), experiment.batches(0)
      state, metrics = step(experiment.first_state(), next(stream), root)
      jax.block_until_ready(metrics)
      write.value(f"{name}/seconds to first step", time.perf_counter() - begin)
      count = 5 if quick else count
      begin = time.perf_counter()
      for _ in range(count):
        state, metrics = step(state, next(stream), root)
      jax.block_until_ready(metrics)
      write.value(f"{name}/seconds a step", (time.perf_counter() - begin) / count)
      draw, params = entry("make_draw")(experiment), experiment.ema_params(state)
      draw(params, 500, k)
      begin = time.perf_counter()
      for n in range(5):
        draw(params, 500, k, 500 * n)
      write.value(f"{name}/seconds a rollout", (time.perf_counter() - begin) / 5)


PROBES = dict(
  **{name: functools.partial(probe_config, name=name) for name in CONFIGS},
  imm_imagenet256_best=probe_small_best,
  rows=probe_rows,
  devices=probe_devices,
  cli=probe_cli,
  old=probe_old,
)
OTHERS = dict(make_old=probe_make_old, speed=probe_speed)  # the driver asks for them
DEVICES = dict(devices=2)  # CPU devices of a probe, one otherwise


def run_probe(name: str, folder: pathlib.Path, quick: bool) -> None:
  """Runs one probe in this process, in whose working directory the tree is."""
  import dfim

  package = pathlib.Path(dfim.__file__).resolve()
  if not package.is_relative_to(pathlib.Path.cwd().resolve()):
    sys.exit(f"{package} is not in {pathlib.Path.cwd()}")
  if any("editable" in getattr(finder, "__module__", "") for finder in sys.meta_path):
    sys.exit("the editable install would mix the trees")
  (PROBES | OTHERS)[name](Writer(folder), quick=quick)
  used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  cpu = sum(each.ru_utime + each.ru_stime for each in used)
  print(f"# {time.perf_counter() - BEGIN:.0f} s, {cpu:.0f} s of a CPU")


# ---- The driver: starts the probes in both trees and compares.


@dataclasses.dataclass(frozen=True)
class Tree:
  """A tree and the folder of its results."""

  side: str  # "before" or "after"
  root: pathlib.Path

  def results(self, name: str, quick: bool) -> pathlib.Path:
    """The folder of one probe's results, another one when the tree or the probes change."""
    source = pathlib.Path(__file__).read_text()
    found = hashlib.sha256(re.split(r"\n# ---- .*", source)[2].encode())
    for path in sorted([*self.root.glob("dfim/**/*.py"), *self.root.glob("configs/**/*.py")]):
      found.update(str(path.relative_to(self.root)).encode() + path.read_bytes())
    version = f"{self.side}-{found.hexdigest()[:12]}{'-quick' if quick else ''}"
    return RUNS / "results" / version / name


def extract(revision: str) -> Tree:
  """The tree of a revision, without its history: nothing of git's own changes."""
  git = ["git", "-C", str(ROOT)]
  name = subprocess.run(
    [*git, "rev-parse", "--verify", f"{revision}^{{commit}}"], capture_output=True, text=True
  )
  if name.returncode:
    sys.exit(f"--before={revision}: {name.stderr.strip()}")
  root = RUNS / name.stdout.strip()[:12]
  if not root.is_dir():
    archive = subprocess.run(
      [*git, "archive", name.stdout.strip()], capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
      tar.extractall(root.with_suffix(".part"), filter="data")
    root.with_suffix(".part").rename(root)
  return Tree("before", root)


# The package is installed in editable form: what a tree lacks, such as dfim.training of an old one,
# would be imported from the working tree.
SITE = """import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""


def start(tree: Tree, name: str, folder: pathlib.Path, quick: bool, **env: str) -> Any:
  """Starts a probe in a tree."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  (RUNS / "site").mkdir(exist_ok=True)
  (RUNS / "site" / "sitecustomize.py").write_text(SITE)
  ours = dict(
    PYTHONPATH=f"{tree.root}:{RUNS / 'site'}",
    JAX_PLATFORMS="cpu",
    JAX_NUM_CPU_DEVICES=str(DEVICES.get(name, 1)),
    **env,
  )
  if name != "speed":
    ours |= dict(JAX_COMPILATION_CACHE_DIR=str(RUNS / "jax"))
    ours |= dict(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    ours |= dict(JAX_DISABLE_MOST_OPTIMIZATIONS="1")  # compiles in less than half the time
    ours |= dict(XLA_FLAGS="--xla_cpu_use_fusion_emitters=false")  # see tests/conftest.py
  kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
  command = [sys.executable, "-P", __file__, "--probe", name, "--folder", str(folder)]
  log = (folder / "log").open("w")
  return subprocess.Popen(
    [*command, *["--quick"] * quick], cwd=tree.root, env=kept | ours, stdout=log, stderr=log
  )


def run(tree: Tree, name: str, args: argparse.Namespace, **env: str) -> pathlib.Path:
  """Runs a probe in a tree, unless its results are there; their folder."""
  folder = tree.results(name, args.quick)
  if (folder / "done").exists() and not args.fresh:
    return folder
  process = start(tree, name, folder, args.quick, **env)
  try:
    code = process.wait(SECONDS)
  except subprocess.TimeoutExpired:
    process.kill()
    code = f"more than {SECONDS} s"
  errors = [pin for pin, (kind, _) in pins(folder).items() if kind == "error"]
  if code != 0:
    with (folder / "pins.jsonl").open("a") as file:
      line = dict(pin="the probe ends", kind="error", value=f"{code}: {last_line(folder)}")
      print(json.dumps(line), file=file)
  elif not errors and folder == tree.results(name, args.quick):  # the tree is what it was
    (folder / "done").touch()
  return folder


def run_all(
  trees: tuple[Tree, Tree], names: list[str], args: argparse.Namespace
) -> Iterator[tuple[str, pathlib.Path, pathlib.Path]]:
  """Runs probes one after another in both trees: the second finds what the first has compiled."""
  before, after = trees

  def second(name: str, first: futures.Future) -> pathlib.Path:
    first.result()
    env = dict(PINS_OLD=str(before.results("make_old", args.quick))) if name == "old" else {}
    return run(after, name, args, **env)

  def first(name: str) -> pathlib.Path:
    env = dict(PINS_OLD=str(run(before, "make_old", args))) if name == "old" else {}
    return run(before, name, args, **env)

  with futures.ThreadPoolExecutor(1) as one, futures.ThreadPoolExecutor(2) as two:
    firsts = {name: one.submit(first, name) for name in names}
    seconds = {name: two.submit(second, name, firsts[name]) for name in names}
    for name in names:
      yield name, firsts[name].result(), seconds[name].result()


def last_line(folder: pathlib.Path) -> str:
  """The end of a probe's log."""
  lines = (folder / "log").read_text().strip().splitlines()
  return f"{lines[-1][:300] if lines else 'nothing'} ({folder / 'log'})"


def pins(folder: pathlib.Path) -> dict[str, tuple[str, Any]]:
  """The kinds and values of what a probe has written, by name."""
  path = folder / "pins.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  each = (json.loads(line) for line in lines)
  return {pin["pin"]: (pin["kind"], pin["value"]) for pin in each}


EQUAL, CLOSE, WORDS, DIFFERENT = "equal", "equal to 1e-12", "other words", "DIFFERENT"


def compare(before: pathlib.Path, after: pathlib.Path) -> Iterator[tuple[str, str, str]]:
  """A probe's pins: name, verdict and the first difference."""
  old, new = pins(before), pins(after)
  for name in dict.fromkeys((*old, *new)):
    if name not in old or name not in new:
      yield name, DIFFERENT, f"only {'before' if name in old else 'after'}"
    elif old[name] == new[name]:
      failed = old[name][0] == "error"
      yield name, DIFFERENT if failed else EQUAL, f"fails in both: {old[name][1]}" if failed else ""
    else:
      yield name, *verdict(name, old[name], new[name], before, after)


def verdict(
  name: str, old: tuple[str, Any], new: tuple[str, Any], before: pathlib.Path, after: pathlib.Path
) -> tuple[str, str]:
  """What to say of a pin that differs."""
  if "error" in (old[0], new[0]):
    return DIFFERENT, f"{old[1]} -> {new[1]}"
  if old[0] == "words":
    return WORDS, f"{old[1]!r} -> {new[1]!r}"
  if old[0] == "value":
    return DIFFERENT, first_difference(old[1], new[1])
  paths = [
    folder / f"{_slug(name)}.{'npz' if old[0] == 'numbers' else 'txt'}"
    for folder in (before, after)
  ]
  how = distance(*paths)[1] if old[0] == "numbers" else text_difference(*paths)
  if "float64" in name:
    return CLOSE if distance(*paths)[0] <= TOLERANCE else DIFFERENT, how
  if name.startswith("draws/"):
    return DIFFERENT, how
  worst = float64_distance(before, after)
  if worst is not None and worst <= TOLERANCE:
    return CLOSE, f"in float64 all within {worst:.1e}; here {how}"
  return DIFFERENT, how


def float64_distance(before: pathlib.Path, after: pathlib.Path) -> float | None:
  """The largest relative distance among a probe's float64 arrays; None where there are none."""
  names = [path.name for path in before.glob("float64*.npz")]
  if not names or {path.name for path in after.glob("float64*.npz")} != set(names):
    return None
  return max(distance(before / name, after / name)[0] for name in names)


def distance(before: pathlib.Path, after: pathlib.Path) -> tuple[float, str]:
  """The largest distance of two files' arrays, relative to the largest number, and where it is."""
  with np.load(before) as old, np.load(after) as new:
    if sorted(old) != sorted(new):
      return np.inf, f"other paths: {first_difference(sorted(old), sorted(new))}"
    worst = 0.0, "equal"
    largest = max((_largest(old[path]) for path in old), default=0.0)
    for path in old:
      a, b = old[path], new[path]
      if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf, f"{path}: {a.dtype} {a.shape} -> {b.dtype} {b.shape}"
      far = _relative(a, b, largest)
      if far > worst[0]:
        worst = far, f"{path} differs by {far:.1e}"
  return worst


def _largest(a: np.ndarray) -> float:
  finite = np.asarray(a, np.float64)[np.isfinite(np.asarray(a, np.float64))]
  return float(np.abs(finite).max(initial=0.0))


def _relative(a: np.ndarray, b: np.ndarray, largest: float) -> float:
  """Of the array's own largest number, which noise about 0 need not hold itself to."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  same = (a == b) | (np.isnan(a) & np.isnan(b))
  if (np.isfinite(a) != np.isfinite(b)).any() or not same[~np.isfinite(a)].all():
    return np.inf
  far = float(np.abs(np.where(same, 0.0, a - b)).max(initial=0.0))
  return far / max(_largest(a), 1e-6 * largest, 1e-30)


def text_difference(before: pathlib.Path, after: pathlib.Path) -> str:
  """The first line that differs, and whether the same operations stand in another order."""
  old, new = before.read_text(), after.read_text()
  bare = lambda text: sorted(re.sub(r"%[\w#:]+|@f\d+", "%", text).splitlines())
  order = "the same operations in another order; " if bare(old) == bare(new) else ""
  return f"{order}{first_difference(old.splitlines(), new.splitlines())}"


def first_difference(old: Any, new: Any) -> str:
  """Where two JSON values differ first."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in dict.fromkeys((*old, *new)):
      if old.get(key) != new.get(key) or (key in old) != (key in new):
        return f"{key}: {first_difference(old.get(key), new.get(key))}"
  if isinstance(old, list) and isinstance(new, list):
    pairs = itertools.zip_longest(old, new)
    n, (a, b) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    return f"number {n} of {len(old)} and {len(new)}: {first_difference(a, b)}"
  return f"{str(old).strip()[:200]} -> {str(new).strip()[:200]}"


def speed(before: Tree, after: Tree, quick: bool, rounds: int = 5) -> list[tuple[str, str, str]]:
  """Medians of five in turns, each in a process of its own, and their ratio."""
  found = {"before": {}, "after": {}}
  for n in range(1 if quick else rounds):
    for tree in (before, after)[:: -1 if n % 2 else 1]:
      folder = RUNS / "results" / "speed" / tree.side
      start(tree, "speed", folder, quick).wait(SECONDS)
      for name, (kind, value) in pins(folder).items():
        if kind == "value":
          found[tree.side].setdefault(name, []).append(value)
      print(f"speed: round {n + 1}, {tree.side}", flush=True)
  lines = []
  for name in dict.fromkeys((*found["before"], *found["after"])):
    old, new = (statistics.median(found[side].get(name, [np.nan])) for side in found)
    close = abs(new / old - 1.0) <= 0.05
    how = f"{old:.4g} s -> {new:.4g} s, ratio {new / old:.3f}"
    lines.append((name, "equal to 5 %" if close else DIFFERENT, how))
  return lines


def chosen(only: list[str]) -> list[str]:
  """The probes that --only names or matches; all but speed by default."""
  names = [*PROBES, "speed"]
  for one in only:
    if not fnmatch.filter(names, one):
      sys.exit(f"--only {one}: no such probe; there are {', '.join(names)}.")
  return [n for n in names if any(fnmatch.fnmatch(n, one) for one in only)] if only else [*PROBES]


def drive(args: argparse.Namespace) -> int:
  """Runs and compares all probes; the exit code."""
  after = Tree("after", extract(args.after).root if args.after else ROOT)
  trees, names, counts = (extract(args.before), after), chosen(args.only), {}

  def show(name: str, lines: Iterable[tuple[str, str, str]]) -> None:
    for pin, found, how in lines:
      counts[found] = counts.get(found, 0) + 1
      print(f"{found:<14}  {name}: {pin}{'  ' + how if how else ''}", flush=True)

  for name, *folders in run_all(trees, [name for name in names if name != "speed"], args):
    show(name, compare(*folders))
    print(f"# {name}: {' and '.join(seconds_of(folder) for folder in folders)}", flush=True)
  if "speed" in names:
    show("speed", speed(*trees, args.quick))
  print("# " + ", ".join(f"{count} {found}" for found, count in counts.items()))
  failed = counts.get(DIFFERENT, 0) + (counts.get(WORDS, 0) if args.strict else 0)
  return 1 if failed or not counts else 0


def seconds_of(folder: pathlib.Path) -> str:
  """How long a probe took."""
  found = re.search(r"^# (.*)", (folder / "log").read_text(), flags=re.MULTILINE)
  return found[1] if found else "not ended"


def main() -> None:
  """Drives, or is one probe."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--before", default="HEAD", help="a revision")
  parser.add_argument("--after", help="another revision in place of the working tree")
  parser.add_argument("--only", nargs="+", default=[], help="probes; wildcards too")
  parser.add_argument("--quick", action="store_true", help="no float64, no full size")
  parser.add_argument("--fresh", action="store_true", help="compute again what is known")
  parser.add_argument("--strict", action="store_true", help="other words are a failure too")
  parser.add_argument("--list", action="store_true", help="name the probes")
  parser.add_argument("--probe", help=argparse.SUPPRESS)
  parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.list:
    print(*PROBES, "speed", sep="\n")
  elif args.probe:
    run_probe(args.probe, args.folder, args.quick)
  else:
    sys.exit(drive(args))


if __name__ == "__main__":
  main()
