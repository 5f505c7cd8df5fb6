"""How the primitives run elsewhere: refused handlers, other platforms, exported programs, several devices."""

import dataclasses
import os
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax_cases import CASES, name_of
from oracle import Gradient

import localconv.jax as lj
from localconv.core import formulation as core_formulation
from localconv.core.spec import local_spec
from localconv.jax import platforms, primitives
from localconv.jax.window import window_of

REFUSED = """
import warnings
import numpy as np, jax, jax.numpy as jnp
import localconv, localconv.jax as lj
from localconv import _xla
_xla.announce(0, 99)
x, kernel = np.random.rand(2, 9, 3).astype("f"), np.random.rand(7, 9, 4).astype("f")
call = lambda x, kernel: lj.local_conv1d(x, kernel, 3, 1, "channels_last")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert np.array_equal(jax.jit(call)(x, kernel), localconv.local_conv1d(x, kernel, 3, 1, "channels_last"))
    gradients = jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), (0, 1))(x, kernel)
    mapped = jax.vmap(call, (None, 0))(x, np.stack([kernel, 2 * kernel]))
assert np.array_equal(mapped[0], call(x, kernel))
assert gradients[1].shape == kernel.shape and np.abs(gradients[1]).max() > 0
assert not lj.register()
print(sum("pure_callback" in str(w.message) for w in said), len(jax.devices()), jax.jit(lambda x: x + 1)(1))
"""


def test_refused_handlers(python):
    """JAX lives, the calls run through a callback, and that is said once."""
    assert python(REFUSED) == "1 1 2\n"


IMPORT = """
import jax, localconv.jax
from jax._src import xla_bridge
print(xla_bridge._backends == {})
"""


def test_import_starts_no_backend(python):
    """Users may still choose platforms and devices after it."""
    assert python(IMPORT) == "True\n"


WITHOUT = """
import sys
sys.modules["jax"] = None
try:
    import localconv.jax
except ImportError as error:
    print("pip install 'jax>=" in str(error))
"""


def test_without_jax(python):
    assert python(WITHOUT) == "True\n"


# -------------------------------------------------------------------------------------------------- other platforms


def window(case):
    return window_of(
        local_spec(
            case.rank, case.kernel_size, case.strides, case.padding, case.data_format, case.dilation_rate, case.groups
        ),
        case.spatial,
    )


def formulation(case):
    """What runs where there is no handler, compiled."""
    # A function of its own: programs are kept by it, and not by the memory that they were made for.
    run = lambda operation, a, b, **params: platforms._by_jnp(operation, a, b, **params)  # noqa: E731
    return partial(jax.jit(run, static_argnames=("operation", "window", "spatial")), window=window(case))


# Bytes: of every band one position; a few; all of them at once.
MEMORIES = [1, 1000, core_formulation.MEMORY]


@pytest.fixture(params=MEMORIES)
def memory(request, monkeypatch):
    monkeypatch.setattr(core_formulation, "MEMORY", request.param)
    return request.param


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_formulation_by_jnp(memory, case):
    """What runs where there is no handler has the twin's values, forward and both gradients."""
    inputs, kernel, _ = case.arrays()
    run = formulation(case)
    plain = dataclasses.replace(case, bias=None)
    plain.check(np.asarray(run("local_forward", inputs, kernel)), (inputs, kernel, None))
    for gradient in oracle.gradients(case):
        options = {"spatial": case.spatial} if gradient.of == "input" else {}
        gradient.check(np.asarray(run(f"local_grad_{gradient.of}", *gradient.arrays(), **options)))


def test_formulation_by_jnp_of_examples(memory):
    case = CASES[4]
    inputs, kernel, _ = case.arrays()
    run = partial(formulation(case), "local_forward")
    result = run(inputs, np.stack([kernel, 2 * kernel]))
    np.testing.assert_allclose(result, [run(inputs, kernel), run(inputs, 2 * kernel)], rtol=1e-5)


@pytest.mark.parametrize("of", ["forward", "input", "kernel"])
def test_formulation_by_jnp_keeps_padding_out(memory, of):
    """No NaN in the kernel's rows that meet padding gets into a sum, and their gradient is 0."""
    case = oracle.Case("local_conv1d", (6,), (3,), padding=((2, 2),))
    inputs, kernel, _ = case.arrays()
    wild = np.where(case.rows_present()[:, :, None], kernel, np.float32(np.nan))
    run = formulation(case)
    gradient = Gradient(case, "kernel" if of == "kernel" else "input")
    _, grad_output = gradient.arrays()
    if of == "forward":
        case.check(np.asarray(run("local_forward", inputs, wild)))
    elif of == "input":
        gradient.check(np.asarray(run("local_grad_input", wild, grad_output, spatial=case.spatial)))
    else:
        infinite = np.where(np.isfinite(grad_output), np.float32(np.inf), grad_output)
        found = np.asarray(run("local_grad_kernel", abs(inputs) + 1, infinite))
        assert np.array_equal(found == 0, np.broadcast_to(~case.rows_present()[:, :, None], found.shape))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_programs_for_other_platforms(platform):
    """Are lowered from here, and call nothing of localconv's."""
    call = partial(lj.local_conv1d, kernel_size=3, strides=1, data_format="channels_last")
    step = jax.jit(jax.grad(lambda x, kernel: (call(x, kernel) ** 2).sum(), (0, 1)))
    exported = jax.export.export(step, platforms=[platform])(jnp.ones((2, 9, 3)), jnp.ones((7, 9, 4)))
    assert "localconv_local" not in exported.mlir_module()


# --------------------------------------------------------------------------------------------------- exported programs

LOAD = """
import sys
import numpy as np, jax, jax.export, localconv, localconv.jax
assert localconv.jax.register()
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
kernel = np.random.rand(7, 9, 4).astype("f")
for batch in (1, 5):
    x = np.random.rand(batch, 9, 3).astype("f")
    assert np.array_equal(program.call(x, kernel), localconv.local_conv1d(x, kernel, 3, 1, "channels_last"))
print("right")
"""


def test_export_with_a_symbolic_batch(python, tmp_path):
    """Saved here, run in a process that traces nothing."""
    pytest.importorskip("flatbuffers", reason="JAX makes bytes of an exported program by flatbuffers")
    (batch,) = jax.export.symbolic_shape("batch")
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in lj.TARGETS.values()]
    call = jax.jit(lambda x, kernel: lj.local_conv1d(x, kernel, 3, 1, "channels_last"))
    shapes = jax.ShapeDtypeStruct((batch, 9, 3), jnp.float32), jax.ShapeDtypeStruct((7, 9, 4), jnp.float32)
    program = jax.export.export(call, disabled_checks=checks)(*shapes)
    file = tmp_path / "program"
    file.write_bytes(program.serialize())
    assert python(LOAD, file) == "right\n"


def test_gradients_of_a_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("batch")
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in lj.TARGETS.values()]

    def step(x, kernel):
        return jax.grad(lambda *a: (lj.local_conv1d(*a, 3, 1, "channels_last") ** 2).sum(), (0, 1))(x, kernel)

    shapes = jax.ShapeDtypeStruct((batch, 9, 3), jnp.float32), jax.ShapeDtypeStruct((7, 9, 4), jnp.float32)
    program = jax.export.export(jax.jit(step), disabled_checks=checks)(*shapes)
    x, kernel = jnp.arange(81.0).reshape(3, 9, 3), jnp.ones((7, 9, 4))
    for found, expected in zip(program.call(x, kernel), step(x, kernel), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_other_symbolic_axes_are_refused():
    (steps,) = jax.export.symbolic_shape("steps")
    shapes = jax.ShapeDtypeStruct((2, steps, 3), jnp.float32), jax.ShapeDtypeStruct((7, 9, 4), jnp.float32)
    with pytest.raises(ValueError, match="inputs may have a symbolic batch, but no other"):
        jax.export.export(jax.jit(lambda x, kernel: lj.local_conv1d(x, kernel, 3, 1)))(*shapes)


# ----------------------------------------------------------------------------------------------------- several devices

DEVICES = """
import sys, warnings
import numpy as np, jax, jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec as P
import localconv.jax as lj
try:
    from jax import shard_map
except ImportError:
    from jax.experimental.shard_map import shard_map
warnings.simplefilter("ignore")  # pmap is deprecated in some versions
# JAX before 0.6 keeps account of what is replicated in another way, and needs to be told that it may not here.
options = {"check_rep": False} if jax.__version_info__ < (0, 6) else {}
mesh = Mesh(np.array(jax.devices()), ("d",))
rng = np.random.default_rng(0)
# Small whole numbers, whose sums are exact in any order.
x, kernel = rng.integers(-3, 4, (4, 10, 4)).astype("f"), rng.integers(-3, 4, (8, 12, 6)).astype("f")
call = lambda x, kernel: lj.local_conv1d(x, kernel, 3, 1, "channels_last")
loss = lambda call: jax.jit(jax.grad(lambda x, kernel: (call(x, kernel) ** 2).sum(), (0, 1)))
assert len(jax.devices()) == 2
for specs, out in (((P("d"), P()), P("d")), ((P(), P(None, None, "d")), P(None, None, "d"))):
    mapped = shard_map(call, mesh=mesh, in_specs=specs, out_specs=out, **options)
    assert np.array_equal(jax.jit(mapped)(x, kernel), call(x, kernel))
    text = jax.jit(mapped).lower(x, kernel).compile().as_text()
    assert "all-gather" not in text and ("localconv_local_forward" in text) == ("elsewhere" not in sys.argv)
    for found, expected in zip(loss(mapped)(x, kernel), loss(call)(x, kernel)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
parts = jax.pmap(call, in_axes=(0, None))(x.reshape(2, 2, 10, 4), kernel)
assert np.array_equal(parts.reshape(4, 8, 6), call(x, kernel))
sums = jax.pmap(lambda x, kernel: jax.lax.psum(call(x, kernel).sum(), "i"), "i", in_axes=(0, None))
np.testing.assert_allclose(sums(x.reshape(2, 2, 10, 4), kernel), [call(x, kernel).sum()] * 2, rtol=1e-4)
# Without shard_map the arrays are brought together: slower, and right.
from jax.sharding import NamedSharding
spread = jax.device_put(x, NamedSharding(mesh, P("d"))), jax.device_put(kernel, NamedSharding(mesh, P()))
assert np.array_equal(jax.jit(call)(*spread), call(x, kernel))
print("right")
"""


def devices(count):
    """XLA_FLAGS of a process whose processor is so many devices."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"


def test_two_devices(python):
    assert python(DEVICES, timeout=400, XLA_FLAGS=devices(2)) == "right\n"


ELSEWHERE = """
from functools import partial
from jax.interpreters import mlir
from localconv.jax import platforms
for operation, primitive in platforms.PRIMITIVES.items():
    rule = mlir.lower_fun(partial(platforms._by_jnp, operation), multiple_results=False)
    mlir.register_lowering(primitive, rule, platform="cpu")
"""


@pytest.mark.parametrize("memory", MEMORIES[1:])
def test_two_devices_without_handlers(python, memory):
    """Gradients inside `shard_map` by the formulation for other platforms: nothing is summed over devices twice."""
    program = f"{ELSEWHERE}from localconv.core import formulation\nformulation.MEMORY = {memory}\n{DEVICES}"
    assert python(program, "elsewhere", timeout=400, XLA_FLAGS=devices(2)) == "right\n"


EXPLICIT = """
import numpy as np, jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import localconv.jax as lj
set_mesh = jax.set_mesh if hasattr(jax, "set_mesh") else jax.sharding.use_mesh
mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
rng = np.random.default_rng(0)
small = lambda *shape: jnp.array(rng.integers(-3, 4, shape), jnp.float32)
x, kernel, bias = small(4, 10, 4), small(8, 12, 6), small(8, 6)
transposed = lambda y, kernel: lj.local_conv1d_transpose(y, kernel, 3, 1, (None, 10, 4), "channels_last")
square = lambda function: lambda *arrays: (function(*arrays) ** 2).sum()
put = lambda array, *spec: jax.device_put(array, NamedSharding(mesh, P(*spec)))

def check(function, arrays, specs):
    "Values on a mesh, at once and compiled, are those of one device; gradients are cut as what they are of."
    gradient = jax.grad(square(function), tuple(range(len(arrays))))
    for derived in (function, gradient, lambda *a: jax.jvp(function, a, a)):
        expected = jax.tree.leaves(derived(*arrays))
        for run in (derived, jax.jit(derived)):
            with set_mesh(mesh):
                put_arrays = [put(array, *spec) for array, spec in zip(arrays, specs)]
                found = jax.tree.leaves(run(*put_arrays))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
            if derived is gradient:
                assert list(map(jax.typeof, found)) == list(map(jax.typeof, put_arrays))

call = lambda x, kernel: lj.local_conv1d(x, kernel, 3, 1, "channels_last")
# JAX before 0.6 reshapes no such array into other axes, not even a whole one.
first = jax.__version_info__ >= (0, 6)
biased = lambda x, kernel, bias: lj.local_conv1d(x, kernel, 3, 1, f"channels_{'first' if first else 'last'}", bias=bias)
for specs in ((("a",), ()), (("a",), ("b", None, "a")), ((("a", "b"),), (None, "b"))):
    check(call, (x, kernel), specs)
check(biased, (x.transpose(0, 2, 1) if first else x, kernel, bias), (("a",), ("b",), ("a", "b")))
check(transposed, (call(x, kernel), kernel), (("a",), ("b",)))
stacks = jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])
there_and_back = lambda x, kernel: transposed(call(x, kernel), kernel)
for axes, inner in (((0, None), there_and_back), ((None, 0), jax.grad(square(call), 1)), ((0, 0), call)):
    arrays = [stack if axis == 0 else one for stack, one, axis in zip(stacks, (x, kernel), axes)]
    check(jax.vmap(inner, axes), arrays, [("a",) if axis == 0 else ("b",) for axis in axes])
print("right")
"""


def test_explicit_axes(python):
    """A mesh that `jax.make_mesh` makes: arrays cut along any of their axes, and the axis that `vmap` maps."""
    if not hasattr(jax.sharding, "AxisType"):
        pytest.skip("this version of JAX has no explicit axes")
    assert python(EXPLICIT, timeout=400, XLA_FLAGS=devices(4)) == "right\n"


SUMS = """
import numpy as np, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
import localconv.jax as lj
mesh = jax.make_mesh((2,), ("a",))
rng = np.random.default_rng(0)
small = lambda *shape: jnp.array(rng.integers(-3, 4, shape), jnp.float32)
x, kernel, weights = small(4, 10, 6), small(8, 12, 3), small(6, 4)
call = lambda x, kernel: lj.local_conv1d(x, kernel, 3, 1, "channels_last")
expected = jax.grad(lambda kernel: (call(x @ weights, kernel) ** 2).sum())(kernel)
with jax.set_mesh(mesh):
    images, parts = jax.device_put((x, weights), (NamedSharding(mesh, P(None, None, "a")), NamedSharding(mesh, P("a"))))
    unsummed = jax.jit(lambda x, weights: call(jnp.dot(x, weights, out_sharding=P(unreduced={"a"})), kernel))
    np.testing.assert_array_equal(unsummed(images, parts), call(x @ weights, kernel))
    several = jax.device_put(kernel, NamedSharding(mesh, P(reduced={"a"})))
    gradient = jax.grad(lambda kernel: (call(x @ weights, kernel) ** 2).sum())
    found = jax.jit(lambda kernel: jax.sharding.reshard(gradient(kernel), P()))(several)
    np.testing.assert_array_equal(found, expected)
print("right")
"""


def test_sums_over_explicit_axes_that_are_still_to_be_made(python):
    try:
        jax.sharding.PartitionSpec(reduced={"a"})
    except TypeError:
        pytest.skip("this version of JAX has no unreduced arrays")
    assert python(SUMS, timeout=400, XLA_FLAGS=devices(2)) == "right\n"


def test_every_primitive_has_a_handler_and_a_name():
    from localconv import _xla

    assert set(lj.TARGETS) == set(primitives.PRIMITIVES) == set(_xla.OPERATIONS) == set(_xla.handlers())
