"""Speed: training steps and sampling against the network evaluations alone.

python -m benchmarks.speed

Everything is timed in one run and in turns, forwards then backwards, so that noise meets all alike;
a ratio is the median over rounds of the ratio within a round. Each call is waited for; samples, and
the forwards beside them, until they are on the host. All on one device.
"""

from collections.abc import Callable
import functools
import importlib
import os
import pathlib
import time
from typing import Any

from absl import app, flags
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import runs
from configs import flow_digits
from dfim import sample, train
from dfim.config import resolve
from dfim.core import interpolants, mmd
from dfim.samplers import jump
from dfim.training import experiment as experiment_lib, state as train_state, step as step_lib

_CONFIG = flags.DEFINE_string("config_name", "imm_digits", "A moment-matching config of configs/.")
_OUT = flags.DEFINE_string("out", "runs/benchmark_speed/table.md", "Where the table goes.")
_ROUNDS = flags.DEFINE_integer("rounds", 40, "Rounds over everything that is timed.")
_DIT = flags.DEFINE_bool("dit", False, "A small DiT in the place of the config's network.")

Array = jax.Array
Call = Callable[[], Any]

STEPS = (1, 2, 4, 8)
IMM, FLOW = "IMM step", "flow-matching step"
GRADIENT = "IMM, value and gradient"
MMDS, MMD = 50, "50 x MMD, its weight and gradient, in one program"
BARE = "two forwards, value and gradient"
BARE_STEP = f"{BARE}, `train_state.advance`"
ROWS = (  # what is timed, what it is divided by, the greatest ratio aimed at
  (IMM, FLOW, 1.45),
  (GRADIENT, BARE, 1.05),
  (IMM, BARE, 1.05),
  (IMM, BARE_STEP, 1.05),
  (MMD, IMM, MMDS * 0.02),
  *(
    (f"{what}, K = {k}", f"forwards, K = {k}", 1.05)
    for what in ("steps", "sampling")
    for k in STEPS
  ),
)


def main(_) -> None:
  """Times everything, prints the table and writes it."""
  config = importlib.import_module(f"configs.{_CONFIG.value}").get_config(
    "smoke" if runs.QUICK.value else "full"
  )
  if _DIT.value:  # the network is nearly all of its step, as it is at scale
    dit = dict(name="models.dit.DiT", patch=2, width=128, depth=4, heads=4, num_classes=10)
    config.model = ml_collections.ConfigDict(dit)
  chunk, rounds = (32, 2) if runs.QUICK.value else (500, _ROUNDS.value)
  sampling, programs = sampling_calls(config, chunk)
  seconds = measure({**training_calls(config), **sampling}, rounds)
  text = f"{conditions(config, chunk, rounds)}\n\n{table(seconds)}\n{programs_line(programs)}\n"
  path = pathlib.Path(_OUT.value)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  print(text)


def training_calls(config: ml_collections.ConfigDict) -> dict[str, Call]:
  """The steps of two objectives, and the parts of one of them, on one batch."""
  imm, flow = (
    experiment_lib.build(c, devices=jax.devices()[:1]) for c in (config, flow_config(config))
  )
  batch = next(imm.batches(0))
  return {IMM: step_call(imm, batch), FLOW: step_call(flow, batch), **part_calls(imm, batch)}


def flow_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """`config` with the objective of `flow_digits` in the parameterization of its own."""
  flow = ml_collections.ConfigDict(config)
  flow.objective = flow_digits.get_config().objective
  flow.objective.f = config.objective.f
  return flow


def step_call(experiment: experiment_lib.Experiment, batch: dict[str, Any]) -> Call:
  """The training step as `train` runs it."""
  return threaded(train.step_of(experiment), experiment.first_state(), batch, jax.random.key(1))


def part_calls(experiment: experiment_lib.Experiment, batch: dict[str, Any]) -> dict[str, Call]:
  """What IMM's step is made of: its gradient, two forwards and a backward, update, discrepancy."""
  state, key = experiment.first_state(), jax.random.key(1)
  gradient = jax.jit(step_lib.make_gradient(experiment.apply, experiment.loss))
  inputs = jump_inputs(experiment, batch, jax.random.key(2))
  bare = two_forwards(experiment)
  advance = functools.partial(
    train_state.advance, tx=experiment.tx, refresh_every=experiment.config.refresh_every
  )

  @functools.partial(jax.jit, donate_argnames="state")
  def bare_step(state: train_state.TrainState, *inputs):
    value, grads = bare(state.params, state.params, *inputs)
    return advance(state, grads, jnp.isfinite(value)), value

  bare_jit = jax.jit(bare)
  # One is over before its dispatch is; different inputs, or XLA computes once what is the same.
  mmds = jax.jit(lambda *many: jax.lax.map(lambda one: discrepancy(experiment)(*one), many))
  _, x_t, x_r, times = jax.vmap(lambda key: jump_inputs(experiment, batch, key))(
    jax.random.split(jax.random.key(5), MMDS)
  )
  return {
    GRADIENT: lambda: gradient(state, batch, key),
    BARE: lambda: bare_jit(state.params, state.params, *inputs),
    BARE_STEP: threaded(bare_step, experiment.first_state(), *inputs),
    MMD: lambda: mmds(x_t, x_r, x_t, times),
  }


def jump_inputs(
  experiment: experiment_lib.Experiment, batch: dict[str, Any], key: Array
) -> tuple[Any, ...]:
  """Condition, x_t, x_r and times, as IMM's loss would draw them."""
  x, f, options = batch["x"], experiment.f, experiment.loss.keywords
  sizes = dict(path=f.path, group_size=options["group_size"])
  time_key, noise_key = jax.random.split(key)
  times = options["sample_times"](time_key, x.shape, **sizes)
  eps = f.sigma_data * interpolants.noise_like(noise_key, x)
  x_t, x_r = (interpolants.interpolate(f.path, x, eps, t) for t in (times.t, times.r))
  return batch.get("cond"), x_t, x_r, times


def two_forwards(experiment: experiment_lib.Experiment) -> Callable[..., tuple[Array, Any]]:
  """Value and gradient of the mean squared difference of two outputs, one of them constant."""
  net = functools.partial(experiment.apply, train=True, rngs=dict(dropout=jax.random.key(4)))

  def difference(params, frozen, cond, x_t, x_r, times):
    y = net(params, x_t, times.s, times.t, cond)
    z = net(frozen, x_r, times.s, times.r, cond)
    return jnp.mean(jnp.square(y - jax.lax.stop_gradient(z)))

  return jax.value_and_grad(difference)


def discrepancy(experiment: experiment_lib.Experiment) -> Callable[..., tuple[Array, Array]]:
  """Value and gradient in y of the weighted MMD^2: IMM's loss behind the network."""
  f, options = experiment.f, experiment.loss.keywords

  def weighted(y, z, x_t, times):
    w = options["weight"](f.path, times.s, times.t, target=f.prediction)
    w = jnp.where(times.active, w, 0.0)
    c = options["particles"](y, z, x_t, w, times, f, group_size=options["group_size"])
    k_yy, k_zz, k_yz = mmd.grams(c.y, c.z, options["kernel"], c.scale)
    return jnp.mean(c.weight * c.similarity * (k_yy + k_zz - 2.0 * k_yz))

  return jax.value_and_grad(weighted)


def sampling_calls(
  config: ml_collections.ConfigDict, chunk: int
) -> tuple[dict[str, Call], dict[int, list[int]]]:
  """K steps, sampling, which draws noise too, and K forwards; programs compiled for each K."""
  config = ml_collections.ConfigDict(config)
  config.sampler.chunk = chunk
  experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  draw = sample.make_draw(experiment)
  params = experiment.ema_params(experiment.first_state())
  forwards, steps = forwards_of(experiment, chunk), steps_of(experiment, chunk)
  calls, programs = {}, {}
  for k in STEPS:
    sampling = functools.partial(draw, params, chunk, k)
    programs[k] = [compiled(sampling), compiled(sampling)]
    calls |= {f"sampling, K = {k}": sampling}
    calls |= {f"steps, K = {k}": functools.partial(steps, params, k)}
    calls |= {f"forwards, K = {k}": functools.partial(forwards, params, k)}
  return calls, programs


def steps_of(experiment: experiment_lib.Experiment, chunk: int) -> Callable[..., np.ndarray]:
  """The K steps of `samplers.jump.pushforward` down the config's grid, one program for each K."""
  x, cond = zeros_like_batch(experiment, chunk)
  grid = resolve.resolve(experiment.config.sampler.grid, "sampler.grid")

  @functools.partial(jax.jit, static_argnames="steps")
  def program(params: Any, x: Array, steps: int) -> Array:
    jumping = functools.partial(experiment.f, experiment.apply, params, cond=cond)
    return jump.pushforward(jumping, x, sample.grid_of(grid, experiment.f.path, steps))

  return lambda params, steps: jax.device_get(program(params, x, steps=steps))


def zeros_like_batch(experiment: experiment_lib.Experiment, chunk: int) -> tuple[Array, Any]:
  """`x` and `cond` of a batch of `chunk` examples."""
  zeros = lambda a: jnp.zeros((chunk, *a.shape[1:]), a.dtype)
  return jax.tree.map(zeros, (experiment.batch["x"], experiment.batch.get("cond")))


def forwards_of(experiment: experiment_lib.Experiment, chunk: int) -> Callable[..., np.ndarray]:
  """K calls of the jitted network, each on the output of the last: others could overlap."""
  x, cond = zeros_like_batch(experiment, chunk)
  forward = jax.jit(experiment.apply)

  def forwards(params: Any, steps: int) -> np.ndarray:
    y = x
    for t in np.linspace(1.0, 0.0, steps, endpoint=False, dtype=np.float32):
      time_of = t.reshape((1,) * x.ndim)
      y = forward(params, y, time_of, time_of, cond)
    return jax.device_get(y)

  return forwards


def threaded(step: Callable[..., tuple[Any, Any]], state: Any, *args: Any) -> Call:
  """A call that steps on from its own last state: a step donates the state it is given."""

  def call() -> Any:
    nonlocal state
    state, value = step(state, *args)
    return value

  return call


def compiled(call: Call) -> int:
  """How many programs XLA compiles in `call`; every operation outside a jit would count too."""
  names = []
  listener = lambda name, seconds, **_: names.append(name)
  jax.monitoring.register_event_duration_secs_listener(listener)
  try:
    call()
  finally:
    jax.monitoring.unregister_event_duration_listener(listener)
  return names.count("/jax/core/compile/backend_compile_duration")


def measure(calls: dict[str, Call], rounds: int, repeats: int = 5) -> dict[str, np.ndarray]:
  """Seconds a call, one figure a round, for each of `calls`, after one that compiles."""
  for call in calls.values():
    jax.block_until_ready(call())
  seconds = {name: [] for name in calls}
  for n in range(rounds):
    for name in list(calls)[:: -1 if n % 2 else 1]:
      begin = time.perf_counter()
      for _ in range(repeats):
        jax.block_until_ready(calls[name]())
      seconds[name].append((time.perf_counter() - begin) / repeats)
  return {name: np.array(values) for name, values in seconds.items()}


def conditions(config: ml_collections.ConfigDict, chunk: int, rounds: int) -> str:
  """What was measured on what."""
  network = f"{_CONFIG.value}, a small DiT" if _DIT.value else _CONFIG.value
  return (
    f"`{network}`, batch {config.batch_size}, M = {config.objective.group_size}, samples in"
    f" chunks of {chunk}; medians of {rounds} rounds (quartiles of the ratio);"
    f" {jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}."
  )


def table(seconds: dict[str, np.ndarray]) -> str:
  """Markdown: both times, their ratio and its target."""
  lines = ["| measured | ms | beside | ms | ratio | target |", "|---|--:|---|--:|--:|--:|"]
  for name, other, target in ROWS:
    ms, other_ms = (1e3 * np.median(seconds[k]) for k in (name, other))
    low, ratio, high = np.quantile(seconds[name] / seconds[other], (0.25, 0.5, 0.75))
    lines.append(
      f"| {name} | {ms:.3g} | {other} | {other_ms:.3g}"
      f" | {ratio:.3g} ({low:.3g}-{high:.3g}) | <= {target:g} |"
    )
  return "\n".join(lines) + "\n"


def programs_line(programs: dict[int, list[int]]) -> str:
  """How many XLA programs the first and the second call of each K compiled."""
  counts = "; ".join(f"K = {k}: {a}, then {b}" for k, (a, b) in programs.items())
  return f"XLA programs compiled by the first call of the sampler and by the second: {counts}."


if __name__ == "__main__":
  app.run(main)
