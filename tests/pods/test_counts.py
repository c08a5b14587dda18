"""Counts against closed forms: of programs compiled here, and of lines as compilers write them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfim.pods import counts, hlo

pytestmark = pytest.mark.usefixtures("optimized")
MESH = jax.sharding.Mesh(np.array(jax.devices()), ("x",))


def counted(f, *args, devices=1):
  return counts.count(jax.jit(f).lower(*args).compile().as_text(), devices)


def program(*lines, more=""):
  """The text of a program whose entry has these lines."""
  body = "\n".join(f"  {line}" for line in lines)
  return f"{more}\nENTRY %main (p: f32[1]) -> f32[1] {{\n{body}\n}}\n"


@pytest.mark.parametrize("length", [1, 5])
def test_products_in_a_loop_count_as_often_as_they_run(length):
  def f(x, w):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=length)[0]

  found = counted(f, jnp.ones((32, 64)), jnp.ones((64, 64)))
  assert found.products == dict(default=2 * 32 * 64 * 64 * length) and found.flops > 0
  assert found.unknown_loops == 0


def test_a_loop_of_unknown_length_is_told():
  f = lambda x: jax.lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x @ x, x)
  found = counted(f, jnp.ones((8, 8)))
  assert found.unknown_loops == 1 and found.flops == 2 * 8**3


@pytest.mark.parametrize("stride,padding", [(1, "SAME"), (2, "SAME"), (1, "VALID")])
def test_convolutions_count_the_pairs_that_meet_the_image(stride, padding):
  """By a convolution of ones: every output is the number of its products."""
  x, kernel = jnp.ones((2, 8, 9, 3)), jnp.ones((3, 3, 3, 5))
  f = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(stride, stride),
    padding=padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  found = counted(f, x, kernel)
  products = float(f(x, kernel).sum())
  assert found.flops == 2 * products


def test_a_batched_product_that_a_tpu_writes_as_a_convolution_counts_as_a_product():
  text = program(
    "%q = bf16[16,256,6,64]{3,1,2,0} parameter(0)",
    "%k = bf16[16,256,6,64]{3,1,2,0} parameter(1)",
    "ROOT %c = f32[16,6,256,256]{2,3,1,0:T(8,128)} convolution(%q, %k), "
    "window={size=16x6 stride=15x5 lhs_dilate=16x6}, dim_labels=0b1f_0o1i->01bf",
  )
  assert counts.count(text, 1).flops == 2 * 16 * 6 * 256 * 256 * 64


@pytest.mark.parametrize(
  "dtype,stated,precision",
  [
    ("f32", "highest,highest", "highest"),
    ("f32", "default,high", "high"),
    ("f32", "default,default", "default"),
    ("bf16", "highest,highest", ""),
  ],
)
def test_products_are_told_apart_by_their_precision(dtype, stated, precision):
  text = program(
    f"%a = {dtype}[8,4]{{1,0}} parameter(0)",
    f"%b = {dtype}[4,2]{{1,0}} parameter(1)",
    "ROOT %d = f32[8,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
    f"operand_precision={{{stated}}}",
  )
  assert counts.count(text, 1).products == {precision: 2 * 8 * 4 * 2}


def test_the_libraries_of_a_gpu_are_counted_as_products_and_convolutions():
  """Forward and backward of a convolution have the same products."""
  of_gemm = '"lhs_contracting_dimensions":["0"],"rhs_contracting_dimensions":["0"]'
  end = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="
  end += '"__cudnn$conv'
  text = program(
    "%w = f32[64,8]{1,0} parameter(0)",
    "%v = f32[64,5]{1,0} parameter(1)",
    '%m = (f32[8,5]{1,0}, s8[9]{0}) custom-call(%w, %v), custom_call_target="__cublas$lt$matmul", '
    f'backend_config={{{of_gemm},"operand_precision":["HIGHEST","DEFAULT"]}}',
    "%x = bf16[2,6,7,3]{3,2,1,0} parameter(2)",
    "%k = bf16[5,3,3,3]{3,2,1,0} parameter(3)",
    "%y = bf16[2,6,7,5]{3,2,1,0} parameter(4)",
    f'%f = (bf16[2,6,7,5]{{0}}, u8[0]{{0}}) custom-call(%x, %k), {end}Forward"',
    f'%i = (bf16[2,6,7,3]{{0}}, u8[0]{{0}}) custom-call(%y, %k), {end}BackwardInput"',
    f'%g = (bf16[5,3,3,3]{{0}}, u8[0]{{0}}) custom-call(%x, %y), {end}BackwardFilter"',
  )
  pairs = (3 * 6 - 2) * (3 * 7 - 2)  # at the edges a window meets the image in two places alone
  convolution = 2 * 2 * 3 * 5 * pairs
  wanted = {"highest": 2 * 64 * 8 * 5, "": 3 * convolution}
  assert counts.count(text, 1).products == wanted


@pytest.mark.parametrize("length", [1, 6])
def test_a_gather_in_a_loop_is_as_many_gathers_of_the_whole_array(length):
  rows, whole = jax.NamedSharding(MESH, jax.P("x")), jax.NamedSharding(MESH, jax.P())

  def f(x, weights):
    def layer(h, w):
      return jnp.tanh(h @ jax.lax.with_sharding_constraint(w, whole)), None

    return jax.lax.scan(layer, x, weights)[0]

  arrays = (
    jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=rows),
    jax.ShapeDtypeStruct(
      (length, 32, 32), jnp.float32, sharding=jax.NamedSharding(MESH, jax.P(None, "x"))
    ),
  )
  (one,) = counted(f, *arrays, devices=8).collectives
  assert (one.kind, one.times, one.group) == ("all-gather", length, tuple(range(8)))
  assert one.size == length * 32 * 32 * 4 and math.prod(one.arrays[0].dims) == 32 * 32


def test_a_mean_over_the_devices_is_one_all_reduce():
  rows = jax.ShapeDtypeStruct((64, 5), jnp.float32, sharding=jax.NamedSharding(MESH, jax.P("x")))
  found = counted(lambda x: x.sum(0), rows, devices=8)
  assert found.by_kind() == {"all-reduce": (1, 20)}


PIECE = """%piece{n} (p: bf16[1,8]) -> bf16[4,8] {{
  %p = bf16[1,8]{{1,0}} parameter(0)
  ROOT %g = bf16[4,8]{{1,0:S(1)}} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4], \
dimensions={{0}}, frontend_attributes={{chain_id="3"}}
}}"""


def test_the_pieces_of_an_asynchronous_collective_are_one():
  start = "%p = bf16[1,8]{1,0} parameter(0)"
  calls = (f"%f{n} = bf16[4,8]{{1,0}} fusion(%p), kind=kCustom, calls=%piece{n}" for n in range(3))
  text = program(start, *calls, more="\n".join(PIECE.format(n=n) for n in range(3)))
  assert counts.count(text, 4).by_kind() == {"all-gather": (1, 64)}


def test_scattered_sums_and_starts_are_of_the_whole_result():
  text = program(
    "%p = f32[64,8]{1,0} parameter(0)",
    "%r = f32[16,8]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[8], dimensions={0}",
    "%g = (f32[16,8]{1,0}, f32[64,8]{1,0}) all-gather-start(%r), replica_groups=[2,4]<=[8]",
    "%h = f32[64,8]{1,0} all-gather-done(%g)",
    "%c = (f32[9]{0}, f32[9]{0}, u32[], u32[]) collective-permute-start(%x), "
    "source_target_pairs={{0,1},{1,0}}",
  )
  whole = 64 * 8 * 4
  wanted = {"reduce-scatter": (1, whole), "all-gather": (1, whole), "collective-permute": (1, 36)}
  assert counts.count(text, 8).by_kind() == wanted


def test_a_sum_between_slices_leaves_through_the_hosts():
  text = program(
    "%p = f32[2,8,128]{2,1,0} parameter(0)",
    "%s = (f32[2,8,128]{2,1,0}, u32[], token[]) send(%p, %t), channel_id=4, is_host_transfer=true, "
    'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}',
  )
  assert counts.count(text, 8).by_kind() == {counts.SLICES: (1, 8192)}


def test_cycles_are_summed_over_loops():
  fused = """%c (p: f32[4]) -> f32[4] {
  ROOT %p = f32[4]{0} parameter(0)
}"""
  line = "%f = f32[4]{0} fusion(%a), kind=kLoop, calls=%c, backend_config={"
  text = program("%a = f32[4]{0} parameter(0)", line + '"estimated_cycles":"17"}', more=fused)
  assert counts.count(text, 1).cycles == 17
  assert hlo.parse(text).computations["main"]["f"].called() == ["c"]
