"""What filters that come with the data refuse, beyond test_arguments.py and test_arguments_grad.py, and what their
errors advise; the dtypes of their results, and empty batches.
"""

import itertools
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

import localconv
from localconv import grad
from localconv.core.spec import column_spec, conv_spec, filter_spec, local_spec

LAST = {"data_format": "channels_last"}
FIRST = {"data_format": "channels_first"}


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def refused(error, message, function, *arguments, **options):
    """The call raises just this kind of error, whose message has these words."""
    with pytest.raises(error, match=re.escape(message)) as caught:
        function(*arguments, **options)
    assert type(caught.value) is error


# --- the shape of filters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((3, 4, 18), LAST, "; filters of one image for all have shape (1, 3, 4, 18)"),
        ((2, 3, 4, 2, 9), LAST, "; reshaped to (2, 3, 4, 18) it does"),
        ((1, 3, 4, 2, 3, 3), LAST, "; reshaped to (1, 3, 4, 18) it does"),
        ((2, 18, 3, 4), LAST, "; np.moveaxis(1, -1) brings its taps to their place"),
        ((2, 18, 4, 2), LAST, "; it fits with data_format='channels_first'"),
        ((12, 36, 4), LAST, "; a kernel that is the same for all images is for local_conv2d"),
        ((3, 3, 4, 18), LAST, "got (3, 3, 4, 18)"),
        ((0, 3, 4, 18), LAST, "got (0, 3, 4, 18)"),
        ((2, 4, 3, 18), LAST, "got (2, 4, 3, 18)"),
        ((2, 3, 4, 9), LAST, "got (2, 3, 4, 9)"),
        ((), LAST, "got ()"),
        ((18, 4, 2), FIRST, "; filters of one image for all have shape (1, 18, 4, 2)"),
        ((2, 2, 9, 4, 2), FIRST, "; reshaped to (2, 18, 4, 2) it does"),
        ((1, 4, 2, 18), FIRST, "; np.moveaxis(-1, 1) brings its taps to their place"),
        ((1, 3, 4, 18), FIRST, "; it fits with data_format='channels_last'"),
        ((2, 9, 4, 2), FIRST, "got (2, 9, 4, 2)"),
    ],
)
def test_filters_that_do_not_fit(shape, options, words):
    """The error tells the shape that is expected, and what these may have been meant for."""
    axes = "(batch or 1, rows, columns, groups * prod(kernel_size)) = (2, 3, 4, 18) or (1, 3, 4, 18)"
    if options is FIRST:
        axes = "(batch or 1, groups * prod(kernel_size), rows, columns) = (2, 18, 4, 2) or (1, 18, 4, 2)"
    with pytest.raises(ValueError, match=re.escape(words) + "$") as caught:
        localconv.local_filter2d(ones(2, 5, 6, 4), ones(*shape), 3, groups=2, **options)
    assert f"filters must have shape {axes} for inputs of shape (2, 5, 6, 4), got {shape}" in str(caught.value)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_filters_that_are_reshaped_or_moved_fit(rank, data_format):
    """As the advice says."""
    first, output, size = data_format == "channels_first", (4, 3, 5)[:rank], (2, 3, 1)[:rank]
    taps = 3 * int(np.prod(size))
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, (2, 6, *output) if first else (2, *output, 6)).astype("float32")
    filters = rng.integers(-8, 9, (2, taps, *output) if first else (2, *output, taps)).astype("float32")
    function = getattr(localconv, f"local_filter{rank}d")

    def run(filters):
        return function(x, filters, size, padding="same", groups=3, data_format=data_format)

    expected = run(filters)
    apart = filters.reshape((2, 3, *size, *output) if first else (2, *output, 3, *size))
    with pytest.raises(ValueError, match=re.escape(f"reshaped to {filters.shape}")):
        run(apart)
    np.testing.assert_array_equal(run(apart.reshape(filters.shape)), expected)
    moved = np.moveaxis(filters, 1, -1) if first else np.moveaxis(filters, -1, 1)
    way = "-1, 1" if first else "1, -1"
    with pytest.raises(ValueError, match=re.escape(f"np.moveaxis({way})")):
        run(moved)
    np.testing.assert_array_equal(run(np.moveaxis(moved, *map(int, way.split(",")))), expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_one_batch_is_told_once(batch):
    one = " or (1, 3, 3)" if batch > 1 else ""
    words = f"(batch or 1, steps, groups * prod(kernel_size)) = ({batch}, 3, 3){one} for inputs"
    refused(ValueError, words, localconv.local_filter1d, ones(batch, 5, 2), ones(3, 3, 3), 3, **LAST)


def test_filters_of_one_image_serve_all():
    rng = np.random.default_rng(0)
    x, y = rng.integers(-8, 9, (2, 5, 7, 6)).astype("float32")[..., :6], rng.integers(-8, 9, (5, 7, 6))
    y, options = np.stack([y, y + 1]).astype("float32"), {"padding": "same", "groups": 2} | LAST
    filters = rng.integers(-8, 9, (1, 5, 7, 18)).astype("float32")
    each = np.repeat(filters, 2, 0)
    np.testing.assert_array_equal(
        localconv.local_filter2d(x, filters, 3, **options), localconv.local_filter2d(x, each, 3, **options)
    )
    np.testing.assert_array_equal(
        grad.local_filter2d_input(x.shape, filters, y, 3, **options),
        grad.local_filter2d_input(x.shape, each, y, 3, **options),
    )
    summed = grad.local_filter2d_filters(x, each.shape, y, 3, **options).sum(0, keepdims=True)
    np.testing.assert_array_equal(grad.local_filter2d_filters(x, filters.shape, y, 3, **options), summed)


def test_a_quantized_kernel_does_not_come_with_the_data():
    small = localconv.quantize(ones(1, 5, 3))
    x, words = ones(1, 5, 2), "must be an array of float16, bfloat16, float32 and float64, got a QuantizedKernel"
    options = {"padding": "same"} | LAST
    refused(TypeError, f"filters {words}", localconv.local_filter1d, x, small, 3, **options)
    refused(TypeError, f"filters {words}", grad.local_filter1d_input, x.shape, small, x, 3, **options)
    localconv.local_filter1d(x, small.dequantize(), 3, **options)
    words = "grad_output must be an array of float16, bfloat16, float32 and float64"
    refused(TypeError, words, grad.local_correlation1d_input, x.shape, x, small, 3, **options)
    refused(TypeError, words, grad.local_correlation1d_queries, x, x.shape, small, 3, **options)


def test_images_without_a_batch():
    words = (
        "inputs must have 4 axes (batch, rows, columns, channels), got shape (5, 6, 4); a single image is a batch of"
    )
    refused(ValueError, words, localconv.local_filter2d, ones(5, 6, 4), ones(1, 3, 4, 9), 3, **LAST)
    refused(ValueError, words, localconv.local_correlation2d, ones(5, 6, 4), ones(1, 3, 4, 4), 3, **LAST)


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [3, 8])
def test_groups_divide_the_channels(groups):
    x, filters, result = ones(2, 7, 4), ones(2, 5, 3 * groups), ones(2, 5, 4)
    options, words = {"groups": groups} | LAST, "groups must divide the 4 channels of "
    refused(ValueError, f"{words}inputs", localconv.local_filter1d, x, filters, 3, **options)
    refused(ValueError, f"{words}inputs", localconv.local_correlation1d, x, result, 3, **options)
    refused(ValueError, f"{words}input_shape", grad.local_filter1d_input, x.shape, filters, result, 3, **options)
    refused(ValueError, f"{words}inputs", grad.local_filter1d_filters, x, filters.shape, result, 3, **options)
    refused(ValueError, f"{words}input_shape", grad.local_correlation1d_input, x.shape, result, filters, 3, **options)
    refused(ValueError, f"{words}inputs", grad.local_correlation1d_queries, x, result.shape, filters, 3, **options)


@pytest.mark.parametrize("name", ["local_filter1d", "local_correlation1d"])
def test_type_of_groups(name):
    second = ones(2, 5, 3) if name == "local_filter1d" else ones(2, 5, 4)
    for wrong, error in [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), (None, TypeError)]:
        refused(error, "groups must be", getattr(localconv, name), ones(2, 7, 4), second, 3, groups=wrong, **LAST)


def test_no_channels():
    refused(ValueError, "at least 1 channel", localconv.local_filter1d, ones(2, 7, 0), ones(2, 5, 3), 3, **LAST)
    refused(ValueError, "at least 1 channel", localconv.local_correlation1d, ones(2, 7, 0), ones(2, 5, 0), 3, **LAST)


# --- windows inside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "dilation", "words"),
    [(6, 1, "got (6, 6) for size (5, 7)"), (3, 2, "got (6, 6) for size (5, 7)"), ((1, 4), (9, 2), "got (9, 8)")],
)
def test_windows_that_do_not_lie_inside(size, dilation, words):
    x, taps = ones(2, 5, 7, 4), int(np.prod(size) if isinstance(size, tuple) else size**2)
    filters, options = ones(2, 5, 7, taps), {"dilation_rate": dilation, "padding": "inside"} | LAST
    calls = [
        ("inputs", localconv.local_filter2d, x, filters),
        ("inputs", localconv.local_correlation2d, x, x),
        ("input_shape", grad.local_filter2d_input, x.shape, filters, x),
        ("inputs", grad.local_filter2d_filters, x, filters.shape, x),
        ("input_shape", grad.local_correlation2d_input, x.shape, x, filters),
        ("inputs", grad.local_correlation2d_queries, x, x.shape, filters),
    ]
    for name, function, *arguments in calls:
        told = f"kernel_size * dilation_rate must be at most the size of {name} along every axis with padding='inside'"
        refused(ValueError, told, function, *arguments, size, **options)
        refused(ValueError, words, function, *arguments, size, **options)


def test_windows_that_just_lie_inside():
    x = ones(1, 6, 1)
    assert localconv.local_filter1d(x, ones(1, 6, 3), 3, dilation_rate=2, padding="inside", **LAST).shape == (1, 6, 1)


@pytest.mark.parametrize("strides", [2, (1, 2)])
def test_strides_inside(strides):
    words = "strides must be 1 with padding='inside', which has an output for every pixel, got strides="
    for function, second in [
        (localconv.local_filter2d, ones(1, 3, 3, 9)),
        (localconv.local_correlation2d, ones(1, 3, 3, 1)),
    ]:
        refused(ValueError, words, function, ones(1, 6, 6, 1), second, 3, strides, padding="inside", **LAST)


def test_inside_is_for_filters_that_come_with_the_data():
    """Every other function refuses it, and does not offer it."""
    x, kernel = ones(1, 6, 6, 1), ones(36, 9, 2)
    calls = [
        (localconv.local_conv2d, x, kernel, 3),
        (grad.local_conv2d_input, x.shape, kernel, ones(1, 6, 6, 2), 3),
        (localconv.conv2d, x, ones(3, 3, 1, 2)),
        (localconv.im2col, x, 3),
    ]
    for function, *arguments in calls:
        words = "padding must be one of ('valid', 'same') or 2 pairs (before, after), got 'inside'"
        refused(ValueError, words, function, *arguments, padding="inside")
    words = "padding must be one of ('valid', 'same', 'inside') or 2 pairs (before, after), got 'outside'"
    refused(ValueError, words, localconv.local_filter2d, x, ones(1, 6, 6, 9), 3, padding="outside")
    words = "padding must be 'valid', 'same', 'causal', 'inside' or 1 pairs (before, after), got 1"
    refused(TypeError, words, localconv.local_filter1d, x[0], ones(1, 6, 3), 3, padding=1)


# --- the gradients of a correlation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [(1, 5, 6), (3, 5, 6), (2, 4, 6), (2, 5, 3), (5, 6), (2, 6, 5)], ids=str)
def test_gradients_of_a_correlation_have_its_shape(wrong):
    """Those of one image are not for all: the correlation has one for each."""
    x, queries, options = ones(2, 7, 4), ones(2, 5, 4), {"groups": 2} | LAST
    told = (
        "grad_output must have the shape of the correlation, with groups * prod(kernel_size) values for each position, "
        f"(2, 5, 6), got {wrong}"
    )
    refused(ValueError, told, grad.local_correlation1d_input, x.shape, queries, ones(*wrong), 3, **options)
    refused(ValueError, told, grad.local_correlation1d_queries, x, queries.shape, ones(*wrong), 3, **options)


def test_queries_have_the_shape_of_a_result():
    x, filters, wrong = ones(2, 7, 4), ones(2, 5, 3), (2, 5, 3)
    told = f"must have the shape of a result of local_filter, (2, 5, 4), got {wrong}"
    out = np.full((2, 5, 4), 7, "float32")
    refused(ValueError, f"queries {told}", localconv.local_correlation1d, x, ones(*wrong), 3, **LAST)
    refused(ValueError, f"queries {told}", grad.local_correlation1d_input, x.shape, ones(*wrong), filters, 3, **LAST)
    call = grad.local_correlation1d_queries
    refused(ValueError, f"queries_shape {told}", call, x, wrong, filters, 3, out=out, **LAST)
    assert (out == 7).all()


def test_a_gradient_has_the_shape_of_the_forward_result():
    x, filters = ones(2, 7, 4), ones(2, 5, 3)
    told = "grad_output must have the shape of the forward result, (2, 5, 4), got (2, 5, 3)"
    refused(ValueError, told, grad.local_filter1d_input, x.shape, filters, filters, 3, **LAST)
    refused(ValueError, told, grad.local_filter1d_filters, x, filters.shape, filters, 3, **LAST)
    told = "filters_shape must have shape (batch or 1, steps, groups * prod(kernel_size)) = (2, 5, 3) or (1, 5, 3)"
    refused(ValueError, told, grad.local_filter1d_filters, x, (2, 5, 4), ones(2, 5, 4), 3, **LAST)


# --- dtypes -----------------------------------------------------------------------------------------------------------

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def promoted(a, b):
    """Two equal types stay; those of 16 bits that differ become float32."""
    return np.dtype(a) if a is b else np.dtype(np.float64 if np.float64 in (a, b) else np.float32)


@pytest.mark.parametrize(("a", "b"), [*itertools.product(FLOATS, FLOATS)])
def test_dtypes_of_results(a, b):
    """Of all but the gradient for the filters, which is a sum like a kernel's, the promoted one."""
    x, filters, y, options = (
        ones(2, 7, 2, dtype=a),
        ones(2, 7, 3, dtype=b),
        ones(2, 7, 2, dtype=b),
        {"padding": "same"} | LAST,
    )
    expected = promoted(a, b)
    results = [
        localconv.local_filter1d(x, filters, 3, **options),
        localconv.local_correlation1d(x, y, 3, **options),
        grad.local_filter1d_input(x.shape, filters, x, 3, **options),
        grad.local_correlation1d_input(x.shape, x, filters, 3, **options),
        grad.local_correlation1d_queries(x, x.shape, filters, 3, **options),
    ]
    assert [result.dtype for result in results] == [expected] * 5
    gradient = grad.local_filter1d_filters(x, filters.shape, y, 3, **options)
    assert gradient.dtype == (expected if expected.itemsize > 2 else np.float32)
    np.testing.assert_array_equal(gradient.astype(expected), results[1])
    into = np.zeros(filters.shape, np.float16 if expected.itemsize < 8 else np.float64)
    assert grad.local_filter1d_filters(x, filters.shape, y, 3, out=into, **options) is into
    np.testing.assert_array_equal(into, gradient.astype(into.dtype))


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("order", "<>")
def test_halves_of_any_byte_order(half, order):
    x = np.arange(14, dtype=half).reshape(1, 7, 2)
    other = x.astype(x.dtype.newbyteorder(order)) if half is np.float16 else x
    result = localconv.local_correlation1d(other, x, 3, padding="same", **LAST)
    assert result.dtype == half
    np.testing.assert_array_equal(result, localconv.local_correlation1d(x, x, 3, padding="same", **LAST))


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_filters_of_16_bits_give_the_bits_of_their_copies(half):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2, 6, 5, 8), np.float32)
    filters = rng.standard_normal((2, 6, 5, 18), np.float32).astype(half)
    options = {"padding": "inside", "groups": 2} | LAST
    wide = filters.astype(np.float32)
    for a, b in [
        (localconv.local_filter2d(x, f, 3, **options) for f in (filters, wide)),
        (grad.local_filter2d_input(x.shape, f, y, 3, **options) for f in (filters, wide)),
    ]:
        assert a.dtype == np.float32
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("wrong", ["float16", "float64"])
def test_out_of_a_correlation_has_its_dtype(wrong):
    """It is no gradient here that may be rounded."""
    x, out = ones(1, 5, 2), ones(1, 5, 3, dtype=wrong)
    refused(
        TypeError,
        "out must have the dtype of the result, float32",
        localconv.local_correlation1d,
        x,
        x,
        3,
        padding="same",
        out=out,
        **LAST,
    )


# --- nothing to sum ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [False, True])
def test_empty_batches(one):
    x, options = ones(0, 5, 4), {"padding": "inside", "groups": 2} | LAST
    filters, each = ones(int(one), 5, 6), ones(0, 5, 6)
    assert localconv.local_filter1d(x, filters, 3, **options).shape == x.shape
    assert localconv.local_correlation1d(x, x, 3, **options).shape == each.shape
    assert grad.local_filter1d_input(x.shape, filters, x, 3, **options).shape == x.shape
    assert grad.local_correlation1d_input(x.shape, x, each, 3, **options).shape == x.shape
    assert grad.local_correlation1d_queries(x, x.shape, each, 3, **options).shape == x.shape
    np.testing.assert_array_equal(grad.local_filter1d_filters(x, filters.shape, x, 3, **options), 0 * filters)
    out = np.full(filters.shape, 7, "float32")
    grad.local_filter1d_filters(x, filters.shape, x, 3, out=out, accumulate=True, **options)
    assert (out == 7).all()


def test_inputs_of_padding_alone():
    """No pixels: every sum has no terms, whatever the other array holds."""
    x, wild = ones(2, 0, 2), np.full((2, 4, 3), np.nan, "float32")
    options = {"padding": ((3, 3),)} | LAST
    np.testing.assert_array_equal(localconv.local_filter1d(x, wild, 3, **options), np.zeros((2, 4, 2), "float32"))
    np.testing.assert_array_equal(localconv.local_correlation1d(x, wild[..., :2], 3, **options), np.zeros_like(wild))
    assert grad.local_filter1d_input(x.shape, wild, wild[..., :2], 3, **options).shape == x.shape


# --- specs ------------------------------------------------------------------------------------------------------------

SPECS = [
    filter_spec(1, 3, 1, "causal", "channels_last", 2, 1),
    filter_spec(2, (3, 2), 1, "inside", "channels_first", (1, 2), 4),
    filter_spec(3, 3, 2, "same", "channels_last", 1, 2),
    filter_spec(2, 3, (1, 2), ((1, 0), (0, 2)), "channels_last", 1, 1),
    local_spec(2, 3, 1, "same", "channels_last", 1, 1),
    local_spec(2, (3, 3), 1, "valid", "channels_first", 2, 2, (4, 5)),
    conv_spec(2, 1, "same", "channels_last", 2, 3),
    column_spec(2, 3, 2, "valid", "channels_last", 1),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_specs_are_pickled(spec):
    """As one object for each, by which plans are kept."""
    again = pickle.loads(pickle.dumps(spec))
    names = type(spec).__slots__
    assert [getattr(again, name) for name in names] == [getattr(spec, name) for name in names]
    assert pickle.loads(pickle.dumps(again)) is again


def test_specs_of_two_families_differ():
    of_filters, of_kernels = (make(2, 3, 1, "same", "channels_last", 1, 1) for make in (filter_spec, local_spec))
    assert (of_filters.family, of_kernels.family) == ("filter", "local")
    assert filter_spec(2, 3, 1, "same", "channels_last", 1, 1) is of_filters
