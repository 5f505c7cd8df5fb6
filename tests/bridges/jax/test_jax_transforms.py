"""Derivatives of every order and mode, vmap over every argument, and the other transformations of JAX."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jax_cases import CASES, name_of

import localconv.jax as lj


def function_of(case):
    """The case's function of its input and kernel, and of its bias if it has one; with the arrays, in float64."""
    *arrays, bias = dataclasses.replace(case, dtype="float64").arrays()
    arrays = [jnp.asarray(array) for array in (*arrays, bias) if array is not None]

    def call(inputs, kernel, bias=None):
        return getattr(lj, case.function)(inputs, kernel, bias=bias, **case.options())

    return call, arrays


def same(a, b):
    """Equal but for rounding: float64 sums of at most a few thousand products of values about 1."""
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def double(x64):
    """Differences tell something in float64 alone."""


@pytest.fixture(params=CASES, ids=name_of)
def case(request):
    return request.param


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_derivatives_to_order_2(case, mode):
    call, arrays = function_of(case)
    check_grads(call, arrays, order=2, modes=[mode])


def test_derivatives_of_order_3():
    call, arrays = function_of(CASES[0])
    check_grads(lambda *arrays: call(*arrays) ** 2, arrays, 3, atol=1e-3, rtol=1e-3)


def test_transposed_derivatives(case):
    call, (inputs, kernel, *_) = function_of(case)
    output = call(inputs, kernel)
    options = case.options() | {"output_shape": inputs.shape}
    check_grads(partial(getattr(lj, f"{case.function}_transpose"), **options), (output, kernel), order=2)


def test_hessian_is_bilinear():
    """Its mixed blocks are each other's transposes, and what `vjp` of `vjp` gives; the others are 0."""
    call, (inputs, kernel) = function_of(CASES[0])
    weights = np.random.default_rng(0).standard_normal(call(inputs, kernel).shape)
    (xx, xk), (kx, kk) = jax.hessian(lambda x, k: (call(x, k) * weights).sum(), (0, 1))(inputs, kernel)
    assert not xx.any()
    assert not kk.any()
    same(xk, jnp.moveaxis(kx, range(kernel.ndim), range(-kernel.ndim, 0)))
    along = jnp.tensordot(xk, kernel, kernel.ndim)
    same(along, jax.grad(lambda x: (call(x, kernel) * weights).sum())(inputs))


def test_linearize_checkpoint_scan(case):
    call, (inputs, kernel, *rest) = function_of(case)
    value, push = jax.linearize(lambda x: call(x, kernel, *rest), inputs)
    same(value, call(inputs, kernel, *rest))
    same(push(inputs), call(inputs, kernel))
    plain = jax.grad(lambda k: (call(inputs, k, *rest) ** 2).sum())
    again = jax.grad(lambda k: (jax.checkpoint(call)(inputs, k, *rest) ** 2).sum())
    same(again(kernel), plain(kernel))

    def total(kernel):
        step = jax.lax.scan(lambda total, x: (total + (call(x, kernel, *rest) ** 2).sum(), None), 0.0, images)
        return step[0]

    images = jnp.stack([inputs, 2 * inputs, -inputs])
    same(
        jax.jit(jax.grad(total))(kernel),
        sum(jax.grad(lambda k, x=x: (call(x, k, *rest) ** 2).sum())(kernel) for x in images),
    )


# ----------------------------------------------------------------------------------------------------------------- vmap

COUNT = 3


def repeated(arrays, mapped, axis):
    """The arrays, those that are mapped in COUNT versions along an axis; and the list of single calls' arguments."""
    versions = [
        [array * (1 + i) if has else array for array, has in zip(arrays, mapped, strict=True)] for i in range(COUNT)
    ]
    stacked = [
        jnp.stack([version[n] for version in versions], axis) if has else array
        for n, (array, has) in enumerate(zip(arrays, mapped, strict=True))
    ]
    return stacked, versions


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("mapped", [(1, 0), (0, 1), (1, 1)])
def test_vmap(case, mapped, axis):
    """Over every argument: values and gradients, of the mapped function and mapped."""
    call, (inputs, kernel, *_) = function_of(case)
    stacked, versions = repeated((inputs, kernel), mapped, axis)
    axes = tuple(axis if has else None for has in mapped)
    over = jax.vmap(call, axes)
    same(over(*stacked), jnp.stack([call(*version) for version in versions]))
    gradient = jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), (0, 1))
    expected = [gradient(*version) for version in versions]
    for number, found in enumerate(jax.vmap(gradient, axes)(*stacked)):
        same(found, jnp.stack([pair[number] for pair in expected]))
    for number, found in enumerate(jax.grad(lambda *arrays: (over(*arrays) ** 2).sum(), (0, 1))(*stacked)):
        whole = jnp.stack([pair[number] for pair in expected], axis if mapped[number] else 0)
        same(found, whole if mapped[number] else whole.sum(0))


def test_vmap_of_transposes(case):
    call, (inputs, kernel, *_) = function_of(case)
    output = call(inputs, kernel)
    transpose = partial(getattr(lj, f"{case.function}_transpose"), **(case.options() | {"output_shape": inputs.shape}))
    for mapped in ((1, 0), (0, 1), (1, 1)):
        stacked, versions = repeated((output, kernel), mapped, 0)
        axes = tuple(0 if has else None for has in mapped)
        same(jax.vmap(transpose, axes)(*stacked), jnp.stack([transpose(*version) for version in versions]))


@pytest.mark.parametrize("outer", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("inner", [(1, 0), (0, 1), (1, 1)])
def test_vmap_of_vmap(inner, outer):
    """Values and gradients of two maps, of every combination of arguments."""
    case = CASES[4]
    call, (inputs, kernel, *_) = function_of(case)
    for function in (call, jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), 1)):
        once, _ = repeated((inputs, kernel), inner, 0)
        twice, versions = repeated(once, outer, 0)
        axes = [tuple(0 if has else None for has in mapped) for mapped in (inner, outer)]
        single = [
            jnp.stack(
                [function(*[a[i] if has else a for a, has in zip(version, inner, strict=True)]) for i in range(COUNT)]
            )
            for version in versions
        ]
        np.testing.assert_allclose(
            jax.vmap(jax.vmap(function, axes[0]), axes[1])(*twice), jnp.stack(single), rtol=1e-6, atol=1e-6
        )


def test_mapped_images_go_into_the_batch():
    """The kernel is read once, and its gradient is one sum, not one for every image."""
    call, (inputs, kernel) = function_of(CASES[0])
    over = jax.grad(lambda x, k: (jax.vmap(call, (0, None))(x, k) ** 2).sum(), 1)
    text = str(jax.make_jaxpr(over)(jnp.stack([inputs] * COUNT), kernel))
    assert text.count("localconv_grad_kernel") == 1
    assert "reduce_sum" not in text.split("localconv_grad_kernel")[1]


def test_no_examples():
    """A map over nothing gives nothing."""
    call, (inputs, kernel) = function_of(CASES[0])
    result = jax.vmap(call, (0, 0))(jnp.zeros((0, *inputs.shape)), jnp.zeros((0, *kernel.shape)))
    assert result.shape == (0, *call(inputs, kernel).shape)


# ----------------------------------------------------------------------------------- JAX's switches for finding faults


def modes(inputs, kernel):
    """What a user runs under such a switch: a case's function in every mode, of a dtype of these arrays."""
    case = CASES[0]
    call = partial(getattr(lj, case.function), **case.options())
    back = partial(getattr(lj, f"{case.function}_transpose"), **(case.options() | {"output_shape": inputs.shape}))
    gradient = jax.grad(lambda *arrays: (call(*arrays) ** 2).sum(), (0, 1))
    kernels = jnp.stack([kernel, -kernel])
    return {
        "forward": lambda: call(inputs, kernel),
        "jit": lambda: jax.jit(call)(inputs, kernel),
        "grad": lambda: gradient(inputs, kernel),
        "jvp": lambda: jax.jvp(call, (inputs, kernel), (inputs, kernel)),
        "transposed": lambda: back(call(inputs, kernel), kernel),
        "vmap": lambda: jax.vmap(call, (None, 0))(inputs, kernels),
        "vmap of grad": lambda: jax.vmap(gradient, (None, 0))(inputs, kernels),
        "scan": lambda: jax.lax.scan(lambda total, k: (total + call(inputs, k), None), call(inputs, kernel), kernels)[
            0
        ],
    }


MODES = ["forward", "jit", "grad", "jvp", "transposed", "vmap", "vmap of grad", "scan"]
SWITCHES = {
    "disable_jit": jax.disable_jit,
    "checking_leaks": jax.checking_leaks,
    "debug_nans": jax.debug_nans,
    "numpy_dtype_promotion": partial(jax.numpy_dtype_promotion, "strict"),
    "numpy_rank_promotion": partial(jax.numpy_rank_promotion, "raise"),
}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("switch", SWITCHES)
def test_switches(switch, mode, dtype):
    """Change no result."""
    inputs, kernel, _ = CASES[0].arrays()
    run = modes(jnp.asarray(inputs, dtype), jnp.asarray(kernel, dtype))[mode]
    expected = run()
    jax.clear_caches()
    with SWITCHES[switch]():
        found = run()
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_nan_is_found(mode):
    """`jax.debug_nans` finds one that is there, and what made it."""
    inputs, kernel, _ = CASES[0].arrays()
    run = modes(jnp.asarray(inputs).at[0, 0, 0].set(jnp.nan), jnp.asarray(kernel))[mode]
    with jax.debug_nans(), pytest.raises(FloatingPointError, match=r"invalid value \(nan\)"):
        run()


# ---------------------------------------------------------------------------------------------------------- jit's cache


def test_equal_geometries_share_a_program():
    """'same' and the padding that it stands for, an int and a tuple of it, other values: one compilation."""
    x, kernel = jnp.ones((2, 9, 3)), jnp.ones((9, 9, 4))
    jitted = lj.functional.convolved
    jitted.clear_cache()
    for padding, size, dilation in (("same", 3, 1), (((1, 1),), (3,), (1,)), (((1, 1),), [3], 1)):
        lj.local_conv1d(x, kernel, size, 1, "channels_last", padding=padding, dilation_rate=dilation)
        lj.local_conv1d(x + 1, kernel, size, 1, "channels_last", padding=padding)
    assert jitted._cache_size() == 1
    lj.local_conv1d(x, kernel, 3, 1, "channels_last", padding=((0, 2),))
    assert jitted._cache_size() == 2
