"""Filters that come with the data: one for every image and position, which all channels of a group share.

The signatures are those of `local_conv2d` and its kin, but for the bias, which these have not. The gradients are in
`localconv.grad`.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from .core import engine
from .core.arguments import IntOrInts, PaddingLike
from .core.arrays import Array
from .core.geometry import Names
from .core.spec import filter_spec
from .docstrings import docstring_from_2d, whole

__all__ = [
    "local_correlation1d",
    "local_correlation2d",
    "local_correlation3d",
    "local_filter1d",
    "local_filter2d",
    "local_filter3d",
]

# What the arguments are called that errors speak of.
FILTER_NAMES = Names("inputs", "filters")
CORRELATION_NAMES = Names("inputs", "filters", "queries", "a result of local_filter")


def local_filter1d(
    inputs: ArrayLike,
    filters: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    normalize: bool = False,
    out: Array | None = None,
) -> Array:
    """1D filtering with a filter of its own for every image and position: dynamic filters, predicted kernels.

    All channels of a group share the filter: ``result[n, p, c]`` is the sum over the taps t of
    ``inputs[n, p * strides + t * dilation_rate - before, c] * filters[n, p, g * kernel_size + t]``, where g is the
    group of channel c and before the padding in front.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    filters : array_like of floats
        Shape (batch, positions, groups * kernel_size), or (batch, groups * kernel_size, positions) with channels_first:
        each group's taps. Of batch 1: the filters of one image, for all. Those of float16 or bfloat16 are read as they
        are.
    kernel_size : int or sequence of 1 int
        Taps of the window.
    strides : int or sequence of 1 int, optional
        Steps from one window to the next.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.
    padding : {'valid', 'same', 'causal', 'inside'} or ((before, after),), optional
        'same' is TensorFlow's SAME: ceil(steps / strides) outputs, the odd element of padding behind. 'causal' pads
        ``(kernel_size - 1) * dilation_rate`` steps in front. Taps that meet padding of zeros are in no sum, whatever
        their filters hold. 'inside' has no padding: every position has tap ``kernel_size // 2`` of its window on its
        own place, and windows at the border are moved, in multiples of dilation_rate, until they lie inside, as in
        neighborhood attention. Strides are 1 then, and kernel_size * dilation_rate is at most the size of the input.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, optional
        What padding holds, by PyTorch's names. 'zeros': zeros, which are in no sum. All others fill a padded copy of
        the input with elements of the input, which are in the sums like any element: 'reflect' mirrors the input at its
        outermost elements without repeating them, 'replicate' repeats the outermost elements, and 'circular' continues
        at the other end. Along every axis padding must be less than the size of the input with 'reflect', and at most
        that size with 'circular'. With padding='inside' it must be 'zeros'.
    dilation_rate : int or sequence of 1 int, optional
        Steps from one tap to the next.
    groups : int, optional
        Divides the channels; each group has filters of its own.
    normalize : bool, optional
        Divide every result by the sum of the taps of its filter that lie inside the input; with another padding_mode
        than 'zeros' these are all taps. Where the sum is 0 the result is that of NumPy's division, inf or nan, without
        a warning.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape (batch, positions, channels), or (batch, channels, positions) with channels_first; `out` if given. Of the
        dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    See Also
    --------
    local_correlation1d : products of windows with what this returns; the gradient for the filters.
    local_conv1d : the same filters for all images, from all channels to others.

    Notes
    -----
    Floats are float16, float32, float64 and, where ml_dtypes is installed, bfloat16. What has no float64 is summed in
    float32 and rounded once.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x, filters = np.arange(5.0).reshape(1, 5, 1), np.ones((1, 5, 3))
    >>> localconv.local_filter1d(x, filters, 3, 1, 'channels_last', padding='inside').ravel()
    array([3., 3., 6., 9., 9.])

    Means of the pixels that there are, and with the outermost ones repeated:

    >>> localconv.local_filter1d(x, filters, 3, 1, 'channels_last', padding='same', normalize=True).ravel()
    array([0.5, 1. , 2. , 3. , 3.5])
    >>> same = {'padding': 'same', 'padding_mode': 'replicate'}
    >>> localconv.local_filter1d(x, filters / 4, 3, 1, 'channels_last', **same).ravel()
    array([0.25, 0.75, 1.5 , 2.25, 2.75])
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    return engine.forward_or_normalized(spec, inputs, filters, None, normalize, out, FILTER_NAMES)


@whole(local_filter1d)
def local_filter2d(
    inputs: ArrayLike,
    filters: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    normalize: bool = False,
    out: Array | None = None,
) -> Array:
    """2D filtering with a filter of its own for every image and position: dynamic filters, predicted kernels.

    All channels of a group share the filter: every result is the sum, over the taps of its window, of a pixel times
    what the filter of its image, position and group has for that tap.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``.
    filters : array_like of floats
        Shape (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns): each group's taps in C order.
        Of batch 1: the filters of one image, for all. Those of float16 or bfloat16 are read as they are.
    kernel_size : int or sequence of 2 ints
        (kh, kw), the taps of the window.
    strides, data_format, padding, padding_mode, dilation_rate, groups, normalize, out
        As in `local_filter1d`.

    Returns
    -------
    ndarray
        Shape (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns); `out` if given.
        Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_correlation2d : products of windows with what this returns; the gradient for the filters.
    local_conv2d : the same filters for all images, from all channels to others.

    Notes
    -----
    As in `local_filter1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.ones((2, 5, 6, 4), np.float32)
    >>> filters = np.repeat(np.float32([1, 2]), 9) * np.ones((2, 3, 4, 2 * 3 * 3), np.float32)
    >>> localconv.local_filter2d(x, filters, 3, 1, 'channels_last', groups=2)[0, 0, 0]
    array([ 9.,  9., 18., 18.], dtype=float32)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    return engine.forward_or_normalized(spec, inputs, filters, None, normalize, out, FILTER_NAMES)


@docstring_from_2d(
    local_filter2d,
    """
    >>> import numpy as np, localconv
    >>> x, filters = np.ones((1, 4, 5, 6, 2), np.float32), np.ones((1, 4, 5, 6, 27), np.float32)
    >>> localconv.local_filter3d(x, filters, 3, 1, 'channels_last', padding='same')[0, 0, 0, :, 0]
    array([ 8., 12., 12., 12., 12.,  8.], dtype=float32)
    """,
)
def local_filter3d(
    inputs: ArrayLike,
    filters: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    normalize: bool = False,
    out: Array | None = None,
) -> Array:
    spec = filter_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    return engine.forward_or_normalized(spec, inputs, filters, None, normalize, out, FILTER_NAMES)


@whole(local_filter1d)
def local_correlation1d(
    inputs: ArrayLike,
    queries: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """1D correlation of every position's window with a query of its own: local attention, cost volumes.

    ``result[n, p, g * kernel_size + t]`` is the sum over the channels c of group g of
    ``inputs[n, p * strides + t * dilation_rate - before, c] * queries[n, p, c]``, where before is the padding in front.
    It is the gradient of `local_filter1d` for its filters, and of their shape.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    queries : array_like of floats
        Shape (batch, positions, channels), or (batch, channels, positions): that of a result of `local_filter1d`.
    kernel_size, strides, data_format, padding, dilation_rate, groups, out
        As in `local_filter1d`.

    Returns
    -------
    ndarray
        Shape (batch, positions, groups * kernel_size), or (batch, groups * kernel_size, positions) with channels_first;
        `out` if given. Of the dtype that NumPy promotes the arrays to. Taps that meet padding have 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_filter1d : the sum of windows with such results as weights.

    Notes
    -----
    As in `local_filter1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x, queries = np.arange(1.0, 5).reshape(1, 4, 1), np.ones((1, 4, 1))
    >>> localconv.local_correlation1d(x, queries, 3, 1, 'channels_last', padding='same')[0]
    array([[0., 1., 2.],
           [1., 2., 3.],
           [2., 3., 4.],
           [3., 4., 0.]])
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return engine.correlation(spec, inputs, queries, out, CORRELATION_NAMES)


@whole(local_filter1d)
def local_correlation2d(
    inputs: ArrayLike,
    queries: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """2D correlation of every position's window with a query of its own: local attention, cost volumes.

    Every result is the sum, over the channels of a group, of the products of a window's pixel with the query of its
    position. It is the gradient of `local_filter2d` for its filters, and of their shape.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``.
    queries : array_like of floats
        Shape (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns): that of a result of `local_filter2d`.
    kernel_size : int or sequence of 2 ints
        (kh, kw), the taps of the window.
    strides, data_format, padding, dilation_rate, groups, out
        As in `local_filter1d`.

    Returns
    -------
    ndarray
        Shape (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns); `out` if given.
        Of the dtype that NumPy promotes the arrays to. Taps that meet padding have 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_filter2d : the sum of windows with such results as weights.

    Notes
    -----
    As in `local_filter1d`.

    Examples
    --------
    The attention of every pixel to the 3 x 3 around it, with 2 heads:

    >>> import numpy as np, localconv
    >>> keys, queries, values = np.random.default_rng(0).standard_normal((3, 1, 5, 6, 8), np.float32)
    >>> windows = {'kernel_size': 3, 'data_format': 'channels_last', 'padding': 'inside', 'groups': 2}
    >>> scores = localconv.local_correlation2d(keys, queries / 2, **windows).reshape(1, 5, 6, 2, 9)
    >>> weights = np.exp(scores - scores.max(-1, keepdims=True))
    >>> weights /= weights.sum(-1, keepdims=True)
    >>> localconv.local_filter2d(values, weights.reshape(1, 5, 6, 18), **windows).shape
    (1, 5, 6, 8)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return engine.correlation(spec, inputs, queries, out, CORRELATION_NAMES)


@docstring_from_2d(
    local_correlation2d,
    """
    >>> import numpy as np, localconv
    >>> x, queries = np.ones((1, 4, 5, 6, 8), np.float32), np.ones((1, 2, 3, 4, 8), np.float32)
    >>> localconv.local_correlation3d(x, queries, 3, 1, 'channels_last').shape
    (1, 2, 3, 4, 27)
    """,
)
def local_correlation3d(
    inputs: ArrayLike,
    queries: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    spec = filter_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return engine.correlation(spec, inputs, queries, out, CORRELATION_NAMES)
