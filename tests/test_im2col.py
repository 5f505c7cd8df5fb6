"""im2col and col2im."""

import numpy as np
import oracle
import pytest
from oracle import FORMATS, assert_same_bits

import localconv

WINDOWS = [  # (spatial, kernel_size, strides, dilation_rate)
    ((1,), (1,), 1, 1),
    ((9,), (3,), 1, 1),
    ((9,), (4,), 3, 2),
    ((20,), (2,), 5, 1),
    ((6, 7), (2, 3), 1, 1),
    ((7, 6), (3, 2), (3, 2), (1, 2)),
    ((5, 4), (1, 1), (2, 3), 1),
    ((4, 33), (2, 17), 1, 1),
]
PADDINGS = {1: ("valid", "same", "causal", ((5, 1),)), 2: ("valid", "same", ((1, 2), (5, 0)))}


def image(spatial, channels, data_format, dtype, batch=2):
    shape = (batch, *spatial, channels) if data_format == "channels_last" else (batch, channels, *spatial)
    return np.random.default_rng(len(spatial)).integers(-99, 100, shape).astype(dtype)


@pytest.fixture(params=[(*window, p) for window in WINDOWS for p in PADDINGS[len(window[0])]], ids=str)
def window(request):
    """(spatial, arguments of im2col)"""
    spatial, size, strides, dilation, padding = request.param
    return spatial, {"kernel_size": size, "strides": strides, "padding": padding, "dilation_rate": dilation}


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_im2col(isa, dtype, window, data_format, channels):
    spatial, arguments = window
    x = image(spatial, channels, data_format, dtype)
    result = localconv.im2col(x, data_format=data_format, **arguments)
    assert_same_bits(result, oracle.im2col(x, data_format=data_format, **arguments))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_col2im(isa, dtype, window, data_format, channels):
    spatial, arguments = window
    x = image(spatial, channels, data_format, dtype)
    shape = oracle.im2col(x, data_format=data_format, **arguments).shape
    cols = np.random.default_rng(1).integers(-99, 100, shape).astype(dtype)
    result = localconv.col2im(cols, x.shape, data_format=data_format, **arguments)
    expected = oracle.col2im(cols, x.shape, data_format=data_format, **arguments)
    np.testing.assert_array_equal(result, expected.astype(dtype), strict=True)


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_product_with_the_kernel_is_the_convolution(dtype, data_format):
    case = oracle.Case("conv2d", (6, 7), (3, 2), 2, 4, 5, padding="same", data_format=data_format, dtype=dtype)
    x, kernel, _ = case.arrays()
    cols = localconv.im2col(x, (3, 2), padding="same", data_format=data_format)
    by_patch = kernel if data_format == "channels_last" else np.moveaxis(kernel, 2, 0)
    product = (cols @ by_patch.reshape(-1, 5)).reshape(2, 6, 7, 5)
    case.check(product if data_format == "channels_last" else np.moveaxis(product, -1, 1))


def test_windows_that_tile_the_image_come_back(dtype):
    x = image((6, 8), 3, "channels_last", dtype)
    cols = localconv.im2col(x, (3, 2), (3, 2))
    assert_same_bits(localconv.col2im(cols, x.shape, (3, 2), (3, 2)), x)


def test_nan_and_inf_are_carried(dtype):
    x = image((5, 6), 2, "channels_last", dtype)
    x[0, 2, 3], x[1, 0, 0, 1], x[1, 4, 5, 0] = np.nan, np.inf, -0.0
    assert_same_bits(localconv.im2col(x, 3, padding="same"), oracle.im2col(x, 3, padding="same"))


def test_col2im_leaves_what_no_window_reads_at_zero(dtype):
    result = localconv.col2im(np.ones((1, 2, 1), dtype), (1, 6, 1), 1, 3, "valid")
    np.testing.assert_array_equal(result.ravel(), [1, 0, 0, 1, 0, 0])


def test_positional_arguments():
    x = image((6, 7), 2, "channels_first", "float32")
    arguments = ((2, 3), (2, 1), "same", "channels_first", (1, 1))
    cols = localconv.im2col(x, *arguments)
    assert_same_bits(cols, oracle.im2col(x, *arguments))
    expected = oracle.col2im(cols, x.shape, *arguments).astype("float32")
    np.testing.assert_array_equal(localconv.col2im(cols, x.shape, *arguments), expected, strict=True)


@pytest.mark.parametrize("data_format", FORMATS)
def test_default_data_format(data_format):
    localconv.set_image_data_format(data_format)
    x = image((6, 7), 4, data_format, "float32")
    cols = oracle.im2col(x, 3, data_format=data_format)
    assert_same_bits(localconv.im2col(x, 3), cols)
    expected = oracle.col2im(cols, x.shape, 3, data_format=data_format).astype("float32")
    np.testing.assert_array_equal(localconv.col2im(cols, list(x.shape), 3), expected, strict=True)


def test_empty_batch(dtype):
    x = np.zeros((0, 6, 7, 2), dtype)
    cols = localconv.im2col(x, 3)
    assert (cols.shape, cols.dtype) == ((0, 20, 18), dtype)
    assert_same_bits(localconv.col2im(cols, x.shape, 3), x)


def test_large(isa):
    """Enough for every thread; each pixel is counted as often as windows hold it."""
    x = image((300, 200), 3, "channels_last", "float32", batch=3)
    cols = localconv.im2col(x, 3)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
    np.testing.assert_array_equal(cols, windows.reshape(3, 298 * 198, 27))
    rows, columns = (np.minimum(3, np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1))) for n in (300, 200))
    counts = (rows[:, None] * columns)[None, :, :, None]
    np.testing.assert_array_equal(localconv.col2im(cols, x.shape, 3), x * counts)
