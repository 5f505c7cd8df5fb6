"""conv1d and conv2d: values, on every instruction set and by every algorithm."""

import itertools

import numpy as np
import pytest
from oracle import BATCHES, DEPTHS, FILTERS, FORMATS, PADDINGS, Case, one_tap_cases

import localconv
from localconv import _core
from localconv.core import settings

STEPS = ((1, 1), (2, 1), (3, 1), (1, 2), (1, 5))  # (strides, dilation): one of them is 1


@pytest.mark.parametrize("filters", FILTERS)
def test_filter_counts(solve, dtype, conv_way, filters):
    solve(Case("conv1d", (7,), (3,), batch=3, channels=2, filters=filters, dtype=dtype))
    solve(Case("conv2d", (5, 4), (2, 3), batch=1, channels=3, filters=filters, dtype=dtype))


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_sizes(solve, dtype, conv_way, batch):
    for filters in (3, 19):
        solve(Case("conv1d", (7,), (3,), batch=batch, channels=2, filters=filters, dtype=dtype))


@pytest.mark.parametrize("width", range(1, 31))
def test_output_widths(solve, dtype, conv_way, width):
    for filters in (1, 37):
        solve(Case("conv1d", (width + 2,), (3,), channels=1, filters=filters, dtype=dtype))
        solve(Case("conv2d", (4, width + 1), (2, 2), filters=filters, dtype=dtype))
        solve(Case("conv2d", (4, width), (3, 3), filters=filters, padding="same", dtype=dtype))


@pytest.mark.parametrize("depth", DEPTHS)
def test_depths(solve, dtype, conv_way, depth):
    """D of all sizes, as channels and as taps."""
    for filters in (6, 34):
        solve(Case("conv1d", (17,), (1,), channels=depth, filters=filters, dtype=dtype))
        solve(Case("conv1d", (depth + 15,), (depth,), channels=1, filters=filters, dtype=dtype))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[1], ids=str)
def test_geometry_1d(solve, dtype, conv_way, padding, data_format):
    for (strides, dilation), groups, size in itertools.product(STEPS, (1, 2), (1, 2, 3)):
        case = Case("conv1d", (17,), (size,), 3, 4, 6, strides, dilation, groups, padding, data_format, dtype=dtype)
        solve(case)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[2], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_geometry_2d(solve, dtype, conv_way, padding, data_format, groups):
    steps = ((1, 1), ((2, 3), 1), (2, 1), (1, (2, 1)), (1, (1, 3)))
    for (strides, dilation), size in itertools.product(steps, ((2, 2), (1, 3), (4, 3))):
        case = Case("conv2d", (8, 7), size, 2, 6, 9, strides, dilation, groups, padding, data_format, dtype=dtype)
        solve(case)


@pytest.mark.parametrize("data_format", FORMATS)
def test_bias(solve, dtype, conv_way, data_format):
    for filters in (1, 5, 33):
        shared = {"filters": filters, "data_format": data_format, "bias": "filters", "dtype": dtype}
        solve(Case("conv1d", (16,), (2,), padding="causal", **shared))
        solve(Case("conv2d", (5, 4), (2, 3), padding="same", **shared))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("groups", [2, 5, 30])
def test_groups(solve, dtype, conv_way, data_format, groups):
    """Up to one channel a group (depthwise), with filters a group that fill no vector and no tile."""
    for filters in (30, 60):
        shared = {"batch": 2, "filters": filters, "groups": groups, "data_format": data_format, "dtype": dtype}
        solve(Case("conv1d", (6,), (3,), channels=30, **shared))
        solve(Case("conv2d", (4, 5), (2, 2), channels=60, **shared))


@pytest.mark.parametrize("data_format", FORMATS)
def test_one_pixel_of_each_window(solve, dtype, conv_way, data_format):
    for case in one_tap_cases(data_format, dtype):
        solve(case)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("batch", [(2, 3), (1, 2, 1, 3), (2, 0)], ids=str)
def test_extended_batch_shapes(dtype, conv_way, data_format, batch):
    """Any number of batch axes in front of the image's."""
    for padding in ("valid", "same", "causal"):
        case = Case("conv1d", (9,), (3,), batch, data_format=data_format, padding=padding, dtype=dtype)
        case.check(case.run(localconv, case.arrays()))
    case = Case("conv2d", (5, 6), (3, 2), batch, data_format=data_format, padding="same", dtype=dtype)
    case.check(case.run(localconv, case.arrays()))


@pytest.mark.parametrize("data_format", FORMATS)
def test_rounding(solve, dtype, conv_way, data_format):
    """Values that fill the mantissa, against the wider twin: no more error than the sums' own rounding."""
    for seed, (batch, filters, channels) in enumerate([(1, 5, 7), (4, 33, 3), (9, 2, 40), (1, 65, 60)]):
        shared = {"data_format": data_format, "dtype": dtype, "exact": False, "seed": seed, "bias": "filters"}
        solve(Case("conv1d", (19,), (5,), batch, channels, filters, padding="same", **shared))
        solve(Case("conv2d", (5, 6), (2, 3), batch, channels, filters, strides=2, **shared))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("side", "channels", "filters", "size"), [(150, 24, 5, 5), (230, 3, 40, 3), (60, 200, 9, 1)])
def test_large_images(isa, conv_way, data_format, side, channels, filters, size):
    """Patches of many times 16 MiB, so that bounded workspaces are used in several blocks by every thread."""
    case = Case("conv2d", (side, side - 1), (size, size), 2, channels, filters, data_format=data_format)
    x, kernel, _ = case.arrays()
    # All is integer and below 2**24: float32 is exact, and matmul may sum in any order. The twin would take minutes.
    last = x if data_format == "channels_last" else np.moveaxis(x, 1, -1)
    windows = np.lib.stride_tricks.sliding_window_view(last, (size, size), (1, 2))
    expected = np.einsum("byxcij,ijcf->byxf", windows, kernel, optimize=True)
    result = case.run(localconv, (x, kernel, None))
    np.testing.assert_array_equal(result if data_format == "channels_last" else np.moveaxis(result, 1, -1), expected)


# --- padding, NaN and inf ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
def test_windows_that_see_only_padding_give_the_bias(isa, dtype, conv_way, data_format):
    case = Case("conv1d", (3,), (2,), 2, 3, 4, padding=((4, 5),), data_format=data_format, dtype=dtype)
    x, kernel, _ = case.arrays()
    x[:] = np.nan
    bias = np.arange(1, 5, dtype=dtype)
    result = case.run(localconv, (x, kernel, bias))
    last = result if data_format == "channels_last" else result.swapaxes(1, 2)
    assert last.shape == (2, 11, 4)
    for positions in (slice(0, 3), slice(7, 11)):
        np.testing.assert_array_equal(last[:, positions], np.broadcast_to(bias, last[:, positions].shape))
    assert np.isnan(last[:, 3:7]).all()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("place", ["x", "kernel", "bias"])
def test_nan_and_inf(solve, dtype, conv_way, data_format, place, padding):
    """They reach exactly the outputs whose sums hold them; the values hold zeros too, and 0 * inf is NaN."""
    for filters, columns in ((5, 20), (34, 15)):
        shared = {"padding": padding, "data_format": data_format, "bias": "filters", "dtype": dtype}
        case = Case("conv2d", (4, columns), (3, 3), 1, 2, filters, **shared)
        arrays = dict(zip(("x", "kernel", "bias"), case.arrays(), strict=True))
        flat = arrays[place].reshape(-1)
        flat[[0, flat.size // 2, flat.size - 2]] = np.nan, np.inf, -np.inf
        result = solve(case, tuple(arrays.values()))
        assert 0 < np.isfinite(result).sum() < result.size


def test_nothing_is_left_of_an_earlier_call(solve, dtype, conv_way):
    """Workspaces and lanes that one call filled with NaN do not reach the next, whose tiles are not full."""
    for filters, channels, columns in ((3, 2, 3), (19, 3, 13), (2, 1, 15), (33, 5, 29)):
        full = Case("conv2d", (9, 64), (3, 3), 2, channels, 64, dtype=dtype)
        full.run(localconv, (*(np.full_like(array, np.nan) for array in full.arrays()[:2]), None))
        solve(Case("conv2d", (3, columns), (3, 3), 1, channels, filters, padding="same", dtype=dtype))


def test_overflow_and_subnormals(isa, dtype, conv_way):
    """Past the largest number is inf, and the smallest numbers are not flushed to zero."""
    limits = np.finfo(dtype)
    x = np.array([[limits.max], [limits.smallest_subnormal], [limits.smallest_normal], [-limits.max]], dtype)[None]
    result = localconv.conv1d(x, np.array([[[1, 2]]], dtype))
    with np.errstate(over="ignore"):
        expected = x * np.array([1, 2], dtype)
    np.testing.assert_array_equal(result, expected, strict=True)


# --- the ways to say the same -----------------------------------------------------------------------------------------


def test_integers_and_sequences_for_sizes():
    case = Case("conv2d", (6, 7), (2, 2), strides=(2, 2), dilation_rate=(1, 1))
    x, kernel, _ = case.arrays()
    for make in (int, np.int64, lambda n: [n, n], lambda n: (n, n), lambda n: np.array([n, n])):
        case.check(localconv.conv2d(x, kernel, make(2), dilation_rate=make(1)))


def test_positional_arguments_as_in_keras():
    case = Case("conv1d", (9,), (3,), strides=2, padding="same", data_format="channels_first")
    x, kernel, _ = case.arrays()
    case.check(localconv.conv1d(x, kernel, 2, "same", "channels_first", 1))
    case = Case("conv2d", (6, 7), (3, 2), dilation_rate=(2, 1), padding="same", data_format="channels_first")
    x, kernel, _ = case.arrays()
    case.check(localconv.conv2d(x, kernel, (1, 1), "same", "channels_first", (2, 1)))


@pytest.mark.parametrize("data_format", FORMATS)
def test_default_data_format(data_format):
    localconv.set_image_data_format(data_format)
    for case in (
        Case("conv1d", (7,), (3,), channels=4, data_format=data_format),
        Case("conv2d", (7, 6), (3, 2), channels=4, data_format=data_format),
    ):
        case.check(case.run(localconv, case.arrays(), data_format=None))


def test_mixed_dtypes_promote(isa, conv_way):
    """float64 anywhere makes the result float64, summed in float64."""
    case = Case("conv1d", (9,), (3,), bias="filters", exact=False)
    arrays = case.arrays()
    for kinds in itertools.product(("float32", "float64"), repeat=3):
        mixed = tuple(array.astype(kind) for array, kind in zip(arrays, kinds, strict=True))
        result = case.run(localconv, mixed)
        assert result.dtype == np.result_type(*mixed)
        case.check(result, mixed)


def test_windows_larger_than_any_machine_reads(solve, dtype, conv_way):
    """Strides and dilation may be far larger than the input: index arithmetic is 64-bit."""
    huge = 2**40
    solve(Case("conv1d", (5,), (3,), strides=huge, padding="same", dtype=dtype))
    far = Case("conv1d", (5,), (3,), dilation_rate=huge, padding="same", dtype=dtype)
    if conv_way == ("conv_lines",):  # it brings all that lies between the taps together, which does not fit
        with pytest.raises(ValueError, match="cannot do this geometry"):
            solve(far)
    else:
        solve(far)


def test_too_many_lines_to_be_counted(isa):
    """Of an input without columns: no size of a box may pass 64 bits unseen."""
    n = 2**57 + 1
    x = np.zeros((1, n, 0, 1), np.float32)
    options = {"strides": (n - 1, 64), "padding": ((0, 0), (0, 1024)), "data_format": "channels_last"}
    assert not localconv.conv2d(x, np.ones((1, 64, 1, 1), np.float32), **options).any()


def test_algorithm_does_not_depend_on_threads(isa):
    """Nor where a block of two lines would be too large: rows that a stride leaves far apart."""
    far, taps = 20_000_000, 1024
    rng = np.random.default_rng(0)
    x = np.zeros((1, 2, far + 1, 4, 1), np.float32)
    x[:, :, 0], x[:, :, far] = rng.standard_normal((2, 1, 2, 4, 1))
    kernel = rng.standard_normal((1, 1, taps, 2, 4)).astype(np.float32)
    padding = ((0, 0), (0, 0), (0, taps * 32 - 1))
    options = {"strides": (far, 1, taps), "padding": padding, "data_format": "channels_first"}
    found = []
    for threads in (1, 2, 3):
        localconv.set_num_threads(threads)
        found.append((localconv.conv3d(x, kernel, **options).tobytes(), _core.last_run()["algorithm"]))
    assert len(set(found)) == 1


def test_infinite_kernels_reach_over_ends_of_lines(isa):
    """Of many stretches of a line, a block goes through its own."""
    x = np.random.default_rng(0).standard_normal((1, 4000, 2)).astype(np.float32)
    kernel = np.ones((2001, 2, 1), np.float32)
    kernel[0, 0, 0] = np.inf
    with settings.forced("conv_lines"):
        lines = localconv.conv1d(x, kernel, 2, "same", "channels_last")
    with settings.forced("conv_direct"):
        direct = localconv.conv1d(x, kernel, 2, "same", "channels_last")
    np.testing.assert_array_equal(np.isfinite(lines), np.isfinite(direct))
    np.testing.assert_allclose(lines, direct, rtol=1e-4, atol=1e-2)
