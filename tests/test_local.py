"""local_conv1d and local_conv2d: values, on every instruction set and by every algorithm."""

import itertools

import numpy as np
import pytest
from oracle import BATCHES, DEPTHS, FILTERS, FORMATS, PADDINGS, Case

import localconv
from localconv import _core
from localconv.core import settings


def ran(way):
    return _core.last_run()["algorithm"] in way


@pytest.mark.parametrize("filters", FILTERS)
def test_filter_counts(solve, dtype, local_way, filters):
    solve(Case("local_conv1d", (7,), (3,), batch=5, channels=2, filters=filters, dtype=dtype))
    assert ran(local_way)


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_sizes(solve, dtype, local_way, batch):
    for filters in (3, 19):
        solve(Case("local_conv1d", (7,), (3,), batch=batch, channels=2, filters=filters, dtype=dtype))
        assert ran(local_way)


@pytest.mark.parametrize("positions", range(1, 31))
def test_output_widths(solve, dtype, local_way, positions):
    solve(Case("local_conv1d", (positions + 2,), (3,), batch=3, channels=1, filters=5, dtype=dtype))
    solve(Case("local_conv2d", (4, positions + 1), (2, 2), batch=2, channels=3, filters=9, dtype=dtype))


@pytest.mark.parametrize("depth", DEPTHS)
def test_depths(solve, dtype, local_way, depth):
    """D of all sizes, as channels and as taps."""
    for batch, filters in ((1, 6), (9, 17)):
        solve(Case("local_conv1d", (3,), (1,), batch=batch, channels=depth, filters=filters, dtype=dtype))
        solve(Case("local_conv1d", (depth + 2,), (depth,), batch=batch, channels=1, filters=filters, dtype=dtype))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[1], ids=str)
def test_geometry_1d(solve, dtype, local_way, padding, data_format):
    for strides, dilation, groups, size in itertools.product((1, 2, 3), (1, 2, 5), (1, 2), (1, 2, 3)):
        steps = {"strides": strides, "dilation_rate": dilation, "groups": groups, "padding": padding}
        solve(Case("local_conv1d", (13,), (size,), 3, 4, 6, data_format=data_format, dtype=dtype, **steps))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", PADDINGS[2], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_geometry_2d(solve, dtype, local_way, padding, data_format, groups):
    for strides, dilation, size in itertools.product((1, (2, 3)), (1, (2, 1), 3), ((2, 2), (1, 3))):
        case = Case("local_conv2d", (5, 7), size, 2, 6, 9, strides, dilation, groups, padding, data_format, dtype=dtype)
        solve(case)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("bias", ["filters", "full"])
def test_bias(solve, dtype, local_way, data_format, bias):
    for batch, filters in ((1, 1), (2, 5), (17, 18)):
        shared = {"batch": batch, "filters": filters, "data_format": data_format, "bias": bias, "dtype": dtype}
        solve(Case("local_conv1d", (9,), (2,), padding="same", **shared))
        solve(Case("local_conv2d", (5, 4), (2, 3), **shared))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("groups", [2, 5, 30])
def test_groups(solve, dtype, local_way, data_format, groups):
    """Up to one channel a group, with filters a group that fill no vector and no tile."""
    for batch, filters in ((1, 60), (9, 30)):
        solve(Case("local_conv1d", (6,), (3,), batch, 30, filters, groups=groups, data_format=data_format, dtype=dtype))


@pytest.mark.parametrize("data_format", FORMATS)
def test_many_positions(solve, dtype, local_way, data_format):
    """Enough of them for many tasks on every thread, and for batch tiles that are full and not."""
    for batch, filters in ((1, 8), (33, 3)):
        shared = {"batch": batch, "filters": filters, "data_format": data_format, "dtype": dtype}
        solve(Case("local_conv1d", (2000,), (4,), strides=1, channels=2, padding="same", **shared))
        solve(Case("local_conv2d", (45, 40), (3, 3), channels=1, padding="same", **shared))


@pytest.mark.parametrize("data_format", FORMATS)
def test_rounding(solve, dtype, local_way, data_format):
    """Values that fill the mantissa, against the wider twin: no more error than the sums' own rounding."""
    for seed, (batch, filters, channels) in enumerate([(1, 5, 7), (4, 33, 3), (19, 2, 40), (1, 65, 60)]):
        shared = {"data_format": data_format, "dtype": dtype, "exact": False, "seed": seed, "bias": "full"}
        solve(Case("local_conv1d", (10,), (5,), batch, channels, filters, padding="same", **shared))
        solve(Case("local_conv2d", (5, 6), (2, 3), batch, channels, filters, strides=2, **shared))


# --- one filter: dot products ---------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
def test_dot(solve, dtype, data_format):
    sizes = itertools.product((1, 2, 9), (1, 2, 5, 16, 17, 33), ("valid", "same"))
    with settings.forced("local_dot"):
        for batch, channels, padding in sizes:
            shared = {"batch": batch, "channels": channels, "filters": 1}
            shared |= {"padding": padding, "data_format": data_format, "dtype": dtype, "bias": "filters"}
            solve(Case("local_conv1d", (11,), (3,), **shared))
            assert ran(("local_dot",))
            solve(Case("local_conv2d", (4, 8), (2, 5), strides=2, **shared))
            assert ran(("local_dot",))


@pytest.mark.parametrize(
    "changes",
    [
        {"filters": 2},
        {"filters": 3, "groups": 3},
        {"filters": 3, "groups": 3, "data_format": "channels_first"},
        {"filters": 1, "channels": 1, "dilation_rate": 2},
        {"filters": 1, "data_format": "channels_first", "dilation_rate": 2},
    ],
    ids=str,
)
def test_dot_is_refused(changes):
    """Where the weights of one filter, or the elements of a window, are not neighbours."""
    case = Case("local_conv1d", (11,), (3,), **({"channels": 6} | changes))
    with settings.forced("local_dot"), pytest.raises(ValueError, match="dot"):
        case.run(localconv, case.arrays())


def test_one_filter(solve, dtype):
    """What policy picks by itself for one filter, dot products or not, is right for any geometry."""
    for data_format, dilation, groups in itertools.product(FORMATS, (1, 2), (1, 4)):
        shared = {"channels": 4, "filters": groups, "groups": groups, "data_format": data_format, "dtype": dtype}
        solve(Case("local_conv2d", (9, 8), (3, 3), dilation_rate=dilation, padding="same", **shared))


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("batch", [1, 18])
def test_windows_that_see_only_padding_give_the_bias(isa, dtype, local_way, data_format, batch):
    case = Case("local_conv1d", (3,), (2,), batch, padding=((4, 5),), data_format=data_format, dtype=dtype)
    inputs, kernel, _ = case.arrays()
    kernel[:] = np.nan  # nothing may read it where it meets padding
    bias = np.arange(1, 5, dtype=dtype)
    result = case.run(localconv, (inputs, kernel, bias))
    last = result if data_format == "channels_last" else result.swapaxes(1, 2)
    assert last.shape == (batch, 11, 4)
    for positions in (slice(0, 3), slice(7, 11)):
        np.testing.assert_array_equal(last[:, positions], np.broadcast_to(bias, last[:, positions].shape))
    assert np.isnan(last[:, 3:7]).all()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("padding", ["same", ((2, 1), (0, 3))], ids=str)
def test_weights_that_meet_padding_do_nothing(solve, dtype, local_way, data_format, padding):
    """NaN and inf in such rows of the kernel; the twin leaves these products out."""
    for batch, filters, groups in ((1, 6, 1), (3, 18, 2), (17, 2, 1)):
        shared = {"groups": groups, "padding": padding, "data_format": data_format, "dtype": dtype}
        case = Case("local_conv2d", (4, 5), (3, 2), batch, 4, filters, **shared)
        inputs, kernel, _ = case.arrays()
        present = case.rows_present()
        assert not present.all()
        kernel[~present] = np.where(np.arange(filters) % 2, np.nan, np.inf)
        result = solve(case, (inputs, kernel, None))
        assert np.isfinite(result).all()


# --- NaN and inf ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("place", ["inputs", "kernel", "bias"])
def test_nan_and_inf(solve, dtype, local_way, data_format, place):
    """They reach exactly the outputs whose sums hold them; the values hold zeros too, and 0 * inf is NaN."""
    for batch, filters in ((1, 5), (3, 17), (15, 2)):
        shared = {"padding": "same", "data_format": data_format, "bias": "full", "dtype": dtype}
        case = Case("local_conv2d", (6, 5), (3, 3), batch, 2, filters, **shared)
        arrays = dict(zip(("inputs", "kernel", "bias"), case.arrays(), strict=True))
        flat = arrays[place].reshape(-1)
        heard = case.rows_present().repeat(filters) if place == "kernel" else np.ones(flat.size, bool)
        flat[np.flatnonzero(heard)[[3, heard.sum() // 2, -1]]] = np.nan, np.inf, -np.inf
        result = solve(case, tuple(arrays.values()))
        assert 0 < np.isfinite(result).sum() < result.size


def test_nothing_is_left_of_an_earlier_call(solve, dtype, local_way):
    """Workspaces and lanes that one call filled with NaN do not reach the next, whose tiles are not full."""
    for batch, filters, channels in ((1, 3, 2), (5, 19, 3), (17, 2, 1), (33, 33, 5)):
        full = Case("local_conv1d", (40,), (5,), 64, channels, 64, dtype=dtype)
        full.run(localconv, (*(np.full_like(array, np.nan) for array in full.arrays()[:2]), None))
        solve(Case("local_conv1d", (9,), (5,), batch, channels, filters, padding="same", dtype=dtype))


def test_overflow_and_subnormals(isa, dtype, local_way):
    """Past the largest number is inf, and the smallest numbers are not flushed to zero."""
    limits = np.finfo(dtype)
    values = np.array([limits.max, limits.smallest_subnormal, limits.smallest_normal, -limits.max], dtype)
    inputs = np.tile(values.reshape(1, 4, 1), (3, 1, 1))
    result = localconv.local_conv1d(inputs, np.full((4, 1, 2), [[1, 2]], dtype), 1, 1)
    with np.errstate(over="ignore"):
        expected = inputs * np.array([1, 2], dtype)
    np.testing.assert_array_equal(result, expected, strict=True)


# --- the ways to say the same -----------------------------------------------------------------------------------------


def test_integers_and_sequences_for_sizes():
    case = Case("local_conv2d", (5, 6), (2, 2), strides=(2, 2), dilation_rate=(1, 1))
    inputs, kernel, _ = case.arrays()
    expected = case.run(localconv, case.arrays())
    for make in (int, np.int64, lambda n: [n, n], lambda n: (n, n), lambda n: np.array([n, n])):
        result = localconv.local_conv2d(inputs, kernel, make(2), make(2), None, dilation_rate=make(1))
        np.testing.assert_array_equal(result, expected, strict=True)


def test_positional_arguments_as_in_keras():
    case = Case("local_conv2d", (5, 6), (2, 3), data_format="channels_first")
    inputs, kernel, _ = case.arrays()
    case.check(localconv.local_conv2d(inputs, kernel, (2, 3), (1, 1), (4, 4), "channels_first"))
    case.check(localconv.local_conv2d(inputs, kernel, (2, 3), (1, 1), [4, np.int32(4)], "channels_first"))
    case = Case("local_conv1d", (8,), (3,), strides=2, data_format="channels_first")
    inputs, kernel, _ = case.arrays()
    case.check(localconv.local_conv1d(inputs, kernel, (3,), (2,), "channels_first"))


@pytest.mark.parametrize("function", ["local_conv1d", "local_conv2d"])
@pytest.mark.parametrize("data_format", FORMATS)
def test_default_data_format(function, data_format):
    size = (3,) if function == "local_conv1d" else (3, 2)
    case = Case(function, (7, 6)[: len(size)], size, channels=4, data_format=data_format)
    localconv.set_image_data_format(data_format)
    case.check(case.run(localconv, case.arrays(), data_format=None))


@pytest.mark.parametrize("data_format", FORMATS)
def test_empty_batch(dtype, local_way, data_format):
    for case in (
        Case("local_conv1d", (7,), (3,), batch=0, data_format=data_format, dtype=dtype, bias="full"),
        Case("local_conv2d", (7, 4), (3, 2), batch=0, data_format=data_format, dtype=dtype),
    ):
        result = case.run(localconv, case.arrays())
        assert result.dtype == dtype
        assert result.shape == case.layout(case.out, case.filters)


def test_mixed_dtypes_promote(isa, local_way):
    """float64 anywhere makes the result float64, summed in float64."""
    case = Case("local_conv1d", (9,), (3,), bias="filters", exact=False)
    arrays = case.arrays()
    for kinds in itertools.product(("float32", "float64"), repeat=3):
        mixed = tuple(array.astype(kind) for array, kind in zip(arrays, kinds, strict=True))
        result = case.run(localconv, mixed)
        assert result.dtype == np.result_type(*mixed)
        case.check(result, mixed)


def test_windows_larger_than_any_machine_reads(solve, dtype, local_way):
    """Strides and dilation may be far larger than the input: index arithmetic is 64-bit."""
    huge = 2**40
    solve(Case("local_conv1d", (5,), (3,), strides=huge, padding="same", dtype=dtype))
    solve(Case("local_conv1d", (5,), (3,), dilation_rate=huge, padding="same", dtype=dtype))
