"""Values of the functions for JAX: the twin's, and those of JAX's own locally connected convolution."""

import dataclasses
from functools import partial

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax_cases import CASES, name_of
from oracle import FORMATS, Case, Gradient

import localconv
import localconv.jax as lj
from localconv import _core
from localconv.convert import convert
from localconv.core import settings


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_forward(case, jitted, dtype, x64):
    case = dataclasses.replace(case, dtype=dtype)
    inputs, kernel, bias = case.arrays()
    call = partial(getattr(lj, case.function), bias=bias, **case.options())
    result = (jax.jit(call) if jitted else call)(inputs, kernel)
    assert isinstance(result, jax.Array)
    case.check(np.asarray(result))
    assert (_core.last_run()["operation"], _core.last_run()["dtype"]) == ("local_forward", dtype)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_transposed(case):
    gradient = Gradient(case, "input")
    kernel, grad_output = gradient.arrays()
    result = gradient.transposed(lj, (jnp.asarray(kernel), grad_output))
    gradient.check(np.asarray(result))
    assert _core.last_run()["operation"] == "local_grad_input"
    options = case.options() | {"output_shape": (None, *gradient.shape[1:])}
    again = jax.jit(partial(getattr(lj, f"{case.function}_transpose"), **options))(grad_output, kernel)
    np.testing.assert_array_equal(again, result)


@pytest.mark.parametrize("isa", _core.available_isas())
def test_the_instruction_set_in_force_runs(isa):
    """In a program that was compiled under another one, too."""
    case = CASES[4]
    inputs, kernel, _ = case.arrays()
    case = dataclasses.replace(case, bias=None)
    call = jax.jit(partial(getattr(lj, case.function), **case.options()))
    call(inputs, kernel).block_until_ready()
    settings.set_isa(isa)
    case.check(np.asarray(call(inputs, kernel)), (inputs, kernel, None))
    assert _core.last_run()["isa"] == isa


def test_forced_algorithms_run():
    case = CASES[0]
    call = jax.jit(partial(getattr(lj, case.function), **case.options()))
    inputs, kernel, _ = case.arrays()
    for name in ("local_rows", "local_images", "local_stream"):
        with settings.forced(name):
            case.check(np.asarray(call(inputs, kernel)))
        assert _core.last_run()["algorithm"] == name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_kernels_of_16_bits(case, dtype):
    """Read as they are: the handlers get no float32 copy, and the bits are those of one."""
    case = dataclasses.replace(case, bias=None)
    inputs, kernel, _ = case.arrays()
    small = jnp.asarray(kernel).astype(dtype)
    call = jax.jit(partial(getattr(lj, case.function), **case.options()))
    result = call(inputs, small)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, call(inputs, small.astype(jnp.float32)))
    assert "convert" not in call.lower(inputs, small).as_text()
    gradient = jax.grad(lambda x, k: (call(x, k) ** 2).sum(), (0, 1))
    dx, dkernel = gradient(inputs, small)
    dx_wide, dkernel_wide = gradient(inputs, small.astype(jnp.float32))
    np.testing.assert_array_equal(dx, dx_wide)
    assert dkernel.dtype == small.dtype
    np.testing.assert_array_equal(dkernel, dkernel_wide.astype(dtype))
    if case.rank == 1:  # examples with kernels of their own
        both = jax.vmap(call, (None, 0))(inputs, jnp.stack([small, 2 * small]))
        np.testing.assert_array_equal(both[1], call(inputs, 2 * small))


def test_no_images():
    """The result of nothing is empty, its gradient for the kernel 0."""
    shape, kernel = (0, 9, 3), jnp.ones((7, 9, 4))
    call = partial(lj.local_conv1d, kernel_size=3, strides=1, data_format="channels_last")
    assert call(jnp.ones(shape), kernel).shape == (0, 7, 4)
    gradient = jax.grad(lambda kernel: call(jnp.ones(shape), kernel).sum())(kernel)
    np.testing.assert_array_equal(gradient, np.zeros((7, 9, 4)))


def test_what_meets_padding_does_nothing():
    """Whatever the kernel's rows hold there; and their gradient is 0."""
    case = Case("local_conv1d", (6,), (3,), padding=((2, 2),), exact=True)
    inputs, kernel, _ = case.arrays()
    wild = np.where(case.rows_present()[:, :, None], kernel, np.float32(np.nan))
    call = partial(lj.local_conv1d, **case.options())
    np.testing.assert_array_equal(call(inputs, wild), call(inputs, kernel))
    gradient = jax.grad(lambda kernel: call(abs(inputs) + 1, kernel).sum())(wild)
    assert np.array_equal(np.asarray(gradient) != 0, np.broadcast_to(case.rows_present()[:, :, None], kernel.shape))


# ----------------------------------------------------------------------------------------- JAX's own, 200 geometries


@st.composite
def geometries(draw):
    """What both can do: explicit or no padding, one group (JAX's has no groups)."""
    rank = draw(st.integers(1, 3))
    axes = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, strides, dilation = draw(axes), draw(axes), draw(axes)
    padding = draw(st.sampled_from(["valid"]) | st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank))
    more = st.integers(0, {1: 4, 2: 4, 3: 2}[rank])
    spatial = tuple((k - 1) * d + 1 + draw(more) for k, d in zip(kernel, dilation, strict=True))
    return Case(
        f"local_conv{rank}d",
        spatial,
        kernel,
        batch=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 4)),
        filters=draw(st.integers(1, 5)),
        strides=strides,
        dilation_rate=dilation,
        padding=padding,
        data_format=draw(st.sampled_from(FORMATS)),
        exact=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def by_jax(case, inputs, rows):
    """The case by `jax.lax.conv_general_dilated_local`, its kernel converted from rows."""
    letters = "DHW"[-case.rank :]
    first = case.data_format == "channels_first"
    images = f"NC{letters}" if first else f"N{letters}C"
    kernels, layout = (f"OI{letters}", "jax") if first else (f"{letters}IO", "jax_channels_last")
    source = "rows_channels_first" if first else "rows"
    kernel = convert(rows, source, layout, case.kernel_size, output_size=case.out)
    padding = "VALID" if case.padding == "valid" else case.padding
    result = jax.lax.conv_general_dilated_local(
        inputs,
        kernel,
        case.strides,
        padding,
        case.kernel_size,
        rhs_dilation=case.dilation_rate,
        dimension_numbers=(images, kernels, images),
        precision=jax.lax.Precision.HIGHEST,
    )
    return np.asarray(result)


@hypothesis.settings(max_examples=200, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@given(case=geometries())
def test_against_jax(case):
    """JAX's own result lies within the same rounding of the twin's: so does ours, and exact ones are equal."""
    inputs, kernel, _ = case.arrays()
    case.check(by_jax(case, inputs, kernel))
    case.check(np.asarray(getattr(lj, case.function)(inputs, kernel, **case.options())))


@hypothesis.settings(max_examples=20)
@given(case=geometries())
def test_gradients(case):
    """Both gradients, of any geometry, against the twins of `localconv.grad`."""
    for gradient in oracle.gradients(case):
        first, grad_output = gradient.arrays()
        inputs, kernel, _ = case.arrays()
        number = ("input", "kernel").index(gradient.of)
        arrays = [inputs, kernel]
        arrays[1 - number] = first
        _, pull = jax.vjp(partial(getattr(lj, case.function), **case.options()), *arrays)
        gradient.check(np.asarray(pull(jnp.asarray(grad_output))[number]))


def test_same_bits_as_numpy():
    for case in CASES:
        inputs, kernel, _ = case.arrays()
        result = getattr(lj, case.function)(inputs, kernel, **case.options())
        np.testing.assert_array_equal(
            result, getattr(localconv, case.function)(inputs, kernel, **case.options()), strict=False
        )
