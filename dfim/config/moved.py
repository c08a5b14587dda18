"""Names, fields and values that moved, until 0.3.

New configs are refused with them, those of older runs are translated.
"""

from typing import Any

from absl import logging

_MODULES = [  # the module before and now of names that stay
  ("core.grids", "core.levels", "at autoregressive check_levels full_sequence pyramid trapezoid"),
  ("core.times", "core.patterns", "context example mixture next_token pivot token two_stream"),
  ("core.times", "core.patterns", "uniform_future"),
  ("data", "data.images", "cifar digits idx latents"),
  ("data", "data.synthetic", "toys walk"),
  ("data.images", "data.images.sets", "folder load_folder load_npz load_tfds npz tfds"),
]
_NAMES = {f"{a}.{name}": f"{b}.{name}" for a, b, names in _MODULES for name in names.split()}
_NAMES |= {  # dotted paths as configs write them; the longest that matches counts
  "core.grouping.as_they_came": "core.grouping.contiguous",
  "core.grouping.like_prefixes": "core.grouping.by_prefix",
  "core.groups": "core.grouping",
  "core.groups.as_they_came": "core.grouping.contiguous",
  "core.groups.like_prefixes": "core.grouping.by_prefix",
  "core.particles.apart_before": "core.prefixes.distance",
  "core.particles.likeness": "core.prefixes.similarity",
  "core.particles.own_times": "core.particles.per_particle_times",
  "core.posterior.batch_mean": "core.posterior.minibatch_mean",
  "core.posterior.own": "core.posterior.conditional",
  "core.prefix_kernel.prefix_distance": "core.prefixes.distance",
  "core.prefix_kernel.prefix_similarity": "core.prefixes.similarity",
  "data.augment.EDM": "data.images.augment.EDM",
  "data.forecasting": "data.series.forecasting",
  "models.released_transformer": "models.df_transformer",
  "samplers.guidance.near": "samplers.guidance.near_point",
  "samplers.jump.ancestral": "samplers.jump.Ancestral",
  "samplers.jump.ancestral_step": "samplers.jump.Ancestral",
  "samplers.jump.pushforward": "samplers.jump.Pushforward",
  "samplers.jump.pushforward_step": "samplers.jump.Pushforward",
  "samplers.jump.restart": "samplers.jump.Restart",
  "samplers.jump.restart_step": "samplers.jump.Restart",
}
_FIELDS = {  # of a part, by its name of today: where each is now, from the same part
  "": dict(reach="objective.sample_times.reach"),  # of the whole config
  "core.kernels.laplace": dict(width="bandwidth_multiplier"),
  "core.particles.per_particle_times": dict(bandwidth="inverse_bandwidth"),
  "core.particles.prefix": dict(averaged="mean"),
  "core.particles.sequence": dict(bandwidth="inverse_bandwidth"),
  "core.times.sample": dict(
    own_times="per_particle_times", s_at_r="p_one_step", s_at_t_min="p_endpoint"
  ),
  "objectives.moment_matching.loss": dict(
    streams="conditioning.name",
    groups="conditioning.grouping",
    datum="conditioning.posterior",
    reference="conditioning.reference",
  ),
  "samplers.sampler.Sampler": dict(
    cached="rollout.cached",
    method="step, and a rollout's arguments to rollout",
    stabilise="rollout, as t_context= and mode=",
  ),
}
_FROM_DATA = {  # fields that were chosen by hand, and what says today how they follow from the data
  "core.particles.prefix": dict.fromkeys(
    ("bandwidth", "inverse_bandwidth"), "objective.particles.bandwidth_multiplier"
  ),
  "core.posterior.minibatch_mean": dict.fromkeys(
    ("bandwidth", "inverse_bandwidth", "discount"), "objective.conditioning.scales"
  ),
}
_REMAT = dict(remat={"False": "none", "True": "block"})
_VALUES = {  # of a part's fields: what their old values, as text, are called
  "models.dit.DiT": _REMAT,
  "models.unet.UNet": _REMAT,
}
_STREAMS = {1: None, 2: "core.two_stream.TwoStream"}  # `conditioning.name` by the old `streams`
_FILES = {"configs/dfim_walk.py": "configs/moment_forcing_walk.py"}


def new_name(name: str) -> str | None:
  """Where what `name` named is today; None if it has not moved."""
  start = "dfim." if name.startswith("dfim.") else ""
  parts = name.removeprefix("dfim.").split(".")
  for count in range(len(parts), 0, -1):
    moved = _NAMES.get(".".join(parts[:count]))
    if moved is not None:
      return start + ".".join([moved, *parts[count:]])
  return None


def new_field(name: str, field: str) -> str | None:
  """Where `field` of the part `name` is today, from the same part; None if it has not moved."""
  return _FIELDS.get(name.removeprefix("dfim."), {}).get(field)


def from_data(name: str, field: str) -> str | None:
  """The field that says how `field` of the part `name` follows from the data; None for others."""
  return _FROM_DATA.get(name.removeprefix("dfim."), {}).get(field)


def new_value(name: str, field: str, value: Any) -> str | None:
  """What `value` of `field` of the part `name` is called today; None if it has not changed."""
  return _VALUES.get(name.removeprefix("dfim."), {}).get(field, {}).get(str(value))


def anywhere(field: str) -> str | None:
  """Where a field of that name is today, of whichever part it was; None if none has moved."""
  return next((fields[field] for fields in _FIELDS.values() if field in fields), None)


def translated(config: Any) -> Any:
  """The config of an older run, or a part of it, in today's names and fields."""
  if isinstance(config, list | tuple):
    return type(config)(map(translated, config))
  if not isinstance(config, dict):
    return config
  config = {key: translated(value) for key, value in config.items()}
  if "method" in config and "grid" in config:
    return _translated_sampler(**config)
  if "reach" in config and "objective" in config:
    reach = config.pop("reach")
    if reach != 1.0:
      config["objective"]["sample_times"]["reach"] = reach
  name = config.get("name")
  return _translated_part(config, new_name(name) or name) if isinstance(name, str) else config


def _translated_part(config: dict[str, Any], name: str) -> dict[str, Any]:
  """The part `name` of a config, whose own parts are translated."""
  found = dict(name=name)
  for field, value in config.items():
    if rule := from_data(name, field):
      logging.warning("%s=%s of this run is no longer read, see %s.", field, value, rule)
      continue
    path = new_field(name, field) or field
    part, _, last = path.rpartition(".")
    at = found.setdefault(part, {}) if part else found
    if field != "name":
      value = new_value(name, field, value) or value
      at[last] = _STREAMS[value] if path == "conditioning.name" else value
  conditioning = found.get("conditioning")
  if isinstance(conditioning, dict) and conditioning.get("name") is None:
    del found["conditioning"]  # of one stream
  return found


def _translated_sampler(
  method: Any, step: Any = None, cached: bool = False, stabilise: Any = None, **others: Any
) -> dict[str, Any]:
  """The sampler of an older config, whose method was a step or a rollout."""
  if step is None:
    return dict(step=method, **others)
  how = {key: value for key, value in method.items() if key != "name"}
  return dict(step=step, rollout=dict(**how, cached=cached, **(stabilise or {})), **others)


def config_file(path: str) -> str | None:
  """Where a config file of dfim's own lies today; None if it has not moved."""
  return _FILES.get(path)
