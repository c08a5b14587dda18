"""Drawing samples with the averaged weights of a run."""

from collections.abc import Callable, Sequence
import functools
import hashlib
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
from dfim.config.errors import config_errors, FieldError
from dfim.core import interpolants, two_stream
from dfim.data import examples as examples_lib
from dfim.io import atomic, inputs
from dfim.metrics import adm
from dfim.samplers import given as given_lib, jump, rollout
from dfim.samplers.sampler import Sampler
from dfim.training import nonfinite
from dfim.training.generator import build, Generator
from dfim.training.state import TrainState
from dfim.viz import images as pictures

Array = jax.Array
Draw = Callable[..., np.ndarray]
_INT32 = 2**30  # samples and tokens are numbered by int32


def make_draw(generator: Generator) -> Draw:
  """Builds `draw(params, count, steps, first=0, *, context, cond, length, lengths, position)`.

  It returns samples of `config.sampler`, `[count, ...]`. Sample i depends on the weights, the
  sampler's seed and i alone; its label is number i of the data's classes, over and over. Each
  number of steps is one XLA program, for chunks of a fixed size.

  Sequences may have a `context` `[count, C, D]`, which comes back in front of the drawn tokens,
  conditions `cond` of `[count, ...]` each, a `length` to draw, by default up to that of the data,
  and `lengths` `[count]` of sequences that end before. A token's noise is keyed by its position:
  calls of one token each draw what one call draws, if each is given all tokens so far as context,
  or the last of them and `position`, how many were cut off. `draw` raises ValueError for arguments
  that do not fit, and NonFiniteError for samples that are not finite.
  """
  sampler = generator.sampler
  draw_rows = _draw_rows(generator, sampler)
  labels, repeats, size = generator.examples.labels, _Repeats(), rows_at_a_time(generator)

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
      inputs.whole(value, name, low=low, high=_INT32)
    _check_rollout(sampler, context, length, lengths, position)
    offered = dict(context=context, cond=cond, length=length, lengths=lengths)
    given = given_lib.check(generator.batch, generator.net, count, labels=labels, **offered)
    repeats.notice(first, count, steps, position, given.get("context"))
    chunks = []
    for n in range(0, count, size):  # the last chunk is drawn whole, then cut
      rows = np.minimum(np.arange(n, n + size), count - 1)
      part = jax.tree.map(lambda a: a[rows], given)  # noqa: B023
      indices = np.arange(first + n, first + n + size)
      drawn = draw_rows(params, indices, part, position, steps=steps, length=length)
      chunks.append(jax.device_get(drawn))
    return _finite(np.concatenate(chunks)[:count], first, steps)

  return draw


def _draw_rows(generator: Generator, sampler: Sampler) -> Callable[..., Array]:
  """Draws samples number `indices` `[B]`; compiled for each number of steps and length."""
  mesh, f, net, how = generator.mesh, generator.f, generator.net, sampler.rollout
  shape, labels = generator.batch["x"].shape[1:], generator.examples.labels

  def draw_rows(
    params: Any, indices: Array, given: Any, position: Any, *, steps: int, length: int | None = None
  ) -> Array:
    indices = jax.lax.with_sharding_constraint(indices, parallel.of_rows(mesh))
    root = jax.random.key(sampler.seed)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(root, i)))(indices)
    x = jnp.zeros((len(indices), *shape))
    label = dict(label=jnp.asarray(labels)[indices % len(labels)]) if labels else {}
    cond = {**label, **given.get("cond", {})} or None
    times, model_of = sampler.times(f.path, steps), sampler.model_of(generator.apply, params, f)
    if how is None:
      noise = f.sigma_data * interpolants.noise_like(keys[:, 0], x)
      return jump.scan(model_of(cond), keys[:, 1], noise, times, step=sampler.step)
    if how.cached and not hasattr(net, "empty_cache"):
      raise FieldError("rollout.cached", True, "the network has no cache; set it to False.")
    context = given.get("context", x[:, :0])
    options = dict(
      step=sampler.step,
      length=length or how.length or shape[0] - context.shape[1],
      lengths=given.get("lengths"),
      position=position,
      cache=net.empty_cache(len(indices)) if how.cached else None,
      report=None if length is None else _report,  # of rollouts that may take long
    )
    return rollout.rollout(model_of, keys[:, 1], context, cond, times, how, **options)

  with config_errors("sampler", generator.config.sampler):
    _check_sampler(generator, sampler)
    for steps in sampler.steps:
      one = functools.partial(draw_rows, steps=steps)
      jax.eval_shape(one, generator.param_shapes, *_arguments(generator))
  everywhere = jax.NamedSharding(mesh, jax.P())
  return jax.jit(draw_rows, static_argnames=("steps", "length"), out_shardings=everywhere)


def _arguments(generator: Generator) -> tuple[Any, ...]:
  """Shapes of what `draw_rows` takes after the parameters."""
  rows = rows_at_a_time(generator)
  like = lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype)
  cond = jax.tree.map(like, examples_lib.shown(generator.batch.get("cond")))
  return jax.ShapeDtypeStruct((rows,), jnp.int32), dict(cond=cond) if cond else {}, 0


def rows_at_a_time(generator: Generator) -> int:
  """Samples drawn at a time: the sampler's chunk, or more, so that each device has as many."""
  devices = generator.mesh.size
  return -(-generator.sampler.chunk // devices) * devices


def lower_draw(generator: Generator, steps: int) -> jax.stages.Lowered:
  """The program that `make_draw` compiles for `steps` steps, without any weights."""
  params = generator.ema_params(generator.abstract_state())
  draw_rows = _draw_rows(generator, generator.sampler)
  return draw_rows.lower(params, *_arguments(generator), steps=steps, length=None)


def _report(chunks: Array, of: int) -> None:
  logging.log_every_n_seconds(logging.INFO, "Rollout: chunk %d of %d", 10, int(chunks), of)


def _check_sampler(generator: Generator, sampler: Sampler) -> None:
  """Refuses a start, tokens or guidance that the network was not trained for."""
  f, given, weight = generator.f, generator.loss.keywords, sampler.guidance
  with jax.ensure_compile_time_eval():
    first = sampler.times(f.path, sampler.steps[0])[0] if f.prediction == "eps" else None
    if first is not None and f.path.alpha(first) <= 0.0:
      fix = "pure noise, which core.parameterization.Noise divides by; lower it."
      raise FieldError("sampler.grid.t_max", float(first), fix)
  chunk = sampler.rollout.chunk if sampler.rollout else None
  if two_stream.of(given).streams == 2 and chunk != 1:
    raise FieldError("sampler.rollout.chunk", chunk, "two streams need 1.")
  labelled = getattr(generator.net, "num_classes", 0) > 0
  if weight != 1.0 and not (labelled or examples_lib.shown(generator.batch.get("cond"))):
    raise FieldError("sampler.guidance", weight, "the network has no condition; set it to 1.0.")
  if weight != 1.0 and given.get("drop_rate", 0.0) == 0.0:
    fix = "set it to 1.0, or train with objective.drop_rate above 0.0, such as 0.1."
    raise FieldError("sampler.guidance", weight, fix)


def _check_rollout(
  sampler: Sampler, context: Any, length: Any, lengths: Any, position: Any
) -> None:
  """Refuses a rollout's arguments for whole examples, and numbers out of range."""
  offered = dict(context=context, length=length, lengths=lengths, position=position or None)
  named = [name for name, value in offered.items() if value is not None]
  if sampler.rollout is None and named:
    raise ValueError(f"{named[0]}: only a rollout goes on from a context; set sampler.rollout.")
  inputs.whole(position, "position", low=0, high=_INT32)
  if length is not None:
    inputs.whole(length, "length", low=1)
    if sampler.rollout.length is not None:
      raise FieldError("length", length, "sampler.rollout.length is set too; drop one of them.")


class _Repeats:
  """Notices contexts that were cut, whose later tokens would be drawn with the same noise."""

  def __init__(self):
    self._before: dict[tuple[int, ...], bytes] = {}
    self._logged = False

  def notice(
    self, first: int, count: int, steps: int, position: int, context: np.ndarray | None
  ) -> None:
    """Logs once where samples at the same position have had another context."""
    if context is None:
      return
    key, last = (first, count, steps, position + context.shape[1]), context[:, -1:].tobytes()
    if self._before.setdefault(key, last) != last and not self._logged:
      self._logged = True
      logging.warning(
        "draw: the noise of the last call, with another context: pass position=, the tokens cut off"
        " before the context, or first= for other samples."
      )


def _finite(x: np.ndarray, first: int, steps: int) -> np.ndarray:
  """`x`; raises NonFiniteError, naming the first sample that holds NaN or infinity."""
  bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
  if len(bad):
    raise nonfinite.NonFiniteError(
      f"samples: {len(bad)} of {len(x)} in {steps} steps are not finite, first number"
      f" {first + bad[0]}; look at the weights, sampler.guidance and sampler.grid."
    )
  return x


def load(workdir: str, *, step: int | None = None, devices: Any = None) -> tuple[Draw, Any]:
  """`draw` of `make_draw` and the averaged weights of a run, newest or after `step`."""
  config = workdir_lib.load_config(workdir)
  generator = build(config, workdir, devices=devices)
  draw, state = restore(generator, workdir, step=step)
  return draw, generator.ema_params(state)


def restore(
  generator: Generator,
  workdir: str,
  fields: Sequence[str] = ("model", "objective"),
  step: int | None = None,
) -> tuple[Draw, TrainState]:
  """`draw`, and the average and the numbers of steps of the newest state, or `step`'s.

  A run that differs from the config in `fields` is refused, see `workdir.check`.
  """
  draw = make_draw(generator)
  workdir_lib.check(workdir, generator.config, fields)
  return draw, checkpoint.restore(workdir, generator.abstract_state(), step=step, partial=True)


def draw_samples(generator: Generator, draw: Draw, state: TrainState) -> dict[int, np.ndarray]:
  """`config.sampler.count` samples of the same noise in each number of steps.

  Sequences have no context, and conditions other than labels are those of training examples.
  """
  sampler = generator.sampler
  rows = lambda a: a[np.arange(sampler.count) % len(a)]
  cond = {name: rows(a) for name, a in generator.examples.cond.items()}
  given, params = dict(cond=cond) if cond else {}, generator.ema_params(state)
  return {steps: draw(params, sampler.count, steps, **given) for steps in sampler.steps}


def sample_grid(generator: Generator, drawn: dict[int, np.ndarray]) -> np.ndarray:
  """One picture of the samples of `draw_samples`, each number of steps under its NFE."""
  sampler = generator.sampler
  each = " a token" if sampler.rollout else ""
  plural = lambda steps: f"{steps} step{'s' if steps > 1 else ''}"
  title = lambda steps: f"{plural(steps)}, NFE {sampler.nfe(steps):.3g}{each}"
  panels = {title(steps): pictures.picture(x, sampler.limits) for steps, x in drawn.items()}
  return pictures.panels(panels)


def sample(
  config: ml_collections.ConfigDict, workdir: str, *, step: int | None = None, devices: Any = None
) -> pathlib.Path:
  """Draws `config.sampler.count` samples from the newest checkpoint, or `step`'s (`--mode=sample`).

  Writes `samples/<step>_<n>.png`, with the smallest free n, and an `.npz` with an array of each
  number of steps, through `config.sampler.decode` if there is one; and see `write_adm`. Returns the
  picture's path. Of several processes the first writes; the others return the folder.
  """
  generator = build(config, workdir, devices=devices)
  sampler = generator.sampler
  if sampler.adm:
    with config_errors("sampler.adm"):
      adm.check(generator.batch["x"].shape[1:])
      if jax.process_count() > 1:
        raise ValueError("one file is written by one process; sample on one machine of the run")
  draw, state = restore(generator, workdir, step=step)
  drawn = draw_samples(generator, draw, state)
  folder = pathlib.Path(workdir) / "samples"
  if jax.process_index() != 0:  # all have drawn, one writes
    return folder
  path = atomic.numbered(folder / f"{int(state.seen)}.png")
  pictures.save_png(path, sample_grid(generator, drawn))
  decode = sampler.decode or np.asarray
  arrays = {f"steps_{steps}": decode(x) for steps, x in drawn.items()}
  atomic.replace(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
  logging.info("Wrote %s, and the samples themselves beside it.", path)
  write_adm(generator, draw, state, folder)
  return path


def write_adm(
  generator: Generator, draw: Draw, state: TrainState, folder: pathlib.Path
) -> list[pathlib.Path]:
  """`config.sampler.adm` images for each number of steps, as ADM's evaluation suite reads them.

  `adm_<step>_<steps>_steps_<count>_<sampler>.npz` in `folder`, uint8 `[count, H, W, 3]`, and labels
  where there are classes; `<sampler>` is a hash of the fields that a sample depends on. Files that
  exist stay, and a killed run goes on from its last image. Returns the paths.
  """
  sampler = generator.sampler
  count, classes = sampler.adm, np.asarray(generator.examples.labels)
  shape = (count, *generator.batch["x"].shape[1:3], 3)
  labels = classes[np.arange(count) % len(classes)] if len(classes) else None
  apart = ("steps", "chunk", "count", "adm", "decode")
  drawn_by = {k: v for k, v in generator.config.sampler.to_dict().items() if k not in apart}
  text = json.dumps(drawn_by, sort_keys=True, default=str)
  how = hashlib.sha256(text.encode()).hexdigest()[:6]
  params, paths = generator.ema_params(state), []
  for steps in sampler.steps if count else ():
    path = folder / f"adm_{int(state.seen)}_{steps}_steps_{count}_{how}.npz"
    images = functools.partial(adm.drawn, draw, params, count, steps, sampler.limits)
    adm.write(path, images, shape, labels)
    logging.info("ADM's suite reads %s.", path)
    paths.append(path)
  return paths
