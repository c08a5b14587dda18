"""Speed of Moment Forcing and its baselines: milliseconds a training step, tokens drawn a second.

python -m benchmarks.moment_forcing_speed

In turns in one run, as `benchmarks.speed` does, on one device. All have one network, so what tells
them apart is what a step computes, and how many calls a token takes. `network only` is those calls,
and the one that remembers the token, of the jitted network with its cache. Leaves `speed.json`
beside the table of benchmarks.moment_forcing.
"""

from collections.abc import Callable
import functools
import json
import pathlib
from typing import Any

from absl import app, flags
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import moment_forcing, runs, speed
from dfim import sample
from dfim.training import experiment as experiment_lib

_ROUNDS = flags.DEFINE_integer("speed_rounds", 7, "Rounds over everything.")
_TIMES = flags.DEFINE_string(
  "times", "runs/benchmark_moment_forcing/speed.json", "Where the times go."
)
_LARGEST = flags.DEFINE_integer("largest", 2000, "Sequences drawn at once, at most.")

TRAINED = (  # the first is what the others' steps are compared with
  "moment_forcing",
  "M=1",
  "data MMD",
  "forcing",
  "forcing two_stream",
  "shortcut velocity",
  "shortcut x",
  "shortcut velocity two_stream",
  "shortcut x two_stream",
)
DRAWN = {  # how many calls a token each is drawn with
  "moment_forcing": (1, 2),
  "M=1": (1, 2),
  "shortcut x two_stream": (1, 2, 4),
  "forcing": (4, 8, 16),
}


def main(_) -> None:
  """Times everything and prints both tables."""
  mode = "smoke" if runs.QUICK.value else "full"
  configs = {name: moment_forcing.FINAL[name](mode) for name in TRAINED}
  steps = speed.measure({name: training(c) for name, c in configs.items()}, _ROUNDS.value)
  drawn = {
    (name, calls, batch): drawing(configs[name], calls, batch)
    for name, each in DRAWN.items()
    for calls in each
    for batch in (1, _LARGEST.value)
  }
  tokens = configs["moment_forcing"].data.tokens
  one = experiment_lib.build(configs["moment_forcing"], devices=jax.devices()[:1])
  apply, params = jax.jit(one.apply), one.ema_params(one.first_state())
  alone = {
    (calls, batch): network(one, functools.partial(apply, params), calls, batch)
    for calls in sorted({calls for each in DRAWN.values() for calls in each})
    for batch in (1, _LARGEST.value)
  }
  seconds = speed.measure({**drawn, **alone}, _ROUNDS.value, repeats=1)
  rates = {key: key[-1] * tokens / np.median(value) for key, value in seconds.items()}
  path = pathlib.Path(_TIMES.value)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({name: 1e3 * np.median(each) for name, each in steps.items()}))
  print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}.\n")
  print(training_table(steps), drawing_table(rates, _LARGEST.value), sep="\n")


def training(config: ml_collections.ConfigDict) -> speed.Call:
  """The training step as `train` runs it."""
  experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  return speed.step_call(experiment, next(experiment.batches(0)))


def drawing(config: ml_collections.ConfigDict, calls: int, batch: int) -> speed.Call:
  """Whole sequences, end to end, with weights of step 0."""
  config = ml_collections.ConfigDict(config)
  config.sampler.update(chunk=batch, steps=(calls,))
  experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  params = experiment.ema_params(experiment.first_state())
  return functools.partial(sample.make_draw(experiment), params, batch, calls)


def network(
  experiment: experiment_lib.Experiment, apply: Callable[..., Any], calls: int, batch: int
) -> speed.Call:
  """For each token, `calls` calls of the network with its cache, and one to remember."""
  tokens, size = experiment.batch["x"].shape[1:]
  t, empty = jnp.ones((1, 1, 1)), experiment.net.empty_cache(batch)

  def call() -> jax.Array:
    x, cache = jnp.zeros((batch, 1, size)), empty
    for _ in range(tokens):
      for _ in range(calls):
        x, _ = apply(x, t, t, None, cache=cache)
      _, cache = apply(x, t, t, None, cache=cache)
    return x

  return call


def training_table(seconds: dict[str, np.ndarray]) -> str:
  """Markdown: milliseconds a step, and the median over rounds of its ratio to Moment Forcing's."""
  lines = ["| objective | ms a step | of Moment Forcing's |", "|---|--:|--:|"]
  for name, each in seconds.items():
    ratio = np.median(each / seconds[TRAINED[0]])
    lines.append(f"| {name} | {1e3 * np.median(each):.3g} | {ratio:.2f} |")
  return "\n".join(lines) + "\n"


def drawing_table(rates: dict[tuple, float], largest: int) -> str:
  """Markdown: tokens a second end to end, and of the network alone, at both batches."""
  sizes = (1, largest)
  titles = [f"{what}, batch {b}" for what in ("end to end", "network only") for b in sizes]
  lines = [f"| drawn by | calls a token | {' | '.join(titles)} |", "|---|--:|--:|--:|--:|--:|"]
  for name, each in DRAWN.items():
    for calls in each:
      row = [rates[name, calls, b] for b in sizes] + [rates[calls, b] for b in sizes]
      lines.append(f"| {name} | {calls} | {' | '.join(f'{r:,.0f}' for r in row)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  app.run(main)
