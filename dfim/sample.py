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
from dfim.core import conditioning, two_stream
from dfim.io import atomic, inputs
from dfim.metrics import adm
from dfim.samplers import given as given_lib, sampler as sampler_lib
from dfim.training import generator as generator_lib, nonfinite, state as train_state
from dfim.viz import images as pictures

Array = jax.Array
Draw = Callable[..., np.ndarray]
_INT32 = 2**30  # samples and tokens are numbered by int32


def make_draw(generator: generator_lib.Generator) -> Draw:
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
  sampler = generator.sampler
  draw_rows = _draw_rows(generator, sampler)
  labels, repeats = generator.examples.labels, _Repeats()

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
    size, chunks = sampler.chunk, []
    for n in range(0, count, size):  # the last chunk is drawn whole, then cut
      rows = np.minimum(np.arange(n, n + size), count - 1)
      part = jax.tree.map(lambda a: a[rows], given)  # noqa: B023
      indices = np.arange(first + n, first + n + size)
      drawn = draw_rows(params, indices, part, position, steps=steps, length=length)
      chunks.append(jax.device_get(drawn))
    return _finite(np.concatenate(chunks)[:count], first, steps)

  return draw


def _draw_rows(
  generator: generator_lib.Generator, sampler: sampler_lib.Sampler
) -> Callable[..., Array]:
  """`samplers.sampler.draw` of a generator, compiled for each number of steps and length."""
  mesh, f, rows = generator.mesh, generator.f, parallel.of_rows(generator.mesh)
  shape, labels = generator.batch["x"].shape[1:], generator.examples.labels
  network = dict(net=generator.net, apply=generator.apply, f=f)
  draw = functools.partial(sampler_lib.draw, sampler=sampler, shape=shape, labels=labels, **network)

  def draw_rows(params: Any, indices: Array, *args: Any, **kwargs: Any) -> Array:
    if len(indices) % mesh.size == 0:  # each device draws its share
      indices = jax.lax.with_sharding_constraint(indices, rows)
    return draw(params, indices, *args, **kwargs)

  with config_errors("sampler", generator.config.sampler):
    _check_start(f, sampler)
    _check_conditions(generator, sampler)
    cond = conditioning.per_token(generator.batch.get("cond"))
    like = dict(cond={k: jnp.zeros((2, *a.shape[1:]), a.dtype) for k, a in cond.items()})
    for steps in sampler.steps:
      one = functools.partial(draw_rows, steps=steps)
      jax.eval_shape(one, generator.param_shapes, jnp.arange(2), like if cond else {}, 0)
  everywhere = jax.NamedSharding(mesh, jax.P())
  return jax.jit(draw_rows, static_argnames=("steps", "length"), out_shardings=everywhere)


def _check_start(f: Any, sampler: sampler_lib.Sampler) -> None:
  """Refuses to start where a network that predicts noise has no signal to find the data by."""
  if f.prediction != "eps":
    return
  with jax.ensure_compile_time_eval():
    first = sampler.times(f.path, sampler.steps[0])[0]
    if f.path.alpha(first) <= 0.0:
      fix = "the grid starts at pure noise, which core.parameterization.Noise divides by; lower it."
      raise FieldError("sampler.grid.t_max", float(first), fix)


def _check_conditions(generator: generator_lib.Generator, sampler: sampler_lib.Sampler) -> None:
  """Refuses tokens, or guidance, that the network was not trained for."""
  given, weight = generator.loss.keywords, sampler.guidance
  chunk = sampler.rollout.chunk if sampler.rollout else None
  if two_stream.of(given).streams == 2 and chunk != 1:
    raise FieldError(
      "sampler.rollout.chunk", chunk, "two streams are trained token by token; set it to 1."
    )
  labelled = getattr(generator.net, "num_classes", 0) > 0
  if weight != 1.0 and not (labelled or conditioning.per_token(generator.batch.get("cond"))):
    raise FieldError("sampler.guidance", weight, "the network has no condition; set it to 1.0.")
  if weight != 1.0 and given.get("drop_rate", 0.0) == 0.0:
    fix = (
      "with objective.drop_rate=0.0 the network was never trained without its condition; set it to"
      " 1.0, or train with a drop_rate such as 0.1."
    )
    raise FieldError("sampler.guidance", weight, fix)


def _check_rollout(
  sampler: sampler_lib.Sampler, context: Any, length: Any, lengths: Any, position: Any
) -> None:
  """Refuses a rollout's arguments for whole examples, and numbers out of range."""
  offered = dict(context=context, length=length, lengths=lengths, position=position or None)
  named = [name for name, value in offered.items() if value is not None]
  if sampler.rollout is None and named:
    raise ValueError(
      f"{named[0]}: only a rollout goes on from a context or to a length; set sampler.rollout."
    )
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


def load(workdir: str, *, step: int | None = None, devices: Any = None) -> tuple[Draw, Any]:
  """`draw` of `make_draw` and the averaged weights of a run, newest or after `step`.

  Raises:
    ConfigError: the folder holds no run.
  """
  config = workdir_lib.load_config(workdir)
  generator = generator_lib.build(config, workdir, devices=devices)
  draw, state = restore(generator, workdir, step=step)
  return draw, generator.ema_params(state)


def restore(
  generator: generator_lib.Generator,
  workdir: str,
  fields: Sequence[str] = ("model", "objective"),
  step: int | None = None,
) -> tuple[Draw, train_state.TrainState]:
  """How to draw, and the average and the numbers of steps of the newest state, or `step`'s.

  Raises:
    ConfigError: if there is none, or of a run that differs in `fields`, see `workdir.check`.
  """
  draw = make_draw(generator)
  workdir_lib.check(workdir, generator.config, fields)
  average = generator.abstract_average()
  return draw, checkpoint.restore(workdir, average, step=step, partial=True)


def draw_samples(
  generator: generator_lib.Generator, draw: Draw, state: train_state.TrainState
) -> dict[int, np.ndarray]:
  """`config.sampler.count` samples of the same noise in each number of steps.

  Sequences have no context, and conditions per token are those of training examples.
  """
  sampler = generator.sampler
  rows = lambda a: a[np.arange(sampler.count) % len(a)]
  cond = {name: rows(a) for name, a in generator.examples.cond.items()}
  given, params = dict(cond=cond) if cond else {}, generator.ema_params(state)
  return {steps: draw(params, sampler.count, steps, **given) for steps in sampler.steps}


def sample_grid(generator: generator_lib.Generator, drawn: dict[int, np.ndarray]) -> np.ndarray:
  """One picture of the samples of `draw_samples`, each number of steps under its NFE."""
  sampler = generator.sampler
  each = " a token" if sampler.rollout else ""
  plural = lambda steps: f"{steps} step{'s' if steps > 1 else ''}"
  title = lambda steps: f"{plural(steps)}, NFE {sampler.nfe(steps):.3g}{each}"
  panels = {title(steps): pictures.picture(x, sampler.limits) for steps, x in drawn.items()}
  return pictures.panels(panels)


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
  generator = generator_lib.build(config, workdir, devices=devices)
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
  generator: generator_lib.Generator,
  draw: Draw,
  state: train_state.TrainState,
  folder: pathlib.Path,
) -> list[pathlib.Path]:
  """`config.sampler.adm` images for each number of steps, as ADM's evaluation suite reads them.

  `adm_<step>_<steps>_steps_<count>_<sampler>.npz` in `folder`: uint8 `[count, H, W, 3]`, a single
  channel repeated, and labels where the network has classes. The last part of the name is a hash of
  the sampler's fields that a sample depends on. What is there stays; what a killed run has drawn is
  kept, and the same command goes on. Returns the paths, none where `adm` is 0.
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
