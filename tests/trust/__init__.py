"""What makes a trainer one that can be trusted, by experiment; `make trust` runs all of it."""

import os
import pathlib

import ml_collections

ROOT = pathlib.Path(__file__).parents[2]
FULL = bool(os.environ.get("TRUST_FULL"))  # `make trust` sets it


def scaled(quick: int, full: int) -> int:
  """How many of an experiment: `quick` in every test run, `full` with `make trust`."""
  return full if FULL else quick


def small(config: ml_collections.ConfigDict, *, steps: int, every: int) -> ml_collections.ConfigDict:
  """A run of so many steps that saves `every` so many, and draws and scores next to nothing."""
  config.steps = steps
  config.optimizer = dict(name="optax.adam", learning_rate=1e-3)  # not of the number of steps
  config.evaluators = {}
  config.sampler.steps = (1,)
  config.sampler.count = 4
  config.sample_every = 0
  config.checkpoint_every = every
  config.log_every = 1
  return config
