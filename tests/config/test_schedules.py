"""Schedules among a config's arguments, at a step."""

import dataclasses

import jax

from dfim.config.resolve import resolve
from dfim.config.schedules import at_step


def test_a_number_may_follow_a_schedule_also_in_a_part_of_a_part():
  line = lambda start: dict(HALVED, init_value=start)
  spec = dict(
    name="objectives.moment_matching.loss",
    kernel=dict(name="core.kernels.laplace", bandwidth_multiplier=line(8.0)),
    sample_times=dict(name="core.times.sample", reach=line(1.0), t_max=0.9, t_min=0.1),
  )
  spec["sample_times"]["pattern"] = dict(name="core.patterns.example")
  loss = at_step(resolve(spec), 5)
  assert loss.keywords["kernel"].keywords["bandwidth_multiplier"] == 4.0
  times = loss.keywords["sample_times"].keywords
  assert times["reach"] == 0.5 and times["t_max"] == 0.9
  assert times["pattern"] is resolve(spec["sample_times"]["pattern"]), "a function is no schedule"
  assert at_step(loss, 7) is loss, "nothing is left to follow"


@dataclasses.dataclass(frozen=True)
class Spec:
  """Arguments of its own, one of which may follow a schedule."""

  scale: float | jax.Array = 1.0
  count: int = 1


def test_a_number_of_a_spec_may_follow_a_schedule_too():
  spec = resolve(dict(name=f"{__name__}.Spec", scale=dict(HALVED), count=3))
  assert at_step(spec, 5) == Spec(0.5, 3)
  loss = resolve(dict(name="objectives.moment_matching.loss", conditioning=dict(LATE)))
  assert at_step(loss, 5).keywords["conditioning"] == Spec(0.5, 4)
  assert at_step(Spec(), 5) == Spec() and at_step(Spec, 5) is Spec


HALVED = dict(name="optax.linear_schedule", init_value=1.0, end_value=0.0, transition_steps=10)
LATE = dict(name=f"{__name__}.Spec", scale=HALVED, count=4)
