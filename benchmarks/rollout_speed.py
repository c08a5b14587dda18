"""Seconds a token of a rollout, short and long, with a cache and with the whole sequence shown.

python -m benchmarks.rollout_speed

In turns in one run, as `benchmarks.speed` does; a ratio is the median over rounds of the ratio
within a round. The network of `forcing_walk`, seeing 32 tokens back, on one device.
"""

import functools

from absl import app, flags
import jax
import numpy as np

from benchmarks import speed
from configs import forcing_walk
from dfim import sample
from dfim.training import experiment as experiment_lib

_ROLLOUT_ROUNDS = flags.DEFINE_integer("rollout_rounds", 3, "Rounds over everything.")
_SHORT = flags.DEFINE_integer("short", 32, "Tokens of a short rollout.")
_LONG = flags.DEFINE_integer("long", 256, "Tokens of a long one.")
_BATCH = flags.DEFINE_integer("batch", 4, "Sequences drawn at once.")

STEPS = 4  # grid steps a token


def main(_) -> None:
  """Times everything and prints the table."""
  lengths = (_SHORT.value, _LONG.value)
  calls = {(cached, n): rollout(cached, n) for cached in (True, False) for n in lengths}
  seconds = speed.measure(calls, _ROLLOUT_ROUNDS.value, repeats=1)
  print(table({key: value / key[1] for key, value in seconds.items()}, *lengths))


def rollout(cached: bool, length: int) -> speed.Call:
  """A call that draws sequences of `length` tokens with weights of step 0."""
  config = forcing_walk.get_config("full")
  config.model.window = 32
  config.sampler.update(cached=cached, chunk=_BATCH.value, steps=(STEPS,))
  config.sampler.method.window = length
  experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  params = experiment.ema_params(experiment.first_state())
  draw = sample.make_draw(experiment)
  return functools.partial(draw, params, _BATCH.value, STEPS, length=length)


def table(seconds: dict[tuple[bool, int], np.ndarray], short: int, long: int) -> str:
  """Markdown: milliseconds a token at both lengths, and their ratio."""
  lines = [
    f"{_BATCH.value} sequences, {STEPS} calls a token; {jax.devices()[0].device_kind}, jax"
    f" {jax.__version__}.",
    "",
    f"| | ms a token, {short} tokens | {long} tokens | ratio |",
    "|---|--:|--:|--:|",
  ]
  for cached, name in ((True, "cache"), (False, "whole sequence shown")):
    few, many = seconds[cached, short], seconds[cached, long]
    low, ratio, high = np.quantile(many / few, (0.25, 0.5, 0.75))
    milli = [f"{1e3 * np.median(s):.3g}" for s in (few, many)]
    lines.append(f"| {name} | {' | '.join(milli)} | {ratio:.3g} ({low:.3g}-{high:.3g}) |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  app.run(main)
