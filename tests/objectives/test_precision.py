"""Every product of an objective is in float32 at the highest precision, whatever the platform."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from dfim.config import schedules, schema
from dfim.core import two_stream
from dfim.training import generator
from tests.models import time_path

pytestmark = pytest.mark.usefixtures("keys_unchecked")

FOLDER = pathlib.Path(__file__).parents[2] / "configs"
CONFIGS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")
PRODUCTS = dict(moment_forcing_walk=6)  # two means of the posterior, four distances of prefixes


@pytest.mark.parametrize("name", CONFIGS)
def test_products_of_the_loss_and_its_gradient(name):
  config = schema.complete(importlib.import_module(f"configs.{name}").get_config())
  loss = schedules.at_step(generator.parts(config)[1], 0)
  sequence = config.model.name.endswith("Transformer")
  shape = (6, 2) if sequence else (2,) if name == "imm_toy" else (4, 4, 1)
  batch = dict(x=jnp.ones((64, *shape)))
  loss = two_stream.fitted(loss, batch)
  elementwise = lambda params, x, s, t, cond, **_: params * (x + s + t)
  value = lambda params: loss(elementwise, params, 0.5, batch, jax.random.key(0))
  function = jax.value_and_grad(value, has_aux=True)
  found = time_path.products(function, (time_path.PARAMS,), jnp.ones(()))
  assert len(found) == PRODUCTS.get(name, 0) and all(map(time_path.exact, found))
