"""Drawing: a sample belongs to its index, not to its batch or chunk."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import forcing_series, forcing_walk, imm_digits
from dfim import sample
from dfim.config.errors import ConfigError
from dfim.training import experiment as experiment_lib, nonfinite

NOISY = dict(t_context=0.1, mode="scale_and_noise")
FULL = dict(levels=dict(name="core.levels.full_sequence"), window=6, chunk=6)


def build(module=imm_digits, **sampler):
  """An experiment whose sampler has other fields, or, by `rollout__field`, another rollout."""
  config = module.get_config("smoke")
  with config.unlocked(), config.ignore_type():
    for field, value in sampler.items():
      part, _, last = ("sampler." + field.replace("__", ".")).rpartition(".")
      (config.sampler.rollout if part.endswith("rollout") else config.sampler)[last] = value
  return experiment_lib.build(config, devices=jax.devices()[:1])


def params_of(experiment):
  """Random weights: at initialisation the network's output is zero."""
  params = experiment.init(jax.random.key(0)).params
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [a + 0.05 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
  return jax.tree.unflatten(tree, noisy)


@pytest.fixture(autouse=True)
def relaxed():
  with jax.debug_key_reuse(False):
    yield


@pytest.mark.parametrize("step", ["Pushforward", "Restart"])
def test_a_sample_does_not_depend_on_its_batch(step):
  step = dict(name=f"samplers.jump.{step}")
  experiment = build(step=step, chunk=16)
  params, draw = params_of(experiment), sample.make_draw(experiment)
  other = sample.make_draw(build(step=step, chunk=5))
  all_of_them = draw(params, 24, 3)
  np.testing.assert_allclose(other(params, 24, 3), all_of_them, atol=1e-5)
  np.testing.assert_allclose(draw(params, 4, 3, first=20), all_of_them[20:], atol=1e-5)
  assert len(np.unique(all_of_them[:, 0, 0, 0])) == 24


@pytest.mark.parametrize("module", [imm_digits, forcing_series], ids=lambda m: m.__name__)
def test_the_program_lowered_without_weights_is_the_one_that_draws(module):
  experiment = build(module, chunk=4)
  params, steps = params_of(experiment), experiment.sampler.steps[0]
  rng, given = np.random.default_rng(0), {}
  if cond := {name: a[:4] for name, a in experiment.examples.cond.items()}:
    given = dict(cond={name: rng.normal(size=a.shape).astype(a.dtype) for name, a in cond.items()})
  program = sample.lower_draw(experiment, steps).compile()
  drawn = sample.make_draw(experiment)(params, 4, steps, **given)
  np.testing.assert_array_equal(program(params, np.arange(4, dtype=np.int32), given, 0), drawn)


def test_labels_count_through_the_classes_and_guidance_uses_them():
  experiment = build()
  params = params_of(experiment)
  plain = sample.make_draw(experiment)(params, 12, 1)
  guided = sample.make_draw(build(guidance=2.0))(params, 12, 1)
  assert np.abs(plain - guided).max() > 1e-3


@pytest.mark.parametrize(
  "sampler,message",
  [
    (dict(guidence=2.0), "sampler.guidence=2.0: .*did you mean 'guidance'"),
    (dict(grid=dict(name="core.grids.uniform", steps=2, t_max=0.9, t_min=0.1)), "sampler.grid"),
    (
      dict(method=dict(name="core.grids.uniform")),
      "^sampler.method=.*moved to sampler.step",
    ),
    (
      dict(grid=dict(name="core.grids.uniform", t_max=0.1, t_min=0.9)),
      "sampler.grid.t_min=0.9: ",
    ),
    (dict(steps=(0,)), "sampler.steps=.0,.: give 1 or more"),
    (dict(adm=-1), "sampler.adm=-1: give 0 or more"),
  ],
)
def test_a_wrong_sampler_is_refused(sampler, message):
  with pytest.raises(ConfigError, match=message):
    sample.make_draw(build(**sampler))


def upwards(x):
  """An energy: the last coordinate of the last token is to be high."""
  return 5.0 * x[:, -1, -1]


def test_a_sequence_goes_on_from_its_context_to_any_length():
  experiment = build(forcing_walk)
  params, draw = params_of(experiment), sample.make_draw(experiment)
  context = np.random.default_rng(0).normal(size=(5, 2, 2)).astype(np.float32)
  drawn = draw(params, 5, 2, context=context)
  assert drawn.shape == (5, 6, 2)
  np.testing.assert_array_equal(drawn[:, :2], context)
  far = draw(params, 5, 2, context=context, length=20)
  assert far.shape == (5, 22, 2)
  np.testing.assert_allclose(far[:, :3], drawn[:, :3], atol=1e-5)


def test_one_compile_for_each_shape_of_call():
  experiment, traces = build(forcing_walk), []

  def apply(*args, **kwargs):
    traces.append(1)
    return experiment.net.apply(*args, **kwargs)

  params = params_of(experiment)
  vars(experiment)["apply"] = apply  # in the place of the cached property
  draw = sample.make_draw(experiment)
  for length in (6, 12):
    before = len(traces)
    draw(params, 5, 2, length=length)
    once = len(traces)
    draw(params, 70, 2, length=length)  # two chunks of the same size
    assert before < once == len(traces)


def test_a_cache_draws_what_a_window_draws():
  cached, shown = (build(forcing_walk, rollout__cached=value) for value in (True, False))
  params = params_of(cached)
  a, b = (sample.make_draw(e)(params, 5, 2) for e in (cached, shown))
  np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_sequence_does_not_depend_on_its_batch():
  experiment = build(forcing_walk)
  params, draw = params_of(experiment), sample.make_draw(experiment)
  np.testing.assert_allclose(draw(params, 8, 2)[5:], draw(params, 3, 2, first=5), atol=1e-5)


def test_conditions_belong_to_their_example():
  experiment = build(forcing_series)
  params, draw = params_of(experiment), sample.make_draw(experiment)
  shape = experiment.batch["cond"]["covariates"].shape[1:]
  cond = dict(covariates=np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32))
  all_four = draw(params, 4, 2, cond=cond)
  other = dict(covariates=np.concatenate([cond["covariates"][:3], cond["covariates"][:1]]))
  np.testing.assert_allclose(draw(params, 4, 2, cond=other)[:3], all_four[:3], atol=1e-5)
  assert np.abs(draw(params, 4, 2, cond=other)[3] - all_four[3]).max() > 1e-4
  with pytest.raises(ValueError, match="cond: has no covariates"):
    draw(params, 4, 2, context=np.zeros((4, 2, experiment.batch["x"].shape[2])))


def test_an_energy_of_the_config_guides():
  energy = dict(name="tests.test_sample.upwards")
  plain = build(forcing_walk, rollout=FULL)
  guided = build(forcing_walk, rollout=FULL, energy=energy)
  params = params_of(plain)
  a, b = (sample.make_draw(e)(params, 6, 2) for e in (plain, guided))
  assert np.all(b[:, -1, -1] > a[:, -1, -1])


@pytest.mark.parametrize("step", ["Pushforward", "Restart"])
def test_an_energy_is_refused_beside_a_step_that_would_not_look_at_it(step):
  energy = dict(name="tests.test_sample.upwards")
  experiment = build(
    forcing_walk, rollout=FULL, step=dict(name=f"samplers.jump.{step}"), energy=energy
  )
  with pytest.raises(ConfigError, match="energy: .*Ancestral"):
    sample.make_draw(experiment)


@pytest.mark.parametrize(
  "sampler,message",
  [
    (dict(rollout={**FULL, "levels": ((1,) * 6, (1,) * 6)}), "levels ends at"),
    (dict(rollout={**FULL, "chunk": 4}), "chunk=4: .*length=6"),
    (dict(rollout={**FULL, "window": 3}), "window=3: must hold"),
    (dict(guidance=2.0), "sampler.rollout.cached=True: .*guidance=2.0"),
    (dict(rollout__mode="scaled"), "sampler.rollout.mode='scaled'"),
    (dict(step=None), "sampler.step"),
    (dict(grid=dict(name="core.grids.discrete", levels=1)), "steps=2: set 1 <= steps <= levels"),
  ],
)
def test_a_wrong_sampler_of_sequences_is_refused(sampler, message):
  with pytest.raises(ConfigError, match=message):
    sample.make_draw(build(forcing_walk, **sampler))


def test_a_cache_needs_a_network_that_has_one():
  config = forcing_walk.get_config("smoke")
  config.model = dict(name="models.df_transformer.ReleasedTransformer", width=8, depth=1)
  with pytest.raises(ConfigError, match="sampler.rollout.cached=True: the network has no cache"):
    sample.make_draw(experiment_lib.build(config, devices=jax.devices()[:1]))


@pytest.mark.parametrize(
  "changes,message",
  [
    (dict(context=np.zeros((3, 2, 2))), r"^context of .*give \[4 samples, tokens, 2 values\]"),
    (dict(context=np.zeros((2, 2))), "^context of shape"),
    (dict(context=np.full((4, 2, 2), np.nan)), "^context: nan at sample 0, token 0, value 0"),
    (dict(context=np.zeros((4, 2, 5))), "^context of shape"),
    (dict(context=[[[1.0, 2.0]], [[1.0]]] * 2), "^context: rows of different lengths"),
    (dict(context=np.zeros((4, 2, 2), complex)), "^context of complex128"),
    (dict(cond=dict(action=np.zeros((4, 6, 2)))), "^cond.action: "),
    (dict(cond=np.zeros((4, 6, 2))), "^cond of ndarray"),
    (dict(lengths=[2, 3, 7, 6]), "^lengths: 7 at sample 2"),
    (dict(lengths=[2.0, 3.0, 6.0, 6.0]), "^lengths of float64"),
    (dict(context=np.zeros((4, 2, 2)), length=1.0), "^length=1.0"),
    (dict(context=np.zeros((4, 2, 2)), length=0), "^length=0"),
    (dict(position=-1), "^position=-1"),
    (
      dict(context=np.zeros((4, 6, 2))),
      "context of 6 tokens fills the 6 of the data: pass length=",
    ),
    (dict(lengths=np.ones(5, int)), "^lengths of shape"),
  ],
)
def test_what_is_given_must_fit_the_samples(changes, message):
  with pytest.raises(ValueError, match=message):
    sample.make_draw(build(forcing_walk))(None, 4, 2, **changes)


@pytest.mark.parametrize("kind", [list, np.float16, np.float64])
def test_a_context_of_any_type_of_numbers_is_the_same_context(kind):
  experiment = build(forcing_walk)
  params, draw = params_of(experiment), sample.make_draw(experiment)
  context = np.float32([[[0.5, -0.25]]] * 3)
  other = context.tolist() if kind is list else context.astype(kind)
  np.testing.assert_array_equal(
    draw(params, 3, 1, context=other), draw(params, 3, 1, context=context)
  )


@pytest.mark.parametrize("rollout", [{}, dict(cached=False), NOISY], ids=str)
def test_twelve_calls_of_one_token_are_one_call_of_twelve(rollout):
  """Whether the context is all that came before, or cut to the last five tokens."""
  step = dict(name="samplers.jump.Ancestral", eta=1.0)  # draws noise in every step
  fields = {f"rollout__{field}": value for field, value in rollout.items()}
  experiment = build(forcing_walk, step=step, chunk=4, **fields)
  params, draw = params_of(experiment), sample.make_draw(experiment)
  whole = draw(params, 4, 2, length=12)
  grown = cut = whole[:, :1]
  for n in range(1, 12):
    grown = draw(params, 4, 2, context=grown, length=1)
    start = max(0, n - 5)
    one = draw(params, 4, 2, context=cut[:, start:], length=1, position=start)
    cut = np.concatenate([cut, one[:, -1:]], axis=1)
  np.testing.assert_allclose(grown, whole, atol=1e-4)
  np.testing.assert_allclose(cut, whole, atol=1e-4)


def test_noise_that_comes_again_is_logged(caplog):
  draw = sample.make_draw(build(forcing_walk))
  params = params_of(build(forcing_walk))
  calls = (0, 0.0, False), (1, 1.0, False), (0, 0.0, False), (0, 2.0, True)
  for position, value, logged in calls:
    context = np.full((4, 5, 2), value, np.float32)
    draw(params, 4, 1, context=context, length=1, position=position)
    assert ("pass position=" in caplog.text) == logged


def test_samples_that_are_not_finite_are_an_error():
  experiment = build(forcing_walk)
  params = jax.tree.map(lambda a: a.at[:].set(np.nan), params_of(experiment))
  with pytest.raises(nonfinite.NonFiniteError, match="samples: 4 of 4 in 2 steps"):
    sample.make_draw(experiment)(params, 4, 2)


def test_a_length_is_set_once():
  draw = sample.make_draw(build(forcing_walk, rollout={**FULL, "length": 6}))
  with pytest.raises(ValueError, match="length=12: sampler.rollout.length is set too"):
    draw(None, 4, 2, length=12)


def test_an_image_has_no_context():
  experiment = build()
  with pytest.raises(ValueError, match="only a rollout goes on from a context"):
    sample.make_draw(experiment)(params_of(experiment), 2, 1, context=np.zeros((2, 4, 8, 1)))


@pytest.fixture(scope="module")
def digits_state():
  experiment = build()
  state = experiment.first_state()
  return state.replace(ema={decay: params_of(experiment) for decay in state.ema})


def write_adm(state, folder, **sampler):
  """Where ADM's files of 12 images are, and what they hold."""
  experiment = build(**{"adm": 12, "steps": (1,), **sampler})
  paths = sample.write_adm(experiment, sample.make_draw(experiment), state, folder)
  return paths, [dict(np.load(path)) for path in paths]


def test_adm_reads_pixels_and_labels_of_each_number_of_steps(tmp_path, digits_state):
  paths, found = write_adm(digits_state, tmp_path, steps=(1, 2), count=3)
  assert [path.name.rpartition("_")[0] for path in paths] == [
    "adm_0_1_steps_12",
    "adm_0_2_steps_12",
  ]
  for arrays in found:
    assert arrays["arr_0"].shape == (12, 8, 8, 3) and arrays["arr_0"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["arr_1"], np.arange(12) % 10)
  assert np.any(found[0]["arr_0"] != found[1]["arr_0"])
  experiment = build(steps=(1,))
  draw = sample.make_draw(experiment)
  grey = (experiment.ema_params(digits_state), 12, 1)
  expected = np.rint((draw(*grey) + 2 / 3) / (4 / 3) * 255).clip(0, 255)
  assert np.abs(found[0]["arr_0"] - expected).max() <= 1, "limits of black and white, grey repeated"


def test_adm_images_do_not_depend_on_the_chunk_or_on_a_kill(tmp_path, digits_state):
  (path,), (whole,) = write_adm(digits_state, tmp_path / "whole")
  killed = tmp_path / "killed" / f"{path.name}.part"
  killed.parent.mkdir()
  killed.write_bytes(whole["arr_0"].tobytes()[: 5 * 8 * 8 * 3 + 7])  # five images and a bit
  (again,), (found,) = write_adm(digits_state, killed.parent, chunk=5)
  assert again.name == path.name and not killed.exists()
  off = np.abs(found["arr_0"].astype(int) - whole["arr_0"])
  assert off.max() <= 1 and np.mean(off > 0) < 0.01, "rounding at most"


def test_adm_files_of_another_sampler_lie_beside(tmp_path, digits_state):
  (first,), (found,) = write_adm(digits_state, tmp_path)
  (other,), (changed,) = write_adm(digits_state, tmp_path, seed=1)
  assert first != other and np.any(found["arr_0"] != changed["arr_0"])
  before = first.stat().st_mtime_ns
  write_adm(digits_state, tmp_path)
  assert first.stat().st_mtime_ns == before and len(list(tmp_path.iterdir())) == 2


def test_no_adm_file_unless_asked_for(tmp_path, digits_state):
  assert write_adm(digits_state, tmp_path, adm=0) == ([], [])


def test_adm_takes_no_sequences(tmp_path):
  config = forcing_walk.get_config("smoke")
  config.sampler.adm = 8
  with pytest.raises(ConfigError, match=r"sampler.adm: samples of shape \[6, 2\] are no images"):
    sample.sample(config, str(tmp_path / "run"), devices=jax.devices()[:1])
  assert not (tmp_path / "run").exists()


def test_a_class_that_was_never_trained_is_refused():
  experiment = build()
  examples = dataclasses.replace(experiment.examples, labels=(0, 1, 2))
  draw = sample.make_draw(dataclasses.replace(experiment, examples=examples))
  with pytest.raises(
    ValueError, match="^cond.label: 5 at sample 1; the training data have no such"
  ):
    draw(None, 2, 1, cond=dict(label=np.array([-1, 5])))
  with pytest.raises(ValueError, match="^position=1000000000000: give"):
    sample.make_draw(build(forcing_walk))(None, 2, 1, position=10**12)


def padded(batch_size, seed, start=0, *, process=(0, 1)):
  """Sequences whose first four tokens of six exist; what stands after them is no value."""
  rng = np.random.default_rng((seed, start))
  mask = np.broadcast_to(np.arange(6)[None, :, None] < 4, (batch_size, 6, 1))
  while True:
    cond = dict(action=np.where(mask[..., 0], rng.integers(0, 9, (batch_size, 6)), -100))
    yield dict(x=rng.normal(size=(batch_size, 6, 2)).astype(np.float32), mask=mask, cond=cond)


def test_padding_of_training_conditions_is_not_drawn_with():
  config = forcing_walk.get_config("smoke")
  config.data, config.model.window = dict(name="tests.test_sample.padded"), 6
  experiment = experiment_lib.build(config, devices=jax.devices()[:1])
  drawn = sample.draw_samples(experiment, sample.make_draw(experiment), experiment.first_state())
  assert all(np.isfinite(x).all() for x in drawn.values())
