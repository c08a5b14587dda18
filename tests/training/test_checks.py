"""Configs that cannot run are refused before anything is compiled, by the field that is wrong.

Each row changes one field of a config that trains; the refusal begins with that field, or with the
one in the last column.
"""

import importlib

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from dfim import train
from dfim.config.errors import ConfigError
from dfim.training import checks, experiment, monitor, process
from tests.test_evaluate import evaluators_of

NAN, INF = float("nan"), float("inf")
ABSENT = "absent"  # the field is taken out of the config
D, W, S, F, T = "imm_digits", "forcing_walk", "forcing_series", "moment_forcing_walk", "imm_toy"
TIMES, IMAGES = "objective.sample_times", "evaluators.images"
PER_PARTICLE = f"{TIMES}.per_particle_times=False"


def named(name, **fields):
  return dict(name=name, **fields)


UNET = named("models.unet.UNet", channels=8, multipliers=(1, 1), blocks=1)
EDM = named("core.grids.edm", t_max=0.9, t_min=0.1)
ETAS = named("core.grids.through_eta", etas=(1.4,), t_max=0.9, t_min=0.1)
FALLING = named("optax.linear_schedule", init_value=8.0, end_value=0.0, transition_steps=2)
NOISE = named("core.parameterization.Noise", path=named("core.interpolants.Cosine"))
ENDS = dict(t_max=0.9, t_min=0.1)
SHORTCUT = dict(
  name="objectives.shortcut.loss",
  f=named("core.parameterization.EulerFlow", path=named("core.interpolants.FlowMatching")),
  sample_times=named(
    "core.times.dyadic", pattern=named("core.patterns.token"), t_max=0.9, t_min=0.1
  ),
  weight=named("core.weights.uniform"),
)

BAD = [
  # unknown names, at every depth
  (D, "stpes", 3),
  (D, "objective.weight.bb", 1.0),
  (D, f"{TIMES}.mapping.kk", 1.0),
  (D, "optimizer.learning_rate.init_valeu", 1.0),
  (D, "sampler.grid.t_mx", 0.9),
  (D, f"{IMAGES}.reference.splt", "x"),
  (W, "sampler.rollout.t_contxt", 0.1),
  (D, "sampler.step.name", "samplers.jump.Pushforwrd"),
  (D, f"{IMAGES}.name", "evaluators.images.score"),
  # missing fields, and parts in each other's places
  (D, "optimizer", ABSENT),
  (D, "model", {}),
  (D, "objective.f", ABSENT),
  (D, "objective.f.path", ABSENT),
  (D, f"{TIMES}.t_max", ABSENT, "objective: sample()"),
  (D, f"{TIMES}.mapping", ABSENT),
  (W, f"{TIMES}.pattern", named("core.patterns.uniform_future"), "objective: uniform_future()"),
  (D, "sampler.step", named("samplers.jump.Ancestral"), "sampler.step.eta"),
  (D, f"{IMAGES}.reference", ABSENT, IMAGES),
  (T, "optimizer", named("optax.adam")),
  (T, "optimizer", named("optax.constant_schedule", value=1.0)),
  (
    T,
    "optimizer.learning_rate",
    named("optax.cosine_decay_schedule", init_value=1e-3),
    "optimizer",
  ),
  (D, "objective.kernel", named("core.weights.uniform")),
  (D, "data", named("data.images.digits.load")),
  # types
  (T, "optimizer.b1", "x"),
  (D, "steps", "3"),
  (D, "batch_size", None),
  (D, "fsdp", "all"),
  (D, "ema", [0.9]),
  (D, "model.dtype", np.float32, "model"),
  # ranges
  (D, "steps", 0),
  (D, "keep_checkpoints", 0),
  (D, "keep_every", -1),
  (D, "keep_every", 7),  # no multiple of checkpoint_every
  (D, "seed", -1),
  (D, "seed", 2**32),
  (D, "ema", ()),
  (D, "ema", (1.0,)),
  (D, "ema", ("0.9",)),
  (D, "model.depth", -1),
  (D, "model.dropout", 1.0),
  (D, "model.time_scale", 0.0),
  (D, "model.dtype", "float31"),
  (D, "model.dtype", "int32"),
  (D, "model", UNET | dict(blocks=0), "model.blocks"),
  (D, "model", UNET | dict(multipliers=()), "model.multipliers"),
  (D, "model", named("models.dit.DiT", patch=0), "model.patch"),
  (T, "optimizer.learning_rate", NAN),
  (T, "optimizer.learning_rate", -0.1),
  (D, "objective.f.sigma_data", 0.0),
  (D, "objective.weight.b", INF),
  (D, "objective.drop_rate", 2.0),
  (D, "sampler.limits", (NAN, 1.0)),
  (W, "objective", SHORTCUT | dict(share=1.0), "objective.share"),
  # times
  (D, f"{TIMES}.t_max", 0.001, f"{TIMES}.t_min"),
  (D, f"{TIMES}.t_max", 1.5, f"{TIMES}.t_min"),
  (D, f"{TIMES}.t_min", -0.1),
  (D, f"{TIMES}.t_max", 1.0),
  (D, f"{TIMES}.gap", 0.0),
  (W, f"{TIMES}.p_one_step", 0.5),
  (D, f"{TIMES}.mapping.k", -1.0),
  (D, f"{TIMES}.mapping.min_gap", 2.0),
  (D, f"{TIMES}.pattern", named("core.patterns.token"), "objective"),
  (F, f"{TIMES}.pattern.noisy", 2.0),
  (D, f"{TIMES}.per_particle_times", True),
  (D, "objective.particles", named("core.particles.per_particle_times"), PER_PARTICLE),
  (D, f"{TIMES}.reach", 0.0),
  (D, "reach", 0.5),
  # groups, devices, kernels, weights, paths
  (D, "objective.group_size", 0),
  (T, "batch_size", 36),  # on 8 devices
  (D, "fsdp", 3),
  (D, "objective.kernel.scale", 2.0, "objective: laplace()"),
  (F, "objective.kernel", named("core.kernels.laplace", bandwidth_multiplier=FALLING), "objective"),
  (D, "objective.kernel", named("core.kernels.pseudo_huber", c=-1.0), "objective.kernel.c"),
  (D, "objective", dict(f=NOISE, weight=named("core.weights.min_snr", clip=-1.0))),
  (S, "objective.f.path.betas", "quadratic"),
  (S, "objective.f.path.levels", 0),
  # networks and data that do not fit each other
  (T, "model", UNET),
  (D, "model", UNET | dict(multipliers=(1,) * 5), "model.multipliers"),
  (W, "model.heads", 3, "model.width"),
  (D, "model.second_time", "r"),
  (D, "data.split", "trian"),
  (D, "data", named("data.images.latents.latents", path="/no"), "data.path"),
  (D, "data", named("data.images.sets.tfds", dataset="cifar10", data_dir="/no"), "data.dataset"),
  (S, "data.series", named("data.series.forecasting.ett", path="/no"), "data.series.path"),
  (S, "data.context", 10**6),
  (S, "data.lags", (1,)),
  (T, "data.modes", 0),
  # samples
  (D, "sampler.steps", 4),
  (D, "sampler.count", 0),
  (D, "sampler.count", 2.5),
  (D, "sampler.guidance", "2"),
  (D, "sampler.limits", (1.0, -1.0)),
  (D, "sampler.limits", (1.0,)),
  (D, "sampler.grid", ETAS, "sampler.steps"),
  (D, "sampler.grid", EDM | dict(rho=0.0)),
  (D, "sampler.step", named("samplers.jump.Ancestral", eta=2.0), "sampler.step.eta"),
  (D, "sampler.rollout", dict(cached=True), "sampler.rollout.levels"),
  (D, "sampler.decode", named("core.kernels.laplace")),
  (W, "sampler.step", None),
  (W, "sampler.rollout.chunk", 4),
  (W, "sampler.rollout.context_time", 2.0),
  (W, "sampler.guidance", 1.5, "sampler.rollout.cached"),
  (W, "model.window", None, "sampler: model.window"),
  (W, "sampler.energy", named("samplers.guidance.near_point", point=(0.0, 0.0), width=0.0)),
  # scores
  (D, f"{IMAGES}.steps", (0,)),
  (D, f"{IMAGES}.samples", 0),
  (D, f"{IMAGES}.limits", (1, -1)),
  (D, f"{IMAGES}.reference", named("data.images.digits.digits")),
  (D, IMAGES, 3),
  (
    D,
    "evaluators.fid",
    named("evaluators.fid.scores", network=named("evaluators.fid.network", path="/no")),
  ),
]


def config_of(name, field=None, value=None):
  """The smoke config of `name` with `field` changed: a dict is merged into an objective."""
  config = importlib.import_module(f"configs.{name}").get_config("smoke")
  fields = config.copy_and_resolve_references().to_dict()
  *path, last = field.split(".") if field else ("",)
  node = fields
  for part in path:
    node = node[part]
  if value is ABSENT:
    del node[last]
  elif field == "objective" and "name" not in value:
    node[last] |= value
  elif field:
    node[last] = value
  return ml_collections.ConfigDict(fields)


def ready(config):
  """As far as `train` goes before it compiles."""
  train.Evaluation(experiment.build(config), "not written")


@pytest.mark.parametrize("row", BAD, ids=lambda row: f"{row[1]}={row[2]!s:.30}")
def test_a_config_that_cannot_run_is_refused_by_its_field(row):
  name, field, value, *start = row
  with pytest.raises(ConfigError) as error:
    ready(config_of(name, field, value))
  line = str(error.value)
  assert line.startswith(*start or [field]) and "\n" not in line and " object at 0x" not in line


@pytest.mark.parametrize("name", [D, W, S, F, T])
def test_each_row_has_its_one_fault_alone(name):
  ready(config_of(name))


def test_no_network_of_noise_draws_from_pure_noise():
  config = config_of("flow_digits", "objective", dict(f=NOISE))
  config.sampler.grid.t_max = 0.9
  ready(config)
  config.sampler.grid.t_max = 1.0
  with pytest.raises(ConfigError, match="^sampler.grid"):
    ready(config)


@pytest.mark.parametrize(
  "batch",
  [
    dict(x=np.zeros((4, 0, 8, 1), np.float32)),
    dict(x=np.zeros((4, 8, 8, 1), np.uint8)),
    dict(x=[[1.0]]),
    dict(x=jnp.zeros((4, 2)), cond=dict(label=np.full(4, -2))),
  ],
  ids=["no numbers", "integers", "a list", "a label below none"],
)
def test_a_batch_that_no_network_reads_is_refused(batch):
  with pytest.raises(ConfigError, match="^data: "):
    checks.first_batch(batch, None)


@pytest.mark.parametrize(
  "name, field, value, shape",
  [
    (D, f"{IMAGES}.reference", named("data.synthetic.toys.load"), (8, 8, 1)),
    (D, f"{IMAGES}.held_out", named("data.synthetic.walk.load"), (8, 8, 1)),
    (S, "evaluators.forecast.data.stack", 3, (24, 16)),
  ],
)
def test_scores_against_other_data_are_refused(name, field, value, shape):
  start = field.removesuffix(".stack")
  with pytest.raises(ConfigError, match=f"^{start}: examples of shape"):
    evaluators_of(config_of(name, field, value), shape)


def test_a_profile_beyond_the_end_and_processes_without_a_cluster_are_refused():
  monitor.check_window((5, 9), 9)
  with pytest.raises(ConfigError, match="^--profile=5:10: "):
    monitor.check_window((5, 10), 9)
  with pytest.raises(ConfigError, match="^--distributed: "):
    process.join(True, None, None, None)
