"""Bytes of memory: what leaves the chip, once for each time that it does."""

import jax
import jax.numpy as jnp
import pytest

from dfim.pods import hlo, traffic

SLICED = """%sliced (a: f32[12,64], n: s32[], u: f32[1,64]) -> (f32[12,64], f32[1,64]) {
  %a = f32[12,64]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %u = f32[1,64]{1,0} parameter(2)
  %flat = f32[12,64]{1,0} bitcast(%a)
  %row = f32[1,64]{1,0} dynamic-slice(%flat, %n, %n), dynamic_slice_sizes={1,64}
  %sum = f32[1,64]{1,0} add(%row, %u)
  %new = f32[12,64]{1,0} dynamic-update-slice(%a, %sum, %n, %n)
  ROOT %both = (f32[12,64]{1,0}, f32[1,64]{1,0}) tuple(%new, %sum)
}

ENTRY %main (a: f32[12,64]) -> f32[1] {
  %a = f32[12,64]{1,0} parameter(0)
  %n = s32[]{:S(2)} parameter(1)
  %u = f32[1,64]{1,0} parameter(2)
  %f = (f32[12,64]{1,0}, f32[1,64]{1,0}) fusion(%a, %n, %u), kind=kLoop, calls=%sliced
}
"""


def of(text, name="f"):
  program = hlo.parse(text)
  return traffic.of(program.computations["main"][name], "main", program)


def test_a_fusion_that_slices_and_updates_moves_the_rows_alone():
  """It reads a row and the update, and writes the row in its place and once more."""
  row = 64 * 4
  assert of(SLICED) == 4 * row


def test_buffers_on_the_chip_cost_nothing():
  on_chip = SLICED.replace("%u = f32[1,64]{1,0}", "%u = f32[1,64]{1,0:T(1,128)S(1)}")
  assert of(on_chip) == 3 * 64 * 4


def test_an_operand_that_is_used_whole_is_read_whole():
  used = SLICED.replace("add(%row, %u)", "add(%flat, %u)")
  assert of(used) == of(SLICED) + (12 - 1) * 64 * 4


@pytest.mark.parametrize(
  "line,rows",
  [
    ("((f32[12,64]{1,0}), f32[3,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%a)", 3),
    ("(f32[12,64]{1,0:S(1)}, f32[12,64]{1,0}, u32[]{:S(2)}) copy-start(%a)", 12),
    ("(f32[12,64]{1,0}, f32[12,64]{1,0}, u32[]{:S(2)}) copy-start(%a)", 24),
    ("f32[12,64]{1,0} copy(%a)", 24),
    ("f32[1,64]{1,0} dynamic-slice(%a, %n, %n), dynamic_slice_sizes={1,64}", 2),
    ("f32[12,64]{1,0} dynamic-update-slice(%a, %u, %n, %n)", 2),
    ("f32[64,12]{0,1} bitcast(%a)", 0),
    ('f32[12,64]{1,0} custom-call(), custom_call_target="AllocateBuffer"', 0),
    ("f32[12,64]{1,0} add(%a, %a)", 24),
  ],
  ids=lambda value: value.partition("(%")[0].rpartition(" ")[2] if isinstance(value, str) else "",
)
def test_lines_move_so_many_rows(line, rows):
  assert (
    of(
      SLICED.replace("%f = (f32[12,64]{1,0}, ", "%old = (f32[12,64]{1,0}, ").replace(
        "\n}\n", f"\n  %f = {line}\n}}\n"
      )
    )
    == rows * 64 * 4
  )


def test_an_elementwise_program_compiled_here_reads_and_writes_once(optimized):
  text = jax.jit(lambda x, y: jnp.sin(x) * y + 1.0).lower(jnp.ones(1000), jnp.ones(1000)).compile()
  program = hlo.parse(text.as_text())
  runs = (run for run in program.runs() if not run.fused)
  assert sum(traffic.of(run.instruction, run.inside, program) for run in runs) == 3 * 4000
