"""One file an experiment: command, time and score in its docstring; modes full and smoke.

`get_config` has the full recipe; below it is one function for each other mode, which changes it.
"""

import ml_collections


def follow(
  part: ml_collections.ConfigDict, *fields: str
) -> dict[str, ml_collections.FieldReference]:
  """Fields that have the values of `part`'s, of whenever the config is read, until they are set."""
  return {field: part.get_ref(field).identity() for field in fields}
