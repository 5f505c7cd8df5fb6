"""Padding that holds pixels of the input, for JAX: values and gradients by the twins, under its transforms, and what is
refused.
"""

import dataclasses
import re
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import FORMATS, RANKS, Case, FilterCase, gradients

import localconv
import localconv.jax as lj

MODES = ["reflect", "replicate", "circular"]
LAST = {"data_format": "channels_last"}
# As much padding as every mode allows; 'same' of Keras and of TensorFlow; strides that leave pixels out.
WINDOWS = {
    1: [((5,), (2,), 2, 3, ((4, 4),)), ((6,), (3,), 1, 2, "causal")],
    2: [((5, 6), (2, 4), (2, 3), 1, "same"), ((4, 5), (3, 2), 1, (1, 2), ((0, 3), (4, 0)))],
    3: [((3, 4, 3), (2, 1, 3), (1, 2, 1), 1, ((1, 2), (0, 3), (2, 0)))],
}


def cases(kind, rank, mode):
    """In either data format, of which compilation takes most of the time."""
    for number, (spatial, size, strides, dilation, padding) in enumerate(WINDOWS[rank]):
        data_format = FORMATS[(number + MODES.index(mode)) % 2]
        options = {"strides": strides, "dilation_rate": dilation, "padding": padding, "padding_mode": mode}
        options |= {"data_format": data_format, "groups": 2}
        if kind == "local_conv":
            yield Case(f"local_conv{rank}d", spatial, size, channels=4, filters=6, bias="full", **options)
        else:
            yield FilterCase(kind, spatial, size, **options)


def solved(call, first, second, grad_output):
    """A result and both gradients, of one compiled program."""

    def step(first, second, grad_output):
        result, back = jax.vjp(call, first, second)
        return result, *back(grad_output)

    return [np.asarray(array) for array in jax.jit(step)(first, second, grad_output)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", RANKS)
def test_convolutions(rank, mode):
    """Of small integers, without rounding."""
    for case in cases("local_conv", rank, mode):
        inputs, kernel, bias = case.arrays()
        for_input, for_kernel = gradients(case)
        call = partial(getattr(lj, case.function), bias=bias, **case.options())
        result, dx, dkernel = solved(call, inputs, kernel, for_input.arrays()[1])
        case.check(result)
        for_input.check(dx)
        for_kernel.check(dkernel)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", RANKS)
def test_filters(rank, mode):
    for case in cases("local_filter", rank, mode):
        arrays, shape = case.arrays(), case.shapes()["output"]
        grad_output = np.arange(np.prod(shape), dtype="float32").reshape(shape) % 5 - 2
        call = partial(getattr(lj, case.function), **case.options())
        result, *slopes = solved(call, *arrays.values(), grad_output)
        case.check(result)
        for end, given, found in zip(("input", "filters"), ("filters", "inputs"), slopes, strict=True):
            twin = dataclasses.replace(case, kind=f"local_filter_{end}")
            twin.check(found, {given: arrays[given], "grad_output": grad_output})


@pytest.mark.parametrize("mode", MODES)
def test_transforms(mode):
    """A gradient of a gradient, examples, and the bits of a program that was not compiled as one."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(shape), "float32") for shape in ((3, 2, 5, 4, 2), (20, 18, 3)))
    call = partial(lj.local_conv2d, kernel_size=3, padding="same", padding_mode=mode, **LAST)

    def loss(x, kernel):
        return (call(x, kernel) ** 2).sum()

    each = jax.vmap(call, (0, None))(x, kernel)
    slope = jax.vmap(jax.grad(loss), (0, None))(x, kernel)
    curve = jax.grad(lambda x: (jax.grad(loss)(x, kernel) ** 2).sum())
    for number, images in enumerate(x):
        np.testing.assert_allclose(each[number], call(images, kernel), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(slope[number], jax.grad(loss)(images, kernel), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(jax.jit(call)(x[0], kernel), call(x[0], kernel))
    # What is quadratic has a gradient that is linear: L is 4 (A'A)^2 x.
    y, back = jax.vjp(lambda x: call(x, kernel), x[0])
    once = back(2 * y)[0]
    twice = back(4 * call(once, kernel))[0]
    np.testing.assert_allclose(curve(x[0]), twice, rtol=1e-4, atol=1e-4 * abs(twice).max())


@pytest.mark.parametrize("mode", MODES)
def test_forward_derivatives(mode):
    """Those of a linear function are its values."""
    x, kernel = jnp.arange(12.0).reshape(1, 6, 2), jnp.ones((6, 6, 1))
    call = partial(lj.local_conv1d, kernel=kernel, kernel_size=3, padding="same", padding_mode=mode, **LAST)
    value, derivative = jax.jvp(call, (x,), (x,))
    np.testing.assert_array_equal(value, derivative)


def test_a_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("batch")
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in lj.TARGETS.values()]
    kernel, filters = jnp.ones((9, 6, 1)), jnp.ones((1, 9, 3))

    def step(x):
        results = []
        for mode in MODES:
            options = {"padding": "same", "padding_mode": mode} | LAST
            results.append(jax.grad(lambda x, o=options: (lj.local_conv1d(x, kernel, 3, **o) ** 2).sum())(x))
            results.append(lj.local_filter1d(x, filters, 3, **options))
        return results

    program = jax.export.export(jax.jit(step), disabled_checks=checks)(jax.ShapeDtypeStruct((batch, 9, 2), jnp.float32))
    for n in (1, 3):
        x = jnp.arange(18.0 * n).reshape(n, 9, 2)
        jax.tree.map(np.testing.assert_array_equal, program.call(x), step(x))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_rounded_once(mode, dtype):
    """What the copies of a pixel add to its gradient is summed in float32."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.integers(-8, 9, shape), dtype) for shape in ((2, 4, 2), (4, 10, 24)))
    call = partial(lj.local_conv1d, kernel_size=5, padding="same", padding_mode=mode, **LAST)
    result, back = jax.vjp(call, x, kernel)
    assert result.dtype == dtype
    wide, wide_back = jax.vjp(call, x.astype("float32"), kernel.astype("float32"))
    np.testing.assert_array_equal(result, wide.astype(dtype))
    grad_output = jnp.asarray(rng.integers(-8, 9, result.shape), dtype)
    for found, expected in zip(back(grad_output), wide_back(grad_output.astype("float32")), strict=True):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected.astype(dtype))


def test_the_bits_are_those_of_numpy_arrays():
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(shape).astype("float32") for shape in ((2, 6, 5, 2), (30, 18, 3)))
    for mode in MODES:
        options = {"padding": "same", "padding_mode": mode} | LAST
        expected = localconv.local_conv2d(x, kernel, 3, **options)
        np.testing.assert_array_equal(lj.local_conv2d(x, kernel, 3, **options), expected)


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"padding_mode": "edge"}, "padding_mode must be one of ('zeros', 'reflect', 'replicate', 'circular'), got"),
        ({"padding_mode": "reflect", "padding": ((4, 0),)}, "padding must be less than the size of inputs along every"),
        ({"padding_mode": "circular", "padding": ((0, 5),)}, "padding must be at most the size of inputs along every"),
        ({"padding_mode": "reflect", "kernel": jnp.ones((5, 3, 1))}, "for inputs of shape (1, 4, 1)"),
    ],
)
def test_wrong_arguments(changes, words, traced):
    positions = {((4, 0),): 6, ((0, 5),): 7}.get(changes.get("padding"), 4)
    arguments = {"kernel": jnp.ones((positions, 3, 1)), "kernel_size": 3, "padding": "same"} | LAST | changes
    call = partial(lj.local_conv1d, jnp.ones((1, 4, 1)), **arguments)
    with pytest.raises(ValueError, match=re.escape(words)):
        (jax.jit(call) if traced else call)()
    if "kernel" not in changes:
        filters = jnp.ones((1, positions, 3))
        options = {name: value for name, value in arguments.items() if name != "kernel"}
        call = partial(lj.local_filter1d, jnp.ones((1, 4, 1)), filters, **options)
        with pytest.raises(ValueError, match=re.escape(words)):
            (jax.jit(call) if traced else call)()


def test_inside_has_no_padding():
    with pytest.raises(ValueError, match="padding_mode must be 'zeros' with padding='inside'"):
        lj.local_filter1d(jnp.ones((1, 6, 1)), jnp.ones((1, 6, 3)), 3, padding="inside", padding_mode="circular")
