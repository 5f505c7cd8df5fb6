"""Gradients of local_conv1d and local_conv2d: values, on every instruction set and by every algorithm."""

import itertools

import numpy as np
import pytest
from oracle import BATCHES, DEPTHS, FILTERS, FORMATS, PADDINGS, Case, Gradient, assert_same_bits, gradients, thirds

import localconv
from localconv import _core, grad
from localconv.core import engine, policy, settings


def ran(way):
    return _core.last_run()["algorithm"] in way


@pytest.mark.parametrize("counts", thirds(FILTERS), ids=str)
def test_filter_counts(solve_gradient, dtype, local_gradient_way, counts):
    for filters, batch in itertools.product(counts, (1, 5)):
        for gradient in gradients(Case("local_conv1d", (7,), (3,), batch, 2, filters, dtype=dtype)):
            solve_gradient(gradient)
            assert ran(local_gradient_way)


@pytest.mark.parametrize("batches", thirds(BATCHES), ids=str)
def test_batch_sizes(solve_gradients, dtype, local_gradient_way, batches):
    for batch, filters in itertools.product(batches, (3, 19)):
        solve_gradients(Case("local_conv1d", (7,), (3,), batch, 2, filters, dtype=dtype))


def test_output_widths(solve_gradients, dtype, local_gradient_way):
    for positions in (1, 2, 3, 5, 8, 13, 16, 17, 30):
        solve_gradients(Case("local_conv1d", (positions + 2,), (3,), 3, 1, 5, dtype=dtype))
        solve_gradients(Case("local_conv2d", (4, positions + 1), (2, 2), 2, 3, 9, dtype=dtype))


@pytest.mark.parametrize("depths", thirds(DEPTHS), ids=str)
def test_depths(solve_gradients, dtype, local_gradient_way, depths):
    """D of all sizes, as channels and as taps."""
    for depth, (batch, filters) in itertools.product(depths, ((1, 6), (9, 17))):
        solve_gradients(Case("local_conv1d", (3,), (1,), batch, depth, filters, dtype=dtype))
        solve_gradients(Case("local_conv1d", (depth + 2,), (depth,), batch, 1, filters, dtype=dtype))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[1], ids=str)
def test_geometry_1d(solve_gradients, dtype, local_gradient_way, padding, data_format):
    """Strides below, at and above the kernel's size and reach."""
    for number, (strides, dilation, size) in enumerate(itertools.product((1, 2, 4), (1, 3), (1, 2, 3))):
        steps = {"strides": strides, "dilation_rate": dilation, "groups": 1 + number % 2, "padding": padding}
        solve_gradients(Case("local_conv1d", (13,), (size,), 3, 4, 6, data_format=data_format, dtype=dtype, **steps))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[2], ids=str)
def test_geometry_2d(solve_gradients, dtype, local_gradient_way, padding, data_format):
    steps = ((1, 1), (1, (2, 1)), ((2, 3), 1), ((3, 2), 3))
    for (strides, dilation), (size, groups) in itertools.product(steps, (((2, 2), 1), ((1, 3), 3), ((3, 2), 3))):
        case = Case("local_conv2d", (7, 7), size, 2, 6, 9, strides, dilation, groups, padding, data_format, dtype=dtype)
        solve_gradients(case)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("groups", [2, 5, 30])
def test_groups(solve_gradients, dtype, local_gradient_way, data_format, groups):
    """Up to one channel a group, with filters a group that fill no vector and no tile."""
    for batch, filters in ((1, 60), (9, 30)):
        shared = {"groups": groups, "data_format": data_format, "dtype": dtype}
        solve_gradients(Case("local_conv1d", (6,), (3,), batch, 30, filters, **shared))


@pytest.mark.parametrize("data_format", FORMATS)
def test_many_positions(solve_gradients, dtype, local_gradient_way, data_format):
    """Enough of them for many tasks on every thread, and for batch tiles that are full and not."""
    shared = {"data_format": data_format, "dtype": dtype, "padding": "same"}
    solve_gradients(Case("local_conv1d", (2000,), (4,), 1, 2, 8, **shared))
    solve_gradients(Case("local_conv2d", (28, 25), (3, 3), 33, 1, 3, **shared))


@pytest.mark.parametrize("data_format", FORMATS)
def test_rounding(solve_gradients, dtype, local_gradient_way, data_format):
    """Values that fill the mantissa, against the wider twin: no more error than the sums' own rounding."""
    for seed, (batch, filters, channels) in enumerate([(1, 5, 7), (4, 33, 3), (19, 2, 40), (1, 65, 60), (65, 4, 3)]):
        shared = {"data_format": data_format, "dtype": dtype, "exact": False, "seed": seed}
        solve_gradients(Case("local_conv1d", (10,), (5,), batch, channels, filters, padding="same", **shared))
        solve_gradients(Case("local_conv2d", (5, 6), (2, 3), batch, channels, filters, strides=2, **shared))


@pytest.mark.parametrize("data_format", FORMATS)
def test_one_filter_and_one_channel(solve_gradients, dtype, data_format):
    """By whatever algorithm policy picks by itself."""
    for batch, channels, groups in itertools.product((1, 2, 17), (1, 4), (1, 4)):
        if channels % groups == 0:
            shared = {"filters": groups, "groups": groups, "data_format": data_format, "dtype": dtype}
            case = Case("local_conv2d", (9, 8), (3, 3), batch, channels, padding="same", **shared)
            solve_gradients(case)


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["same", ((2, 1), (0, 3)), ((4, 5), (3, 4))], ids=str)
def test_weights_that_meet_padding_do_nothing(solve_gradient, dtype, local_gradient_way, data_format, padding):
    """NaN and inf in such rows of the kernel; the twin leaves these products out."""
    for batch, filters, groups in ((1, 6, 1), (3, 18, 2), (17, 2, 1)):
        shared = {"groups": groups, "padding": padding, "data_format": data_format, "dtype": dtype}
        gradient = Gradient(Case("local_conv2d", (4, 5), (3, 2), batch, 4, filters, **shared), "input")
        kernel, grad_output = gradient.arrays()
        present = gradient.case.rows_present()
        assert not present.all()
        kernel[~present] = np.where(np.arange(filters) % 2, np.nan, np.inf)
        result = solve_gradient(gradient, (kernel, grad_output))
        assert np.isfinite(result).all()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["same", ((2, 1), (0, 3)), ((4, 5), (3, 4))], ids=str)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_meet_padding_have_no_gradient(isa, dtype, local_gradient_way, data_format, padding, wrong):
    """Exactly 0, or what out held, even where everything else is NaN or inf."""
    for batch, filters, groups in ((1, 6, 1), (3, 18, 2), (17, 2, 1)):
        shared = {"groups": groups, "padding": padding, "data_format": data_format, "dtype": dtype}
        gradient = Gradient(Case("local_conv2d", (4, 5), (3, 2), batch, 4, filters, **shared), "kernel")
        arrays = tuple(np.full_like(array, wrong) for array in gradient.arrays())
        result = gradient.run(grad, arrays)
        present = gradient.case.rows_present()
        assert (result[~present] == 0).all()
        assert not np.isfinite(result[present]).any()
        out = np.full_like(result, 7)
        gradient.run(grad, arrays, out=out, accumulate=True)
        assert (out[~present] == 7).all()
        assert not np.isfinite(out[present]).any()


# --- special cases of placed gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("filters", [1, 2, 4, 8, 16])
def test_rows_of_few_filters_share_a_vector(solve_gradient, dtype, filters, data_format):
    """Windows of all lengths around a vector, whole and clipped, in steps of one element and of several."""
    shared = {"filters": filters, "data_format": data_format, "dtype": dtype}
    with settings.forced("local_input_direct"):
        for batch, channels in ((1, 1), (2, 3), (1, 5), (3, 8), (1, 17), (1, 33)):
            case = Case("local_conv1d", (6,), (3,), batch, channels, padding="same", **shared)
            solve_gradient(Gradient(case, "input"))
            case = Case("local_conv2d", (5, 6), (2, 3), batch, channels, dilation_rate=(1, 2), **shared)
            solve_gradient(Gradient(case, "input"))
            assert ran(("local_input_direct",))


@pytest.mark.parametrize("data_format", FORMATS)
def test_infinities_stay_in_their_rows(solve_gradient, dtype, data_format):
    """Where rows of a kernel share a vector, which the last one does not fill."""
    with settings.forced("local_input_direct"):
        for filters, channels in itertools.product((1, 2, 4, 8), (1, 3, 7)):
            shared = {"filters": filters, "data_format": data_format, "dtype": dtype}
            gradient = Gradient(Case("local_conv1d", (9,), (3,), 1, channels, **shared), "input")
            kernel, grad_output = gradient.arrays()
            grad_output.reshape(-1)[0] = np.inf
            kernel[3, 1] = np.nan
            result = solve_gradient(gradient, (kernel, grad_output))
            assert 0 < np.isfinite(result).sum() < result.size


@pytest.mark.parametrize("data_format", FORMATS)
def test_lines_asked_for_ahead(isa, dtype, monkeypatch, data_format):
    """The gradient for a kernel, of one tile and of many, has the same bits; also what is added to."""
    for batch, filters in itertools.product((1, 5, 20), (3, 16, 70)):
        case = Case("local_conv1d", (9,), (3,), batch, 7, filters, data_format=data_format, dtype=dtype)
        gradient, results = Gradient(case, "kernel"), []
        for second, ahead in ((2**60, 1), (1, 1), (1, 2**14), (1, 2**40)):
            monkeypatch.setattr(policy, "caches", policy.caches._replace(second=second))
            monkeypatch.setattr(policy, "WRITTEN_AHEAD", ahead)
            engine.plans.clear()
            out = np.ones(gradient.shape, dtype)
            plain = gradient.run(grad, gradient.arrays())
            results.append((plain, gradient.run(grad, gradient.arrays(), out=out, accumulate=True)))
        gradient.check(results[0][0])
        for result in results[1:]:
            for one, other in zip(results[0], result, strict=True):
                assert_same_bits(one, other)
    engine.plans.clear()


# --- NaN and inf ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("of", ["input", "kernel"])
@pytest.mark.parametrize("place", [0, 1], ids=["operand", "grad_output"])
def test_nan_and_inf(solve_gradient, dtype, local_gradient_way, data_format, of, place):
    """They reach exactly the elements whose sums hold them; the values hold zeros too, and 0 * inf is NaN."""
    for batch, filters in ((1, 5), (3, 17), (15, 2)):
        shared = {"padding": "same", "data_format": data_format, "dtype": dtype}
        gradient = Gradient(Case("local_conv2d", (9, 8), (3, 3), batch, 2, filters, **shared), of)
        arrays = gradient.arrays()
        flat = arrays[place].reshape(-1)
        weights = (of, place) == ("input", 0)
        heard = gradient.case.rows_present().repeat(filters) if weights else np.ones(flat.size, bool)
        flat[np.flatnonzero(heard)[[3, heard.sum() // 2, -1]]] = np.nan, np.inf, -np.inf
        result = solve_gradient(gradient, arrays)
        assert 0 < np.isfinite(result).sum() < result.size


def test_elements_that_no_window_reads_get_zero(isa, dtype, local_gradient_way):
    """Strides above the window's size, and the rest behind the last window: 0 whatever the weights are."""
    for batch, filters, data_format in itertools.product((1, 9, 33), (1, 5, 33), FORMATS):
        shared = {"strides": 5, "data_format": data_format, "dtype": dtype}
        gradient = Gradient(Case("local_conv1d", (14,), (2,), batch, 3, filters, **shared), "input")
        result = gradient.run(grad, tuple(np.full_like(array, np.nan) for array in gradient.arrays()))
        last = result if data_format == "channels_last" else result.swapaxes(1, 2)
        read = np.isin(np.arange(14) % 5, (0, 1))
        assert read.any()
        assert np.isnan(last[:, read]).all()
        assert (last[:, ~read] == 0).all()


def test_nothing_is_left_of_an_earlier_call(solve_gradients, dtype, local_gradient_way):
    """Workspaces and lanes that one call filled with NaN do not reach the next, whose tiles are not full."""
    for batch, filters, channels in ((1, 3, 2), (5, 19, 3), (17, 2, 1), (33, 33, 5)):
        full = Case("local_conv1d", (40,), (5,), 64, channels, 64, dtype=dtype)
        for gradient in gradients(full):
            gradient.run(grad, tuple(np.full_like(array, np.nan) for array in gradient.arrays()))
        solve_gradients(Case("local_conv1d", (9,), (5,), batch, channels, filters, padding="same", dtype=dtype))


def test_overflow_and_subnormals(isa, dtype, local_gradient_way):
    """Past the largest number is inf, and the smallest numbers are not flushed to zero."""
    limits = np.finfo(dtype)
    values = np.array([limits.max, limits.smallest_subnormal, limits.smallest_normal, -limits.max], dtype)
    one = np.ones((1, 4, 1), dtype)
    twice = np.full((4, 1, 1), 2, dtype)
    with np.errstate(over="ignore"):
        doubled = 2 * values
    result = grad.local_conv1d_input((1, 4, 1), twice, values.reshape(1, 4, 1), 1, 1)
    np.testing.assert_array_equal(result.ravel(), doubled, strict=True)
    result = grad.local_conv1d_kernel(2 * one, (4, 1, 1), values.reshape(1, 4, 1), 1, 1)
    np.testing.assert_array_equal(result.ravel(), doubled, strict=True)
    result = grad.local_conv1d_kernel(values.reshape(1, 4, 1), (4, 1, 1), 2 * one, 1, 1)
    np.testing.assert_array_equal(result.ravel(), doubled, strict=True)


# --- central differences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "case",
    [
        Case("local_conv1d", (7,), (3,), 2, 4, 2, padding="causal", groups=2),
        Case("local_conv1d", (9,), (2,), 1, 2, 3, strides=3, dilation_rate=2, padding=((3, 1),)),
        Case("local_conv2d", (4, 5), (2, 3), 2, 2, 3, strides=(1, 2), padding="same"),
    ],
    ids=lambda case: case.function,
)
def test_central_differences(isa, central_differences, case, data_format):
    central_differences(case, data_format)


# --- the ways to say the same -----------------------------------------------------------------------------------------


def test_integers_and_sequences_for_sizes():
    case = Case("local_conv2d", (5, 6), (2, 2), strides=(2, 2), dilation_rate=(1, 1))
    (inputs, kernel, _), (_, grad_output) = case.arrays(), Gradient(case, "input").arrays()
    for make in (int, np.int64, lambda n: [n, n], lambda n: (n, n), lambda n: np.array([n, n])):
        shared = {"dilation_rate": make(1), "data_format": "channels_last"}
        sizes = grad_output, make(2), make(2), None
        Gradient(case, "input").check(grad.local_conv2d_input(list(inputs.shape), kernel, *sizes, **shared))
        Gradient(case, "kernel").check(grad.local_conv2d_kernel(inputs, np.array(kernel.shape), *sizes, **shared))


def test_positional_arguments():
    for case, arguments in (
        (
            Case("local_conv2d", (5, 6), (2, 3), data_format="channels_first"),
            ((2, 3), (1, 1), (4, 4), "channels_first"),
        ),
        (Case("local_conv1d", (8,), (3,), strides=2, data_format="channels_first"), ((3,), (2,), "channels_first")),
    ):
        of_input, of_kernel = gradients(case)
        kernel, grad_output = of_input.arrays()
        inputs = of_kernel.arrays()[0]
        function = getattr(grad, of_input.function)
        of_input.check(function(inputs.shape, kernel, grad_output, *arguments))
        of_kernel.check(getattr(grad, of_kernel.function)(inputs, kernel.shape, grad_output, *arguments))


@pytest.mark.parametrize("function", ["local_conv1d", "local_conv2d"])
@pytest.mark.parametrize("data_format", FORMATS)
def test_default_data_format(function, data_format):
    size = (3,) if function == "local_conv1d" else (3, 2)
    case = Case(function, (7, 6)[: len(size)], size, channels=4, data_format=data_format)
    localconv.set_image_data_format(data_format)
    for gradient in gradients(case):
        gradient.check(gradient.run(grad, gradient.arrays(), data_format=None))
    of_input = Gradient(case, "input")
    of_input.check(of_input.transposed(localconv, of_input.arrays(), data_format=None))


@pytest.mark.parametrize("data_format", FORMATS)
def test_empty_batch(dtype, local_gradient_way, data_format):
    """An empty gradient of the input, and zeros for the kernel, added or not."""
    for case in (
        Case("local_conv1d", (7,), (3,), batch=0, data_format=data_format, dtype=dtype),
        Case("local_conv2d", (7, 4), (3, 2), batch=0, data_format=data_format, dtype=dtype),
    ):
        for gradient in gradients(case):
            result = gradient.run(grad, gradient.arrays())
            assert_same_bits(result, np.zeros(gradient.shape, dtype))
            out = np.full(gradient.shape, 7, dtype)
            assert gradient.run(grad, gradient.arrays(), out=out) is out
            assert (out == 0).all()
        out[...] = 7
        assert gradient.run(grad, gradient.arrays(), out=out, accumulate=True) is out
        assert (out == 7).all()


def test_mixed_dtypes_promote(isa, local_gradient_way):
    """float64 anywhere makes the result float64, summed in float64."""
    for gradient in gradients(Case("local_conv1d", (9,), (3,), exact=False)):
        for kinds in itertools.product(("float32", "float64"), repeat=2):
            mixed = tuple(array.astype(kind) for array, kind in zip(gradient.arrays(), kinds, strict=True))
            result = gradient.run(grad, mixed)
            assert result.dtype == np.result_type(*mixed)
            gradient.check(result, mixed)


def test_windows_larger_than_any_machine_reads(solve_gradients, dtype, local_gradient_way):
    """Strides and dilation may be far larger than the input: index arithmetic is 64-bit."""
    huge = 2**40
    solve_gradients(Case("local_conv1d", (5,), (3,), strides=huge, padding="same", dtype=dtype))
    solve_gradients(Case("local_conv1d", (5,), (3,), dilation_rate=huge, padding="same", dtype=dtype))


# --- transposed convolution -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_transposed(isa, dtype, data_format, padding):
    """The gradient of the input under another name, bit for bit."""
    for function, spatial, size in (("local_conv1d", (9,), (3,)), ("local_conv2d", (5, 6), (3, 2))):
        for strides, dilation, groups in itertools.product((1, 2), (1, 2), (1, 2)):
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


def test_positional_arguments_of_transposed():
    gradient = Gradient(Case("local_conv1d", (8,), (3,), strides=2, data_format="channels_first"), "input")
    kernel, inputs = gradient.arrays()
    gradient.check(localconv.local_conv1d_transpose(inputs, kernel, 3, 2, (2, 3, 8), "channels_first"))
    gradient = Gradient(Case("local_conv2d", (5, 6), (2, 3)), "input")
    kernel, inputs = gradient.arrays()
    shape = (2, 5, 6, 3)
    gradient.check(localconv.local_conv2d_transpose(inputs, kernel, (2, 3), (1, 1), shape, "channels_last"))
