"""Filters that come with the data for JAX: values, transformations, other platforms, several devices, arguments."""

import inspect
import os
import random
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from formulated import wild_where_absent
from jax.test_util import check_grads
from operations import draw_filter_case
from oracle import FilterCase

import localconv
import localconv.jax as lj
from localconv import _core
from localconv.core.spec import filter_spec
from localconv.jax import platforms
from localconv.jax.window import Window, window_of

CASES = [
    FilterCase("local_filter", (9,), (3,), padding="causal", dilation_rate=2, exact=False),
    FilterCase("local_filter", (6, 5), (3, 2), groups=2, padding="same", strides=(2, 1), exact=False),
    FilterCase(
        "local_filter",
        (6, 7),
        (3, 2),
        3,
        groups=4,
        padding="inside",
        dilation_rate=(2, 1),
        data_format="channels_first",
        one=True,
        exact=False,
    ),
    FilterCase("local_filter", (4, 3, 4), (2, 2, 3), padding=((1, 0), (0, 2), (1, 1)), one=True, exact=False),
    FilterCase("local_correlation", (9,), (4,), groups=2, padding="inside", dilation_rate=2, exact=False),
    FilterCase("local_correlation", (6, 5), (2, 3), 3, strides=2, data_format="channels_first", exact=False),
    FilterCase("local_correlation", (3, 4, 3), (2, 3, 1), 1, 2, padding="same", exact=False),
]


def name_of(case):
    one = "-one" if case.one else ""
    return f"{case.function}-{case.data_format}-g{case.groups}-{case.padding}{one}"


@pytest.fixture(params=CASES, ids=name_of)
def case(request):
    return request.param


def drawn(kind, number):
    """Cases in float32, the same at every run."""
    rng = random.Random(f"{kind} {number}")
    while True:
        case = draw_filter_case(rng, kind, rng.randint(1, 3))
        if case.dtype == "float32":
            return case


def function_of(case):
    """The case's function of its two arrays, and these in float64 if JAX has it."""
    names = list(case.arrays())

    def call(*arrays):
        return case.run(lj, dict(zip(names, arrays, strict=True)))

    dtype = "float64" if jax.config.jax_enable_x64 else "float32"
    return call, [jnp.asarray(array, dtype) for array in case.arrays().values()]


def gradient_cases(case):
    """Those of the derivatives of a case's function for its two arrays."""
    ends = {"local_filter": ("_input", "_filters"), "local_correlation": ("_input", "_queries")}[case.kind]
    return [FilterCase(**(vars(case) | {"kind": case.kind + end})) for end in ends]


def same(a, b):
    """Equal but for rounding: float64 sums of at most a few hundred products of values about 1."""
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


# --------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_values(case, jitted):
    call, _ = function_of(case)
    arrays = wild_where_absent(case, case.arrays(), np.nan)
    result = (jax.jit(call) if jitted else call)(*arrays.values())
    assert isinstance(result, jax.Array)
    case.check(np.asarray(result))
    assert _core.last_run()["operation"] == case.operation
    np.testing.assert_array_equal(result, case.run(localconv, arrays))


@pytest.mark.parametrize("kind", ["local_filter", "local_correlation"])
@pytest.mark.parametrize("number", range(5))
def test_random_geometries(kind, number):
    """Values and both gradients, which are of this family too."""
    case = drawn(kind, number)
    call, _ = function_of(case)
    arrays = list(case.arrays().values())
    result, pull = jax.vjp(call, *map(jnp.asarray, arrays))
    case.check(np.asarray(result))
    for gradient, found in zip(gradient_cases(case), pull(result), strict=True):
        given = gradient.arrays()
        shared = {"inputs": arrays[0], "filters": arrays[1], "queries": arrays[1]}
        given = {name: np.asarray(result) if name == "grad_output" else shared[name] for name in given}
        gradient.check(np.asarray(found), given)
        assert _core.last_run()["operation"].startswith("filter_grad") or gradient.kind.endswith("queries")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", [case for case in CASES if case.kind == "local_filter"], ids=name_of)
def test_filters_of_16_bits(case, dtype):
    """Read as they are: the handlers get no float32 copy, and the bits are those of one."""
    inputs, filters = case.arrays().values()
    small = jnp.asarray(filters).astype(dtype)
    call = jax.jit(function_of(case)[0])
    result = call(inputs, small)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, call(inputs, small.astype(jnp.float32)))
    assert "convert" not in call.lower(inputs, small).as_text()
    gradient = jax.grad(lambda x, w: (call(x, w) ** 2).sum(), (0, 1))
    dx, dw = gradient(inputs, small)
    dx_wide, dw_wide = gradient(inputs, small.astype(jnp.float32))
    np.testing.assert_array_equal(dx, dx_wide)
    assert dw.dtype == small.dtype
    np.testing.assert_array_equal(dw, dw_wide.astype(dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(case, dtype):
    call, _ = function_of(case)
    arrays = [jnp.asarray(array, dtype) for array in case.arrays().values()]
    result = call(*arrays)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, call(*[a.astype(jnp.float32) for a in arrays]).astype(dtype))


def test_no_images():
    x, filters = jnp.ones((0, 9, 4)), jnp.ones((1, 7, 3))
    call = partial(lj.local_filter1d, kernel_size=3, data_format="channels_last")
    assert call(x, filters).shape == (0, 7, 4)
    np.testing.assert_array_equal(jax.grad(lambda w: call(x, w).sum())(filters), np.zeros((1, 7, 3)))


# ------------------------------------------------------------------------------------------------------ transformations


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_derivatives_to_order_2(case, mode, x64):
    call, arrays = function_of(case)
    check_grads(jax.jit(call), arrays, order=2, modes=[mode])


def test_hessian_is_bilinear(x64):
    """Its mixed blocks are each other's transposes; the others are 0."""
    call, (first, second) = function_of(CASES[0])
    weights = np.random.default_rng(0).standard_normal(call(first, second).shape)
    hessian = jax.hessian(lambda *arrays: (call(*arrays) * weights).sum(), (0, 1))(first, second)
    (aa, ab), (ba, bb) = hessian
    assert not aa.any()
    assert not bb.any()
    same(ab, jnp.moveaxis(ba, range(second.ndim), range(-second.ndim, 0)))
    assert ab.any()


@pytest.mark.parametrize(("mapped", "axis"), [((1, 0), -1), ((0, 1), 0), ((1, 1), 1)], ids=str)
def test_vmap(case, mapped, axis, x64):
    """Over either array and both: values, and gradients of the mapped function and mapped."""
    call, arrays = function_of(case)
    versions = [[a * (i + 1) if has else a for a, has in zip(arrays, mapped, strict=True)] for i in range(3)]
    stacked = [
        jnp.stack([version[n] for version in versions], axis) if has else arrays[n] for n, has in enumerate(mapped)
    ]
    axes = tuple(axis if has else None for has in mapped)
    over = jax.vmap(call, axes)
    same(over(*stacked), jnp.stack([call(*version) for version in versions]))
    gradient = jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), (0, 1))
    expected = [gradient(*version) for version in versions]
    for number, found in enumerate(jax.vmap(gradient, axes)(*stacked)):
        same(found, jnp.stack([pair[number] for pair in expected]))
    for number, found in enumerate(jax.grad(lambda *arrays: (over(*arrays) ** 2).sum(), (0, 1))(*stacked)):
        every = jnp.stack([pair[number] for pair in expected], axis if mapped[number] else 0)
        same(found, every if mapped[number] else every.sum(0))


@pytest.mark.parametrize("outer", [(1, 0), (0, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("inner", [(1, 0), (0, 1), (1, 1)], ids=str)
def test_vmap_of_vmap(inner, outer):
    batch = 1 if inner == outer else 2  # filters of one image are those of all there, or each image's own
    case = FilterCase("local_filter", (5, 4), (2, 3), batch, 2, padding="same", one=True)
    call, arrays = function_of(case)
    gradient = jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), 1)
    twice = [
        jnp.stack([jnp.stack([a, -a]) if has_inner else a, jnp.zeros_like(jnp.stack([a, a]) if has_inner else a)])
        if has_outer
        else (jnp.stack([a, -a]) if has_inner else a)
        for a, has_inner, has_outer in zip(arrays, inner, outer, strict=True)
    ]
    axes = [tuple(0 if has else None for has in mapped) for mapped in (inner, outer)]
    for function in (call, gradient):
        found = jax.vmap(jax.vmap(function, axes[0]), axes[1])(*twice)
        for i, j in np.ndindex(2, 2):
            one = [
                a[(*[i] * has_outer, *[j] * has_inner)]
                for a, has_inner, has_outer in zip(twice, inner, outer, strict=True)
            ]
            np.testing.assert_allclose(found[i, j], function(*one), rtol=1e-5)


@pytest.mark.parametrize(
    ("batch", "one", "mapped"), [(2, False, (0, 0)), (1, False, (0, 0)), (1, False, (0, None)), (2, True, (0, None))]
)
def test_what_is_mapped_goes_into_the_batch(batch, one, mapped):
    """No axis of examples is made where images and their filters are mapped, or images that share filters."""
    case = FilterCase("local_filter", (6,), (3,), batch, 2, one=one)
    call, arrays = function_of(case)
    stacked = [a if axis is None else jnp.stack([a] * 5) for a, axis in zip(arrays, mapped, strict=True)]
    (equation,) = [e for e in jax.make_jaxpr(jax.vmap(call, mapped))(*stacked).eqns if "localconv" in str(e.primitive)]
    assert equation.outvars[0].aval.shape == (5 * batch, 4, 2)


def test_scan_and_checkpoint(case, x64):
    call, (first, second) = function_of(case)
    arrays = jnp.stack([first, -2 * first])
    plain = jax.grad(lambda w: sum((call(x, w) ** 2).sum() for x in arrays))(second)

    def total(w):
        step = jax.checkpoint(call)
        return jax.lax.scan(lambda total, x: (total + (step(x, w) ** 2).sum(), None), 0.0, arrays)[0]

    same(jax.jit(jax.grad(total))(second), plain)


def test_equal_geometries_share_a_program():
    x, filters = jnp.ones((2, 9, 3)), jnp.ones((2, 9, 3))
    jitted = lj.functional.convolved
    jitted.clear_cache()
    for padding, size in (("same", 3), (((1, 1),), (3,))):
        lj.local_filter1d(x, filters, size, 1, "channels_last", padding=padding)
    assert jitted._cache_size() == 1
    moved = lj.local_filter1d(x, filters, 3, 1, "channels_last", padding="inside")
    assert jitted._cache_size() == 2
    np.testing.assert_array_equal(moved, np.full(x.shape, 3))


# ------------------------------------------------------------------------------------- other platforms, several devices


def window(case):
    spec = filter_spec(
        case.rank, case.kernel_size, case.strides, case.padding, case.data_format, case.dilation_rate, case.groups
    )
    return window_of(spec, case.spatial)


def test_the_numbers_of_a_window(case):
    assert Window.of_numbers(window(case).numbers(), "filter") == window(case)


@pytest.mark.parametrize("by", [platforms._by_jnp, platforms._called_back], ids=["jnp", "callback"])
def test_without_handlers(case, by):
    """The formulation for other platforms, and the callback where XLA refuses the handlers: all three sums."""
    params = {"window": window(case)}
    for one in (case, *gradient_cases(case)):
        arrays = one.arrays()
        made = {"output": {}, "inputs": {"spatial": case.spatial}, "filters": {"one": one.shapes()["filters"][0] == 1}}
        operands = list(arrays.values())
        if one.kind == "local_correlation_input":  # filters first
            operands.reverse()
        run = jax.jit(partial(by, one.operation, **params, **made[one.role.makes]))
        one.check(np.asarray(run(*operands)))
        np.testing.assert_allclose(
            run(jnp.stack([operands[0], -operands[0]]), operands[1])[1], -run(*operands), rtol=1e-5, atol=1e-5
        )


def test_programs_for_other_platforms(case):
    """Are lowered from here, and call nothing of localconv's."""
    call, _ = function_of(case)
    step = jax.jit(jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), (0, 1)))
    exported = jax.export.export(step, platforms=["cuda", "tpu"])(*case.arrays().values())
    assert "localconv_" not in exported.mlir_module()


@pytest.mark.parametrize("one", [False, True])
def test_a_symbolic_batch(one):
    """Values and gradients of an exported program, for several batches."""
    (batch,) = jax.export.symbolic_shape("batch")
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in lj.TARGETS.values()]
    windows = {"kernel_size": 3, "data_format": "channels_last", "padding": "same", "groups": 2}

    def step(x, filters):
        scores = lj.local_correlation1d(x, x, **windows)
        return jax.grad(lambda x, w: (lj.local_filter1d(x, w, **windows) ** 2).sum(), (0, 1))(x, filters), scores

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((batch, 9, 4), (1 if one else batch, 9, 6))]
    program = jax.export.export(jax.jit(step), disabled_checks=checks)(*shapes)
    for n in (1, 3):
        x, filters = jnp.arange(36.0 * n).reshape(n, 9, 4) / 36, jnp.ones((1 if one else n, 9, 6))
        jax.tree.map(np.testing.assert_array_equal, program.call(x, filters), step(x, filters))


def test_symbols_that_do_not_fit_are_refused():
    batch, other, steps = jax.export.symbolic_shape("batch, other, steps")
    call = jax.jit(lambda x, w: lj.local_filter1d(x, w, 3, 1, "channels_last"))
    for shapes, words in [
        (((batch, steps, 4), (batch, 7, 3)), "inputs may have a symbolic batch, but no other"),
        (((batch, 9, 4), (other, 7, 3)), "filters must have shape"),
        (((batch, 9, 4), (2, 7, 3)), "filters must have shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            jax.export.export(call)(*[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes])


DEVICES = """
import numpy as np, jax, jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec as P
import localconv.jax as lj
try:
    from jax import shard_map
except ImportError:
    from jax.experimental.shard_map import shard_map
options = {"check_rep": False} if jax.__version_info__ < (0, 6) else {}
mesh = Mesh(np.array(jax.devices()), ("d",))
rng = np.random.default_rng(0)
x, each, one = (rng.integers(-3, 4, shape).astype("f") for shape in ((4, 10, 4), (4, 10, 6), (1, 10, 6)))
windows = {"kernel_size": 3, "data_format": "channels_last", "padding": "inside", "groups": 2}
filtered = lambda x, filters: lj.local_filter1d(x, filters, **windows)
scores = lambda x, queries: lj.local_correlation1d(x, queries, **windows)
loss = lambda call: jax.jit(jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), (0, 1)))
assert len(jax.devices()) == 2
for call, arrays, specs in (
    (filtered, (x, each), (P("d"), P("d"))), (filtered, (x, one), (P("d"), P())), (scores, (x, x), (P("d"), P("d")))
):
    mapped = shard_map(call, mesh=mesh, in_specs=specs, out_specs=P("d"), **options)
    assert np.array_equal(jax.jit(mapped)(*arrays), call(*arrays))
    text = jax.jit(mapped).lower(*arrays).compile().as_text()
    assert "all-gather" not in text and "localconv_filter" in text
    for found, expected in zip(loss(mapped)(*arrays), loss(call)(*arrays)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
print("right")
"""


def test_two_devices(python):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    assert python(DEVICES, timeout=400, XLA_FLAGS=flags) == "right\n"


# ------------------------------------------------------------------------------------------------------------ arguments

X, FILTERS, QUERIES = jnp.ones((2, 9, 4)), jnp.ones((2, 7, 3)), jnp.ones((2, 7, 4))


@pytest.mark.parametrize("name", [n for n in lj.__all__ if n.startswith(("local_filter", "local_correlation"))])
def test_arguments_are_those_of_the_functions_for_numpy(name):
    """Names, order, defaults; `out` is not JAX's way, and `normalize` a quotient of two calls, which JAX derives."""
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (lj, localconv))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values() if p.name not in ("out", "normalize")
    ]


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("function", "changes", "error", "words"),
    [
        ("filter", {"filters": [[1.0]]}, TypeError, "filters must be an array of .*, got list"),
        ("filter", {"filters": jnp.ones((2, 7, 3), int)}, TypeError, "filters must have one of the dtypes"),
        ("filter", {"filters": localconv.quantize(np.ones((7, 9, 4), "f"))}, TypeError, "filters must be an array"),
        ("filter", {"filters": jnp.ones((3, 7, 3))}, ValueError, r"filters must have shape .* \(2, 7, 3\) or \(1, 7"),
        ("filter", {"inputs": jnp.ones((9, 4))}, ValueError, "inputs must have 3 axes"),
        ("filter", {"groups": 3}, ValueError, "filters must have shape"),
        ("filter", {"padding": "inside", "strides": 2}, ValueError, "strides must be 1 with padding='inside'"),
        ("correlation", {"queries": jnp.ones((1, 7, 4))}, ValueError, r"queries must have the shape of .*\(2, 7, 4\)"),
        ("correlation", {"inputs": jnp.ones((9, 4))}, ValueError, "inputs must have 3 axes"),
        ("correlation", {"groups": 3}, ValueError, "groups must divide the 4 channels of inputs"),
        ("correlation", {"kernel_size": 10, "padding": "inside"}, ValueError, "kernel_size .* at most the size"),
    ],
)
def test_wrong_arguments(function, changes, error, words, traced):
    """The same errors eagerly and while a function is traced."""
    given = {"filter": {"filters": FILTERS}, "correlation": {"queries": QUERIES}}[function]
    arguments = {"inputs": X, "kernel_size": 3, "data_format": "channels_last"} | given | changes
    call = partial(getattr(lj, f"local_{function}1d"), **arguments)
    with pytest.raises(error, match=words):
        (jax.jit(call) if traced else call)()


def test_wrong_calls_of_the_handlers():
    """What no function here makes is refused, and nothing is read."""
    lj.register()
    numbers = np.array([1, 3, 1, 1, 0, 0, 1, 0], np.int64)

    def custom(operation, *args, result, window=numbers):
        shape = jax.ShapeDtypeStruct(result, jnp.float32)
        return jax.ffi.ffi_call(lj.TARGETS[operation], shape)(*args, window=window)

    expected = lj.local_filter1d(X, FILTERS, 3, 1, "channels_last")
    np.testing.assert_array_equal(custom("filter_forward", X, FILTERS, result=(2, 7, 4)), expected)
    for operation, args, options, words in [
        ("filter_forward", (X, FILTERS), {"result": (2, 6, 4)}, "shape"),
        ("filter_forward", (X, FILTERS[:, 1:]), {"result": (2, 7, 4)}, "filters must have shape"),
        ("filter_forward", (X[0], FILTERS), {"result": (2, 7, 4)}, "localconv"),
        ("filter_grad_input", (FILTERS, QUERIES[:1]), {"result": (2, 9, 4)}, "shape"),
        ("filter_grad_kernel", (X, QUERIES), {"result": (3, 7, 3)}, "shape"),
        ("filter_grad_kernel", (X, QUERIES[:1]), {"result": (2, 7, 3)}, "shape"),
        ("filter_grad_kernel", (X, QUERIES.astype("float16")), {"result": (2, 7, 3)}, "float32"),
        ("filter_forward", (X, FILTERS), {"result": (2, 7, 4), "window": numbers[1:]}, "the numbers of a window"),
    ]:
        with pytest.raises(jax.errors.JaxRuntimeError, match=words):
            custom(operation, *args, **options).block_until_ready()
