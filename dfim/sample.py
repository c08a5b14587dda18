"""Drawing samples with the averaged weights of a run."""

from collections.abc import Callable, Sequence
import functools
import hashlib
import inspect
import json
import pathlib
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dfim import parallel
from dfim.checkpoints import checkpoint, workdir as workdir_lib
from dfim.config import resolve as resolve_lib
from dfim.config.errors import config_errors, ConfigError
from dfim.config.resolve import resolve
from dfim.core import conditioning, interpolants, parameterization, two_stream
from dfim.io import atomic, inputs
from dfim.metrics import adm
from dfim.samplers import given as given_lib, guidance, nfe, rollout
from dfim.training import checks, experiment as experiment_lib, nonfinite
from dfim.viz import images as pictures

Array = jax.Array
Draw = Callable[..., np.ndarray]

DEFAULTS = dict(
  guidance=1.0,
  seed=0,
  chunk=500,
  limits=(-1.0, 1.0),
  count=64,
  decode=None,  # (samples [count, ...]) -> what `sample` writes of them, such as raw latents
  adm=0,  # images to write for ADM's evaluation suite, see `write_adm`
  # of sequences alone, whose method is samplers.rollout.rollout:
  step=None,  # such as samplers.jump.ancestral_step
  cached=False,  # keep keys and values of finished tokens
  stabilise={},  # t_context and mode, see samplers.rollout.shown
  energy=None,  # (clean estimate [B, ...]) -> log-density [B]
  energy_scale=1.0,
)
_MOST = 2**30  # samples and tokens are numbered by int32
Function = Callable[..., Any]
KINDS = dict(
  method=Function,
  grid=Function,
  steps=tuple[int, ...],
  guidance=float,
  seed=int,
  chunk=int,
  count=int,
  decode=Function | None,
  adm=int,
  step=Function | None,
  cached=bool,
  stabilise=dict,
  energy=Function | None,
  energy_scale=float,
  limits=tuple[float, float],
)


def make_draw(experiment: experiment_lib.Experiment) -> Draw:
  """Builds `draw(params, count, steps, first=0, *, context, cond, length, lengths, position)`.

  From `config.sampler`; it returns `[count, ...]`. Sample i is a function of the weights, the
  sampler's seed and i alone: its noise is keyed by i, and its label is number i of the classes
  that the data have, over and over. Each number of steps is one XLA program, for chunks of a fixed
  size.

  Sequences may be given `context` `[count, C, D]`, which comes back in front of the drawn tokens,
  conditions `cond` of `[count, ...]` each, a `length` to draw beyond the context, by default as
  much as the training data have, and `lengths` `[count]` of sequences that end before. A token's
  noise is keyed by its position, so that calls of one token each draw what one call draws: give all
  tokens so far as the context, or the last of them and `position`, how many were cut off. What does
  not fit is refused with a ValueError, and samples that are not finite raise a NonFiniteError.

  Raises:
    ConfigError: naming the field, before anything is compiled.
  """
  with config_errors("sampler", experiment.config.sampler):
    sampler = _options(experiment.config.sampler)
    one_chunk = _one_chunk(experiment, sampler)
    _check_start(experiment.f, sampler)
    _check_streams(two_stream.of(experiment.loss.keywords).streams, sampler["method"])
    _check_guidance(experiment, sampler["guidance"])
    for steps in sampler["steps"]:
      one = functools.partial(one_chunk, steps=steps)
      jax.eval_shape(one, experiment.shapes.params, jnp.arange(2), _given(experiment, 2), 0)
  repeats = _Repeats()
  everywhere = jax.NamedSharding(experiment.mesh, jax.P())
  one_chunk = jax.jit(one_chunk, static_argnames=("steps", "length"), out_shardings=everywhere)

  def draw(
    params: Any,
    count: int,
    steps: int,
    first: int = 0,
    *,
    context: np.ndarray | None = None,
    cond: dict[str, np.ndarray] | None = None,
    length: int | None = None,
    lengths: np.ndarray | None = None,
    position: int = 0,
  ) -> np.ndarray:
    for name, value, low in (("count", count, 1), ("steps", steps, 1), ("first", first, 0)):
      inputs.whole(value, name, low=low, high=_MOST)
    _check_rollout(sampler, context, length, lengths, position)
    offered = dict(context=context, cond=cond, length=length, lengths=lengths)
    classes = experiment.labels
    given = given_lib.check(experiment.batch, experiment.net, count, labels=classes, **offered)
    repeats.look(first, count, steps, position, given.get("context"))
    size, chunks = sampler["chunk"], []
    for n in range(0, count, size):  # the last chunk is drawn whole, then cut
      rows = np.minimum(np.arange(n, n + size), count - 1)
      part = jax.tree.map(lambda a: a[rows], given)  # noqa: B023
      indices = np.arange(first + n, first + n + size)
      drawn = one_chunk(params, indices, part, position, steps=steps, length=length)
      chunks.append(jax.device_get(drawn))
    return _finite(np.concatenate(chunks)[:count], first, steps)

  return draw


def _check_rollout(
  sampler: dict[str, Any], context: Any, length: Any, lengths: Any, position: Any
) -> None:
  """Refuses arguments of a rollout beside another method, and numbers that are none."""
  offered = dict(context=context, length=length, lengths=lengths, position=position or None)
  named = [name for name, value in offered.items() if value is not None]
  if sampler["step"] is None and named:
    raise ValueError(
      f"{named[0]}: only a rollout goes on from a context or to a length; see samplers.rollout."
    )
  inputs.whole(position, "position", low=0, high=_MOST)
  if length is not None:
    inputs.whole(length, "length", low=1)
  if length is not None and "length" in getattr(sampler["method"], "keywords", {}):
    raise ValueError(f"length={length}: the config sets sampler.method.length; drop one of them.")


class _Repeats:
  """Notices contexts that were cut, whose later tokens would be drawn with the same noise."""

  def __init__(self):
    self._before: dict[tuple[int, ...], bytes] = {}
    self._logged = False

  def look(
    self, first: int, count: int, steps: int, position: int, context: np.ndarray | None
  ) -> None:
    """Logs once where samples at the same position have had another context."""
    if context is None:
      return
    key, last = (first, count, steps, position + context.shape[1]), context[:, -1:].tobytes()
    if self._before.setdefault(key, last) != last and not self._logged:
      self._logged = True
      logging.warning(
        "draw: the noise is that of the call before, whose context was another one: pass position=,"
        " the number of tokens cut off before the context, or first= for other samples."
      )


def _finite(x: np.ndarray, first: int, steps: int) -> np.ndarray:
  """Samples, none of which holds NaN or infinity.

  Raises:
    NonFiniteError: naming the first that does.
  """
  bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
  if len(bad):
    raise nonfinite.NonFiniteError(
      f"samples: {len(bad)} of {len(x)} in {steps} steps are not finite, the first is number"
      f" {first + bad[0]}; look at the weights, or at sampler.guidance and sampler.grid."
    )
  return x


def _given(experiment: experiment_lib.Experiment, count: int) -> dict[str, Any]:
  """Stand-ins for the conditions per token that the data have."""
  cond = given_lib.per_token(experiment.batch)
  like = {k: jnp.zeros((count, *a.shape[1:]), a.dtype) for k, a in cond.items()}
  return dict(cond=like) if cond else {}


def _options(config: Any) -> dict[str, Any]:
  options = {**DEFAULTS, **resolve(config, "sampler")}
  if set(options) != set(KINDS):
    wrong = sorted(set(options) ^ set(KINDS))[0]
    raise ConfigError(
      f"sampler.{wrong}: {'missing' if wrong in KINDS else 'no such field'};"
      f" a sampler has {', '.join(sorted(KINDS))}."
    )
  if hasattr(options["grid"], "shape"):
    raise ConfigError("sampler.grid.steps: give the numbers of steps in sampler.steps instead.")
  for field, kind in KINDS.items():
    resolve_lib.check(options[field], kind, f"sampler.{field}", "a sampler")
  for field, low in dict(steps=1, chunk=1, count=1, adm=0).items():
    if min(np.ravel(options[field]), default=low - 1) < low:
      raise ConfigError(f"sampler.{field}={options[field]}: give {low} or more.")
  checks.limits("sampler.limits", options["limits"])
  resolve_lib.check_arguments(rollout.of_network, options["stabilise"], "sampler.stabilise")
  _check_method(options)
  return options


def _check_method(options: dict[str, Any]) -> None:
  """Refuses options that the method would not look at, or that exclude each other."""
  is_rollout = "step_of" in inspect.signature(options["method"]).parameters
  if options["step"] is None and is_rollout:
    raise ConfigError(
      "sampler.step=None: a rollout needs one, such as samplers.jump.ancestral_step."
    )
  for field in ("step", "cached", "stabilise", "energy"):
    if options[field] != DEFAULTS[field] and not is_rollout:
      raise ConfigError(f"sampler.{field}: only samplers.rollout.rollout looks at it; drop it.")
  guided = options["energy"] is not None
  if guided and "clean" not in inspect.signature(options["step"]).parameters:
    raise ConfigError(
      "sampler.energy: guides a clean estimate, which sampler.step does not take; set that to"
      " samplers.jump.ancestral_step."
    )
  if options["cached"] and options["guidance"] != 1.0:
    raise ConfigError(
      f"sampler.cached=True with guidance={options['guidance']}: the doubled batch of classifier-"
      "free guidance has no cache; set one of the two back."
    )
  if options["decode"] is not None:
    checks.takes(options["decode"], 1, "sampler.decode")


def _check_start(f: parameterization.Parameterization, sampler: dict[str, Any]) -> None:
  """Refuses to start where a network that predicts noise has no signal to find the data by."""
  if f.prediction != "eps":
    return
  with jax.ensure_compile_time_eval():
    first = grid_of(sampler["grid"], f.path, sampler["steps"][0])[0]
    if f.path.alpha(first) <= 0.0:
      raise ConfigError("sampler.grid: starts at pure noise, which Noise divides by; lower t_max.")


def _check_streams(streams: int, method: Any) -> None:
  """Refuses tokens that move together, if in training each saw only what stands still."""
  chunk = getattr(method, "keywords", {}).get("chunk")
  if streams == 2 and chunk != 1:
    field = "sampler.method" if chunk is None else f"sampler.method.chunk={chunk}"
    raise ConfigError(
      f"{field}: with two streams tokens are drawn one by one; set sampler.method to"
      " samplers.rollout.rollout with chunk=1."
    )


def _check_guidance(experiment: experiment_lib.Experiment, weight: float) -> None:
  """Refuses guidance by a condition that there is not, or whose absence was never trained."""
  labelled = getattr(experiment.net, "num_classes", 0) > 0
  drop_rate = experiment.loss.keywords.get("drop_rate", 0.0)
  if weight != 1.0 and not (labelled or given_lib.per_token(experiment.batch)):
    raise ConfigError(f"sampler.guidance={weight}: the network has no condition; set it to 1.0.")
  if weight != 1.0 and drop_rate == 0.0:
    raise ConfigError(
      f"sampler.guidance={weight}: with objective.drop_rate=0.0 the network was never trained"
      " without its condition; set guidance to 1.0, or train with a drop_rate such as 0.1."
    )


def _one_chunk(
  experiment: experiment_lib.Experiment, sampler: dict[str, Any]
) -> Callable[..., Array]:
  f = experiment.f
  shape = experiment.batch["x"].shape[1:]
  classes = experiment.labels
  apply = guidance.classifier_free(experiment.apply, sampler["guidance"])
  rows = parallel.of_rows(experiment.mesh)
  parts = functools.partial(_rollout_parts, experiment, sampler, apply)

  def one_chunk(
    params: Any,
    indices: Array,
    given: dict[str, Any],
    position: Array,
    *,
    steps: int,
    length: int | None = None,
  ) -> Array:
    root = jax.random.key(sampler["seed"])
    if len(indices) % experiment.mesh.size == 0:  # each device draws its share
      indices = jax.lax.with_sharding_constraint(indices, rows)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(root, i)))(indices)
    x = jnp.zeros((len(indices), *shape))
    context = given.get("context", x[:, :0])
    labels = dict(label=jnp.asarray(classes)[indices % len(classes)]) if classes else {}
    cond = {**labels, **given.get("cond", {})} or None
    grid = grid_of(sampler["grid"], f.path, steps)
    offered = dict(
      jump=lambda x, s, t: f(apply, params, x, s, t, cond),
      clean=lambda x, t: f.clean(apply, params, x, t, cond),
      key=keys[:, 1],
      x=f.sigma_data * interpolants.noise_like(keys[:, 0], x),
      grid=grid,
      path=f.path,
      sigma_data=f.sigma_data,
    )
    if sampler["step"] is not None:
      report = None if length is None else _report  # of what may take long
      length = shape[0] - context.shape[1] if length is None else length
      offered |= dict(context=context, cond=cond, times=grid, length=length, report=report)
      offered |= dict(
        position=position, lengths=given.get("lengths"), **parts(params, len(indices), grid[-1])
      )
    return ask(sampler["method"], **offered)

  return one_chunk


def grid_of(grid: Callable[..., Array], path: interpolants.Path, steps: int) -> Array:
  """The times of `steps` network calls.

  Raises:
    ValueError: a grid of another number of steps.
  """
  times = ask(grid, path=path, steps=steps)
  if times.ndim == 1 and len(times) != steps + 1:
    raise ValueError(f"steps={steps}: sampler.grid takes {len(times) - 1}; set steps to that.")
  return times


def _report(chunks: Array, of: int) -> None:
  """Progress of a long rollout."""
  logging.log_every_n_seconds(logging.INFO, "Rollout: chunk %d of %d", 10, int(chunks), of)


def _rollout_parts(
  experiment: experiment_lib.Experiment,
  sampler: dict[str, Any],
  apply: Callable[..., Any],
  params: Any,
  count: int,
  end: Array,
) -> dict[str, Any]:
  """How `samplers.rollout.rollout` is to step, and to remember, `count` sequences.

  `end`, the last time of the grid, is for steps that ask for it.
  """
  f, energy = experiment.f, sampler["energy"]
  scale = dict(path=f.path, sigma_data=f.sigma_data)

  def make_step(jump: Callable[..., Array], clean: Callable[..., Array]) -> Callable[..., Array]:
    if energy is not None:
      clean = guidance.energy(clean, energy, sampler["energy_scale"], **scale)
    return ask(sampler["step"], jump=jump, clean=clean, end=end, **scale)

  step_of, remember = rollout.of_network(apply, params, f, make_step, **sampler["stabilise"])
  if not sampler["cached"]:
    return dict(step_of=step_of)
  if not hasattr(experiment.net, "empty_cache"):
    raise ValueError("cached=True: the network has no cache; see models.causal_transformer.")
  cache = experiment.net.empty_cache(count)
  return dict(step_of=step_of, remember=remember, cache=cache)


def ask(function: Callable[..., Any], **offered: Any) -> Any:
  """Calls `function` with those of the offered arguments that it names and the config left open."""
  wanted = set(inspect.signature(function).parameters) - set(getattr(function, "keywords", {}))
  return function(**{name: value for name, value in offered.items() if name in wanted})


def draw_each(
  experiment: experiment_lib.Experiment, draw: Draw, state: Any
) -> dict[int, np.ndarray]:
  """`config.sampler.count` samples of the same noise in each number of steps.

  Sequences have no context, and conditions per token are those of training examples.
  """
  sampler = experiment.config.sampler
  count = sampler.get("count", DEFAULTS["count"])
  given = _first_conditions(experiment, count)
  params = experiment.ema_params(state)
  return {steps: draw(params, count, steps, **given) for steps in sampler.steps}


def _first_conditions(experiment: experiment_lib.Experiment, count: int) -> dict[str, Any]:
  """The conditions per token of the first training examples, over and over up to `count`."""
  if not given_lib.per_token(experiment.batch):
    return {}
  batch = next(experiment.source())
  hidden = conditioning.hide(batch["cond"], batch.get("mask"))  # padding may hold anything
  cond = given_lib.per_token(dict(cond=jax.device_get(hidden)))
  return dict(cond={k: a[np.arange(count) % len(a)] for k, a in cond.items()})


def sheet(experiment: experiment_lib.Experiment, drawn: dict[int, np.ndarray]) -> np.ndarray:
  """One picture of the samples of `draw_each`, each number of steps under its NFE."""
  sampler = _options(experiment.config.sampler)
  title = lambda steps: f"{steps} step{'s' if steps > 1 else ''}, {_nfe(sampler, steps)}"
  limits = sampler["limits"]
  return pictures.panels({title(steps): pictures.picture(x, limits) for steps, x in drawn.items()})


def _nfe(sampler: dict[str, Any], steps: int) -> str:
  rolled = getattr(sampler["method"], "keywords", {})
  if sampler["step"] is None:
    return f"NFE {nfe.of_steps(steps, guidance=sampler['guidance'])}"
  how = dict(cached=sampler["cached"], guidance=sampler["guidance"])
  return f"NFE {nfe.of_token(steps, rolled['levels'], chunk=rolled['chunk'], **how):.3g} a token"


def restored(
  experiment: experiment_lib.Experiment,
  workdir: str,
  fields: Sequence[str] = ("model", "objective"),
  step: int | None = None,
) -> tuple[Draw, Any]:
  """How to draw, and the newest state of `workdir`, or that after `step`.

  Raises:
    ConfigError: if there is none, or of a run that differs in `fields`, see `workdir.check`.
  """
  draw = make_draw(experiment)
  workdir_lib.check(workdir, experiment.config, fields)
  return draw, checkpoint.restore(workdir, experiment.abstract_state(), step=step)


def sample(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  step: int | None = None,
  devices: Any = None,
) -> pathlib.Path:
  """Draws `config.sampler.count` samples from the newest checkpoint, or `step`'s (`--mode=sample`).

  Writes `samples/<step>_<n>.png`, n from 1 on so that nothing is overwritten, and beside it an
  `.npz` with an array `[count, ...]` for each number of steps, through `config.sampler.decode` if
  there is one; returns the picture's path. And what `write_adm` writes, if `config.sampler.adm`
  says so. Of several processes the first writes; the others return the folder.
  """
  experiment = experiment_lib.build(config, devices=devices)
  if experiment.config.sampler.get("adm", DEFAULTS["adm"]):
    with config_errors("sampler.adm"):
      adm.check(experiment.batch["x"].shape[1:])
      if jax.process_count() > 1:
        raise ValueError("one file is written by one process; sample on one machine of the run")
  draw, state = restored(experiment, workdir, step=step)
  drawn = draw_each(experiment, draw, state)
  if jax.process_index() != 0:  # all have drawn, one writes
    return pathlib.Path(workdir) / "samples"
  path = atomic.numbered(pathlib.Path(workdir) / "samples" / f"{int(state.seen)}.png")
  pictures.save_png(path, sheet(experiment, drawn))
  decode = resolve(experiment.config.sampler.get("decode"), "sampler.decode") or np.asarray
  arrays = {f"steps_{steps}": decode(x) for steps, x in drawn.items()}
  atomic.replace(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
  logging.info("Wrote %s, and the samples themselves beside it.", path)
  write_adm(experiment, draw, state, path.parent)
  return path


def write_adm(
  experiment: experiment_lib.Experiment, draw: Draw, state: Any, folder: pathlib.Path
) -> list[pathlib.Path]:
  """`config.sampler.adm` images for each number of steps, as ADM's evaluation suite reads them.

  `adm_<step>_<steps>_steps_<count>_<sampler>.npz` in `folder`: uint8 `[count, H, W, 3]`, a single
  channel repeated, and labels where the network has classes. The last part of the name is a hash of
  the sampler's fields that a sample depends on. What is there stays; what a killed run has drawn is
  kept, and the same command goes on. Returns the paths, none where `adm` is 0.
  """
  sampler = {**DEFAULTS, **experiment.config.sampler.to_dict()}
  count, limits = sampler["adm"], sampler["limits"]
  shape = (count, *experiment.batch["x"].shape[1:3], 3)
  classes = np.asarray(experiment.labels)
  labels = classes[np.arange(count) % len(classes)] if len(classes) else None
  kept = {k: v for k, v in sampler.items() if k not in ("steps", "chunk", "count", "adm", "decode")}
  how = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:6]
  params, paths = experiment.ema_params(state), []
  for steps in sampler["steps"] if count else ():
    path = folder / f"adm_{int(state.seen)}_{steps}_steps_{count}_{how}.npz"
    images = functools.partial(adm.drawn, draw, params, count, steps, limits)
    adm.write(path, images, shape, labels)
    logging.info("ADM's suite reads %s.", path)
    paths.append(path)
  return paths
