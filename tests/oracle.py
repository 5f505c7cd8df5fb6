"""Slow, readable NumPy twins of every public operation, and the error that a compiled result may have against them.

Plain loops over output positions and kernel taps, written from the definition of each operation. This file imports
nothing but NumPy, so that it shares no mistake with the package. Sizes and helpers that several test files use are here
too.

The convolutions have the package's own signatures, behind the number of spatial axes. Their sums run in float64 for
float32 input, and in long double for float64 input (where the platform's long double is wider). With ``bound=True``
they return a second array beside the result, the sum of |w||x| (+ |bias|) behind each output, from which `tolerance`
makes the largest error that rounding can explain. A `Case` is one convolution with its data, which runs on the package
and on its twin alike, a `Gradient` is that of a case with respect to its input or its kernel, and a `FilterCase` is one
of the functions of local filters. The gradients' twins have the signatures of localconv.grad without out and
accumulate.
"""

import dataclasses
import functools
import itertools
import math
import sys

import numpy as np

# --- what the tests run over ------------------------------------------------------------------------------------------

FORMATS = ("channels_last", "channels_first")
# Around one, two and more tiles, and vectors of any width up to 64.
FILTERS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 66, 129)
BATCHES = (1, 2, 3, 5, 7, 8, 13, 14, 15, 16, 17, 31, 32, 33, 64, 65)
DEPTHS = (1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 23, 31, 33, 63, 65, 127, 129, 331)


def thirds(sizes):
    """A list in three parts, sizes of every kind in each: fewer tests than sizes."""
    return [sizes[first::3] for first in range(3)]


# Some pads are larger than the windows: there are positions that see nothing else.
RANKS = (1, 2, 3)
PADDINGS = {
    1: ("valid", "same", "causal", ((1, 0),), ((0, 2),), ((9, 4),)),
    2: ("valid", "same", ((1, 2), (0, 3)), ((7, 0), (2, 9))),
    3: ("valid", "same", ((1, 2), (0, 3), (0, 1)), ((5, 0), (0, 2), (2, 6))),
}

# --- the operations ---------------------------------------------------------------------------------------------------


def im2col(x, kernel_size, strides=1, padding="valid", data_format="channels_last", dilation_rate=1):
    """Every window of x as a row, (batch, positions, D); a tap in the padding is 0."""
    image = _to_last(np.asarray(x), data_format)
    taps = _taps(image.shape[1:-1], kernel_size, strides, padding, dilation_rate, _start_tensorflow)
    patches, _ = _gather(image, taps)
    if data_format == "channels_first":
        patches = patches.swapaxes(2, 3)
    return patches.reshape(*patches.shape[:2], patches.shape[2] * patches.shape[3])


def col2im(cols, input_shape, kernel_size, strides=1, padding="valid", data_format="channels_last", dilation_rate=1):
    """The adjoint of `im2col`: every value of cols is added to the place that `im2col` reads it from."""
    image = _to_last(np.zeros(input_shape, wide(cols.dtype)), data_format)
    spatial, channels = image.shape[1:-1], image.shape[-1]
    taps = _taps(spatial, kernel_size, strides, padding, dilation_rate, _start_tensorflow)
    if data_format == "channels_first":
        patches = cols.reshape(*cols.shape[:2], channels, -1).swapaxes(2, 3)
    else:
        patches = cols.reshape(*cols.shape[:2], -1, channels)
    for position, tap, place in _connections(taps, spatial):
        image[(slice(None), *place)] += patches[:, position, tap]
    return _from_last(image, data_format)


def local_conv(
    rank,
    inputs,
    kernel,
    kernel_size,
    strides=1,
    output_shape=None,
    data_format="channels_last",
    *,
    padding="valid",
    padding_mode="zeros",
    dilation_rate=1,
    groups=1,
    bias=None,
    bound=False,
):
    """Unshared convolution: every position has its own (D, filters) matrix. kernel (positions, D, filters).

    The package checks output_shape; the twins have no use for it.
    """
    inputs, kernel = np.asarray(inputs), np.asarray(kernel)
    image = _to_last(inputs, data_format)
    taps = _taps(
        image.shape[1:-1], as_tuple(kernel_size, rank), strides, padding, dilation_rate, _start_clipped, padding_mode
    )
    weights = _tap_weights(kernel, math.prod(as_tuple(kernel_size, rank)), data_format)
    return _correlate(image, weights, taps, groups, bias, data_format, bound)


def conv(
    rank,
    x,
    kernel,
    strides=1,
    padding="valid",
    data_format="channels_last",
    dilation_rate=1,
    *,
    groups=1,
    bias=None,
    bound=False,
):
    """Ordinary convolution (no flip), kernel (*kernel_size, channels / groups, filters).

    Batch axes may be none, one or many in front of the last rank + 1 axes.
    """
    x, kernel = np.asarray(x), np.asarray(kernel)
    batch = x.shape[: x.ndim - rank - 1]
    image = _to_last(_one_batch_axis(x, rank), data_format)
    taps = _taps(image.shape[1:-1], kernel.shape[:rank], strides, padding, dilation_rate, _start_tensorflow)
    weights = _repeated_weights(kernel, rank, taps)
    results = _correlate(image, weights, taps, groups, bias, data_format, bound)
    if not bound:
        return results.reshape(*batch, *results.shape[1:])
    return tuple(result.reshape(*batch, *result.shape[1:]) for result in results)


def _correlate(image, weights, taps, groups, bias, data_format, bound):
    """image (batch, *spatial, channels) with weights (positions, taps, channels / groups, filters)."""
    dtype = wide(np.result_type(image, weights, *([] if bias is None else [bias])))
    image, weights = image.astype(dtype), weights.astype(dtype)
    out = tuple(len(axis) for axis in taps)
    value = _spread_bias(bias, out, weights.shape[-1], data_format, dtype) + _products(image, weights, taps, groups)
    value = _from_last(value, data_format)
    if not bound:
        return value
    magnitude = _products(abs(image), abs(weights), taps, groups)
    magnitude += abs(_spread_bias(bias, out, weights.shape[-1], data_format, dtype))
    return value, _from_last(magnitude, data_format)


def _products(image, weights, taps, groups):
    """The sum over the taps that meet the input. Taps in the padding take no part: there even 0 * inf is nothing."""
    patches, present = _gather(image, taps)
    batch, positions = patches.shape[:2]
    channels, filters = patches.shape[-1] // groups, weights.shape[-1] // groups
    value = np.zeros((batch, positions, weights.shape[-1]), image.dtype)
    for group, position in itertools.product(range(groups), range(positions)):
        here = present[position]
        reads = slice(group * channels, (group + 1) * channels)
        writes = slice(group * filters, (group + 1) * filters)
        x, w = patches[:, position, here, reads], weights[position, here, :, writes]
        value[:, position, writes] = np.einsum("btc,tcf->bf", x, w)
    return value.reshape(batch, *(len(axis) for axis in taps), weights.shape[-1])


def _spread_bias(bias, out, filters, data_format, dtype):
    """The bias as (1, *out, filters) or broadcastable to it."""
    if bias is None:
        return np.zeros(filters, dtype)
    bias = np.asarray(bias, dtype)
    if bias.ndim > 1 and data_format == "channels_first":
        # Keras reshapes (does not transpose) the stored (*out, filters) into (1, filters, *out) before it adds.
        return np.moveaxis(bias.reshape(1, filters, *out), 1, -1)
    return bias


# --- their gradients --------------------------------------------------------------------------------------------------


def local_conv_input(
    rank,
    input_shape,
    kernel,
    grad_output,
    kernel_size,
    strides=1,
    output_shape=None,
    data_format="channels_last",
    *,
    padding="valid",
    padding_mode="zeros",
    dilation_rate=1,
    groups=1,
    bound=False,
):
    """The gradient of sum(local_conv(x, kernel) * grad_output) with respect to x, which has input_shape."""
    size = as_tuple(kernel_size, rank)
    shape = _last_shape(input_shape, data_format)
    taps = _taps(shape[1:-1], size, strides, padding, dilation_rate, _start_clipped, padding_mode)

    def gradient(kernel, grad_output):
        weights = _tap_weights(kernel, math.prod(size), data_format)
        return _from_last(_back_to_input(shape, weights, _to_last(grad_output, data_format), taps, groups), data_format)

    return _with_bound(gradient, kernel, grad_output, bound)


def local_conv_kernel(
    rank,
    inputs,
    kernel_shape,
    grad_output,
    kernel_size,
    strides=1,
    output_shape=None,
    data_format="channels_last",
    *,
    padding="valid",
    padding_mode="zeros",
    dilation_rate=1,
    groups=1,
    bound=False,
):
    """The gradient of the same with respect to the kernel, which has kernel_shape."""
    size = as_tuple(kernel_size, rank)
    spatial = _last_shape(np.shape(inputs), data_format)[1:-1]
    taps = _taps(spatial, size, strides, padding, dilation_rate, _start_clipped, padding_mode)

    def gradient(inputs, grad_output):
        weights = _back_to_weights(_to_last(inputs, data_format), _to_last(grad_output, data_format), taps, groups)
        if data_format == "channels_first":
            weights = weights.swapaxes(1, 2)
        return weights.reshape(kernel_shape)

    return _with_bound(gradient, inputs, grad_output, bound)


def conv_input(
    rank,
    input_shape,
    kernel,
    grad_output,
    strides=1,
    padding="valid",
    data_format="channels_last",
    dilation_rate=1,
    *,
    groups=1,
    bound=False,
):
    """The gradient of sum(conv(x, kernel) * grad_output) with respect to x, which has input_shape."""
    lead = math.prod(input_shape[: -rank - 1])
    shape = _last_shape((lead, *input_shape[-rank - 1 :]), data_format)
    taps = _taps(shape[1:-1], np.shape(kernel)[:rank], strides, padding, dilation_rate, _start_tensorflow)

    def gradient(kernel, grad_output):
        grads = _to_last(_one_batch_axis(grad_output, rank), data_format)
        image = _back_to_input(shape, _repeated_weights(kernel, rank, taps), grads, taps, groups)
        return _from_last(image, data_format).reshape(input_shape)

    return _with_bound(gradient, kernel, grad_output, bound)


def conv_kernel(
    rank,
    x,
    kernel_shape,
    grad_output,
    strides=1,
    padding="valid",
    data_format="channels_last",
    dilation_rate=1,
    *,
    groups=1,
    bound=False,
):
    """The gradient of the same with respect to the kernel, which has kernel_shape."""
    spatial = _last_shape((1, *np.shape(x)[-rank - 1 :]), data_format)[1:-1]
    taps = _taps(spatial, kernel_shape[:rank], strides, padding, dilation_rate, _start_tensorflow)

    def gradient(x, grad_output):
        image, grads = (_to_last(_one_batch_axis(array, rank), data_format) for array in (x, grad_output))
        return _back_to_weights(image, grads, taps, groups).sum(0).reshape(kernel_shape)

    return _with_bound(gradient, x, grad_output, bound)


def local_conv_transpose(rank, inputs, kernel, kernel_size, strides=1, output_shape=None, *arguments, **options):
    return local_conv_input(rank, output_shape, kernel, inputs, kernel_size, strides, None, *arguments, **options)


def conv_transpose(rank, x, kernel, output_shape, *arguments, **options):
    return conv_input(rank, output_shape, kernel, x, *arguments, **options)


# --- filters that come with the data ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FilterWindow:
    """The arguments that all functions of local filters have behind their arrays, in this order."""

    rank: int
    kernel_size: int | tuple
    strides: int | tuple = 1
    data_format: str = "channels_last"
    _: dataclasses.KW_ONLY
    padding: str | tuple = "valid"
    padding_mode: str = "zeros"
    dilation_rate: int | tuple = 1
    groups: int = 1

    def taps(self, shape):
        """The input index under every tap, along every axis of an input of this shape with the channels last."""
        size = as_tuple(self.kernel_size, self.rank)
        sizes = (shape[1:-1], size, self.strides, self.padding, self.dilation_rate)
        return _taps(*sizes, _start_tensorflow, self.padding_mode)


def local_filter(rank, inputs, filters, *window, bound=False, normalize=False, **options):
    """Every position of every image has its own taps, one filter for all channels of a group:

        y[n, p, c] = sum over t of inputs[n, pixel(p, t), c] * filters[n, p, g(c) * taps + t]

    Filters (batch or 1, *output, groups * taps), those of one image for all. Taps outside the input are not in the sum.
    normalize: divided by what the sum is for an input of ones.
    """
    if normalize:
        results = local_filter(rank, inputs, filters, *window, **options)
        with np.errstate(divide="ignore", invalid="ignore"):
            return results / local_filter(rank, np.ones(np.shape(inputs), results.dtype), filters, *window, **options)
    window = FilterWindow(rank, *window, **options)

    def filtered(inputs, filters):
        image, weights = _to_last(inputs, window.data_format), _to_last(filters, window.data_format)
        return _from_last(_filtered(image, weights, window.taps(image.shape), window.groups), window.data_format)

    return _with_bound(filtered, inputs, filters, bound)


def local_correlation(rank, inputs, queries, *window, bound=False, **options):
    """What `local_filter` takes for filters, of an array as it returns one:

        w[n, p, g * taps + t] = sum over the channels c of group g of inputs[n, pixel(p, t), c] * queries[n, p, c]

    0 where a tap is outside the input.
    """
    window = FilterWindow(rank, *window, **options)

    def correlated(inputs, queries):
        image, queries = _to_last(inputs, window.data_format), _to_last(queries, window.data_format)
        return _from_last(_correlated(image, queries, window.taps(image.shape), window.groups), window.data_format)

    return _with_bound(correlated, inputs, queries, bound)


def local_filter_input(rank, input_shape, filters, grad_output, *window, bound=False, **options):
    """The gradient of sum(local_filter(x, filters) * grad_output) with respect to x, which has input_shape."""
    window = FilterWindow(rank, *window, **options)
    shape = _last_shape(input_shape, window.data_format)

    def spread(filters, grads):
        weights, grads = _to_last(filters, window.data_format), _to_last(grads, window.data_format)
        return _from_last(_spread(shape, weights, grads, window.taps(shape), window.groups), window.data_format)

    return _with_bound(spread, filters, grad_output, bound)


def local_filter_filters(rank, inputs, filters_shape, grad_output, *window, bound=False, **options):
    """The gradient of the same with respect to the filters; of those of one image for all, the sum over the images."""
    results = local_correlation(rank, inputs, grad_output, *window, bound=bound, **options)
    if filters_shape[0] == np.shape(inputs)[0]:
        return results
    with np.errstate(invalid="ignore"):
        return tuple(r.sum(0, keepdims=True) for r in results) if bound else results.sum(0, keepdims=True)


def local_correlation_input(rank, input_shape, queries, grad_output, *window, **options):
    """The gradient of sum(local_correlation(x, queries) * grad_output) with respect to x, which has input_shape."""
    return local_filter_input(rank, input_shape, grad_output, queries, *window, **options)


def local_correlation_queries(rank, inputs, queries_shape, grad_output, *window, **options):
    """The gradient of the same with respect to the queries, which have queries_shape."""
    return local_filter(rank, inputs, grad_output, *window, **options)


def _filtered(image, weights, taps, groups):
    """image (batch, *spatial, channels) with weights (batch or 1, *output, groups * taps)."""
    pixels, weights = _in_groups(image, groups), _by_tap(weights, taps, groups)
    value = np.zeros((len(image), weights.shape[1], *pixels.shape[-2:]), image.dtype)
    for position, tap, place in _connections(taps, image.shape[1:-1]):
        value[:, position] += pixels[(slice(None), *place)] * weights[:, position, :, tap, None]
    return value.reshape(len(image), *(len(axis) for axis in taps), image.shape[-1])


def _correlated(image, output, taps, groups):
    """The weights (batch, *output, groups * taps), each a sum over its group's channels."""
    pixels, output = _in_groups(image, groups), _in_groups(output, groups)
    out, size = (tuple(axis.shape[i] for axis in taps) for i in (0, 1))
    output = output.reshape(len(image), math.prod(out), *output.shape[-2:])
    weights = np.zeros((len(image), math.prod(out), groups, math.prod(size)), image.dtype)
    for position, tap, place in _connections(taps, image.shape[1:-1]):
        weights[:, position, :, tap] = (pixels[(slice(None), *place)] * output[:, position]).sum(-1)
    return weights.reshape(len(image), *out, groups * math.prod(size))


def _spread(shape, weights, output, taps, groups):
    """Every value of the output, times its weights, is added to the places that it is a sum of."""
    image, output, weights = np.zeros(shape, output.dtype), _in_groups(output, groups), _by_tap(weights, taps, groups)
    pixels, output = _in_groups(image, groups), output.reshape(len(image), weights.shape[1], *output.shape[-2:])
    for position, tap, place in _connections(taps, shape[1:-1]):
        pixels[(slice(None), *place)] += output[:, position] * weights[:, position, :, tap, None]
    return pixels.reshape(shape)


def _in_groups(x, groups):
    """The channels of an array in groups of their own: (..., groups, channels / groups)."""
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _by_tap(weights, taps, groups):
    """Weights as (batch or 1, positions, groups, taps)."""
    out, size = (math.prod(axis.shape[i] for axis in taps) for i in (0, 1))
    return weights.reshape(len(weights), out, groups, size)


# local_conv1d, conv3d_input, local_filter2d_filters, ...: the twins under the package's names.
for _twin, _suffixes in {
    "local_conv": ("", "_input", "_kernel", "_transpose"),
    "conv": ("", "_input", "_kernel", "_transpose"),
    "local_filter": ("", "_input", "_filters"),
    "local_correlation": ("", "_input", "_queries"),
}.items():
    for _suffix, _rank in itertools.product(_suffixes, RANKS):
        globals()[f"{_twin}{_rank}d{_suffix}"] = functools.partial(globals()[f"{_twin}{_suffix}"], _rank)


def _with_bound(gradient, first, second, bound):
    """The gradient, bilinear in two arrays, in the wider type; with `bound` also that of the absolute values."""
    dtype = wide(np.result_type(first, second))
    first, second = np.asarray(first, dtype), np.asarray(second, dtype)
    with np.errstate(invalid="ignore"):
        value = gradient(first, second)
        return (value, gradient(abs(first), abs(second))) if bound else value


def _back_to_input(shape, weights, grads, taps, groups):
    """Every output's gradient, times its weights, is added to the places that it reads."""
    image = np.zeros(shape, grads.dtype)
    grads = grads.reshape(len(grads), len(weights), weights.shape[3])
    channels, filters = weights.shape[2], weights.shape[3] // groups
    for (position, tap, place), group in itertools.product(_connections(taps, shape[1:-1]), range(groups)):
        reads = slice(group * channels, (group + 1) * channels)
        writes = slice(group * filters, (group + 1) * filters)
        products = np.einsum("bf,cf->bc", grads[:, position, writes], weights[position, tap, :, writes])
        image[(slice(None), *place, reads)] += products
    return image


def _back_to_weights(image, grads, taps, groups):
    """The gradient (positions, taps, channels / groups, filters) of weights that every position has for itself."""
    patches, present = _gather(image, taps)
    positions, size = present.shape
    grads = grads.reshape(len(grads), positions, grads.shape[-1])
    channels, filters = image.shape[-1] // groups, grads.shape[-1] // groups
    weights = np.zeros((positions, size, channels, groups * filters), image.dtype)
    for group, position in itertools.product(range(groups), range(positions)):
        here = present[position]
        reads = slice(group * channels, (group + 1) * channels)
        writes = slice(group * filters, (group + 1) * filters)
        x, g = patches[:, position, here, reads], grads[:, position, writes]
        weights[position, here, :, writes] = np.einsum("btc,bf->tcf", x, g)
    return weights


# --- layouts ----------------------------------------------------------------------------------------------------------


def _tap_weights(kernel, size, data_format):
    """An unshared kernel as (positions, taps, channels / groups, filters)."""
    positions, depth, filters = kernel.shape
    if data_format == "channels_first":
        return kernel.reshape(positions, depth // size, size, filters).swapaxes(1, 2)
    return kernel.reshape(positions, size, depth // size, filters)


def _repeated_weights(kernel, rank, taps):
    """A shared kernel as (positions, taps, channels / groups, filters)."""
    positions = math.prod(len(axis) for axis in taps)
    weights = kernel.reshape(1, -1, *kernel.shape[rank:])
    return np.broadcast_to(weights, (positions, *weights.shape[1:]))


def _one_batch_axis(x, rank):
    return x.reshape(math.prod(x.shape[: -rank - 1]), *x.shape[-rank - 1 :])


def _last_shape(shape, data_format):
    """The shape of `_to_last` of an array of this shape."""
    return tuple(shape) if data_format == "channels_last" else (shape[0], *shape[2:], shape[1])


# --- windows ----------------------------------------------------------------------------------------------------------


def _start_clipped(size, reach, stride):
    """Keras's locally connected 'same': windows centred on the strided grid and clipped; returns (before, outputs)."""
    return reach // 2, -(-size // stride)


def _start_tensorflow(size, reach, stride):
    """TensorFlow's SAME: just enough padding in all, the odd one behind; returns (before, outputs)."""
    outputs = -(-size // stride)
    return max((outputs - 1) * stride + reach - size, 0) // 2, outputs


def _moved_inside(size, kernel, dilation):
    """The input index under every tap where windows are centred, and at the border moved until they lie inside.

    Pixels whose indices differ by multiples of the dilation are an axis of their own, of which p is pixel q.
    """
    indices = np.zeros((size, kernel), int)
    for p in range(size):
        phase, q = p % dilation, p // dilation
        of_phase = len(range(phase, size, dilation))
        first = min(max(q - kernel // 2, 0), of_phase - kernel)
        for t in range(kernel):
            indices[p, t] = phase + (first + t) * dilation
    return indices


def _axis_taps(size, kernel, stride, padding, dilation, same):
    """The input index under tap i of output p as an (outputs, kernel) array; outside 0..size-1 is padding."""
    if padding == "inside":
        return _moved_inside(size, kernel, dilation)
    reach = (kernel - 1) * dilation + 1
    if padding == "same":
        before, outputs = same(size, reach, stride)
    else:
        before, after = {"valid": (0, 0), "causal": (reach - 1, 0)}[padding] if isinstance(padding, str) else padding
        outputs = (before + size + after - reach) // stride + 1
    return np.arange(outputs)[:, None] * stride - before + np.arange(kernel) * dilation


def _held(indices, size, padding_mode):
    """The pixels of an axis that padding holds; those of zeros stay outside."""
    if padding_mode == "reflect":
        indices = abs(indices)
        return np.where(indices < size, indices, 2 * (size - 1) - indices)
    if padding_mode == "replicate":
        return indices.clip(0, size - 1)
    return indices % size if padding_mode == "circular" else indices


def _taps(spatial, kernel_size, strides, padding, dilation_rate, same, padding_mode="zeros"):
    """`_axis_taps` of every spatial axis, where padding holds pixels these."""
    rank = len(spatial)
    paddings = [padding] * rank if isinstance(padding, str) else padding
    sizes = zip(spatial, *(as_tuple(v, rank) for v in (kernel_size, strides)), paddings, strict=True)
    dilations = as_tuple(dilation_rate, rank)
    taps = [_axis_taps(*size, dilation, same) for size, dilation in zip(sizes, dilations, strict=True)]
    return [_held(axis, size, padding_mode) for axis, size in zip(taps, spatial, strict=True)]


def _connections(taps, spatial):
    """(output position, kernel tap, input place) of every tap that meets the input, all row-major."""
    positions = itertools.product(*(range(axis.shape[0]) for axis in taps))
    for number, position in enumerate(positions):
        for tap, place in enumerate(itertools.product(*(axis[p] for axis, p in zip(taps, position, strict=True)))):
            if all(0 <= i < size for i, size in zip(place, spatial, strict=True)):
                yield number, tap, place


def _gather(image, taps):
    """The patches (batch, positions, taps, channels) with zeros for padding, and which taps are there."""
    positions, size = (math.prod(axis.shape[i] for axis in taps) for i in (0, 1))
    patches = np.zeros((len(image), positions, size, image.shape[-1]), image.dtype)
    present = np.zeros((positions, size), bool)
    for position, tap, place in _connections(taps, image.shape[1:-1]):
        patches[:, position, tap] = image[(slice(None), *place)]
        present[position, tap] = True
    return patches, present


def _to_last(x, data_format):
    return x if data_format == "channels_last" else np.moveaxis(x, 1, -1)


def _from_last(x, data_format):
    return x if data_format == "channels_last" else np.moveaxis(x, -1, 1)


def as_tuple(value, rank):
    """An int for every axis, or one int an axis."""
    return (value,) * rank if isinstance(value, int | np.integer) else tuple(value)


# --- rounding ---------------------------------------------------------------------------------------------------------


def wide(dtype):
    """The type that the twins sum in."""
    return np.dtype(np.float64) if dtype == np.float32 else np.dtype(np.longdouble)


def tolerance(bound, terms, dtype):
    """The largest error of a sum of products in dtype against its twin, in any order of addition, fused or not.

    Each of the `terms` products (the bias counts as one) is rounded at most once, and passes through at most terms - 1
    additions, so |error| <= terms * u / (1 - terms * u) * bound with u = eps / 2. The other half of eps is room for the
    second-order part and for a twin that is no wider than the result. What underflows loses at most one subnormal step.
    """
    limits = np.finfo(dtype)
    return terms * (limits.eps * bound + limits.smallest_subnormal)


def assert_close(result, expected, bound, terms, dtype):
    """The result has the dtype and the shape expected and is within rounding of the twin's value everywhere."""
    assert result.dtype == dtype
    assert result.shape == expected.shape
    error = abs(result.astype(expected.dtype) - expected)
    excess = np.max(error - tolerance(bound, terms, dtype), initial=0)
    assert excess <= 0, f"the error is {excess} past what rounding explains; the largest is {np.max(error)}"


def assert_same_bits(result, expected):
    """Equal in dtype, shape and every bit, NaN and the sign of zero included."""
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert result.tobytes() == expected.tobytes()


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One convolution: its geometry, and data made from a seed.

    Exact cases have small integers for values: every partial sum is an integer that float32 holds exactly (below 2**24
    in size), so the result must equal the twin's whatever the order of addition, and one wrong or missing product
    cannot hide in a tolerance. The others have normal values, and are compared within `tolerance`.
    """

    function: str
    spatial: tuple
    kernel_size: tuple
    batch: int | tuple = 2
    channels: int = 3
    filters: int = 4
    strides: tuple = 1
    dilation_rate: tuple = 1
    groups: int = 1
    padding: str | tuple = "valid"
    data_format: str = "channels_last"
    bias: str | None = None  # None, 'filters' or 'full' (one value per output position and filter)
    dtype: str = "float32"
    exact: bool = True
    seed: int = 0
    padding_mode: str = "zeros"

    @property
    def rank(self):
        return len(self.spatial)

    @property
    def local(self):
        return self.function.startswith("local_conv")

    @property
    def family(self):
        """'local' or 'conv'."""
        return "local" if self.local else "conv"

    @property
    def taps(self):
        same = _start_clipped if self.local else _start_tensorflow
        sizes = (self.spatial, self.kernel_size, self.strides, self.padding, self.dilation_rate)
        return _taps(*sizes, same, self.padding_mode)

    @property
    def out(self):
        """The output's spatial sizes."""
        return tuple(len(axis) for axis in self.taps)

    @property
    def depth(self):
        """D: how many products one output sums."""
        return math.prod(self.kernel_size) * self.channels // self.groups

    @property
    def terms(self):
        return self.depth + (self.bias is not None)

    def rows_present(self):
        """(positions, D): which rows of an unshared kernel meet the input, not its padding."""
        _, present = _gather(np.ones((1, *self.spatial, 1)), self.taps)
        channels = self.channels // self.groups
        return present.repeat(channels, 1) if self.data_format == "channels_last" else np.tile(present, channels)

    def layout(self, spatial, channels):
        """The shape of an image in this data format."""
        batch = as_tuple(self.batch, 1)
        return (*batch, *spatial, channels) if self.data_format == "channels_last" else (*batch, channels, *spatial)

    def shapes(self):
        """Of (input, kernel, bias or None)."""
        if self.local:
            kernel = (math.prod(self.out), self.depth, self.filters)
        else:
            kernel = (*self.kernel_size, self.channels // self.groups, self.filters)
        bias = {None: None, "filters": (self.filters,), "full": (*self.out, self.filters)}[self.bias]
        return self.layout(self.spatial, self.channels), kernel, bias

    def arrays(self):
        """(input, kernel, bias or None)"""
        rng = np.random.default_rng(self.seed)
        make = (lambda shape: rng.integers(-8, 9, shape)) if self.exact else rng.standard_normal
        return tuple(None if shape is None else make(shape).astype(self.dtype) for shape in self.shapes())

    def run(self, module, arrays, **options):
        """Calls this case's function of a module (the package, or this file) with the arrays."""
        inputs, kernel, bias = arrays
        return getattr(module, self.function)(inputs, kernel, **(self.options() | {"bias": bias} | options))

    def options(self):
        """The arguments that are no arrays, by name."""
        names = ("strides", "padding", "dilation_rate", "groups", "data_format")
        chosen = {name: getattr(self, name) for name in names}
        if self.local and self.rank > 1:
            chosen["output_shape"] = self.out
        if self.local:
            chosen["kernel_size"] = self.kernel_size
        return chosen | _mode_of(self)

    def check(self, result, arrays=None):
        """The result is what the twin computes from the arrays (the case's own if None)."""
        dtype, expected, bound = _own_solution(self) if arrays is None else self.solution(arrays)
        assert result.shape == self.layout(self.out, self.filters)
        if self.exact:
            np.testing.assert_array_equal(result, expected.astype(dtype), strict=True)
        else:
            assert_close(result, expected, bound, self.terms, dtype)

    def solution(self, arrays):
        """The dtype that the result is to have, the twin's value, and its bound term (None for an exact case)."""
        dtype = np.result_type(*(array for array in arrays if array is not None)).newbyteorder("=")
        twins = sys.modules[__name__]
        if self.exact:
            return dtype, self.run(twins, arrays), None
        return dtype, *self.run(twins, arrays, bound=True)


def _mode_of(case):
    """The argument that some functions have: given where it is not as always."""
    return {} if case.padding_mode == "zeros" else {"padding_mode": case.padding_mode}


# --- cases of local filters -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FilterRole:
    """What a function of local filters takes and makes, of the three arrays of a sum: inputs, filters and output.

    `arrays`: its arguments, in their order, by what they are; `shape`: the argument that is the result's shape.
    """

    makes: str
    arrays: dict
    shape: str | None = None


FILTER_ROLES = {
    "local_filter": FilterRole("output", {"inputs": "inputs", "filters": "filters"}),
    "local_correlation": FilterRole("filters", {"inputs": "inputs", "queries": "output"}),
    "local_filter_input": FilterRole("inputs", {"filters": "filters", "grad_output": "output"}, "input_shape"),
    "local_filter_filters": FilterRole("filters", {"inputs": "inputs", "grad_output": "output"}, "filters_shape"),
    "local_correlation_input": FilterRole("inputs", {"queries": "output", "grad_output": "filters"}, "input_shape"),
    "local_correlation_queries": FilterRole("output", {"inputs": "inputs", "grad_output": "filters"}, "queries_shape"),
}


@dataclasses.dataclass(frozen=True)
class FilterCase:
    """One function of local filters with its data, exact ones or not, as a `Case` has them.

    `kind`: in `FILTER_ROLES`; `one`: whether the filters, where that is allowed, are of one image for all.
    """

    kind: str
    spatial: tuple
    kernel_size: tuple
    batch: int = 2
    channels: int = 4
    groups: int = 1
    strides: int | tuple = 1
    dilation_rate: int | tuple = 1
    padding: str | tuple = "valid"
    data_format: str = "channels_last"
    one: bool = False
    dtype: str = "float32"
    exact: bool = True
    seed: int = 0
    padding_mode: str = "zeros"

    @property
    def rank(self):
        return len(self.spatial)

    @property
    def role(self):
        return FILTER_ROLES[self.kind]

    @property
    def function(self):
        """local_filter2d_input of local_filter_input, ..."""
        family, end = ("_".join(part) for part in (self.kind.split("_")[:2], self.kind.split("_")[2:]))
        return f"{family}{self.rank}d{end and '_'}{end}"

    @property
    def operation(self):
        """What last_run tells."""
        return {"output": "filter_forward", "inputs": "filter_grad_input", "filters": "filter_grad_kernel"}[
            self.role.makes
        ]

    @property
    def window(self):
        return FilterWindow(self.rank, **self.options())

    @property
    def taps(self):
        return self.window.taps((self.batch, *self.spatial, self.channels))

    @property
    def out(self):
        """The output's spatial sizes."""
        return tuple(len(axis) for axis in self.taps)

    def layout(self, batch, spatial, channels):
        return (batch, *spatial, channels) if self.data_format == "channels_last" else (batch, channels, *spatial)

    def shapes(self):
        """Of inputs, filters and output, by name."""
        of_one_image = self.one and self.kind.startswith("local_filter")
        taps = self.groups * math.prod(self.kernel_size)
        return {
            "inputs": self.layout(self.batch, self.spatial, self.channels),
            "filters": self.layout(1 if of_one_image else self.batch, self.out, taps),
            "output": self.layout(self.batch, self.out, self.channels),
        }

    def present(self):
        """Which filters meet the input, in the shape that filters have."""
        inside = np.zeros((math.prod(self.out), math.prod(self.kernel_size)), bool)
        for position, tap, _ in _connections(self.taps, self.spatial):
            inside[position, tap] = True
        each = np.tile(inside, self.groups).reshape(1, *self.out, -1)
        return np.broadcast_to(_from_last(each, self.data_format), self.shapes()["filters"])

    def options(self):
        """The arguments that are no arrays, by name."""
        names = ("kernel_size", "strides", "data_format", "padding", "dilation_rate", "groups")
        return {name: getattr(self, name) for name in names} | _mode_of(self)

    def arrays(self):
        """The function's arrays, by the names of its arguments."""
        rng = np.random.default_rng(self.seed)
        make = (lambda shape: rng.integers(-8, 9, shape)) if self.exact else rng.standard_normal
        data = {name: make(shape).astype(self.dtype) for name, shape in self.shapes().items()}
        return {argument: data[name] for argument, name in self.role.arrays.items()}

    def arguments(self, arrays=None):
        """All right arguments by name, in their order where that matters."""
        arrays = self.arrays() if arrays is None else arrays
        if self.role.shape is None:
            return arrays | self.options()
        shape = {self.role.shape: self.shapes()[self.role.makes]}
        # The shape stands where its array would.
        first, second = arrays.items()
        lead = [*shape.items(), first] if self.role.makes == "inputs" else [first, *shape.items()]
        return dict([*lead, second]) | self.options()

    def run(self, module, arrays=None, **options):
        """Calls this function of a module (the package's, or this file) with the arrays."""
        return getattr(module, self.function)(**(self.arguments(arrays) | options))

    def check(self, result, arrays=None, start=None):
        """The result is what the twin computes from the arrays (the case's own if None), added to `start`."""
        dtype, expected, bound, terms = _own_filtering(self) if arrays is None else self.solution(arrays)
        if start is not None:
            expected = expected + start
        if self.exact:
            np.testing.assert_array_equal(result, expected.astype(dtype), strict=True)
        elif start is None:
            assert_close(result, expected, bound, terms, dtype)
        else:
            assert_close(result, expected, bound + abs(start), terms + 1, dtype)

    def solution(self, arrays):
        """The dtype that the result is to have, the twin's value, its bound and terms (None for an exact case).

        Terms are one more than the products that an element is the sum of, which ones give.
        """
        dtype, twins = np.result_type(*arrays.values()).newbyteorder("="), sys.modules[__name__]
        if self.exact:
            return dtype, self.run(twins, arrays), None, None
        ones = {name: np.ones(array.shape, "float64") for name, array in arrays.items()}
        return dtype, *self.run(twins, arrays, bound=True), self.run(twins, ones).astype("float64") + 1


@functools.lru_cache(maxsize=4096)
def _own_filtering(case):
    """As `_own_solution`."""
    return case.solution(case.arrays())


def one_tap_cases(data_format, dtype):
    """Kernels of one tap: the pixels of all images follow each other, unless strides or padding come between."""
    shared = {"data_format": data_format, "dtype": dtype}
    for batch, groups in ((1, 1), (3, 1), (3, 2), (2, 10)):
        sizes = batch, 10, 20
        yield Case("conv1d", (13,), (1,), *sizes, groups=groups, dilation_rate=2, **shared)
        yield Case("conv2d", (5, 7), (1, 1), *sizes, groups=groups, **shared)
        yield Case("conv3d", (3, 2, 5), (1, 1, 1), *sizes, groups=groups, padding="same", **shared)
    yield Case("conv2d", (5, 7), (1, 1), 3, 10, 20, strides=2, **shared)
    yield Case("conv2d", (4, 5), (1, 1), 3, 10, 20, padding=((1, 0), (0, 2)), **shared)
    yield Case("conv2d", (3, 3), (1, 1), 3, 10, 20, strides=2, padding=((1, 1), (1, 1)), **shared)


@functools.lru_cache(maxsize=4096)
def _own_solution(case):
    """Many tests run one case on every instruction set and by every algorithm."""
    return case.solution(case.arrays())


@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient of a case's convolution, its bias aside, with respect to its 'input' or its 'kernel'.

    The data are the case's input or kernel and a gradient of the output of the same kind.
    """

    case: Case
    of: str

    @property
    def function(self):
        return f"{self.case.function}_{self.of}"

    @property
    def operation(self):
        """What last_run tells where the core's own gradient ran."""
        return f"{self.case.family}_grad_{self.of}"

    @property
    def by_columns(self):
        """What last_run tells where a shared convolution's gradient went through im2col."""
        return {"input": "col2im", "kernel": "im2col"}[self.of]

    @property
    def shape(self):
        return self.case.shapes()[("input", "kernel").index(self.of)]

    @property
    def output_shape(self):
        """Of the forward convolution."""
        return self.case.layout(self.case.out, self.case.filters)

    def arrays(self):
        """(kernel or input, grad_output)"""
        rng = np.random.default_rng([self.case.seed, 1])
        make = (lambda shape: rng.integers(-8, 9, shape)) if self.case.exact else rng.standard_normal
        inputs, kernel, _ = self.case.arrays()
        return kernel if self.of == "input" else inputs, make(self.output_shape).astype(self.case.dtype)

    def run(self, module, arrays, **options):
        """Calls this gradient's function of a module (localconv.grad, or this file) with the arrays."""
        first, grad_output = arrays
        pair = (self.shape, first) if self.of == "input" else (first, self.shape)
        return getattr(module, self.function)(*pair, grad_output, **(self.case.options() | options))

    def transposed(self, module, arrays, **options):
        """The gradient of the input under the name of a transposed convolution (of the package, or this file)."""
        kernel, grad_output = arrays
        options = self.case.options() | {"output_shape": self.shape} | options
        return getattr(module, f"{self.case.function}_transpose")(grad_output, kernel, **options)

    def check(self, result, arrays=None, start=None):
        """The result is what the twin computes from the arrays (the gradient's own if None), added to `start`."""
        dtype, expected, bound, terms = _own_gradient(self) if arrays is None else self.solution(arrays)
        if start is not None:
            expected = expected + start
        if self.case.exact:
            np.testing.assert_array_equal(result, expected.astype(dtype), strict=True)
        elif start is None:
            assert_close(result, expected, bound, terms, dtype)
        else:
            assert_close(result, expected, bound + abs(start), terms + 1, dtype)

    def solution(self, arrays):
        """The dtype that the result is to have, the twin's value, its bound and terms (None for an exact case)."""
        dtype = np.result_type(*arrays).newbyteorder("=")
        twins = sys.modules[__name__]
        if self.case.exact:
            return dtype, self.run(twins, arrays), None, None
        return dtype, *self.run(twins, arrays, bound=True), self.terms()

    def terms(self):
        """For every element: one more than the products summed; where blocks are promised for a long sum, fewer.

        The number of products is what the gradient gives for ones.
        """
        ones = tuple(np.ones(shape, "float64") for shape in map(np.shape, self.arrays()))
        terms = self.run(sys.modules[__name__], ones).astype("float64") + 1
        if self.of == "kernel" and not self.case.local:
            products = math.prod(as_tuple(self.case.batch, 1)) * math.prod(self.case.out)
            return np.minimum(terms, block_terms(products))
        return terms


def block_terms(products):
    """The multiple of eps * sum|x||g| that the error of a shared kernel's gradient over so many products may reach: of
    sums of 256 products by NumPy's BLAS, or of 128 and of 16 in each level of a tree, and 16 parts.
    """
    return min(products, 384)


@functools.lru_cache(maxsize=4096)
def _own_gradient(gradient):
    """As `_own_solution`."""
    return gradient.solution(gradient.arrays())


def gradients(case):
    """Both gradients of a case."""
    return Gradient(case, "input"), Gradient(case, "kernel")
