"""Programs are read from their text: arrays, operands, and how often each instruction runs."""

import jax
import jax.numpy as jnp
import pytest

from dfim.pods import hlo

LOOPS = """HloModule jit_f, is_scheduled=true

%inner (p.0: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.0 = (s32[]{:T(128)}, f32[4]{0:T(128)S(1)}) parameter(0)
  %x.0 = f32[4]{0} get-tuple-element(%p.0), index=1
  %double = f32[4]{0} add(%x.0, %x.0)
  ROOT %t.0 = (s32[], f32[4]{0}) tuple(%n.0, %double)
}

%inner_end (p.1: (s32[], f32[4])) -> pred[] {
  %p.1 = (s32[], f32[4]{0}) parameter(0)
  %n.1 = s32[] get-tuple-element(%p.1), index=0
  %three = s32[]{:T(128)} constant(3)
  ROOT %lt.1 = pred[] compare(%n.1, %three), direction=LT, metadata={op_name="a(b)/lt"}
}

%outer (p.2: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.2 = (s32[], f32[4]{0}) parameter(0)
  %zero = s32[] constant(0)
  %x.2 = f32[4]{0} get-tuple-element(%p.2), index=1
  %start = (s32[], f32[4]{0}) tuple(%zero, %x.2)
  ROOT %while.2 = (s32[], f32[4]{0}) while(%start), condition=%inner_end, body=%inner
}

%outer_end (p.3: (s32[], f32[4])) -> pred[] {
  %p.3 = (s32[], f32[4]{0}) parameter(0)
  %n.3 = s32[] get-tuple-element(%p.3), index=0
  %twelve = s32[] constant(12)
  ROOT %lt.3 = pred[] compare(%n.3, %twelve), direction=LT
}

ENTRY %main (a: f32[4]) -> (s32[], f32[4]) {
  %a = f32[4]{0} parameter(0), metadata={op_name="x"}
  %one = s32[] constant(1)
  %copy.0 = s32[] copy(%one)
  %t.4 = (s32[], f32[4]{0}) tuple(%copy.0, /*index=1*/%a)
  ROOT %while.4 = (s32[], f32[4]{0}) while(%t.4), condition=%outer_end, body=%outer
}
"""


def times(text, op):
  return [run.times for run in hlo.parse(text).runs() if run.instruction.op == op]


def test_loops_in_loops_run_from_their_start_to_their_end():
  """The outer from 1 to 12, as a loop whose first turn XLA has taken out."""
  assert times(LOOPS, "add") == [11 * 3]


def test_a_loop_whose_end_the_text_does_not_tell_is_unknown_and_counts_once():
  program = hlo.parse(LOOPS.replace("constant(12)", "parameter(1)"))
  loop = program.computations["main"]["while.4"]
  assert program.trips(loop, "main") is None
  assert [r.times for r in program.runs() if r.instruction.op == "add"] == [3]


def test_operands_attributes_and_spaces_are_those_of_the_line():
  program = hlo.parse(LOOPS)
  parameter = program.computations["inner"]["p.0"]
  assert parameter.arrays == (hlo.Array("s32", ()), hlo.Array("f32", (4,), space=1))
  test = program.computations["inner_end"]["lt.1"]
  assert test.operands == ("n.1", "three") and test.root
  assert test.attribute("direction") == "LT" and test.attribute("calls") == ""


@pytest.mark.parametrize(
  "dtype,dims,size",
  [("bf16", (3, 5), 30), ("pred", (8,), 8), ("s4", (6,), 3), ("f8e4m3fn", (4,), 4), ("f32", (), 4)]
  + [("token", (), 0), ("c64", (2,), 16)],
)
def test_the_size_of_an_array_is_in_bytes(dtype, dims, size):
  assert hlo.Array(dtype, dims).size == size


@pytest.mark.parametrize("length", [3, 7])
def test_a_scan_compiled_here_runs_its_body_as_often_as_it_is_long(length, optimized):
  def f(x):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, length=length)[0]

  text = jax.jit(f).lower(jnp.ones((8, 8))).compile().as_text()
  assert times(text, "while") == [1]
  assert sum(times(text, "dot") + times(text, "custom-call")) == length


def test_a_text_without_an_entry_is_refused():
  with pytest.raises(ValueError, match="ENTRY"):
    hlo.parse("HloModule nothing")
