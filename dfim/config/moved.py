"""Names that moved, until 0.3: a config that uses one is answered, an older run's is translated."""

from typing import Any

_NAMES = {  # dotted paths as configs write them; the longest that fits counts
  "core.groups": "core.grouping",
  "data.augment.EDM": "data.images.augment.EDM",
  "data.cifar": "data.images.cifar",
  "data.digits": "data.images.digits",
  "data.forecasting": "data.series.forecasting",
  "data.idx": "data.images.idx",
  "data.images.folder": "data.images.sets.folder",
  "data.images.load_folder": "data.images.sets.load_folder",
  "data.images.load_npz": "data.images.sets.load_npz",
  "data.images.load_tfds": "data.images.sets.load_tfds",
  "data.images.npz": "data.images.sets.npz",
  "data.images.tfds": "data.images.sets.tfds",
  "data.latents": "data.images.latents",
  "data.toys": "data.synthetic.toys",
  "data.walk": "data.synthetic.walk",
  "models.released_transformer": "models.df_transformer",
}


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


def translated(config: Any) -> Any:
  """The config of an older run, or a part of it, in today's names."""
  if isinstance(config, list | tuple):
    return type(config)(map(translated, config))
  if not isinstance(config, dict):
    return config
  config = {key: translated(value) for key, value in config.items()}
  name = config.get("name")
  moved = new_name(name) if isinstance(name, str) else None
  return config if moved is None else config | dict(name=moved)


def config_file(path: str) -> str | None:
  """Where a config file of dfim's own lies today; None if it has not moved."""
  return _FILES.get(path)
