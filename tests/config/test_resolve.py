"""Names in configs become functions; wrong ones are refused by field, value and fix."""

import copy
import functools
import inspect
import pkgutil
import sys
import types

import ml_collections
import pytest

from configs import forcing_series, moment_forcing_walk
from dfim.config import moved
from dfim.config.errors import ConfigError, FieldError
from dfim.config.resolve import resolve
from dfim.core import two_stream


def test_what_is_given_everything_is_called_what_waits_is_bound_and_specs_nest():
  tx = resolve(dict(name="optax.adam", learning_rate=1e-3))
  assert hasattr(tx, "update"), "an optimizer"
  waits = resolve(dict(name="core.weights.imm", a=2.0))
  assert isinstance(waits, functools.partial) and waits.keywords == dict(a=2.0)
  schedule = dict(name="optax.linear_schedule", init_value=0.0, end_value=1.0, transition_steps=4)
  assert resolve(schedule)(2) == 0.5
  spec = dict(sigma_data=0.25, path=dict(name="core.interpolants.Cosine"))
  spec = ml_collections.ConfigDict(dict(name="core.parameterization.SimpleEDM") | spec)
  f = resolve(spec)
  assert f.sigma_data == 0.25 and type(f.path).__name__ == "Cosine"


def test_a_kernel_of_ones_own_needs_no_edit_of_dfim_but_its_imports(monkeypatch, tmp_path):
  mine = types.ModuleType("mine")
  mine.linear = lambda x, y, scale: (x * y).sum(-1)
  monkeypatch.setitem(sys.modules, "mine", mine)
  assert resolve(dict(name="mine.linear")) is mine.linear
  (tmp_path / "needs_more.py").write_text("import no_such_package\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match="no_such_package"):
    resolve(dict(name="needs_more.thing"))


@pytest.mark.parametrize(
  "spec,message",
  [
    (dict(name="optax.adam", learning_rat=1e-3), "x.learning_rat=.*did you mean 'learning_rate'"),
    (dict(name="core.kernels.laplac"), "x.name='core.kernels.laplac'.*did you mean 'laplace'"),
    (dict(name="core.kernel.laplace"), "x.name='core.kernel.laplace': no module 'core.kernel'"),
    (dict(name="laplace"), "x.name='laplace': give the whole path"),
    (dict(name="models.mlp.MLP", width="wide"), "x.width='wide': MLP wants an int"),
    (
      dict(name="core.parameterization.EulerFlow", path=dict(name="core.interpolants.Cosine")),
      "x.path=Cosine.*core.parameterization.SimpleEDM",
    ),
  ],
)
def test_a_wrong_config_is_refused_by_field_value_and_fix(spec, message):
  with pytest.raises(ConfigError, match=message) as error:
    resolve(spec, "x")
  assert "\n" not in str(error.value)


def test_a_name_or_field_that_moved_is_answered_by_its_new_one():
  with pytest.raises(ConfigError, match="^data.name='data.digits.digits': moved to 'data.images.d"):
    resolve(dict(name="data.digits.digits"), "data")
  with pytest.raises(ConfigError, match="moved to 'dfim.data.images.sets.npz'"):
    resolve(dict(name="dfim.data.images.npz", path="x"), "data")
  with pytest.raises(ConfigError, match="^kernel.width=2.0: moved to kernel.bandwidth_multiplier"):
    resolve(dict(name="core.kernels.laplace", width=2.0), "kernel")
  for field, value in dict(streams=2, reference=4).items():
    with pytest.raises(ConfigError, match=f"^objective.{field}={value}: moved to objective.cond"):
      resolve({"name": "objectives.moment_matching.loss", field: value}, "objective")


@pytest.mark.parametrize("name", ["models.dit.DiT", "models.unet.UNet"])
@pytest.mark.parametrize("old, new", [(True, "block"), (False, "none")])
def test_an_older_remat_is_refused_with_its_name_of_today_and_translated(name, old, new):
  for value in (old, str(old)):  # of a config, and of a flag
    with pytest.raises(FieldError, match=f"moved to '{new}'") as error:
      resolve(dict(name=name, remat=value), "model")
    assert error.value.field == "model.remat"
  spec = dict(name=name, remat=new)
  assert moved.translated(dict(name=name, remat=old)) == spec == moved.translated(spec)
  assert resolve(spec).remat == new


def test_names_that_moved_lead_to_something_fields_to_an_argument_and_configs_are_translated():
  for old, new in moved._NAMES.items():
    assert pkgutil.resolve_name(f"dfim.{new}"), new
    assert moved.new_name(f"{old}.some") == f"{new}.some" and moved.new_name(new) is None
  before = dict(data=dict(name="data.walk.walk", tokens=6), several=[dict(name="data.toys.x")])
  after = dict(data=dict(name="data.synthetic.walk.walk", tokens=6))
  assert moved.translated(before) == after | dict(several=[dict(name="data.synthetic.toys.x")])
  for name, fields in moved._FIELDS.items():
    for old, new in fields.items():
      assert moved.new_field(f"dfim.{name}", old) == new
      if name in ("", "samplers.sampler.Sampler"):
        continue  # see `test_older_samplers_and_runs_of_moment_forcing_are_todays_configs`
      part, _, last = new.rpartition(".")
      target = two_stream.TwoStream if part else pkgutil.resolve_name(f"dfim.{name}")
      assert last == "name" or last in inspect.signature(target).parameters, new


def test_older_samplers_and_runs_of_moment_forcing_are_todays_configs():
  today = forcing_series.get_config("smoke").to_dict()
  today["objective"]["sample_times"]["reach"] = 0.5
  config = copy.deepcopy(today)
  sampler, how = config["sampler"], config["sampler"].pop("rollout")
  sampler |= dict(
    cached=how.pop("cached"), stabilise={k: how.pop(k) for k in ("t_context", "mode")}
  )
  sampler |= dict(method=dict(name="samplers.rollout.rollout", **how))
  sampler["step"] |= dict(name="samplers.jump.ancestral_step")
  config["reach"] = config["objective"]["sample_times"].pop("reach")
  assert moved.translated(config) == today
  whole = dict(method=dict(name="samplers.jump.restart"), grid={}, steps=[1])
  restart = dict(step=dict(name="samplers.jump.Restart"), grid={}, steps=[1])
  assert moved.translated(whole) == restart == moved.translated(restart)
  config = moment_forcing_walk.get_config("smoke").to_dict()
  new = config["objective"]
  old = {key: value for key, value in new.items() if key != "conditioning"}
  old |= dict(
    streams=2,
    reference=4,
    groups=dict(name="core.groups.like_prefixes"),
    datum=dict(name="core.posterior.batch_mean", bandwidth=40.0, discount=0.5),
    particles=dict(name="core.particles.prefix", bandwidth=1.0),
    kernel=dict(name="core.kernels.laplace", width=new["kernel"]["bandwidth_multiplier"]),
  )
  old["sample_times"] = dict(new["sample_times"], s_at_t_min=0.3, s_at_r=0.5)
  del old["sample_times"]["p_endpoint"], old["sample_times"]["p_one_step"]
  assert moved.translated(dict(config, objective=old)) == config
  assert moved.translated(config) == config
  one_stream = {key: new[key] for key in new if key != "conditioning"}
  of_one = dict(streams=1, reference=1, groups=dict(name="core.grouping.as_they_came"))
  assert moved.translated(one_stream | of_one) == one_stream
