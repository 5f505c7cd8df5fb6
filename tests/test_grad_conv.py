"""Gradients of conv1d and conv2d: values, on every instruction set and by every algorithm."""

import functools
import itertools

import numpy as np
import oracle
import pytest
import ways
from oracle import (
    BATCHES,
    DEPTHS,
    FILTERS,
    FORMATS,
    PADDINGS,
    Case,
    Gradient,
    assert_same_bits,
    gradients,
    one_tap_cases,
    thirds,
)

import localconv
from localconv import _core, grad
from localconv.core import settings

STEPS = ((1, 1), (2, 1), (4, 1), (1, 2), (1, 5))  # (strides, dilation): one of them is 1


@pytest.mark.parametrize("counts", thirds(FILTERS), ids=str)
def test_filter_counts(solve_gradients, dtype, conv_gradient_way, counts):
    for filters in counts:
        solve_gradients(Case("conv1d", (7,), (3,), 3, 2, filters, dtype=dtype))
        solve_gradients(Case("conv2d", (5, 4), (2, 3), 1, 3, filters, dtype=dtype))


@pytest.mark.parametrize("batches", thirds(BATCHES), ids=str)
def test_batch_sizes(solve_gradients, dtype, conv_gradient_way, batches):
    for batch, filters in itertools.product(batches, (3, 19)):
        solve_gradients(Case("conv1d", (7,), (3,), batch, 2, filters, dtype=dtype))


def test_output_widths(solve_gradients, dtype, conv_gradient_way):
    for width, filters in itertools.product((1, 2, 3, 4, 5, 7, 8, 12, 13, 15, 16, 17, 29, 30), (1, 37)):
        solve_gradients(Case("conv1d", (width + 2,), (3,), channels=1, filters=filters, dtype=dtype))
        solve_gradients(Case("conv2d", (4, width), (3, 3), filters=filters, padding="same", dtype=dtype))


@pytest.mark.parametrize("depths", thirds(DEPTHS), ids=str)
def test_depths(solve_gradients, dtype, conv_gradient_way, depths):
    """D of all sizes, as channels and as taps."""
    for depth, filters in itertools.product(depths, (6, 34)):
        solve_gradients(Case("conv1d", (17,), (1,), channels=depth, filters=filters, dtype=dtype))
        solve_gradients(Case("conv1d", (depth + 7,), (depth,), channels=1, filters=filters, dtype=dtype))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[1], ids=str)
def test_geometry_1d(solve_gradients, dtype, conv_gradient_way, padding, data_format):
    """Strides below, at and above the kernel's size."""
    for number, ((strides, dilation), size) in enumerate(itertools.product(STEPS, (1, 2, 3))):
        groups = 1 + number % 2
        case = Case("conv1d", (17,), (size,), 3, 4, 6, strides, dilation, groups, padding, data_format, dtype=dtype)
        solve_gradients(case)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[2], ids=str)
def test_geometry_2d(solve_gradients, dtype, conv_gradient_way, padding, data_format):
    steps = ((1, 1), ((2, 3), 1), (2, 1), (1, (2, 1)), (1, (1, 3)))
    for (strides, dilation), (size, groups) in itertools.product(steps, (((2, 2), 3), ((4, 3), 1), ((1, 3), 3))):
        case = Case("conv2d", (7, 7), size, 2, 6, 9, strides, dilation, groups, padding, data_format, dtype=dtype)
        solve_gradients(case)


@pytest.mark.parametrize("data_format", FORMATS)
def test_what_valid_windows_leave_over(solve_gradients, dtype, conv_gradient_way, data_format):
    """Every remainder of the size by the stride: the elements behind the last window are the input's all the same."""
    for strides, rest in ((s, r) for s in (2, 3, 5) for r in range(s)):
        shared = {"strides": strides, "data_format": data_format, "dtype": dtype}
        solve_gradients(Case("conv1d", (3 + 2 * strides + rest,), (3,), 2, 3, 5, **shared))
        solve_gradients(Case("conv2d", (2 + strides + rest, 4 + strides), (2, 3), 1, 2, 17, **shared))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("groups", [2, 5, 30])
def test_groups(solve_gradients, dtype, conv_gradient_way, data_format, groups):
    """Up to one channel a group (depthwise), with filters a group that fill no vector and no tile."""
    for filters in (30, 60):
        shared = {"groups": groups, "data_format": data_format, "dtype": dtype}
        solve_gradients(Case("conv1d", (6,), (3,), 2, 30, filters, **shared))
        solve_gradients(Case("conv2d", (4, 5), (2, 2), 2, 60, filters, strides=2, **shared))


@pytest.mark.parametrize("data_format", FORMATS)
def test_one_pixel_of_each_window(solve_gradients, dtype, conv_gradient_way, data_format):
    for case in one_tap_cases(data_format, dtype):
        solve_gradients(case)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("batch", [(2, 3), (1, 2, 1, 3), (2, 0)], ids=str)
def test_extended_batch_shapes(dtype, conv_gradient_way, data_format, batch):
    """Any number of batch axes in front of the image's."""
    shared = {"data_format": data_format, "dtype": dtype}
    cases = [Case("conv1d", (9,), (3,), batch, padding=padding, **shared) for padding in ("valid", "same", "causal")]
    for case in (*cases, Case("conv2d", (5, 6), (3, 2), batch, padding="same", **shared)):
        for gradient in gradients(case):
            result = gradient.run(grad, gradient.arrays())
            assert result.shape == gradient.shape
            gradient.check(result)
            out = np.full_like(result, np.nan)
            assert gradient.run(grad, gradient.arrays(), out=out) is out
            assert_same_bits(out, result)


@pytest.mark.parametrize("data_format", FORMATS)
def test_rounding(solve_gradients, dtype, conv_gradient_way, data_format):
    """Values that fill the mantissa, against the wider twin: no more error than the sums' own rounding."""
    for seed, (batch, filters, channels) in enumerate([(1, 5, 7), (4, 33, 3), (9, 2, 40), (1, 65, 60)]):
        shared = {"data_format": data_format, "dtype": dtype, "exact": False, "seed": seed}
        solve_gradients(Case("conv1d", (19,), (5,), batch, channels, filters, padding="same", **shared))
        solve_gradients(Case("conv2d", (5, 6), (2, 3), batch, channels, filters, strides=2, **shared))


@pytest.mark.parametrize(
    ("forced", "operations"), [(ways.of("conv_grad_input")[0], "operation"), (settings.COLUMNS, "by_columns")]
)
@pytest.mark.parametrize("of", ["input", "kernel"])
def test_which_algorithm_ran(isa, dtype, forced, operations, of):
    gradient = Gradient(Case("conv2d", (9, 8), (3, 3), dtype=dtype), of)
    with settings.forced(forced):
        gradient.run(grad, gradient.arrays())
    ran = _core.last_run()
    assert (ran["operation"], ran["isa"], ran["dtype"]) == (getattr(gradient, operations), isa, dtype)
    assert isinstance(ran["algorithm"], str)
    assert ran["threads"] == 1


# --- large ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("side", "channels", "filters", "size"), [(90, 24, 5, 5), (140, 3, 40, 3), (60, 150, 9, 1)])
def test_large_images(isa, conv_gradient_way, data_format, side, channels, filters, size):
    """Patches of many MiB, so that bounded workspaces are used in several blocks by every thread.

    All is integer, and below 2**24: float32 is exact. The twin would take minutes.
    """
    case = Case("conv2d", (side, side - 1), (size, size), 2, channels, filters, data_format=data_format)
    of_input, of_kernel = gradients(case)
    expected = expected_of_large(case)
    for gradient, value in zip((of_input, of_kernel), expected, strict=True):
        result = gradient.run(grad, gradient.arrays())
        np.testing.assert_array_equal(result, value, strict=True)


@functools.cache
def expected_of_large(case):
    """Both gradients of a valid convolution of stride 1, tap by tap in float64."""
    (kernel, grad_output), (x, _) = (gradient.arrays() for gradient in gradients(case))
    last = (lambda a: a) if case.data_format == "channels_last" else (lambda a: np.moveaxis(a, 1, -1))
    x, kernel, grad_output = last(x).astype("f8"), kernel.astype("f8"), last(grad_output).astype("f8")
    of_input, of_kernel = np.zeros_like(x), np.zeros_like(kernel)
    height, width = case.out
    for i, j in np.ndindex(*case.kernel_size):
        of_input[:, i : i + height, j : j + width] += grad_output @ kernel[i, j].T
        window = x[:, i : i + height, j : j + width].reshape(-1, case.channels)
        of_kernel[i, j] = window.T @ grad_output.reshape(-1, case.filters)
    if case.data_format == "channels_first":
        of_input = np.moveaxis(of_input, -1, 1)
    return of_input.astype(case.dtype), of_kernel.astype(case.dtype)


# --- the kernel's gradient: sums over all positions -------------------------------------------------------------------

MANY = 10**6


@functools.cache
def long_sum(kind, batch):
    """x, grad_output, the kernel's gradient in float64, and the sum of |x||g| behind each of its elements."""
    rng, size, positions = np.random.default_rng(7), 2, MANY // batch
    shapes = (batch, positions + size - 1, 3), (batch, positions, 5)
    if kind == "normal":
        x, g = (rng.standard_normal(shape, "f4") for shape in shapes)
    else:
        x, g = np.full(shapes[0], 1.03, "f4"), np.ones(shapes[1], "f4")
    wide, flat = x.astype("f8"), g.astype("f8").reshape(-1, 5)
    windows = [wide[:, tap : tap + positions].reshape(-1, 3).T for tap in range(size)]
    value = np.array([window @ flat for window in windows])
    bound = np.array([abs(window) @ abs(flat) for window in windows])
    return x, g, value, bound


@pytest.mark.parametrize(
    ("kind", "batch", "data_format"),
    [("normal", 1, "channels_last"), ("constant", 1, "channels_first"), ("constant", 1000, "channels_last")],
)
def test_a_million_positions(isa, conv_gradient_way, kind, batch, data_format):
    x, g, expected, bound = long_sum(kind, batch)
    shape, terms, start = expected.shape, oracle.block_terms(MANY), -1000
    if data_format == "channels_first":
        x, g = (array.swapaxes(1, 2).copy() for array in (x, g))
    result = grad.conv1d_kernel(x, shape, g, data_format=data_format)
    oracle.assert_close(result, expected, bound, terms, np.dtype("float32"))
    out = np.full(shape, start, "float32")
    grad.conv1d_kernel(x, shape, g, data_format=data_format, out=out, accumulate=True)
    oracle.assert_close(out, expected + start, bound + abs(start), terms + 1, np.dtype("float32"))


def test_a_naive_sum_would_not_do():
    """The bound of the test above is one that a running float32 sum exceeds, by far where all is of one sign."""
    x, _, expected, bound = long_sum("constant", 1)
    naive = np.add.accumulate(x[0, :MANY, 0])[-1]
    assert abs(naive - expected[0, 0, 0]) > 10 * oracle.block_terms(MANY) * np.finfo("f4").eps * bound[0, 0, 0]


@pytest.mark.parametrize("value", [1.1, 1.9])
@pytest.mark.parametrize(("channels", "filters"), [(1, 1), (2, 1), (1, 3)])
def test_four_million_equal_values(isa, conv_gradient_way, value, channels, filters):
    """Equal values round the same way in every addition: the documents say 32 eps."""
    positions = 4_000_003 // max(channels, filters)
    x, g = (np.full((1, positions, n), value, "f4") for n in (channels, filters))
    expected = positions * float(np.float32(value)) ** 2
    result = grad.conv1d_kernel(x, (1, channels, filters), g, data_format="channels_last")
    assert np.abs(result - expected).max() <= 32 * np.finfo("f4").eps * expected


def test_a_million_positions_in_two_dimensions(isa, conv_gradient_way):
    """Rows of many lengths, with strides and padding; the same constant."""
    for height, width, strides in ((1000, 1000, 1), (10, 200_000, (1, 2)), (200_000, 10, (2, 1))):
        x = np.full((1, height, width, 1), 1.03, "f4")
        case = Case("conv2d", (height, width), (3, 3), 1, 1, 2, strides, padding="same")
        g = np.ones((1, *case.out, 2), "f4")
        result = grad.conv2d_kernel(x, (3, 3, 1, 2), g, strides, "same", "channels_last")
        taps = [np.logical_and(axis >= 0, axis < n).sum(0) for axis, n in zip(case.taps, case.spatial, strict=True)]
        expected = np.multiply.outer(*taps)[:, :, None, None] * x[0, 0, 0, 0].astype("f8") * np.ones(2)
        oracle.assert_close(result, expected, expected, oracle.block_terms(MANY), np.dtype("float32"))


# --- NaN and inf ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("of", "place"), [("input", 0), ("input", 1), ("kernel", 0), ("kernel", 1)])
def test_nan_and_inf(solve_gradient, dtype, conv_gradient_way, data_format, of, place, padding):
    """They reach exactly the elements whose sums hold them; the values hold zeros too, and 0 * inf is NaN."""
    for filters, columns in ((5, 20), (34, 15)):
        case = Case(
            "conv2d", (4, columns), (3, 3), 1, 2, filters, padding=padding, data_format=data_format, dtype=dtype
        )
        gradient = Gradient(case, of)
        arrays = gradient.arrays()
        flat = arrays[place].reshape(-1)
        if of == "input":
            flat[[0, flat.size // 2, flat.size - 2]] = np.nan, np.inf, -np.inf
        else:
            flat[flat.size // 2] = np.nan
        result = solve_gradient(gradient, arrays)
        assert not np.isfinite(result).all()
        assert np.isfinite(result).any() or place == 0


@pytest.mark.parametrize("algorithm", ways.of("conv_grad_input"))
@pytest.mark.parametrize(("stride", "size"), [(3, 2), (1, 3), (2, 5), (4, 3)])
def test_nan_beside_few_channels(isa, dtype, stride, size, algorithm):
    """Pixels in the lanes: a phase without a tap, and outputs before and behind the line."""
    case = Case("conv1d", (70,), (size,), 2, 1, 3, stride, padding=((3, 2),), dtype=dtype)
    gradient = Gradient(case, "input")
    for place, value in itertools.product((0, 1), (np.nan, np.inf)):
        arrays = gradient.arrays()
        arrays[place].reshape(-1)[[0, arrays[place].size - 1]] = value
        with settings.forced(algorithm):
            result = gradient.run(grad, arrays)
        gradient.check(result, arrays)
        assert not np.isfinite(result).all()


@pytest.mark.parametrize("size", [1, 2])
def test_elements_that_no_window_reads_get_zero(isa, dtype, conv_gradient_way, size):
    """Strides above the window's size, and the rest behind the last window: 0 whatever the weights are."""
    for batch, filters, data_format in itertools.product((1, 3), (1, 5, 33), FORMATS):
        case = Case("conv1d", (14,), (size,), batch, 3, filters, 5, data_format=data_format, dtype=dtype)
        gradient = Gradient(case, "input")
        result = gradient.run(grad, tuple(np.full_like(array, np.nan) for array in gradient.arrays()))
        last = result if data_format == "channels_last" else result.swapaxes(1, 2)
        read = np.arange(14) % 5 < size
        assert np.isnan(last[:, read]).all()
        assert (last[:, ~read] == 0).all()


def test_nothing_is_left_of_an_earlier_call(solve_gradients, dtype, conv_gradient_way):
    """Workspaces and lanes that one call filled with NaN do not reach the next, whose tiles are not full."""
    for filters, channels, columns in ((3, 2, 3), (19, 3, 13), (2, 1, 15), (33, 5, 29)):
        full = Case("conv2d", (9, 64), (3, 3), 2, channels, 64, dtype=dtype)
        for gradient in gradients(full):
            gradient.run(grad, tuple(np.full_like(array, np.nan) for array in gradient.arrays()))
        solve_gradients(Case("conv2d", (3, columns), (3, 3), 1, channels, filters, padding="same", dtype=dtype))


def test_overflow_and_subnormals(isa, dtype, conv_gradient_way):
    """Past the largest number is inf, and the smallest numbers are not flushed to zero."""
    limits = np.finfo(dtype)
    values = np.array([limits.max, limits.smallest_subnormal, limits.smallest_normal, -limits.max], dtype)
    with np.errstate(over="ignore"):
        expected = values[:, None] * np.array([1, 2], dtype)
    two = np.array([1, 2], dtype)
    result = grad.conv1d_input((1, 4, 2), two.reshape(1, 2, 1), values.reshape(1, 4, 1))
    np.testing.assert_array_equal(result[0], expected, strict=True)
    result = grad.conv1d_kernel(values.reshape(1, 1, 4), (1, 4, 2), two.reshape(1, 1, 2))
    np.testing.assert_array_equal(result[0], expected, strict=True)


# --- central differences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "case",
    [
        Case("conv1d", (7,), (3,), 2, 4, 2, padding="causal", groups=2),
        Case("conv1d", (9,), (2,), (1, 2), 2, 3, dilation_rate=2, padding=((3, 1),)),
        Case("conv2d", (4, 5), (2, 3), 2, 2, 3, strides=(1, 2), padding="same"),
    ],
    ids=lambda case: case.function,
)
def test_central_differences(isa, central_differences, case, data_format):
    central_differences(case, data_format)


# --- the ways to say the same -----------------------------------------------------------------------------------------


def test_integers_and_sequences_for_sizes():
    case = Case("conv2d", (6, 7), (2, 2), strides=(2, 2), dilation_rate=(1, 1))
    of_input, of_kernel = gradients(case)
    (kernel, grad_output), (x, _) = of_input.arrays(), of_kernel.arrays()
    for make in (int, np.int64, lambda n: [n, n], lambda n: (n, n), lambda n: np.array([n, n])):
        of_input.check(grad.conv2d_input(list(x.shape), kernel, grad_output, make(2), dilation_rate=make(1)))
        of_kernel.check(grad.conv2d_kernel(x, np.array(kernel.shape), grad_output, make(2), dilation_rate=make(1)))


def test_positional_arguments():
    shared = {"padding": "same", "data_format": "channels_first"}
    for case, arguments in (
        (Case("conv1d", (9,), (3,), strides=2, **shared), (2, "same", "channels_first", 1)),
        (Case("conv2d", (6, 7), (3, 2), dilation_rate=(2, 1), **shared), ((1, 1), "same", "channels_first", (2, 1))),
    ):
        of_input, of_kernel = gradients(case)
        (kernel, grad_output), (x, _) = of_input.arrays(), of_kernel.arrays()
        of_input.check(getattr(grad, of_input.function)(x.shape, kernel, grad_output, *arguments))
        of_kernel.check(getattr(grad, of_kernel.function)(x, kernel.shape, grad_output, *arguments))
        transposed = getattr(localconv, f"{case.function}_transpose")
        of_input.check(transposed(grad_output, kernel, x.shape, *arguments))


@pytest.mark.parametrize("data_format", FORMATS)
def test_default_data_format(data_format):
    localconv.set_image_data_format(data_format)
    for case in (
        Case("conv1d", (7,), (3,), channels=4, data_format=data_format),
        Case("conv2d", (7, 6), (3, 2), channels=4, data_format=data_format),
    ):
        for gradient in gradients(case):
            gradient.check(gradient.run(grad, gradient.arrays(), data_format=None))
        gradient = Gradient(case, "input")
        gradient.check(gradient.transposed(localconv, gradient.arrays(), data_format=None))


@pytest.mark.parametrize("data_format", FORMATS)
def test_empty_batch(dtype, conv_gradient_way, data_format):
    """An empty gradient of the input, and zeros for the kernel, added or not."""
    for batch in (0, (2, 0)):
        for gradient in gradients(Case("conv2d", (7, 4), (3, 2), batch, data_format=data_format, dtype=dtype)):
            result = gradient.run(grad, gradient.arrays())
            assert_same_bits(result, np.zeros(gradient.shape, dtype))
            out = np.full(gradient.shape, 7, dtype)
            assert gradient.run(grad, gradient.arrays(), out=out) is out
            assert (out == 0).all()
        out[...] = 7
        assert gradient.run(grad, gradient.arrays(), out=out, accumulate=True) is out
        assert (out == 7).all()


def test_mixed_dtypes_promote(isa, conv_gradient_way):
    """float64 anywhere makes the result float64, summed in float64."""
    for gradient in gradients(Case("conv1d", (9,), (3,), exact=False)):
        for kinds in itertools.product(("float32", "float64"), repeat=2):
            mixed = tuple(array.astype(kind) for array, kind in zip(gradient.arrays(), kinds, strict=True))
            result = gradient.run(grad, mixed)
            assert result.dtype == np.result_type(*mixed)
            gradient.check(result, mixed)


def test_windows_larger_than_any_machine_reads(solve_gradients, dtype, conv_gradient_way):
    """Strides and dilation may be far larger than the input: index arithmetic is 64-bit."""
    huge = 2**40
    for case in (
        Case("conv1d", (5,), (3,), strides=huge, padding="same", dtype=dtype),
        Case("conv1d", (5,), (3,), dilation_rate=huge, padding="same", dtype=dtype),
    ):
        if "conv_narrow" in conv_gradient_way:  # it keeps a stretch as long as these, which does not fit
            with pytest.raises(ValueError, match="cannot do this geometry"):
                solve_gradients(case)
        else:
            solve_gradients(case)


@pytest.mark.parametrize("exponent", [41, 48, 54, 57])
def test_dilation_that_fits_no_workspace(solve_gradients, dtype, exponent):
    """Where one algorithm would need more bytes than there are, another answers."""
    shape = {"channels": 2, "filters": 10, "groups": 2, "padding": "same", "dtype": dtype}
    solve_gradients(Case("conv2d", (6, 18), (3, 3), dilation_rate=2**exponent, **shape))


@pytest.mark.parametrize(("channels", "exponent", "filters"), [(64, 58, 1), (48, 58, 1), (1, 45, 64)])
def test_strides_of_more_rows_than_can_be_counted(isa, channels, exponent, filters):
    """Where a phase is a row of its own, and an algorithm is forced that makes one for each."""
    kernel, gradient = np.ones((1, channels, filters), np.float32), np.ones((1, 1, filters), np.float32)
    with settings.forced("conv_narrow"), pytest.raises(ValueError, match="conv_narrow cannot"):
        grad.conv1d_input((1, 1, channels), kernel, gradient, strides=2**exponent)


def test_no_window_meets_a_pixel(isa):
    """All of the gradient is 0, and the kernels say that they ran."""
    case = Case("conv2d", (1, 12), (1, 1), 3, 3, 1, strides=(2, 3), padding=((1, 0), (0, 0)))
    gradient = Gradient(case, "input")
    result = gradient.run(grad, gradient.arrays())
    gradient.check(result)
    assert not result.any()
    assert _core.last_run()["isa"] == isa


# --- transposed convolution -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_transposed(isa, dtype, data_format, padding):
    """The gradient of the input under another name, bit for bit."""
    for function, spatial, size in (("conv1d", (9,), (3,)), ("conv2d", (5, 6), (3, 2))):
        for (strides, dilation), groups in itertools.product(((1, 1), (2, 1), (1, 2)), (1, 2)):
            shared = {"strides": strides, "dilation_rate": dilation, "groups": groups, "dtype": dtype}
            case = Case(function, spatial, size, 3, 4, 6, padding=padding, data_format=data_format, **shared)
            gradient = Gradient(case, "input")
            arrays = gradient.arrays()
            expected = gradient.run(grad, arrays)
            gradient.check(expected)
            open_batch = (None, *gradient.shape[1:])
            assert_same_bits(gradient.transposed(localconv, arrays), expected)
            assert_same_bits(gradient.transposed(localconv.backend, arrays, output_shape=open_batch), expected)
            out = np.full_like(expected, np.nan)
            assert gradient.transposed(localconv, arrays, output_shape=list(open_batch), out=out) is out
            assert_same_bits(out, expected)


@pytest.mark.parametrize("data_format", FORMATS)
def test_transposed_of_several_batch_axes(data_format):
    gradient = Gradient(Case("conv1d", (9,), (3,), (2, 3), strides=2, data_format=data_format), "input")
    gradient.check(gradient.transposed(localconv, gradient.arrays()))
