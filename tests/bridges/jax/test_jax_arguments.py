"""Validation: dtypes, and errors that name the argument."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import localconv
import localconv.jax as lj
from localconv.core import settings

X, KERNEL = jnp.ones((2, 9, 3)), jnp.ones((7, 9, 4))
SMALL = localconv.quantize(np.ones((7, 9, 4), np.float32))


def call(inputs=X, kernel=KERNEL, kernel_size=3, strides=1, data_format="channels_last", **options):
    return lj.local_conv1d(inputs, kernel, kernel_size, strides, data_format, **options)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"inputs": [[[1.0]]]}, TypeError, "inputs must be an array of .*, got list"),
        ({"inputs": np.ma.ones((2, 9, 3))}, TypeError, "inputs must be an array of .*, got MaskedArray"),
        ({"inputs": jnp.ones((2, 9, 3), int)}, TypeError, "inputs must have one of the dtypes .*, got int32"),
        ({"kernel": jnp.ones((7, 9, 4), complex)}, TypeError, "kernel must have one of the dtypes .*, got complex64"),
        ({"kernel": SMALL}, TypeError, r"kernel must be an array of .*, got QuantizedKernel.*: kernel\.dequantize\(\)"),
        ({"bias": SMALL}, TypeError, "bias must be an array of .*, got QuantizedKernel"),
        ({"kernel": np.ones((7, 9, 4), bool)}, TypeError, "kernel must have one of the dtypes .*, got bool"),
        ({"inputs": jnp.ones((9, 3))}, ValueError, "inputs must have 3 axes"),
        ({"kernel": jnp.ones((7, 8, 4))}, ValueError, r"kernel must have shape .* = \(7, 9, 4\)"),
        ({"kernel": jnp.ones((6, 9, 4))}, ValueError, "kernel must have shape"),
        ({"kernel_size": 10}, ValueError, "too small for a kernel"),
        ({"kernel_size": "3"}, TypeError, "kernel_size must be"),
        ({"strides": 0}, ValueError, "strides must be at least 1"),
        ({"padding": "full"}, ValueError, "padding must be one of"),
        ({"dilation_rate": (1, 2)}, ValueError, "dilation_rate must be"),
        ({"groups": 2}, ValueError, "groups must divide"),
        ({"data_format": "NHWC"}, ValueError, "data_format must be"),
        ({"bias": jnp.ones(5)}, ValueError, r"bias must have shape \(4,\) or \(7, 4\), got \(5,\)"),
        ({"bias": 1.0}, TypeError, "bias must be an array"),
    ],
)
@pytest.mark.parametrize("traced", [False, True], ids=["eager", "jit"])
def test_wrong_arguments(changes, error, words, traced):
    """The same errors eagerly and while a function is traced."""
    with pytest.raises(error, match=words):
        (jax.jit(lambda: call(**changes)) if traced else lambda: call(**changes))()


@pytest.mark.parametrize("name", [name for name in lj.__all__ if name.startswith("local_conv")])
def test_arguments_are_those_of_the_functions_for_numpy(name):
    """Names, order, defaults; `out` is not JAX's way; jnp divides."""
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (lj, localconv))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values() if p.name not in ("out", "normalize")
    ]


def test_wrong_output_shapes():
    kernel = jnp.ones((4, 4, 1))
    with pytest.raises(ValueError, match="output_shape must be"):
        lj.local_conv2d(jnp.ones((1, 3, 3, 1)), kernel, 2, 1, (3, 2), "channels_last")
    with pytest.raises(ValueError, match="inputs must have the shape of the forward result"):
        lj.local_conv2d_transpose(jnp.ones((1, 3, 2, 1)), kernel, 2, 1, (1, 3, 3, 1), "channels_last")
    with pytest.raises(TypeError, match="output_shape must be"):
        lj.local_conv2d_transpose(jnp.ones((1, 2, 2, 1)), kernel, 2, 1, (1, None, 3, 1), "channels_last")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """The sums run in float32: the result is that of float32, rounded; so are the gradients."""
    rng = np.random.default_rng(0)
    x, kernel, bias = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((2, 9, 3), (7, 9, 4), (7, 4)))
    single = [array.astype("float32") for array in (x, kernel, bias)]
    result = call(x, kernel, bias=bias)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, call(single[0], single[1], bias=single[2]).astype(dtype))
    weights = jnp.asarray(rng.standard_normal(result.shape), dtype)
    found = jax.vjp(call, x, kernel)[1](weights)
    expected = jax.vjp(call, *single[:2])[1](weights.astype("float32"))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b.astype(dtype))


@pytest.mark.parametrize(
    ("first", "second"),
    [("float16", "float32"), ("bfloat16", "float16"), ("float32", "float64"), ("bfloat16", "float64")],
)
def test_dtypes_promote_as_in_jax(first, second, x64):
    a, b = X.astype(first), KERNEL.astype(second)
    result = call(a, b)
    assert result.dtype == (a[0, 0, 0] * b[0, 0, 0]).dtype
    gradients = jax.grad(lambda a, b: call(a, b).sum(), (0, 1))(a, b)
    assert [gradient.dtype for gradient in gradients] == [a.dtype, b.dtype]


def test_errors_of_a_running_program_name_the_argument():
    """An algorithm that cannot do the geometry is found out when the program runs: an error of XLA's."""
    program = jax.jit(lambda x, kernel: call(x, kernel))
    with settings.forced("local_dot"), pytest.raises(jax.errors.JaxRuntimeError, match="local_dot") as caught:
        program(jnp.ones((2, 9, 3)), jnp.ones((7, 9, 4))).block_until_ready()
    assert "INVALID_ARGUMENT" in str(caught.value)
    np.testing.assert_array_equal(program(X, KERNEL), call())


def test_wrong_calls_of_the_handlers():
    """What no function here makes is refused, and nothing is read."""
    lj.register()

    def custom(*args, result=(2, 7, 4), **attributes):
        shape = jax.ShapeDtypeStruct(result, jnp.float32)
        return jax.ffi.ffi_call(lj.TARGETS["local_forward"], shape)(*args, **attributes)

    window = np.array([1, 3, 1, 1, 0, 0, 1, 0], np.int64)
    np.testing.assert_array_equal(custom(X, KERNEL, window=window), call())
    for args, options, words in [
        ((X,), {"window": window}, "two operands"),
        ((X, KERNEL), {}, "one attribute"),
        ((X, KERNEL), {"window": window.astype("int32")}, "int64"),
        ((X, KERNEL), {"window": np.int64(3)}, "one attribute, an array"),
        ((X, KERNEL), {"window": np.ones(25, np.int64)}, "at most 18 int64"),
        ((X, KERNEL), {"window": np.array([7], np.int64)}, "the numbers of a window"),
        ((X.astype("float16"), KERNEL), {"window": window}, "float32"),
        ((X, KERNEL.astype("int8")), {"window": window}, "float32"),
        ((X.reshape(2, 1, 1, 9, 1, 1, 3), KERNEL), {"window": window}, "6 axes"),
        ((X, KERNEL[:5]), {"window": window}, "kernel must have shape"),
        ((X, KERNEL), {"window": window, "result": (2, 6, 4)}, "shape"),
        ((jnp.stack([X] * 3), jnp.stack([KERNEL] * 2)), {"window": window, "result": (3, 2, 7, 4)}, "examples"),
    ]:
        with pytest.raises(jax.errors.JaxRuntimeError, match=words):
            custom(*args, **options).block_until_ready()


def test_functions_for_numpy_name_this_package():
    def function(x):
        return localconv.local_conv1d(x, KERNEL, 3, 1, "channels_last").sum()

    for transform in (jax.jit, jax.grad, lambda f: jax.vmap(f, 1)):
        with pytest.raises(TypeError, match=r"^inputs must be .*on traced array.*; localconv\.jax computes"):
            transform(function)(X)
    assert np.isfinite(function(X))
