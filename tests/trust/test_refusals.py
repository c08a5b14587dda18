"""What is wrong is refused: in one line with the field and the fix, nothing compiled, none written.

Each case changes one thing of a config that trains. It goes the way that a run goes, through
`train.train`; those of the command line through `main`, and a few in processes of their own.
"""

import gzip
import importlib
import json
import os
import pathlib
import struct
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest

from dfim import evaluate, sample, train
from dfim.config.errors import ConfigError
from tests import trust

ROOT = pathlib.Path(__file__).parents[2]
NAN, INF = float("nan"), float("inf")
GONE = object()  # the field is taken out of the config

# What a run compiles of its own: its first state, its step, its samples. To key and to slice, JAX
# compiles small programs by itself, in tracing too, as it would for a line of numpy: these are not
# counted. That the names are the right ones is what `good` is for.
PROGRAMS = {"jit(init)", "jit(step)", "jit(one_chunk)"}
compiled = []
jax.monitoring.register_event_duration_secs_listener(
  lambda event, _, fun_name=None, **rest: (
    compiled.append(fun_name) if event.endswith("backend_compile_duration") else None
  )
)


def config_of(name, change, files=""):
  """The smoke config of `name` with dotted fields set; "{files}" in them is a folder of files."""
  config = importlib.import_module(f"configs.{name}").get_config("smoke")
  fields = config.copy_and_resolve_references().to_dict()
  for field, value in change.items():
    *path, last = field.split(".")
    node = fields
    for part in path:
      node = node[part]
    node.pop(last, None)
    if value is not GONE:
      node[last] = placed(value, files)
  return ml_collections.ConfigDict(fields)


def placed(value, files):
  if isinstance(value, dict):
    return {key: placed(part, files) for key, part in value.items()}
  return value.replace("{files}", str(files)) if isinstance(value, str) else value


D, W, S, F, T = "imm_digits", "forcing_walk", "forcing_series", "moment_forcing_walk", "imm_toy"
times, sampler, images = "objective.sample_times.", "sampler.", "evaluators.images."
named = lambda name, **fields: dict(name=name, **fields)
through = named("core.grids.through_eta", etas=(1.4,), t_max=0.9, t_min=0.1)
edm = named("core.grids.edm", t_max=0.9, t_min=0.1)
falling = named("optax.linear_schedule", init_value=8.0, end_value=0.0, transition_steps=2)
unet = named("models.unet.UNet", channels=8, multipliers=(1, 1), blocks=1)
mixture = lambda **shares: named(
  "core.patterns.mixture", patterns=dict(a=named("core.patterns.token")), shares=shares
)
npz = lambda name, **how: {"data": named("data.images.sets.npz", path="{files}/" + name, **how)}
VP = {"objective.f": named("core.parameterization.Noise", path=named("core.interpolants.Cosine"))}

# What is changed of which config, and words that must appear: the field, and what to do.
BAD = {
  # names that there are not, at every depth
  "unknown field": (D, {"stpes": 3}, "stpes: no such config field", "did you mean 'steps'"),
  "unknown field of a part": (D, {"model.widht": 3}, "model.widht=3: ", "did you mean 'width'"),
  "two deep": (D, {"objective.weight.bb": 1.0}, "objective.weight.bb=1.0", "did you mean 'b'"),
  "three deep": (D, {f"{times}mapping.kk": 1.0}, f"{times}mapping.kk=1.0", "did you mean 'k'"),
  "of a schedule": (
    D,
    {"optimizer.learning_rate.init_valeu": 1.0},
    "optimizer.learning_rate.init_valeu=1.0",
    "did you mean 'init_value'",
  ),
  "of the sampler": (D, {"sampler.guidence": 2.0}, "sampler.guidence: no such field", "guidance"),
  "of its grid": (D, {"sampler.grid.t_mx": 0.9}, "sampler.grid.t_mx=0.9", "did you mean 't_max'"),
  "of a score's data": (D, {f"{images}reference.splt": "x"}, "reference.splt='x'", "'split'"),
  "of what finished tokens look like": (
    W,
    {"sampler.stabilise": dict(t_contxt=0.1)},
    "sampler.stabilise.t_contxt=0.1",
    "did you mean 't_context'",
  ),
  "misspelt kernel": (
    D,
    {"objective.kernel.name": "core.kernels.laplac"},
    "objective.kernel.name='core.kernels.laplac'",
    "did you mean 'laplace'",
  ),
  "misspelt module": (
    D,
    {"data.name": "data.digit.digits"},
    "data.name=",
    "no module 'data.digit'",
  ),
  "misspelt method": (
    D,
    {"sampler.method.name": "samplers.jump.pushforwrd"},
    "sampler.method.name=",
    "did you mean 'pushforward'",
  ),
  "misspelt evaluator": (
    D,
    {f"{images}name": "evaluators.images.score"},
    "evaluators.images.name='evaluators.images.score'",
    "did you mean 'scores'",
  ),
  # fields that are missing, and parts in each other's places
  "no optimizer": (D, {"optimizer": GONE}, "optimizer: missing", "it takes dict"),
  "no name": (D, {"model": {}}, "model: has no name", "models.*"),
  "no f": (D, {"objective.f": GONE}, "objective.f: missing", "moment_matching needs it"),
  "no path": (D, {"objective.f.path": GONE}, "objective.f.path: missing", "EulerFlow needs it"),
  "no t_max": (D, {f"{times}t_max": GONE}, f"{times}t_max: missing", "sample needs it"),
  "no mapping": (D, {f"{times}mapping": GONE}, f"{times}mapping: missing", "core.mappings.*"),
  "no past": (
    W,
    {f"{times}pattern": named("core.patterns.uniform_future")},
    f"{times}pattern.past: missing",
    "core.patterns.uniform_future needs it",
  ),
  "no learning rate": (
    T,
    {"optimizer": named("optax.adam")},
    "optimizer: adam",
    "with all that it requires",
  ),
  "a rate that waits": (
    T,
    {"optimizer.learning_rate": named("optax.cosine_decay_schedule", init_value=1e-3)},
    "optimizer.learning_rate.name='optax.cosine_decay_schedule'",
    "change its arguments",
  ),
  "no eta": (
    D,
    {"sampler.method": named("samplers.jump.ancestral")},
    "sampler.method.eta: missing",
    "samplers.jump.ancestral needs it",
  ),
  "no reference": (D, {f"{images}reference": GONE}, "evaluators.images: ", "'reference'"),
  "a weight for a kernel": (
    D,
    {"objective.kernel": named("core.weights.uniform")},
    "objective.kernel.name='core.weights.uniform'",
    "name one of core.kernels.*",
  ),
  "a kernel for a mapping": (
    D,
    {f"{times}mapping": named("core.kernels.laplace")},
    f"{times}mapping.name='core.kernels.laplace'",
    "name one of core.mappings.*",
  ),
  "a loader for a source": (
    D,
    {"data": named("data.images.digits.load")},
    "data: ",
    "name a source",
  ),
  "a schedule for an optimizer": (
    T,
    {"optimizer": named("optax.constant_schedule", value=1.0)},
    "optimizer: ",
    "name one of optax.*",
  ),
  # types
  "text for an int": (D, {"steps": "3"}, "steps='3'", "wants int"),
  "a fraction for an int": (D, {"objective.group_size": 4.0}, "group_size=4.0", "wants an int"),
  "a dtype for its name": (D, {"model.dtype": np.float32}, "model: ", "give numbers, strings"),
  "a bool for an int": (D, {"model.width": True}, "model.width=True", "wants an int"),
  "None for an int": (D, {"batch_size": None}, "batch_size=None", "wants int"),
  "text for a number": (D, {"objective.f.sigma_data": ".5"}, "f.sigma_data='.5'", "a number"),
  "a bool for a number": (D, {f"{times}t_max": True}, f"{times}t_max=True", "wants a number"),
  "text for b1": (T, {"optimizer.b1": "x"}, "optimizer.b1='x'", "wants a number"),
  "an int for a bool": (D, {"model.flatten": 1}, "model.flatten=1", "wants True or False"),
  "None for a part": (D, {"objective.weight": None}, "objective.weight=None", "wants a dict"),
  "a name for a part": (
    D,
    {f"{times}pattern": "core.patterns.example"},
    f"{times}pattern='core.patterns.example'",
    "wants a dict with the name of a function",
  ),
  "a number for a tuple": (D, {"sampler.steps": 4}, "sampler.steps=4", "a tuple of ints"),
  "fsdp as text": (D, {"fsdp": "all"}, "fsdp='all'", "wants"),
  "a list for ema": (D, {"ema": [0.9]}, "ema=[0.9]", "wants tuple"),
  "a number in a network's tuple": (
    D,
    {"model": unet | dict(multipliers=(1.5, 1))},
    "model.multipliers=(1.5, 1)",
    "a tuple of ints",
  ),
  "no such type of numbers": (D, {"model.dtype": "float31"}, "model.dtype='float31'", "bfloat16"),
  "a type of whole numbers": (D, {"model.dtype": "int32"}, "model.dtype='int32'", "set it to"),
  # numbers out of range, or none
  "no steps": (D, {"steps": 0}, "steps=0", "1 or more"),
  "checkpoints that go at once": (D, {"keep_checkpoints": 0}, "keep_checkpoints=0", "1 or more"),
  "milestones every -1": (D, {"keep_every": -1}, "keep_every=-1", "0 or more"),
  "milestones that are never saved": (
    D,
    {"checkpoint_every": 5, "keep_every": 12},
    "keep_every=12",
    "a multiple of checkpoint_every=5",
  ),
  "samples every -1": (D, {"sample_every": -1}, "sample_every=-1", "0 or more"),
  "a seed below 0": (D, {"seed": -1}, "seed=-1", "0 or more"),
  "a seed that is another's": (D, {"seed": 2**32}, "seed=4294967296", "below 2^32"),
  "a negative width": (D, {"model.depth": -1}, "model.depth=-1", "1 or more"),
  "no block": (D, {"model": unet | dict(blocks=0)}, "model.blocks=0", "1 or more"),
  "no level": (D, {"model": unet | dict(multipliers=())}, "model.multipliers=()", "one a level"),
  "a patch of 0": (
    D,
    {"model": named("models.dit.DiT", patch=0)},
    "model.patch=0",
    "set it to 1 or more",
  ),
  "all dropped": (D, {"model.dropout": 1.0}, "model.dropout=1.0", "in [0, 1)"),
  "no time": (D, {"model.time_scale": 0.0}, "model.time_scale=0.0", "set it above 0"),
  "a rate of nan": (D, {"optimizer.learning_rate": NAN}, "learning_rate=nan", "finite"),
  "uphill": (T, {"optimizer.learning_rate": -0.1}, "learning_rate=-0.1", "set it above 0"),
  "no deviation": (D, {"objective.f.sigma_data": 0.0}, "f.sigma_data=0.0", "set it above 0"),
  "an infinite weight": (D, {"objective.weight.b": INF}, "objective.weight.b=inf", "finite"),
  "nan in a tuple": (D, {"sampler.limits": (NAN, 1.0)}, "sampler.limits=(nan, 1.0)", "finite"),
  "ema of 1": (D, {"ema": (1.0,)}, "ema=(1.0,)", "each in [0, 1)"),
  "ema as text": (D, {"ema": ("0.9",)}, "ema=('0.9',)", "each in [0, 1)"),
  "no average": (D, {"ema": ()}, "ema=()", "at least one"),
  "all labels dropped twice": (D, {"objective.drop_rate": 2.0}, "drop_rate=2.0", "in [0, 1]"),
  "all bootstrapped": (
    W,
    {
      "objective.name": "objectives.shortcut.loss",
      "objective.sample_times": named(
        "core.times.dyadic", pattern=named("core.patterns.token"), t_max=0.9, t_min=0.1
      ),
      "objective.share": 1.0,
    },
    "objective.share=1.0",
    "not all",
  ),
  # times
  "times reversed": (D, {f"{times}t_max": 0.001}, f"{times}t_min=0.006, t_max=0.001", "set 0 <="),
  "times alike": (D, {f"{times}t_min": 0.994}, f"{times}t_min=0.994, t_max=0.994", "set 0 <="),
  "t above 1": (D, {f"{times}t_max": 1.5}, "t_max=1.5", "t_max <= 1"),
  "t below 0": (D, {f"{times}t_min": -0.1}, f"{times}t_min=-0.1", "set 0 <= t_min"),
  "t of nan": (D, {f"{times}t_max": NAN}, f"{times}t_max=nan", "finite"),
  "t of 1 under log-SNR": (D, {f"{times}t_max": 1.0}, f"{times}mapping: ", "t_max < 1"),
  "no gap": (D, {f"{times}gap": 0.0}, f"{times}gap=0.0", "set 0 < gap"),
  "no probability": (D, {f"{times}p_endpoint": 1.1}, f"{times}p_endpoint=1.1", "in [0, 1]"),
  "s at no r": (W, {f"{times}p_one_step": 0.5}, f"{times}p_one_step=0.5", "leave it at 0"),
  "a step back": (D, {f"{times}mapping.k": -1.0}, f"{times}mapping.k=-1.0", "set it above 0"),
  "a gap beyond all times": (
    D,
    {f"{times}mapping.min_gap": 2.0},
    "min_gap=2.0",
    "set it in [0, 1)",
  ),
  "a pattern of tokens for images": (
    D,
    {f"{times}pattern": named("core.patterns.token")},
    "objective: s of shape",
    "as core.patterns.example does",
  ),
  "all past": (
    W,
    {f"{times}pattern": named("core.patterns.uniform_future", past=6)},
    "past=6",
    "set",
  ),
  "only context": (
    W,
    {f"{times}pattern": named("core.patterns.context", rate=1.0)},
    "rate=1.0",
    "set",
  ),
  "shares of others": (W, {f"{times}pattern": mixture(b=1.0)}, "pattern.shares=", "give one"),
  "no grid of 3": (
    W,
    {
      "objective.name": "objectives.shortcut.loss",
      "objective.sample_times": named(
        "core.times.dyadic", pattern=named("core.patterns.token"), finest=3, t_max=0.9, t_min=0.1
      ),
    },
    f"{times}finest=3",
    "a power of 2",
  ),
  "no reach": (D, {"reach": 0.0}, "reach=0.0", "set it in (0, 1]"),
  "a reach of nan": (D, {"reach": NAN}, "reach=nan", "finite"),
  "a reach that waits": (
    D,
    {"reach": named("optax.linear_schedule", init_value=0.1)},
    "reach: ",
    "a whole schedule",
  ),
  "a reach where nothing reaches": (
    W,
    {
      "objective.name": "objectives.shortcut.loss",
      "objective.sample_times": named(
        "core.times.dyadic", pattern=named("core.patterns.token"), t_max=0.9, t_min=0.1
      ),
      "reach": 0.5,
    },
    "reach: only core.times.sample has one",
    "leave it at 1.0",
  ),
  # groups, devices, streams, kernels, weights, paths
  "groups that do not divide": (
    D,
    {"objective.group_size": 3},
    "group_size",
    "set objective.group_size=2 or batch_size=",
  ),
  "groups of none": (D, {"objective.group_size": 0}, "objective.group_size=0", "1 or more"),
  "a batch that 8 devices cannot share": (
    T,
    {"batch_size": 36},
    "batch_size=36",
    "set batch_size=32",
  ),
  "micro-batches of parts of groups": (D, {"accumulate": 3}, "accumulate = ", "set batch_size="),
  "devices that fsdp does not divide": (D, {"fsdp": 3}, "fsdp=3", "a number that divides"),
  "two streams, one pattern": (
    F,
    {"objective.conditioning": None},
    "objective.conditioning=None",
    "needs two streams; set it to",
  ),
  "similar prefixes that are noisy": (
    F,
    {"objective.sample_times.pattern.noisy": 0.25},
    "objective.sample_times.pattern.noisy=0.25: by_prefix needs 0.0",
    "set that, or objective.conditioning=",
  ),
  "per-particle times, and a rule of shared ones": (
    D,
    {"objective.sample_times.per_particle_times": True},
    "objective.particles: example with per_particle_times=True",
    "change one of the two",
  ),
  "a rule of per-particle times, and shared ones": (
    D,
    {"objective.particles": named("core.particles.per_particle_times")},
    "objective.particles: per_particle_times with per_particle_times=False",
    "change one of the two",
  ),
  "a grouping of another kind": (
    F,
    {"objective.conditioning.grouping": named("core.particles.token")},
    "objective.conditioning.grouping.name='core.particles.token'",
    "core.grouping.*",
  ),
  "a posterior mean after a noisy context": (
    F,
    {
      "objective.conditioning.grouping": named("core.grouping.contiguous"),
      "objective.sample_times.pattern.noisy": 0.25,
    },
    "objective.sample_times.pattern.noisy=0.25: minibatch_mean needs 0.0",
    "set that, or objective.conditioning=",
  ),
  "a reference batch that nothing reads": (
    F,
    {"objective.conditioning.posterior": named("core.posterior.conditional")},
    "objective.conditioning.reference=4: core.posterior.conditional reads none",
    "set it to 1, or posterior.name=core.posterior.minibatch_mean",
  ),
  "no reference batch": (
    F,
    {"objective.conditioning.reference": 0},
    "objective.conditioning.reference=0",
    "1 or more",
  ),
  "half a reference batch": (
    F,
    {"objective.conditioning.reference": 1.5},
    "objective.conditioning.reference=1.5",
    "an int",
  ),
  "a posterior of another kind": (
    F,
    {"objective.conditioning.posterior": named("core.grouping.contiguous")},
    "objective.conditioning.posterior.name='core.grouping.contiguous'",
    "core.posterior.*",
  ),
  "three streams": (W, {"objective.streams": 3}, "objective.streams=3", "set it to 1, or to 2"),
  "a field that moved": (
    F,
    {"objective.streams": 2},
    "objective.streams=2",
    "moved to objective.conditioning.name",
  ),
  "two streams, a network of one": (
    F,
    {"model": named("models.df_transformer.ReleasedTransformer")},
    'objective.conditioning={"name": "core.two_stream.TwoStream"}: ReleasedTransformer has one',
    "set model.name=",
  ),
  "two streams both ways": (F, {"model.causal": False}, "streams=2", "model.causal=True"),
  "noise that is no share": (F, {f"{times}pattern.noisy": 2.0}, f"{times}pattern.noisy=2.0", "set"),
  "particles of examples for tokens": (
    F,
    {"objective.particles": named("core.particles.example")},
    "objective.particles: ",
    "choose core.patterns.example",
  ),
  "a bandwidth below 0": (
    F,
    {"objective.particles.inverse_bandwidth": -1.0},
    "inverse_bandwidth=-1.0",
    "0 or more",
  ),
  "a kernel without a floor": (D, {"objective.kernel.floor": 0.0}, "kernel.floor=0.0", "above 0"),
  "a kernel's own scale": (D, {"objective.kernel.scale": 2.0}, "objective.kernel.", "change its"),
  "a width that falls to 0": (
    F,
    {"objective.kernel": named("core.kernels.laplace", bandwidth_multiplier=falling)},
    "bandwidth_multiplier=0.0",
    "above 0",
  ),
  "a c that falls to 0": (
    D,
    {"objective.kernel": named("core.kernels.pseudo_huber", c=falling)},
    "c=0.0",
    "above 0",
  ),
  "a negative c": (
    D,
    {"objective.kernel": named("core.kernels.pseudo_huber", c=-1.0)},
    "objective.kernel.c=-1.0",
    "set it above 0",
  ),
  "min-SNR off its path": (
    D,
    {"objective.weight": named("core.weights.min_snr")},
    "objective.f.path=FlowMatching()",
    "core.interpolants.DiscreteVP or Cosine",
  ),
  "a clip below 0": (
    "flow_digits",
    VP | {"objective.weight": named("core.weights.min_snr", clip=-1.0)},
    "objective.weight.clip=-1.0",
    "set it above 0",
  ),
  "straight steps on a curve": (
    D,
    {"objective.f.path": named("core.interpolants.Cosine")},
    "objective.f: EulerFlow with path=Cosine()",
    "use core.parameterization.SimpleEDM",
  ),
  "no such schedule of noise": (
    S,
    {"objective.f.path.betas": "quadratic"},
    "objective.f.path.betas='quadratic'",
    "choose linear, cosine or sigmoid",
  ),
  "a path of no levels": (S, {"objective.f.path.levels": 0}, "f.path.levels=0", "1 or more"),
  # networks and data that do not fit
  "an image network for points": (T, {"model": unet}, "model: x of shape (1, 2)", "[B, H, W, C]"),
  "halved too often": (
    D,
    {"model": unet | dict(multipliers=(1, 1, 1, 1, 1))},
    "model.multipliers=(1, 1, 1, 1, 1)",
    "give fewer",
  ),
  "heads that do not divide": (W, {"model.heads": 3}, "model.width=16", "change either"),
  "heads of a U-Net": (D, {"model": unet | dict(heads=3)}, "model.heads=3", "change it"),
  "more labels than classes": (D, {"model.num_classes": 3}, "model.num_classes=3", "set it to"),
  "no such second time": (
    D,
    {"model.second_time": "r"},
    "model.second_time='r'",
    "use 's' or 't-s'",
  ),
  "no such split": (D, {"data.split": "trian"}, "data.split: 'trian'", "train, test"),
  "no idx files": (
    D,
    {"data": named("data.images.idx.idx", path="/no")},
    "data.path: ",
    "apt-get install",
  ),
  "no CIFAR": (
    D,
    {"data": named("data.images.cifar.cifar10", path="/no")},
    "data.path: ",
    "cifar.pack(",
  ),
  "no npz": (
    D,
    {"data": named("data.images.sets.npz", path="/no")},
    "data.path: ",
    "numpy.savez one",
  ),
  "no folder": (
    D,
    {"data": named("data.images.sets.folder", path="/no", size=8)},
    "data.path: ",
    "make it",
  ),
  "no latents": (
    D,
    {"data": named("data.images.latents.latents", path="/no")},
    "data.path: ",
    "encode the",
  ),
  "no prepared set": (
    D,
    {"data": named("data.images.sets.tfds", dataset="cifar10", data_dir="/no")},
    "data.dataset: cifar10 is not prepared in /no",
    "download_and_prepare()",
  ),
  "no series": (
    S,
    {"data.series": named("data.series.forecasting.ett", path="/no")},
    "data.series.path: no file /no",
    "https://github.com",
  ),
  "a series by name alone": (S, {"data.series": "ett"}, "data.series='ett'", "wants a dict"),
  "fractions for pixels": (D, npz("floats.npz"), "data.path: ", "needs uint8"),
  "labels of others": (D, npz("labels.npz"), "data.path: ", "give [64 examples]"),
  "no example": (D, npz("empty.npz"), "data: there is no example", ""),
  "no pixel": (D, npz("thin.npz"), "data: examples of shape (0, 8, 1) are empty", "give others"),
  "a file cut short": (D, npz("cut.npz"), "data.path: ", "is no .npz of plain arrays"),
  "a flip that is text": (D, npz("good.npz", flip="x"), "data.flip='x'", "wants True or False"),
  "idx cut short": (
    D,
    {"data": named("data.images.idx.idx", path="{files}")},
    "data.path: ",
    "fetch it anew",
  ),
  "CIFAR that is none": (
    D,
    {"data": named("data.images.cifar.cifar10", path="{files}/good.npz")},
    "data.path: ",
    "make it anew",
  ),
  "latents of two shapes": (
    D,
    {"data": named("data.images.latents.latents", path="{files}")},
    "data.path: ",
    "needs floating mean.npy and std.npy",
  ),
  "pictures that are none": (
    D,
    {"data": named("data.images.sets.folder", path="{files}", size=8)},
    "data.path: ",
    "replace it",
  ),
  "a window beyond the series": (S, {"data.context": 10**6}, "data.context: ", "do not fit"),
  "a lag that knows the future": (S, {"data.lags": (1,)}, "data.lags: ", "use longer lags"),
  "half a token": (S, {"data.horizon": 22}, "data.stack: ", "must be multiples of stack=4"),
  "no Gaussian": (T, {"data.modes": 0}, "data.modes=0", "give 1 or more"),
  "a walk of no steps": (W, {"data.tokens": 0}, "data.tokens=0", "give 1 or more"),
  # sampling
  "no call": (D, {"sampler.steps": (0,)}, "sampler.steps=(0,)", "give 1 or more"),
  "-1 calls": (D, {"sampler.steps": (4, -1)}, "sampler.steps=(4, -1)", "give 1 or more"),
  "half a call": (D, {"sampler.steps": (1.0,)}, "sampler.steps=(1.0,)", "a tuple of ints"),
  "calls that the grid has not": (
    D,
    {"sampler.grid": through},
    "sampler.steps=1",
    "set steps to that",
  ),
  "a grid uphill": (
    D,
    {"sampler.grid": through | dict(etas=(1.4, 3.0)), "sampler.steps": (3,)},
    "sampler.grid.etas=(1.4, 3.0)",
    "must fall",
  ),
  "a grid's own steps": (D, {"sampler.grid.steps": 3}, "sampler.grid.steps", "in sampler.steps"),
  "rho of 0": (
    D,
    {"sampler.grid": edm | dict(rho=0.0)},
    "rho=0.0",
    "set",
  ),
  "noise from pure noise": (
    "flow_digits",
    VP | {"sampler.grid.t_max": 1.0},
    "sampler.grid: ",
    "lower t_max",
  ),
  "limits reversed": (D, {"sampler.limits": (1.0, -1.0)}, "sampler.limits=(1.0, -1.0)", "above it"),
  "one limit": (D, {"sampler.limits": (1.0,)}, "sampler.limits=(1.0,)", "2 numbers"),
  "half a sample": (D, {"sampler.count": 2.5}, "sampler.count=2.5", "wants an int"),
  "no sample": (D, {"sampler.count": 0}, "sampler.count=0", "give 1 or more"),
  "guidance as text": (D, {"sampler.guidance": "2"}, "sampler.guidance='2'", "wants a number"),
  "eta of 2": (
    D,
    {"sampler.method": named("samplers.jump.ancestral", eta=2.0)},
    "sampler.method.eta=2.0",
    "set it in [0, 1]",
  ),
  "a cache for images": (D, {"sampler.cached": True}, "sampler.cached: ", "drop it"),
  "a decoder of three": (
    D,
    {"sampler.decode": named("core.kernels.laplace")},
    "sampler.decode: laplace",
    "missing a required argument",
  ),
  "a rollout without a step": (W, {"sampler.step": None}, "sampler.step=None", "samplers.jump."),
  "a window below the chunk": (W, {"sampler.method.window": 0}, "method.window=0", "must hold"),
  "chunks that do not divide": (W, {"sampler.method.chunk": 4}, "method.chunk=4", "whole chunks"),
  "two streams, two tokens at once": (F, {"sampler.method.chunk": 2}, "method.chunk=2", "chunk=1"),
  "guidance with a cache": (
    W,
    {"sampler.guidance": 1.5},
    "guidance=1.5",
    "set one of the two back",
  ),
  "a cache of no window": (W, {"model.window": None}, "model.window=None", "a window"),
  "a context beyond noise": (
    W,
    {"sampler.method.context_time": 2.0},
    "context_time=2.0",
    "in [0, 1]",
  ),
  "an energy without width": (
    W,
    {"sampler.energy": named("samplers.guidance.near", point=(0.0, 0.0), width=0.0)},
    "sampler.energy.width=0.0",
    "set it above 0",
  ),
  # scores
  "scores of no call": (D, {f"{images}steps": (0,)}, "evaluators.images.steps=[0]", "at least 1"),
  "scores of text": (D, {f"{images}steps": "1"}, "evaluators.images.steps='1'", "a tuple of ints"),
  "scores off the grid": (
    D,
    {"sampler.grid": through, "sampler.steps": (2,)},
    "evaluators.images.steps: ",
    "set steps to that",
  ),
  "scores of no sample": (D, {f"{images}samples": 0}, "evaluators.images.samples=0", "1 or more"),
  "scores with limits reversed": (
    D,
    {f"{images}limits": (1, -1)},
    "images.limits=(1, -1)",
    "above",
  ),
  "scores beside a source": (
    D,
    {f"{images}reference": named("data.images.digits.digits")},
    "evaluators.images.reference=digits",
    "wants a dict",
  ),
  "a score that is a number": (D, {"evaluators.images": 3}, "evaluators.images: ", "give a dict"),
  "scores of no data": (W, {"evaluators.walk.reference.size": 0}, "data.size=0", "1 or more"),
  "FID without its network": (
    D,
    {
      "evaluators.fid": named(
        "evaluators.fid.scores", network=named("evaluators.fid.network", path="/no/net.pth")
      )
    },
    "evaluators.fid.network: network.path: no file /no/net.pth",
    "run curl",
  ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """A folder of files that are no good, but for good.npz."""
  folder = tmp_path_factory.mktemp("files")
  x, y = np.zeros((64, 8, 8, 1), np.uint8), np.arange(64) % 10
  np.savez(folder / "good.npz", x=x, y=y)
  np.savez(folder / "floats.npz", x=x / 255.0)
  np.savez(folder / "labels.npz", x=x, y=y[:7])
  np.savez(folder / "empty.npz", x=x[:0])
  np.savez(folder / "thin.npz", x=x[:, :0])
  (folder / "cut.npz").write_bytes((folder / "good.npz").read_bytes()[:999])
  head = struct.pack(">4B3I", 0, 0, 8, 3, 64, 28, 28)
  (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(999)))
  np.save(folder / "mean.npy", np.zeros((4, 2, 2, 1), np.float32))
  np.save(folder / "std.npy", np.zeros((4, 2, 2, 2), np.float32))
  (folder / "a.png").write_bytes(b"no picture")
  return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
  """The folder of a run of one step; what it compiled is what the refusals must not have."""
  config = config_of(D, {"steps": 1, "evaluators": {}, "sampler.steps": (1,), "sampler.count": 8})
  folder = tmp_path_factory.mktemp("good") / "run"
  compiled.clear()
  with jax.debug_key_reuse(False):
    train.train(config, str(folder))
  assert set(compiled) >= PROGRAMS and list(folder.iterdir())
  return folder


@pytest.fixture
def unharmed(tmp_path, good):
  """Checks afterwards that nothing of a run was compiled, and nothing written to its folder."""
  compiled.clear()
  yield tmp_path / "run"
  assert not PROGRAMS & set(compiled)
  assert not list(tmp_path.iterdir())


def one_line(error, *words):
  line = str(error)
  assert "\n" not in line and "Traceback" not in line and " object at 0x" not in line
  for word in words:
    assert word in line


@pytest.mark.parametrize("case", list(BAD)[:: trust.scaled(2, 1)])
def test_a_bad_config_is_refused(case, unharmed, files):
  name, change, *words = BAD[case]
  with pytest.raises(ConfigError) as error:
    train.train(config_of(name, change, files), str(unharmed))
  one_line(error.value, *words)


@pytest.mark.parametrize("name", [D, W, S, F, T, "flow_digits"])
def test_what_is_changed_was_good(name):
  """Each case has its one fault alone: without it the config is built, with samples and scores."""
  config = config_of(name, {})
  experiment = train.experiment_lib.build(config)
  sample.make_draw(experiment)
  assert evaluate.build(config)


WORKDIRS = {  # what a run's folder is, and what is said of it
  "a file": (lambda good, tmp: tmp / "file", "a file stands there", "pass the path of a folder"),
  "a bucket": (lambda good, tmp: "gs://bucket/run", "workdir=gs://bucket/run", "give a folder"),
  "another run's": (lambda good, tmp: good, "objective.group_size=4", "pass another --workdir"),
  "another network's": (lambda good, tmp: good, "model.width=32", "pass another --workdir"),
  "another optimizer's": (lambda good, tmp: good, "with optimizer.", "pass another --workdir"),
}
OTHERS = {
  "another run's": {"objective.group_size": 2},
  "another network's": {"model.width": 16},
  "another optimizer's": {"optimizer": named("optax.sgd", learning_rate=0.1)},
}


@pytest.mark.parametrize("case", WORKDIRS)
def test_a_bad_folder_is_refused(case, good, tmp_path):
  where, *words = WORKDIRS[case]
  (tmp_path / "file").write_text("")
  every = lambda: {p: p.stat().st_mtime_ns for top in (good, tmp_path) for p in top.rglob("*")}
  before = every()
  compiled.clear()
  with pytest.raises(ConfigError) as error:
    train.train(config_of(D, OTHERS.get(case, {})), str(where(good, tmp_path)))
  one_line(error.value, *words)
  assert not PROGRAMS & set(compiled) and every() == before


def test_a_run_is_not_scored_beside_other_data(good):
  with pytest.raises(ConfigError) as error:
    evaluate.evaluate(config_of(D, {"data.split": "test"}), str(good))
  one_line(error.value, "data.split='train'", "pass another --workdir")


def test_a_run_is_not_drawn_by_another_optimizers_state(good):
  before = {p: p.stat().st_mtime_ns for p in good.rglob("*")}
  with pytest.raises(ConfigError) as error:
    sample.sample(config_of(D, OTHERS["another optimizer's"]), str(good))
  one_line(error.value, "holds another network or optimizer: ")
  assert {p: p.stat().st_mtime_ns for p in good.rglob("*")} == before


# Runs the command line of each case in a child of one process, which has imported all it needs.
DRIVER = """
import json, os, sys
from absl import app
import jax
from dfim import main
from dfim.core import kernels, mappings, particles
from dfim.data.images import digits
from dfim.evaluators import images
from dfim.models import mlp
from dfim.samplers import jump

PROGRAMS, CASES = json.loads(sys.argv[1])
def tell(event, _, fun_name=None, **rest):
  if event.endswith("backend_compile_duration") and fun_name in PROGRAMS:
    print("compiled", fun_name, file=sys.stderr)

codes = []
for n, command in enumerate(CASES):
  child = os.fork()
  if not child:
    out = os.open(f"{n}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1), os.dup2(out, 2)
    jax.monitoring.register_event_duration_secs_listener(tell)
    sys.argv = ["dfim", *command]
    os.chdir(os.environ["ROOT"])
    try:
      app.run(main.main, flags_parser=main.parse)
    except SystemExit as end:
      sys.stderr.flush()
      os._exit(end.code)  # to take the interpreter down has nothing to say, and half a second to go
    os._exit(0)
  codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""
SMOKE = "--config=configs/imm_digits.py:smoke"
FLAGS = {
  "no config": ([], "--config: missing", "pass for example"),
  "no such config": (["--config=configs/imm_digit.py"], "imm_digit.py: no such file", "pass one"),
  "no such mode of a config": (["--config=configs/imm_digits.py:smok"], "py:smok: no such", "see"),
  "a config that is no Python": (["--config={files}/wrong.py"], "wrong.py: ", "mend that file"),
  "a config without a config": (["--config={files}/empty.py"], "empty.py: ", "get_config(mode)"),
  "a config that imports what is not there": (
    ["--config={files}/imports.py"],
    "imports.py: No module named 'nothere'",
    "mend",
  ),
  "a config that names what is not there": (
    ["--config={files}/names.py"],
    "names.py: NameError: name 'nothere'",
    "mend",
  ),
  "a config that reads what is not there": (["--config={files}/reads.py"], "'/none'", "mend"),
  "unknown flag": ([SMOKE, "--workdri=x"], "workdri", "workdir"),
  "not a flag": ([SMOKE, "train"], "train: not a flag", "--workdir="),
  "unknown mode": ([SMOKE, "--mode=trian"], "should be one of <train|eval|"),
  "two flags of one value": (
    [SMOKE, "--config.steps=7", "--config.optimizer.learning_rate.decay_steps=9"],
    "--config.steps=7: another flag sets what is the same value to 9",
    "give one",
  ),
  "unknown field": ([SMOKE, "--config.model.widht=3"], "model.widht=3", "did you mean 'width'"),
  "text for an int": ([SMOKE, "--config.steps=many"], "config.steps=many"),
  "a fraction for an int": ([SMOKE, "--config.batch_size=2.5"], "config.batch_size", "2.5"),
  "nan": ([SMOKE, "--config.objective.weight.b=nan"], "objective.weight.b=nan", "finite"),
  "a weight for a kernel": (
    [SMOKE, "--config.objective.kernel.name=core.weights.imm"],
    "objective.kernel.name='core.weights.imm'",
    "core.kernels.*",
  ),
  "limits reversed": (
    [SMOKE, "--config.sampler.limits=(1.0,-1.0)"],
    "sampler.limits=(1.0, -1.0)",
    "above it",
  ),
  "a bucket": ([SMOKE, "--workdir=gs://a/b"], "workdir=gs://a/b", "give a folder"),
  "a profile beyond the end": ([SMOKE, "--profile=90:99"], "--profile=90:99", "config.steps="),
  "a checkpoint to train": ([SMOKE, "--step=5"], "--step=5: ", "--mode=eval"),
  "nothing to sample": ([SMOKE, "--mode=sample"], "no checkpoint", "train first"),
  "nothing to score": ([SMOKE, "--mode=eval"], "no checkpoint", "train first"),
  "nowhere to export": ([SMOKE, "--mode=export"], "out: missing", "--out="),
  "nothing to import": ([SMOKE, "--mode=import"], "weights: missing", "--weights="),
  "no weights": ([SMOKE, "--mode=import", "--weights=/no.npz"], "weights=/no.npz", "pass the path"),
  "a pickle": ([SMOKE, "--mode=import", "--weights={files}/a.pkl"], "a pickle", "allow_pickle"),
  "a process's number alone": ([SMOKE, "--process_id=1"], "--process_id: ", "--coordinator="),
  "no cluster": ([SMOKE, "--distributed"], "--distributed: ", "where no cluster tells it"),
  "half a coordinator": ([SMOKE, "--coordinator=a:1"], "--coordinator: ", "--num_processes"),
}


@pytest.fixture(scope="module")
def told(files, tmp_path_factory):
  """By case: exit code, what was printed, and what there is where the run's folder would be."""
  (files / "wrong.py").write_text("def get_config(:\n")
  (files / "imports.py").write_text("import nothere\n")
  (files / "names.py").write_text("def get_config():\n  return nothere\n")
  (files / "reads.py").write_text("def get_config():\n  open('/none')\n")
  (files / "empty.py").write_text("c = 3\n")
  (files / "a.pkl").write_bytes(b"\x80\x04N.")
  folder = tmp_path_factory.mktemp("told")
  commands = []
  for n, (command, *_) in enumerate(FLAGS.values()):
    given = any(flag.startswith("--workdir") for flag in command)
    command = [flag.replace("{files}", str(files)) for flag in command]
    commands.append(command if given else [*command, f"--workdir={folder}/{n}"])
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "ROOT": str(ROOT)}
  driver = [sys.executable, "-c", DRIVER, json.dumps([sorted(PROGRAMS), commands])]
  done = subprocess.run(driver, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  codes = json.loads(done.stdout.splitlines()[-1])
  texts = [(folder / f"{n}.txt").read_text() for n in range(len(FLAGS))]
  wrote = [(folder / str(n)).exists() for n in range(len(FLAGS))]
  return dict(zip(FLAGS, zip(codes, texts, wrote, strict=True), strict=True))


@pytest.mark.parametrize("case", FLAGS)
def test_a_bad_command_line_ends_in_one_line_and_code_2(case, told):
  code, text, wrote = told[case]
  said = [line for line in text.splitlines() if line.startswith("dfim: ")]
  assert code == 2 and len(said) == 1, text
  one_line(text.strip().splitlines()[-1])
  one_line(said[0], *FLAGS[case][1:])
  assert "Traceback" not in text and "compiled jit" not in text and not wrote


@pytest.mark.parametrize(
  "name, change, field, shape",
  [
    (D, {f"{images}reference": named("data.synthetic.toys.load")}, f"{images}reference", (8, 8, 1)),
    (D, {f"{images}held_out": named("data.synthetic.walk.load")}, f"{images}held_out", (8, 8, 1)),
    (S, {"evaluators.forecast.data.stack": 3}, "evaluators.forecast.data", (24, 16)),
    (D, {}, f"{images}held_out", (16, 16, 1)),
  ],
)
def test_scores_beside_other_data_are_refused(name, change, field, shape):
  with pytest.raises(ConfigError) as error:
    evaluate.build(config_of(name, change), shape)
  one_line(error.value, f"{field}: examples of shape", f"samples of shape {shape}", "same data")
