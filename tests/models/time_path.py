"""The time path of a program, read from its jaxpr: values of times or conditions, and not of x.

Its frontier is where it meets x, with products as a platform computes them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp

Precision = jax.lax.Precision
PRODUCTS = ("dot_general", "conv_general_dilated")
CALLS = ("jit", "closed_call", "remat2", "custom_jvp_call", "custom_vjp_call")


class Value(NamedTuple):
  """What a value of a program depends on; its array where it is known."""

  of_x: bool = False
  of_time: bool = False
  array: Any = None

  def __or__(self, other: "Value") -> "Value":
    return Value(self.of_x or other.of_x, self.of_time or other.of_time)


PARAMS, X, TIME = Value(), Value(of_x=True), Value(of_time=True)
Visit = Callable[[Any, list[Value]], list[Value]]


class Product(NamedTuple):
  """A dot or a convolution of a program."""

  of_x: bool
  of_time: bool
  precision: Any
  dtypes: tuple[Any, ...]


class Platform(NamedTuple):
  """Stored bits of a mantissa in a pass of a float32 product, and passes; None: float32."""

  bits: int
  default: int | None
  high: int | None
  highest: int | None = None


TPU, GPU, CPU = Platform(7, 1, 3), Platform(10, 1, 1), Platform(23, None, None)


def products(f: Callable[..., Any], marks: tuple[Value, ...], *args: Any) -> list[Product]:
  """All dots and convolutions of `f(*args)`, whose arguments depend on `marks`."""
  found = []

  def visit(eqn: Any, given: list[Value]) -> list[Value]:
    out = _union(given)
    if eqn.primitive.name in PRODUCTS:
      dtypes = tuple(a.aval.dtype for a in eqn.invars)
      found.append(Product(out.of_x, out.of_time, eqn.params["precision"], dtypes))
    return [out] * len(eqn.outvars)

  inputs = [mark for mark, arg in zip(marks, args, strict=True) for _ in jax.tree.leaves(arg)]
  interpret(jax.make_jaxpr(f)(*args), inputs, visit)
  return found


def frontier(
  f: Callable[..., Any], marks: tuple[Value, ...], *args: Any, platform: Platform
) -> list[jax.Array]:
  """The arrays of the time path that meet x in `f(*args)`, on `platform`."""
  found = {}

  def visit(eqn: Any, given: list[Value]) -> list[Value]:
    out = _union(given)
    if out.of_x:
      found.update({id(v.array): v.array for v in given if v.of_time and not v.of_x})
      return [out] * len(eqn.outvars)
    arrays = _evaluate(eqn, [v.array for v in given], platform)
    return [out._replace(array=array) for array in arrays]

  pairs = zip(marks, args, strict=True)
  inputs = [mark._replace(array=a) for mark, arg in pairs for a in jax.tree.leaves(arg)]
  interpret(jax.make_jaxpr(f)(*args), inputs, visit)
  return list(found.values())


def interpret(closed: Any, inputs: list[Value], visit: Visit) -> list[Value]:
  """The outputs of a closed jaxpr; `visit` gives those of an equation without a program in it."""
  jaxpr = closed.jaxpr
  env = dict(zip(jaxpr.invars, inputs, strict=True))
  env |= {v: Value(array=a) for v, a in zip(jaxpr.constvars, closed.consts, strict=True)}
  read = lambda a: Value(array=a.val) if isinstance(a, core.Literal) else env[a]
  for eqn in jaxpr.eqns:
    outputs = _outputs(eqn, [read(a) for a in eqn.invars], visit)
    env.update(zip(eqn.outvars, outputs, strict=True))
  return [read(a) for a in jaxpr.outvars]


def _outputs(eqn: Any, given: list[Value], visit: Visit) -> list[Value]:
  name, params = eqn.primitive.name, eqn.params
  if name in CALLS:
    return interpret(_closed(params.get("jaxpr") or params["call_jaxpr"]), given, visit)
  if name == "cond":
    branches = [interpret(b, given[1:], visit) for b in params["branches"]]
    return [_union([given[0], *outputs]) for outputs in zip(*branches, strict=True)]
  if name == "scan":
    fixed, carried = given[: params["num_consts"]], given[params["num_consts"] :]
    carried, rest = carried[: params["num_carry"]], carried[params["num_carry"] :]
    body = lambda carry, visit: interpret(params["jaxpr"], [*fixed, *carry, *rest], visit)
    return _loop(body, carried, visit)
  if name == "while":
    counts = params["cond_nconsts"], params["body_nconsts"]
    of_test, fixed = given[: counts[0]], given[counts[0] : sum(counts)]

    def body(carry: list[Value], visit: Visit) -> list[Value]:
      (test,) = interpret(params["cond_jaxpr"], [*of_test, *carry], visit)
      return [test | v for v in interpret(params["body_jaxpr"], [*fixed, *carry], visit)]

    return _loop(body, given[sum(counts) :], visit)
  assert not [p for p in _programs(params) if any(e.primitive.name in PRODUCTS for e in p.eqns)]
  return visit(eqn, given)


def _loop(body: Callable[..., list[Value]], carry: list[Value], visit: Visit) -> list[Value]:
  """Marks of a loop, round after round until they stay; then `visit` sees one round."""
  quiet = lambda eqn, given: [_union(given)] * len(eqn.outvars)
  while True:
    carry = [PARAMS | v for v in carry]  # arrays differ from round to round
    after = [v | w for v, w in zip(carry, body(carry, quiet), strict=False)]
    if after == carry:
      return [PARAMS | v for v in body(carry, visit)]
    carry = after


def _programs(params: dict[str, Any]) -> Iterator[Any]:
  for program in core.jaxprs_in_params(params):
    yield program
    for eqn in program.eqns:
      yield from _programs(eqn.params)


def _closed(jaxpr: Any) -> Any:
  return jaxpr if hasattr(jaxpr, "consts") else core.ClosedJaxpr(jaxpr, ())


def _union(values: list[Value]) -> Value:
  return Value(any(v.of_x for v in values), any(v.of_time for v in values))


def _evaluate(eqn: Any, arrays: list[Any], platform: Platform) -> list[jax.Array]:
  bind = lambda *arrays: eqn.primitive.bind(*arrays, **eqn.params)
  if eqn.primitive.name not in PRODUCTS:
    out = bind(*arrays)
    return list(out) if eqn.primitive.multiple_results else [out]
  stated = (eqn.params["precision"] or (Precision.DEFAULT,))[0]
  passes = getattr(platform, stated.name.lower())
  if passes is None or arrays[0].dtype != jnp.float32:
    return [bind(*arrays)]
  (a, a_rest), (b, b_rest) = (_split(array, platform.bits) for array in arrays)
  return [bind(a, b) + (bind(a, b_rest) + bind(a_rest, b) if passes == 3 else 0.0)]


def _split(a: jax.Array, bits: int) -> tuple[jax.Array, jax.Array]:
  cut = lambda a: jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=bits)
  return cut(a), cut(a - cut(a))


def exact(product: Product) -> bool:
  """Whether every platform computes it in float32 or more."""
  return product.precision == (Precision.HIGHEST,) * 2 and is_wide(product)


def is_wide(product: Product) -> bool:
  """Whether both operands are of float32 or more."""
  return min(dtype.itemsize for dtype in product.dtypes) >= 4
