"""One file an experiment: command, time and score in its docstring; modes full and smoke.

`get_config` is the full recipe; a function of a mode's name, below it, changes that.
"""

import ml_collections


def follow(
  part: ml_collections.ConfigDict, *fields: str
) -> dict[str, ml_collections.FieldReference]:
  """Fields that have the values of `part`'s, of whenever the config is read, until they are set."""
  return {field: part.get_ref(field).identity() for field in fields}
