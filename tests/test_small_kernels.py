"""Kernels of float16, bfloat16 and int8, and arrays of 16 bits: the values of the same in float32, in less memory."""

import concurrent.futures
import os
import random
import sys
import zlib
from dataclasses import replace

import numpy as np
import oracle
import pytest
import stored
import ways
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from operations import FORWARD, OPERATIONS, of_kind
from oracle import FORMATS, Case, Gradient, assert_close, assert_same_bits
from stored import BATCHES, BFLOAT16, FILTERS, FLOAT16, FLOAT32, FLOAT64, HALVES, assert_same_numbers, widened
from test_arrays import FORMS, Exporter, Subclass, offset_by_a_byte, read_only
from test_threads import CPUS, OPENMP

import localconv
from localconv import QuantizedKernel, _core, grad
from localconv.core import engine, policy, settings

WITH_KERNEL = of_kind("forward", "input", "transpose")
ISAS = _core.available_isas()
half = pytest.mark.parametrize("half", HALVES, ids=str)


FAMILIES = {"local_conv": "local", "local_filter": "filter", "local_correlation": "filter"}


def family_of(name):
    return next((family for part, family in FAMILIES.items() if part in name), "conv")


def ways_of(name):
    """Whatever the policy chooses, and every algorithm of a function's family."""
    return [(), *ways.ALL[family_of(name)]]


def call(name, arguments, **more):
    return getattr(OPERATIONS[name].module, name)(**arguments, **more)


def drawn(name, number):
    """Right arguments of an operation, the same at every run; the arrays are exact."""
    return OPERATIONS[name].draw(random.Random(f"{name} {number}"))


def with_normal_values(arguments):
    """The same in float32, with values that no sum holds exactly."""
    rng = np.random.default_rng(zlib.crc32(repr(list(arguments)).encode()))
    return {
        name: rng.standard_normal(value.shape).astype(np.float32) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }


# --- every value of 16 bits -------------------------------------------------------------------------------------------


@half
@pytest.mark.parametrize("filters", FILTERS)
def test_every_value_of_an_unshared_kernel(isa, half, filters):
    """Each is read from one lane of a vector, or of its tail, and multiplied by 1."""
    values = np.resize(stored.every_value(half), (-(-(2**16) // filters), filters))
    numbers = values.astype(np.float32)
    for batch, way in [(batch, way) for batch in (1, 9) for way in ways_of("local")]:
        with settings.forced(*way):
            ones = np.ones((batch, len(values), 1), np.float32)
            result = localconv.local_conv1d(ones, values[:, None], 1, data_format="channels_last")
            assert_same_bits(result, localconv.local_conv1d(ones, numbers[:, None], 1, data_format="channels_last"))
            np.testing.assert_array_equal(result, np.broadcast_to(numbers, result.shape))
            # Channels in the place of the filters: every input value has one product.
            shape, ones = (batch, *values.shape), np.ones((batch, len(values), 1), np.float32)
            result = grad.local_conv1d_input(shape, values[..., None], ones, 1, data_format="channels_last")
            np.testing.assert_array_equal(result, np.broadcast_to(numbers, result.shape))


@half
def test_every_value_in_every_lane(isa, half):
    """17 filters: full vectors and a tail, on every instruction set."""
    values = np.repeat(stored.every_value(half)[:, None, None], 17, 2)
    for batch in (1, 5):
        ones = np.ones((batch, len(values), 1), np.float32)
        result = localconv.local_conv1d(ones, values, 1, data_format="channels_last")
        np.testing.assert_array_equal(result, np.broadcast_to(values[:, 0].astype(np.float32), result.shape))


@half
@pytest.mark.parametrize("way", [(), *ways.ALL["conv"]], ids=ways.name)
def test_every_value_of_a_shared_kernel(isa, half, way):
    values = stored.every_value(half)
    for count in (2**16, 2**16 - 1, 2**16 - 9):  # ends of the row that are no vector
        numbers = values[-count:].astype(np.float32)
        with settings.forced(*way):
            ones = np.ones((3, 1, 1), np.float32)
            result = localconv.conv1d(ones, values[-count:].reshape(1, 1, count), data_format="channels_last")
            np.testing.assert_array_equal(result[:, 0], np.broadcast_to(numbers, (3, count)))
            kernel = values[-count:].reshape(1, count, 1)
            result = grad.conv1d_input((3, 1, count), kernel, ones, data_format="channels_last")
            np.testing.assert_array_equal(result[:, 0], np.broadcast_to(numbers, (3, count)))


@pytest.mark.parametrize("filters", FILTERS)
def test_every_value_of_int8(isa, filters):
    """-128 too, which `quantize` never makes. The scales are powers of two: products are exact."""
    values = np.resize(np.arange(-128, 128, dtype=np.int8), (256, filters))
    scales = 2.0 ** np.resize(np.arange(-3, 4), (256, filters))
    kernel = QuantizedKernel(values[:, None], scales.astype(np.float32))
    numbers = (values * scales).astype(np.float32)
    for batch, way in [(batch, way) for batch in (1, 9) for way in ways_of("local")]:
        with settings.forced(*way):
            ones = np.ones((batch, 256, 1), np.float32)
            result = localconv.local_conv1d(ones, kernel, 1, data_format="channels_last")
            np.testing.assert_array_equal(result, np.broadcast_to(numbers, result.shape))
            across = QuantizedKernel(values[..., None], scales[:, :1].astype(np.float32))
            result = grad.local_conv1d_input((batch, 256, filters), across, ones, 1, data_format="channels_last")
            expected = (values * scales[:, :1]).astype(np.float32)
            np.testing.assert_array_equal(result, np.broadcast_to(expected, result.shape))


@half
def test_every_value_as_data(isa, half):
    """Inputs of 16 bits come back as they went in: widening and rounding are each other's inverse."""
    values = stored.every_value(half)
    x = values.reshape(1, 2**16, 1)
    assert_same_numbers(localconv.im2col(x, 1, data_format="channels_last"), x)
    one, ones = np.ones((1, 1, 1), half), np.ones_like(x)
    for result in (  # sums, of +0 and one value: only the sign of a zero may go
        localconv.col2im(x, x.shape, 1, data_format="channels_last"),
        localconv.conv1d(x, one, data_format="channels_last"),
        grad.conv1d_input(x.shape, one, x, data_format="channels_last"),
    ):
        assert result.dtype == half
        np.testing.assert_array_equal(widened(result), widened(x))
    for_kernel = grad.local_conv1d_kernel(x, (*x.shape[1:], 1), ones, 1, data_format="channels_last")
    np.testing.assert_array_equal(for_kernel.ravel(), values.astype(np.float32))
    np.testing.assert_array_equal(
        grad.bias(x.shape[1:], x, "channels_last"), values.astype(np.float32)[:, None], strict=True
    )


@half
@pytest.mark.filterwarnings("ignore:.*encountered in (cast|multiply):RuntimeWarning")
def test_every_result_is_rounded_once(isa, half):
    """To the nearest, ties to even, past the largest to infinity: as NumPy and ml_dtypes round the float32 product,
    which is exact.
    """
    x = stored.every_value(half).reshape(1, 2**16, 1)
    factors = np.array([1 + 2**-7, -3.0, 1 / 3, 2**-9, 0.75, 200, 2**-20], half)
    result = localconv.conv1d(x, factors.reshape(1, 1, -1), data_format="channels_last")
    expected = (x.astype(np.float32) * factors.astype(np.float32)).astype(half)
    assert result.dtype == half
    np.testing.assert_array_equal(widened(result), widened(expected))


@half
def test_results_past_the_largest_are_infinite_without_a_warning(half):
    large = np.full((1, 4, 1), np.finfo(np.float16).max if half == FLOAT16 else 3e38, np.float32).astype(half)
    result = localconv.conv1d(large, np.full((1, 1, 2), 4, half), data_format="channels_last")
    assert result.dtype == half
    assert np.isposinf(result.astype(np.float32)).all()


# --- the same bits as the kernel in float32 ---------------------------------------------------------------------------


@half
@pytest.mark.parametrize("any_value", [False, True], ids=["normal", "any bits"])
@pytest.mark.parametrize("name", WITH_KERNEL)
def test_same_bits_as_widened(isa, name, half, any_value):
    """Of all geometries, algorithms and data formats."""
    for number in range(8):
        arguments = with_normal_values(drawn(name, number))
        kernel = stored.half_kernel(half, arguments["kernel"].shape, number, any_value)
        for way in ways_of(name):
            with settings.forced(*way):
                expected = call(name, arguments | {"kernel": kernel.astype(np.float32)})
                ran = _core.last_run()["algorithm"]
                result = call(name, arguments | {"kernel": kernel})
                assert _core.last_run()["algorithm"] == ran
            assert_same_numbers(result, expected)
            assert result.dtype == FLOAT32


@half
@pytest.mark.parametrize("filters", FILTERS)
def test_sizes_around_tiles(isa, half, filters):
    for batch, (function, channels) in [(b, f) for b in BATCHES for f in (("local_conv1d", 5), ("conv1d", 3))]:
        case = Case(function, (9,), (3,), batch, channels, filters, padding="same", bias="filters", exact=False)
        inputs, kernel, bias = case.arrays()
        kernel = kernel.astype(half)
        grad_output = Gradient(case, "input").arrays()[1]
        for way in ways_of(function):
            with settings.forced(*way):
                result = case.run(localconv, (inputs, kernel, bias))
                assert_same_bits(result, case.run(localconv, (inputs, kernel.astype(np.float32), bias)))
                derivative = Gradient(case, "input")
                result = derivative.run(grad, (kernel, grad_output))
                assert_same_bits(result, derivative.run(grad, (kernel.astype(np.float32), grad_output)))


LARGE = [
    Case("local_conv1d", (40,), (3,), 33, 64, 65, exact=False),
    Case("local_conv1d", (12,), (4,), 5, 700, 33, exact=False),
    Case("local_conv2d", (13, 14), (3, 3), 3, 16, 48, exact=False, padding="same", data_format="channels_first"),
    Case("local_conv2d", (13, 14), (3, 3), 17, 6, 34, exact=False, padding="same", groups=2, bias="full"),
    Case("local_conv3d", (6, 5, 7), (3, 2, 3), 9, 4, 17, exact=False, padding="same"),
    Case("local_conv1d", (9001,), (5,), 1, 24, 1, exact=False),
    Case("conv2d", (15, 16), (3, 3), 3, 16, 65, exact=False, padding="same"),
    Case("conv2d", (7, 9), (3, 3), 1, 192, 64, exact=False, padding="same", data_format="channels_first"),
    Case("conv1d", (300,), (7,), 2, 34, 40, exact=False, strides=2, groups=2),
]


@half
@pytest.mark.parametrize("case", LARGE, ids=lambda case: f"{case.function} {case.channels} {case.filters}")
def test_larger_ones_with_any_number_of_threads(isa, half, case):
    """Work of several tiles, blocks and tasks, cut for one, two and three threads."""
    inputs, kernel, bias = case.arrays()
    kernel = kernel.astype(half)
    derivative = Gradient(case, "input")
    grad_output = derivative.arrays()[1]
    for way in ways_of(case.function):
        with settings.forced(*way):
            expected = case.run(localconv, (inputs, kernel.astype(np.float32), bias))
            expected_back = derivative.run(grad, (kernel.astype(np.float32), grad_output))
            for threads in (1, 2, 3):
                localconv.set_num_threads(threads)
                _core.forget_stalls()
                assert_same_bits(case.run(localconv, (inputs, kernel, bias)), expected)
                if way != (settings.COLUMNS,):  # NumPy's BLAS has threads of its own
                    assert _core.last_run()["threads"] == (min(threads, CPUS) if OPENMP else 1)
                assert_same_bits(derivative.run(grad, (kernel, grad_output)), expected_back)


@pytest.fixture
def small_workspaces(monkeypatch):
    """Workspaces that a few images fill: batches, panels and windows are cut as only very large ones are otherwise."""
    engine.plans.clear()
    for name in ("WORKSPACE_LIMIT", "CHUNK_TARGET"):
        monkeypatch.setattr(policy, name, 8192)
    yield
    engine.plans.clear()


@half
@pytest.mark.parametrize("data_format", FORMATS)
def test_batches_in_chunks(small_workspaces, isa, half, data_format):
    for case in (
        Case("local_conv1d", (9,), (3,), 75, 2, 5, padding="same"),
        Case("local_conv2d", (4, 5), (2, 3), 37, 3, 17, strides=(1, 2)),
        Case("local_conv1d", (6,), (2,), 9, 2, 300),
    ):
        check_exact(replace(case, data_format=data_format), half)


def check_exact(case, half):
    """Forward and backward, of 16 bits and of int8, with data that sums hold exactly."""
    inputs, kernel, bias = case.arrays()
    derivative = Gradient(case, "input")
    grad_output = derivative.arrays()[1]
    for small in (kernel.astype(half), stored.exact_quantized(kernel.shape, case.seed)):
        plain = widened(small)
        case.check(case.run(localconv, (inputs, small, bias)), (inputs, plain, bias))
        derivative.check(derivative.run(grad, (small, grad_output)), (plain, grad_output))


@pytest.fixture
def many_threads(monkeypatch):
    """Work of any size is cut for four threads."""
    monkeypatch.setattr(policy, "PRODUCTS_PER_THREAD", 1)
    monkeypatch.setattr(policy, "PRODUCTS_PER_TASK", 1)
    monkeypatch.setattr(engine.plans, "limit", 0)
    engine.plans.clear()
    localconv.set_num_threads(4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_with_many_threads(name, many_threads):
    for number in range(12):
        arguments = stored.redrawn(random.Random(number), drawn(name, number))
        whole = call(name, arguments)
        localconv.set_num_threads(1)
        assert_same_bits(call(name, arguments), whole)
        localconv.set_num_threads(4)


def test_concurrent_calls(isa):
    """Several Python threads share kernels, and nothing of what these are widened into."""
    cases = [Case("local_conv1d", (50 + n,), (3,), n, n, 7 * n, padding="same", seed=n) for n in range(1, 9)]
    cases += [Case("conv2d", (9, 9 + n), (3, 3), 2, n, 7 * n, seed=n) for n in range(1, 5)]
    runs = []
    for case in cases:
        inputs, kernel, _ = case.arrays()
        smalls = [kernel.astype(half) for half in HALVES] + [stored.exact_quantized(kernel.shape, case.seed)]
        runs += [(case, (inputs, small, None), case.run(localconv, (inputs, widened(small), None))) for small in smalls]

    def work(offset):
        for number in range(offset, offset + 4 * len(runs)):
            case, arrays, expected = runs[number % len(runs)]
            np.testing.assert_array_equal(case.run(localconv, arrays), expected)
        return True

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(0, 60, 10)))


@half
def test_what_meets_padding_does_nothing(isa, half):
    """Not even infinities and NaN."""
    case = Case("local_conv1d", (4,), (3,), 9, 2, 5, padding=((2, 3),))
    inputs, kernel, _ = case.arrays()
    kernel[~case.rows_present()] = np.nan
    kernel = kernel.astype(half)
    for way in ways_of(case.function):
        with settings.forced(*way):
            case.check(case.run(localconv, (inputs, kernel, None)), (inputs, widened(kernel), None))
            derivative = Gradient(case, "input")
            grad_output = derivative.arrays()[1]
            derivative.check(derivative.run(grad, (kernel, grad_output)), (widened(kernel), grad_output))


# --- all dtypes together ----------------------------------------------------------------------------------------------


@given(
    name=st.sampled_from(list(OPERATIONS)),
    seed=st.integers(0, 2**32 - 1),
    threads=st.sampled_from([1, 2]),
    data=st.data(),
)
@examples(max_examples=max(200, examples().max_examples))
def test_any_dtypes(name, seed, threads, data):
    """Exact sums: what the twin says of the widened arrays, rounded once, in the dtype that NumPy promotes to."""
    operation, rng = OPERATIONS[name], random.Random(seed)
    arguments = stored.redrawn(rng, operation.draw(rng))
    plain = stored.all_widened(arguments)
    expected = getattr(oracle, name)(**plain).astype(np.float32)
    localconv.set_num_threads(threads)
    way = data.draw(st.sampled_from(ways_of(name)))
    for isa in ISAS:
        settings.set_isa(isa)
        with settings.forced(*way):
            result = call(name, arguments)
            out = np.full_like(result, np.nan)
            assert call(name, arguments, out=out) is out
        assert result.dtype == stored.result_dtype(operation, arguments)
        np.testing.assert_array_equal(result, expected.astype(result.dtype))
        assert_same_bits(out, result)
    for key, value in stored.all_widened(arguments).items():
        np.testing.assert_array_equal(value, plain[key])


PROMOTED = [  # x, kernel, bias, result
    ("float32", "float16", None, "float32"),
    ("float32", "bfloat16", None, "float32"),
    ("float32", "int8", None, "float32"),
    ("float32", "float16", "bfloat16", "float32"),
    ("float16", "float32", None, "float32"),
    ("bfloat16", "float32", "bfloat16", "float32"),
    ("float16", "float16", None, "float16"),
    ("float16", "float16", "float16", "float16"),
    ("float16", "float16", "float32", "float32"),
    ("float16", "float16", "bfloat16", "float32"),
    ("bfloat16", "bfloat16", None, "bfloat16"),
    ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
    ("bfloat16", "bfloat16", "float16", "float32"),
    ("bfloat16", "float16", None, "float32"),
    ("float16", "bfloat16", None, "float32"),
    ("float16", "int8", None, "float32"),
    ("bfloat16", "int8", "bfloat16", "float32"),
    ("float64", "float16", None, "float64"),
    ("float64", "int8", None, "float64"),
    ("float32", "int8", "float64", "float64"),
    ("float16", "float64", None, "float64"),
    ("bfloat16", "bfloat16", "float64", "float64"),
    ("float32", "bfloat16", "float64", "float64"),
]


@pytest.mark.parametrize(("x", "kernel", "bias", "result"), PROMOTED)
@pytest.mark.parametrize("function", FORWARD)
def test_promotion(function, x, kernel, bias, result):
    case = FORWARD[function]
    inputs, weights, _ = case.arrays()
    weights = stored.exact_quantized(weights.shape) if kernel == "int8" else weights.astype(kernel)
    shift = None if bias is None else np.arange(case.filters).astype(bias)
    arrays = inputs.astype(x), weights, shift
    expected = case.run(oracle, tuple(map(widened, arrays)))
    np.testing.assert_array_equal(case.run(localconv, arrays), expected.astype(np.float32).astype(result), strict=True)


@half
@pytest.mark.parametrize("name", of_kind("forward", "input", "transpose", "columns"))
def test_results_are_those_of_float32_rounded(isa, name, half):
    """All arrays of one 16-bit type: one rounding, of what the call in float32 gives."""
    for number in range(4):
        arguments = with_normal_values(drawn(name, number))
        arguments = {k: v.astype(half) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        whole = call(name, stored.all_widened(arguments))
        result = call(name, arguments)
        assert_same_bits(result, whole.astype(half))
        for form in (np.asfortranarray, lambda array: array[::-1].copy()[::-1]):
            out = form(np.full_like(result, np.nan))
            assert call(name, arguments, out=out) is out
            assert_same_bits(out, result)


@half
@pytest.mark.parametrize("name", of_kind("kernel"))
def test_gradients_for_the_kernel(isa, name, half):
    """Of 16-bit arrays in float32; into an `out` of their type, and added to what it holds, with one rounding."""
    for number in range(4):
        arguments = with_normal_values(drawn(name, number))
        arguments = {k: v.astype(half) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        wide = stored.all_widened(arguments)
        for way in ways_of(name):
            with settings.forced(*way):
                whole = call(name, wide)
                assert_same_bits(call(name, arguments), whole)
                start = stored.half_kernel(half, whole.shape, number)
                total = call(name, wide, out=start.astype(np.float32), accumulate=True)
                for out_type in (half, FLOAT32):
                    out = np.full(whole.shape, np.nan, out_type)
                    assert call(name, arguments, out=out) is out
                    assert_same_bits(out, whole.astype(out_type))
                    out = start.astype(out_type)
                    assert call(name, arguments, out=out, accumulate=True) is out
                    assert_same_bits(out, total.astype(out_type))


@pytest.mark.parametrize(("first", "second"), [(FLOAT16, BFLOAT16), (FLOAT16, FLOAT32), (FLOAT32, BFLOAT16)], ids=str)
@pytest.mark.parametrize("name", of_kind("kernel"))
def test_gradients_of_two_types(name, first, second):
    arguments = with_normal_values(drawn(name, 0))
    x = "inputs" if name.startswith("local") else "x"
    arguments |= {x: arguments[x].astype(first), "grad_output": arguments["grad_output"].astype(second)}
    assert_same_bits(call(name, arguments), call(name, stored.all_widened(arguments)))


@half
@pytest.mark.parametrize("data_format", FORMATS)
def test_gradient_for_the_bias(half, data_format):
    """The sum in float32, rounded once into an `out` of 16 bits."""
    grad_output = stored.half_kernel(half, (5, 30, 40, 3))
    out_shape = (30, 40, 3) if data_format == "channels_last" else (40, 3, 30)
    for shape in (out_shape[-1:], out_shape):
        whole = grad.bias(shape, grad_output.astype(np.float32), data_format)
        assert_same_bits(grad.bias(shape, grad_output, data_format), whole)
        for out_type in (half, FLOAT32):
            out = np.full(shape, np.nan, out_type)
            assert grad.bias(shape, grad_output, data_format, out=out) is out
            assert_same_bits(out, whole.astype(out_type))


def test_gradients_go_into_a_mapped_file_of_16_bits(tmp_path):
    """As into any other `out` of 16 bits, and of a subclass."""
    x, grad_output = np.ones((2, 7, 3), np.float32), np.ones((2, 5, 4), np.float32)
    kernel = np.memmap(tmp_path / "kernel", np.float16, "w+", shape=(5, 9, 4))
    bias = np.memmap(tmp_path / "bias", np.float16, "w+", shape=(4,))
    assert grad.local_conv1d_kernel(x, kernel.shape, grad_output, 3, 1, "channels_last", out=kernel) is kernel
    assert grad.bias(bias.shape, grad_output, "channels_last", out=bias) is bias
    assert (kernel == 2).all()
    assert (bias == 10).all()


# --- int8 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_exact_products_of_int8(isa, name):
    for number in range(8):
        arguments = drawn(name, number)
        arguments = {k: v.astype(np.float32) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        kernel = stored.exact_quantized(arguments["kernel"].shape, number)
        for way in ways_of(name):
            with settings.forced(*way):
                expected = call(name, arguments | {"kernel": widened(kernel)})
                result = call(name, arguments | {"kernel": kernel})
            np.testing.assert_array_equal(result, expected, strict=True)


@pytest.mark.parametrize("filters", FILTERS)
def test_int8_around_tiles(isa, filters):
    for batch, (function, channels) in [(b, f) for b in BATCHES for f in (("local_conv1d", 5), ("conv1d", 3))]:
        case = Case(function, (9,), (3,), batch, channels, filters, padding="same", bias="filters")
        inputs, kernel, bias = case.arrays()
        kernel = stored.exact_quantized(kernel.shape, filters)
        derivative = Gradient(case, "input")
        grad_output = derivative.arrays()[1]
        for way in ways_of(function):
            with settings.forced(*way):
                result = case.run(localconv, (inputs, kernel, bias))
                expected = case.run(localconv, (inputs, widened(kernel), bias))
                np.testing.assert_array_equal(result, expected, strict=True)
                result = derivative.run(grad, (kernel, grad_output))
                np.testing.assert_array_equal(result, derivative.run(grad, (widened(kernel), grad_output)), strict=True)


QUANTIZED = [
    Case("local_conv1d", (9,), (3,), 1, 24, 17, exact=False, padding="same", bias="full"),
    Case("local_conv1d", (7,), (2,), 9, 3, 9, exact=False, strides=2),
    Case("local_conv1d", (3,), (2,), 2, 400, 33, exact=False),
    Case("local_conv2d", (6, 5), (3, 2), 17, 4, 33, exact=False, data_format="channels_first", bias="filters"),
    Case("local_conv2d", (6, 5), (3, 2), 3, 4, 10, exact=False, groups=2, dilation_rate=2, padding="same"),
    Case("local_conv3d", (4, 3, 5), (2, 2, 3), 5, 3, 8, exact=False, padding="same"),
    Case("local_conv1d", (60,), (5,), 1, 8, 1, exact=False),
]


@pytest.mark.parametrize("case", QUANTIZED, ids=lambda case: f"{case.function} {case.channels} {case.filters}")
@pytest.mark.parametrize("seed", range(2))
def test_int8_within_rounding(isa, case, seed):
    """Normal kernels, whose filters are of very different sizes."""
    case = replace(case, seed=seed)
    inputs, kernel, bias = case.arrays()
    kernel *= (10.0 ** np.random.default_rng(seed).uniform(-6, 6, kernel.shape[-1])).astype(np.float32)
    small = localconv.quantize(kernel)
    plain = small.dequantize()
    derivative = Gradient(case, "input")
    grad_output = derivative.arrays()[1]
    dtype, expected, bound = case.solution((inputs, plain, bias))
    back_dtype, back, back_bound, back_terms = derivative.solution((plain, grad_output))
    for way in ways_of(case.function):
        with settings.forced(*way):
            result = case.run(localconv, (inputs, small, bias))
            assert_close(result, expected, bound, case.terms, dtype)
            result = derivative.run(grad, (small, grad_output))
            assert_close(result, back, back_bound, back_terms, back_dtype)
            assert_same_bits(derivative.transposed(localconv, (small, grad_output)), result)


def test_int8_overflows_only_where_the_dequantized_kernel_does(isa):
    """Sums of large inputs and int8 values would, before the scale brings them down."""
    case = Case("local_conv1d", (9,), (2,), 17, 3, 9, exact=False)
    inputs, kernel, _ = case.arrays()
    inputs *= np.float32(1e36)
    small = localconv.quantize(kernel)
    dtype, expected, bound = case.solution((inputs, small.dequantize(), None))
    assert (bound < np.finfo(np.float32).max).all()
    for way in ways_of(case.function):
        with settings.forced(*way):
            result = case.run(localconv, (inputs, small, None))
            assert_close(result, expected, bound, case.terms, dtype)


@pytest.mark.parametrize("name", of_kind("forward", "input", "transpose"))
def test_int8_kernels_are_dequantized(isa, name):
    """To the bit, for any number of threads."""
    for number in range(6):
        arguments = with_normal_values(drawn(name, number))
        kernel = localconv.quantize(arguments["kernel"])
        for way in ways_of(name):
            with settings.forced(*way):
                result = call(name, arguments | {"kernel": kernel})
                assert_same_bits(result, call(name, arguments | {"kernel": kernel.dequantize()}))
                localconv.set_num_threads(1 + number % 3)
                assert_same_bits(call(name, arguments | {"kernel": kernel}), result)


# --- forms of arrays --------------------------------------------------------------------------------------------------

CASES = [
    Case("local_conv2d", (6, 5), (3, 2), 5, 4, 6, padding="same", bias="full", exact=False),
    Case("conv2d", (6, 5), (3, 2), 17, 4, 9, padding="same", bias="filters", exact=False),
]
# The buffers of memoryview and the array interface have no name for bfloat16.
NAMELESS = (memoryview, Exporter)


@half
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.function)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_forms(case, half, form, no_change):
    if half == BFLOAT16 and form in NAMELESS:
        pytest.skip("no such form of bfloat16")
    inputs, kernel, bias = (array.astype(half) for array in case.arrays())
    wide = inputs.astype(np.float32)
    derivative = Gradient(case, "input")
    grad_output = derivative.arrays()[1].astype(half)
    for given_inputs in (wide, inputs):
        expected = case.run(localconv, (given_inputs, kernel, bias))
        for changed in ((given_inputs, form(kernel), bias), tuple(map(form, (given_inputs, kernel, bias)))):
            with no_change(*changed):
                assert_same_bits(case.run(localconv, changed), expected)
    expected = derivative.run(grad, (kernel, grad_output))
    with no_change(kernel, grad_output):
        assert_same_bits(derivative.run(grad, (form(kernel), form(grad_output))), expected)
    back = Gradient(case, "kernel")
    assert_same_bits(back.run(grad, (form(inputs), form(grad_output))), back.run(grad, (inputs, grad_output)))
    columns = localconv.im2col(inputs, case.kernel_size, data_format="channels_last")
    assert_same_bits(localconv.im2col(form(inputs), case.kernel_size, data_format="channels_last"), columns)
    folded = localconv.col2im(columns, inputs.shape, case.kernel_size, data_format="channels_last")
    again = localconv.col2im(form(columns), inputs.shape, case.kernel_size, data_format="channels_last")
    assert_same_bits(again, folded)


# Forms that int8 can have: there is no NaN to lie between its elements, and no other order of one byte.
INT8_FORMS = {
    "Fortran's order": np.asfortranarray,
    "every other": lambda array: np.repeat(array, 2, -1)[..., ::2],
    "backwards": lambda array: array[..., ::-1].copy()[..., ::-1],
    "transposed": lambda array: array.T.copy().T,
    "from the end": lambda array: array[::-1].copy()[::-1],
    "offset by a byte": lambda array: array if array.itemsize == 1 else offset_by_a_byte(array),
    "read-only": read_only,
    "subclass": lambda array: array.view(Subclass),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.function)
@pytest.mark.parametrize("form", INT8_FORMS)
def test_forms_of_quantized_kernels(case, form, no_change):
    inputs, kernel, bias = case.arrays()
    plain = localconv.quantize(kernel)
    small = QuantizedKernel(INT8_FORMS[form](plain.values), INT8_FORMS[form](plain.scales))
    with no_change(small.values, small.scales):
        assert_same_bits(case.run(localconv, (inputs, small, bias)), case.run(localconv, (inputs, plain, bias)))
        derivative = Gradient(case, "input")
        grad_output = derivative.arrays()[1]
        assert_same_bits(derivative.run(grad, (small, grad_output)), derivative.run(grad, (plain, grad_output)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.function)
def test_memory_maps(case, tmp_path):
    """Of files in which the values start at an odd byte."""
    inputs, kernel, bias = case.arrays()

    def mapped(name, array):
        path = tmp_path / name
        path.write_bytes(b"#" * 13 + array.tobytes())
        return np.memmap(path, array.dtype, "r", offset=13, shape=array.shape)

    small = localconv.quantize(kernel)
    kernels = [(mapped(half.name, kernel.astype(half)), kernel.astype(half)) for half in HALVES]
    kernels += [(QuantizedKernel(mapped("values", small.values), small.scales), small)]
    for on_disk, in_memory in kernels:
        expected = case.run(localconv, (inputs, in_memory, bias))
        assert_same_bits(case.run(localconv, (inputs, on_disk, bias)), expected)


@half
def test_broadcast_kernels(isa, half):
    """One matrix for all positions, of no more memory."""
    case = Case("local_conv2d", (6, 5), (3, 2), 5, 2, 6)
    inputs, kernel, _ = case.arrays()
    for small in (
        np.broadcast_to(kernel[:1].astype(half), kernel.shape),
        QuantizedKernel(
            np.broadcast_to(kernel[:1].astype(np.int8), kernel.shape), np.broadcast_to(np.float32(2), (len(kernel), 6))
        ),
    ):
        case.check(case.run(localconv, (inputs, small, None)), (inputs, widened(small), None))


@half
def test_more_batch_axes(half):
    """Of shared convolutions."""
    for batch in ((2, 3), (0,), (2, 0), (1, 1, 5)):
        case = Case("conv1d", (9,), (3,), batch, 4, 6)
        inputs, kernel, _ = case.arrays()
        for small in (kernel.astype(half), stored.exact_quantized(kernel.shape)):
            case.check(case.run(localconv, (inputs, small, None)), (inputs, widened(small), None))


@half
@pytest.mark.parametrize("function", ["local_conv1d", "conv1d"])
def test_empty_batches_and_inputs_without_pixels(half, function):
    for spatial, batch in (((9,), 0), ((0,), 2)):
        case = Case(function, spatial, (2,), batch, 3, 5, padding=((2, 3),), bias="filters")
        check_exact(case, half)


@half
def test_a_kernel_that_changes_between_two_calls(half):
    """Nothing of what was widened for the first is kept for the second."""
    case = FORWARD["local_conv1d"]
    inputs, kernel, _ = case.arrays()
    kernel = kernel.astype(half)
    case.run(localconv, (inputs, kernel, None))
    kernel *= -2
    case.check(case.run(localconv, (inputs, kernel, None)), (inputs, widened(kernel), None))


def test_lists_and_numbers_have_float64():
    """As NumPy makes an array of Python's numbers."""
    x = np.ones((1, 5, 2), np.float16)
    assert localconv.conv1d(x, [[[1.0], [2.0]]], data_format="channels_last").dtype == FLOAT64


def test_ml_dtypes_is_not_imported(python):
    code = """
import sys, numpy as np, localconv
kernel = np.ones((8, 12, 2), np.float16)
assert localconv.local_conv1d(np.ones((1, 10, 4), np.float16), kernel, 3).dtype == np.float16
assert localconv.local_conv1d(np.ones((1, 10, 4), np.float32), localconv.quantize(kernel), 3)[0, 0, 0] == 12
print("ml_dtypes" in sys.modules)
"""
    assert python(code) == "False\n"


# --- refusals ---------------------------------------------------------------------------------------------------------

ARRAYS = [(name, key) for name, operation in OPERATIONS.items() for key in operation.arrays]


@pytest.mark.parametrize(("name", "key"), ARRAYS)
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "bool"])
def test_integers(name, key, dtype):
    """The message tells what is taken, and how to make it."""
    wrong = OPERATIONS[name].right[key].astype(dtype)
    with pytest.raises(TypeError, match=rf"\b{key}\b") as caught:
        OPERATIONS[name].call(**{key: wrong})
    for word in ("float16", "bfloat16", "float32", "float64", dtype, f"{key}.astype(np.float32)"):
        assert word in str(caught.value)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in ARRAYS if key != "kernel"])
def test_quantized_kernels_that_are_no_kernels(name, key):
    shape = OPERATIONS[name].right[key].shape
    with pytest.raises(TypeError, match=rf"\b{key}\b"):
        OPERATIONS[name].call(**{key: stored.exact_quantized(shape)})


@pytest.mark.parametrize("name", FORWARD)
def test_quantized_biases(name):
    with pytest.raises(TypeError, match="bias"):
        OPERATIONS[name].call(bias=stored.exact_quantized((1, 1, 6)))


def test_quantized_gradient_for_the_bias():
    with pytest.raises(TypeError, match="grad_output"):
        grad.bias((3,), stored.exact_quantized((2, 4, 3)), "channels_last")


def small_kernels(shape):
    return [np.zeros(shape, half) for half in HALVES] + [stored.exact_quantized(shape)]


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_shapes_of_kernels(name):
    right = OPERATIONS[name].right["kernel"].shape
    wrongs = [(*right[:-2], right[-2] + 1, right[-1]), (1, *right)]
    wrongs += [(right[0] + 1, *right[1:])] if name.startswith("local") else []
    wrongs += [right[1:]] if len(right) > 3 else []
    for kernel in (kernel for shape in wrongs for kernel in small_kernels(shape)):
        with pytest.raises(ValueError, match=r"\b(kernel|grad_output|output_shape|x|inputs)\b"):
            OPERATIONS[name].call(kernel=kernel)


@half
@pytest.mark.parametrize("name", of_kind("forward", "input", "transpose", "columns"))
def test_out_of_another_dtype(name, half):
    """The result's, in the machine's byte order, and no other."""
    operation = OPERATIONS[name]
    arrays = {key: operation.right[key].astype(half) for key in operation.arrays}
    other = FLOAT16 if half == BFLOAT16 else BFLOAT16
    for dtype in (FLOAT32, FLOAT64, other, np.dtype(np.int16), half.newbyteorder("S")):
        with pytest.raises(TypeError, match="out"):
            operation.call(**arrays, out=np.zeros(operation.out, dtype))
    if "kernel" in operation.right:  # beside arrays in float32 the result has that
        for kernel in small_kernels(operation.right["kernel"].shape):
            for dtype in (*HALVES, FLOAT64, np.dtype(np.int8)):
                with pytest.raises(TypeError, match="out"):
                    operation.call(kernel=kernel, out=np.zeros(operation.out, dtype))
            with pytest.raises(TypeError, match="out"):
                operation.call(kernel=kernel, out=stored.exact_quantized(operation.out))


@half
@pytest.mark.parametrize("name", OPERATIONS)
def test_out_that_cannot_take_the_result(name, half):
    operation = OPERATIONS[name]
    arrays = {key: operation.right[key].astype(half) for key in operation.arrays}
    for wrong in (operation.out[:-1], (*operation.out[:-1], operation.out[-1] + 1), (1, *operation.out)):
        with pytest.raises(ValueError, match="out"):
            operation.call(**arrays, out=np.zeros(wrong, half))
    frozen = np.zeros(operation.out, half)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out"):
        operation.call(**arrays, out=frozen)


@pytest.mark.parametrize("name", of_kind("kernel"))
def test_gradients_of_float64_into_16_bits(name):
    operation = OPERATIONS[name]
    arrays = {key: operation.right[key].astype(np.float64) for key in operation.arrays}
    for half in HALVES:
        with pytest.raises(TypeError, match="out"):
            operation.call(**arrays, out=np.zeros(operation.out, half))


def sharing(array, shape):
    """A float32 array of this shape in the memory of another that is large enough."""
    return array.reshape(-1).view(np.uint8)[: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)


@pytest.mark.parametrize("function", FORWARD)
def test_out_over_the_kernel(function):
    """In the memory of its 16-bit values, its int8 values, or its scales."""
    case = replace(FORWARD[function], spatial=FORWARD[function].kernel_size, batch=1, channels=40, filters=2)
    inputs, kernel, _ = case.arrays()
    shape = case.layout(case.out, case.filters)
    quantized = stored.exact_quantized(kernel.shape)
    halves = [kernel.astype(half) for half in HALVES]
    pairs = [(half, half) for half in halves] + [(quantized, quantized.values), (quantized, quantized.scales)]
    for small, memory in pairs:
        out = sharing(memory, shape)
        before = widened(small)
        with pytest.raises(ValueError, match="out"):
            case.run(localconv, (inputs, small, None), out=out)
        np.testing.assert_array_equal(widened(small), before)
    twin = inputs.astype(np.float16)
    with pytest.raises(ValueError, match="out"):
        case.run(localconv, (twin, halves[0], None), out=halves[0].reshape(-1)[: np.prod(shape)].reshape(shape))
    with pytest.raises(ValueError, match="out"):
        case.run(localconv, (twin, halves[0], None), out=twin.reshape(-1)[: np.prod(shape)].reshape(shape))


# --- memory -----------------------------------------------------------------------------------------------------------

# Prints how far forward calls and gradients for the input, by every algorithm, raise the peak of the process's memory,
# in MiB. Arrays are made and touched before, and small calls have loaded all code and started all threads.
PEAK = """
import resource, sys
import numpy as np
import localconv
import ml_dtypes, ways
from localconv import QuantizedKernel, grad
from localconv.core import settings
from oracle import Case, Gradient
store, form, threads, small, large = sys.argv[1], sys.argv[2], *map(eval, sys.argv[3:])
localconv.set_num_threads(threads)
unit = 2**20 if sys.platform == "darwin" else 2**10
forms = {"plain": lambda a: a, "backwards": lambda a: a[::-1], "swapped": lambda a: a.view(a.dtype.newbyteorder())}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

def kernel(shape):
    if store == "int8":
        return QuantizedKernel(forms[form](np.ones(shape, np.int8)), np.ones((shape[0], shape[2]), np.float32))
    return forms[form](np.ones(shape, store))

def run_all(case, arrays, grad_output):
    for way in [(), *ways.ALL["local"]]:
        with settings.forced(*way):
            case.run(localconv, (*arrays, None))
            Gradient(case, "input").run(grad, (arrays[1], grad_output))

def of(case):
    inputs, weights, _ = case.shapes()
    output = Gradient(case, "input").output_shape
    return (np.ones(inputs, np.float32), kernel(weights)), np.ones(output, np.float32)

run_all(small, *of(small))
arguments = of(large)
assert np.prod(large.shapes()[1]) > 20e6
before = peak()
run_all(large, *arguments)
print(peak() - before)
"""
PEAKS = {  # (small, large): the larger kernels have 20 to 23 million elements, 80 MiB or more in float32
    "local_conv1d": (Case("local_conv1d", (40,), (3,), 2, 4, 8), Case("local_conv1d", (1100,), (9,), 2, 64, 32)),
    "local_conv2d": (
        Case("local_conv2d", (9, 8), (3, 3), 2, 4, 8),
        Case("local_conv2d", (66, 66), (3, 3), 17, 18, 32, data_format="channels_first"),
    ),
    "local_conv3d": (
        Case("local_conv3d", (6, 5, 7), (3, 3, 3), 2, 2, 4),
        Case("local_conv3d", (18, 19, 20), (3, 3, 3), 3, 8, 20),
    ),
}
no_windows = pytest.mark.skipif(sys.platform == "win32", reason="the standard library tells no peak of memory there")
TESTS = os.path.dirname(oracle.__file__)


def peak_of(python, *arguments):
    path = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    return float(python(PEAK, *map(str, arguments), PYTHONPATH=path))


@no_windows
@pytest.mark.memory
@pytest.mark.parametrize("store", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("function", PEAKS)
def test_no_kernel_in_float32(python, function, store):
    """Workspaces of 16 MiB a thread, and 4 MiB for allocators and results."""
    for threads in (1, 2):
        assert peak_of(python, store, "plain", threads, *PEAKS[function]) <= 4 + 16 * threads


@no_windows
@pytest.mark.memory
@pytest.mark.parametrize(("store", "form"), [("float16", "swapped"), ("bfloat16", "backwards"), ("int8", "backwards")])
def test_strided_kernels_are_copied_in_their_few_bytes(python, store, form):
    """At most: the copy has their itemsize, not float32's."""
    small, large = PEAKS["local_conv1d"]
    copied = np.prod(large.shapes()[1]) * np.dtype("int8" if store == "int8" else "float16").itemsize / 2**20
    assert peak_of(python, store, form, 1, small, large) <= 4 + 16 + copied


# A kernel in a sparse file: only a few positions hold other values than zero. Anonymous memory is limited, so that a
# copy of the kernel, or of a good part of it, would be a MemoryError.
STREAM = """
import resource, sys
import numpy as np
import localconv
import ml_dtypes
store, path = sys.argv[1:3]
positions, size, channels, filters, limit = map(int, sys.argv[3:8])
if sys.platform == "linux":
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
depth = size * channels
kernel = np.memmap(path, store, "r", shape=(positions, depth, filters))
scales = (2.0 ** (np.arange(positions * filters) % 5 - 2)).astype("float32").reshape(positions, filters)
rng = np.random.default_rng(0)
inputs = rng.integers(-8, 9, (1, positions + size - 1, channels)).astype("float32")
small = localconv.QuantizedKernel(kernel, scales) if store == "int8" else kernel
result = localconv.local_conv1d(inputs, small, size, 1, "channels_last")
grad_output = rng.integers(1, 9, result.shape).astype("float32")
back = localconv.grad.local_conv1d_input(inputs.shape, small, grad_output, size, 1, "channels_last")
expected, expected_back = np.zeros_like(result), np.zeros_like(inputs)
for position in map(int, sys.argv[8:]):
    weights = kernel[position].astype("float32")
    if store == "int8":
        weights = weights * scales[position]
    expected[0, position] = inputs[0, position : position + size].ravel() @ weights
    expected_back[0, position : position + size] += (weights @ grad_output[0, position]).reshape(size, channels)
    assert expected[0, position].all()
assert np.array_equal(result, expected)
assert np.array_equal(back, expected_back)
print("right")
"""


def check_streaming(python, path, store, elements, limit):
    """Positions at both ends, and on both sides of the byte offsets and element numbers that 32 bits end at."""
    size, channels, filters = 64, 8, 8
    row, itemsize = size * channels * filters, 1 if store == "int8" else 2
    positions = -(-elements // row) + 9
    numbers = {2**bits // row + n for bits in (29, 30, 31) for n in (-1, 0, 1)}
    marked = sorted({0, 1, positions - 1, *(number for number in numbers if number < positions)})
    with open(path, "wb") as file:
        file.truncate(itemsize * positions * row)
        for position in marked:
            values = np.random.default_rng(position).integers(1, 4, row).astype(store)
            file.seek(itemsize * position * row)
            file.write(values.tobytes())
    try:
        arguments = (store, path, positions, size, channels, filters, limit, *marked)
        assert python(STREAM, *arguments, timeout=600) == "right\n"
    finally:
        path.unlink()


ntfs = pytest.mark.skipif(sys.platform == "win32", reason="NTFS would write all the zeros of the file to the disk")


@ntfs
@pytest.mark.memory
@pytest.mark.parametrize("store", ["float16", "bfloat16", "int8"])
def test_maps_are_streamed(python, tmp_path, store):
    """A kernel of 512 MiB where a process may have less of its own."""
    itemsize = 1 if store == "int8" else 2
    check_streaming(python, tmp_path / "kernel.raw", store, 2**29 // itemsize, 400 * 2**20)


@ntfs
@pytest.mark.big
@pytest.mark.parametrize("store", ["float16", "int8"])
def test_kernels_of_more_than_2_31_bytes(python, tmp_path, store):
    itemsize = 1 if store == "int8" else 2
    check_streaming(python, tmp_path / "kernel.raw", store, 2**31 // itemsize, 2**30)
