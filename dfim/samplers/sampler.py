"""The sampler that a config describes, and the one function of it that is compiled."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp

from dfim.config.errors import FieldError
from dfim.config.resolve import call, check_call, resolve
from dfim.core import interpolants, parameterization
from dfim.io import inputs
from dfim.samplers import guidance as guidance_lib, jump, nfe, rollout as rollout_lib

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Sampler:
  """The fields of `config.sampler`.

  Attributes:
    step: from one time to the next, such as `jump.Pushforward()`.
    grid: `(steps=, path=) -> [steps + 1]` times, such as `grids.uniform`.
    steps: the numbers of grid steps to draw with.
    rollout: how sequences are drawn, chunk by chunk; None for whole examples.
    guidance: weight of classifier-free guidance; 1 is none.
    energy: `(clean estimate [B, ...]) -> log-density [B]`, see `guidance.energy`.
    energy_scale: its strength.
    seed: of the noise.
    chunk: samples drawn at a time.
    count: samples that training and `--mode=sample` draw.
    limits: the values of black and white in pictures.
    decode: `(samples [count, ...]) -> array`, what `--mode=sample` writes, such as raw latents.
    adm: images to write for ADM's evaluation suite, see `sample.write_adm`.
  """

  step: jump.Step
  grid: Callable[..., Array]
  steps: tuple[int, ...]
  rollout: rollout_lib.Rollout | None = None
  guidance: float = 1.0
  energy: Callable[[Array], Array] | None = None
  energy_scale: float = 1.0
  seed: int = 0
  chunk: int = 500
  count: int = 64
  limits: tuple[float, float] = (-1.0, 1.0)
  decode: Callable[..., Any] | None = None
  adm: int = 0

  def __post_init__(self):
    for field, low in dict(chunk=1, count=1, adm=0).items():
      inputs.whole(getattr(self, field), field, low=low)
    if not self.steps or min(self.steps) < 1:
      raise FieldError("steps", self.steps, "give 1 or more.")
    if not self.limits[0] < self.limits[1]:
      raise FieldError("limits", self.limits, "give the value of black, then white's above it.")
    if self.decode:
      check_call(self.decode, 1, "decode")
    if self.rollout and self.rollout.cached and self.guidance != 1.0:
      raise FieldError(
        "rollout.cached",
        True,
        f"the doubled batch of guidance={self.guidance} has no cache; set one of the two back.",
      )

  def times(self, path: interpolants.Path, steps: int) -> Array:
    """The grid of `steps` steps.

    Raises:
      ValueError: the grid has another number of steps.
    """
    times = self.grid(steps=steps, path=path)
    if times.ndim == 1 and len(times) != steps + 1:
      raise FieldError("steps", steps, f"the grid takes {len(times) - 1}; set steps to that.")
    return times

  def nfe(self, steps: int) -> float:
    """NFE of a sample, or of a token of a rollout, see `samplers.nfe`."""
    if self.rollout is None:
      return nfe.of_steps(steps, guidance=self.guidance)
    how = self.rollout
    cached = dict(cached=how.cached, guidance=self.guidance)
    return nfe.of_token(steps, how.levels, chunk=how.chunk, **cached)

  def model_of(
    self, apply: parameterization.Apply, params: Any, f: parameterization.Parameterization
  ) -> jump.ModelOf:
    """The network's models, guided."""
    found = functools.partial(jump.of_network, apply, params, f)
    found = guidance_lib.classifier_free(found, self.guidance)
    if self.energy is None:
      return found
    return lambda *cond: guidance_lib.energy(found(*cond), self.energy, self.energy_scale)


def parse(config: Any) -> Sampler:
  """The sampler of `config.sampler`.

  Raises:
    FieldError: an unknown field, one that is missing, or a value that cannot work.
  """
  options = resolve(config, "sampler")
  if isinstance(options.get("rollout"), dict):
    how = call(rollout_lib.Rollout, options["rollout"], "sampler.rollout")
    options = {**options, "rollout": how}
  return call(Sampler, options, "sampler")


def draw(
  params: Any,
  indices: Array,
  given: dict[str, Any],
  position: Array,
  *,
  sampler: Sampler,
  net: Any,
  apply: parameterization.Apply,
  f: parameterization.Parameterization,
  shape: tuple[int, ...],
  labels: tuple[int, ...],
  steps: int,
  length: int | None = None,
) -> Array:
  """Samples number `indices`, `[B, ...]`: each depends on params, seed and its number alone.

  Args:
    params: of `net`.
    indices: `[B]`.
    given: what a caller gave, see `given.check`: context, cond, lengths.
    position: of the context's first token.
    sampler: see `Sampler`.
    net: the network, for its `empty_cache`.
    apply: its function.
    f: its parameterization.
    shape: of an example.
    labels: the classes to draw, over and over; none without classes.
    steps: of the grid.
    length: tokens to draw; None for as many as the data have beyond the context.
  """
  root = jax.random.key(sampler.seed)
  keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(root, i)))(indices)
  x = jnp.zeros((len(indices), *shape))
  label = dict(label=jnp.asarray(labels)[indices % len(labels)]) if labels else {}
  cond = {**label, **given.get("cond", {})} or None
  times, model_of = sampler.times(f.path, steps), sampler.model_of(apply, params, f)
  how = sampler.rollout
  if how is None:
    noise = f.sigma_data * interpolants.noise_like(keys[:, 0], x)
    return jump.scan(model_of(cond), keys[:, 1], noise, times, step=sampler.step)
  context = given.get("context", x[:, :0])
  report = None if length is None else _report  # of rollouts that may take long
  length = length or how.length or shape[0] - context.shape[1]
  return rollout_lib.rollout(
    model_of,
    keys[:, 1],
    context,
    cond,
    times,
    how,
    step=sampler.step,
    length=length,
    lengths=given.get("lengths"),
    position=position,
    cache=_empty_cache(net, len(indices)) if how.cached else None,
    report=report,
  )


def _empty_cache(net: Any, count: int) -> Any:
  if not hasattr(net, "empty_cache"):
    raise FieldError(
      "rollout.cached", True, "the network has no cache; see models.causal_transformer."
    )
  return net.empty_cache(count)


def _report(chunks: Array, of: int) -> None:
  """Progress of a long rollout."""
  logging.log_every_n_seconds(logging.INFO, "Rollout: chunk %d of %d", 10, int(chunks), of)
