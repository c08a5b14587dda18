"""The sampler that a config describes."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax

from dfim.config.errors import FieldError
from dfim.config.resolve import call, check_call, resolve
from dfim.core import interpolants
from dfim.core.parameterization import Apply, Parameterization
from dfim.io import inputs
from dfim.samplers import guidance as guidance_lib, jump, nfe, rollout as rollout_lib

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Sampler:
  """The fields of `config.sampler`."""

  step: jump.Step  # from one time to the next, such as `jump.Pushforward()`
  grid: Callable[..., Array]  # (steps=, path=) -> times [steps + 1], such as `grids.uniform`
  steps: tuple[int, ...]  # the numbers of grid steps to draw with
  rollout: rollout_lib.Rollout | None = None  # of sequences, by chunks; None for whole examples
  guidance: float = 1.0  # weight of classifier-free guidance; 1 is none
  energy: Callable[[Array], Array] | None = None  # see `guidance.energy`
  energy_scale: float = 1.0  # its strength
  seed: int = 0  # of the noise
  chunk: int = 500  # samples drawn at a time
  count: int = 64  # samples that training and `--mode=sample` draw
  limits: tuple[float, float] = (-1.0, 1.0)  # the values of black and white in pictures
  decode: Callable[..., Any] | None = None  # samples [count, ...] -> what `--mode=sample` writes
  adm: int = 0  # images to write for ADM's evaluation suite, see `sample.write_adm`

  def __post_init__(self):
    for field, low in dict(chunk=1, count=1, adm=0).items():
      inputs.whole(getattr(self, field), field, low=low)
    if not self.steps or min(self.steps) < 1:
      raise FieldError("steps", self.steps, "give 1 or more.")
    inputs.limits(self.limits, "limits")
    if self.decode:
      check_call(self.decode, 1, "decode")
    if self.rollout and self.rollout.cached and self.guidance != 1.0:
      fix = f"guidance={self.guidance} has no cache; set it to False, or sampler.guidance to 1.0."
      raise FieldError("rollout.cached", True, fix)

  def times(self, path: interpolants.Path, steps: int) -> Array:
    """The grid of `steps` steps."""
    times = self.grid(steps=steps, path=path)
    if times.ndim == 1 and len(times) != steps + 1:
      raise FieldError("steps", steps, f"the grid takes {len(times) - 1}; set steps to that.")
    return times

  def nfe(self, steps: int) -> float:
    """NFE of a sample, or of a token of a rollout, see `samplers.nfe`."""
    how = self.rollout
    if how is None:
      return nfe.of_steps(steps, guidance=self.guidance)
    options = dict(chunk=how.chunk, cached=how.cached, guidance=self.guidance)
    return nfe.of_token(steps, how.levels, **options)

  def model_of(self, apply: Apply, params: Any, f: Parameterization) -> jump.ModelOf:
    """The network's models, guided."""
    found = functools.partial(jump.of_network, apply, params, f)
    found = guidance_lib.classifier_free(found, self.guidance)
    if self.energy is None:
      return found
    return lambda *cond: guidance_lib.energy(found(*cond), self.energy, self.energy_scale)


def parse(config: Any) -> Sampler:
  """The sampler of `config.sampler`."""
  options = resolve(config, "sampler")
  if isinstance(options.get("rollout"), dict):
    options["rollout"] = call(rollout_lib.Rollout, options["rollout"], "sampler.rollout")
  return call(Sampler, options, "sampler")
