"""The functions of the Keras 2 backend, on NumPy arrays: locally connected and ordinary convolution.

Signatures, patch order and shapes are those of ``K.local_conv1d``, ``K.local_conv2d``, ``K.conv1d``, ``K.conv2d`` and
``K.conv2d_transpose`` in Keras 2.15 (read from its source and checked against it); what follows the ``*`` in a signature is
localconv's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core, dispatch
from .arguments import IntOrInts, PaddingLike, groups_of, ints, is_channels_first, padding_of, shape_of_output
from .arrays import FLOAT32, FLOAT64, Array, as_float_array, common_dtype, deliver, flat, output_for
from .columns import COL2IM, IM2COL, conv_by_columns
from .geometry import Geometry, Ints, Padding, local_geometry, shared_geometry
from .grad import local_input, shared_input

__all__ = [
    "col2im",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "im2col",
    "local_conv1d",
    "local_conv1d_transpose",
    "local_conv2d",
    "local_conv2d_transpose",
]

# The core's functions for each element type, looked up once: choosing among fused types by argument costs microseconds.
_LOCAL_FORWARD = {FLOAT32: _core.local_forward["float"], FLOAT64: _core.local_forward["double"]}
_CONV_FORWARD = {FLOAT32: _core.conv_forward["float"], FLOAT64: _core.conv_forward["double"]}


def local_conv1d(inputs: ArrayLike, kernel: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts, data_format: str | None = None, *,
                 padding: PaddingLike = "valid", dilation_rate: IntOrInts = 1, groups: int = 1, bias: ArrayLike | None = None,
                 out: Array | None = None) -> Array:
    """1D convolution with a kernel of its own at every output position (unshared, locally connected).

    Parameters
    ----------
    inputs : array_like, float32 or float64
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        Shape (positions, kernel_size * channels / groups, filters). Row ``i * channels + c`` of a position belongs to tap i and
        channel c; with channels_first row ``c * kernel_size + i``. With `groups` the rows run over one group's channels, and
        the filters are cut into groups of equal size, as in grouped convolution.
    kernel_size : int or sequence of 1 int
        Taps of the window.
    strides : int or sequence of 1 int
        Steps from one window to the next.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `image_data_format`.
    padding : {'valid', 'same', 'causal'} or ((before, after),), optional
        'same' is that of Keras's LocallyConnected1D: the window of position p starts at ``p * strides - extent // 2``, where
        extent is the dilated size of the window, is clipped to the input, and there are ceil(steps / strides) positions. It is
        not TensorFlow's SAME for even windows, nor at strides above 1. 'causal' pads ``extent - 1`` steps in front. Kernel
        rows that meet padding do nothing, whatever they hold.
    dilation_rate : int or sequence of 1 int, optional
        Steps from one tap to the next.
    groups : int, optional
        Divides channels and filters.
    bias : array_like, optional
        Added to the sums: (filters,), or (positions, filters) as Keras stores it. With channels_first Keras *reshapes* the
        latter to (filters, positions) instead of transposing it, and so does this.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape (batch, positions, filters), or (batch, filters, positions) with channels_first; `out` if given. float32 if all
        arguments are, else float64.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    See Also
    --------
    conv1d : the same with one kernel for all positions.

    Notes
    -----
    Where Keras reinterprets or truncates (a kernel of too few positions or of other rows, an input longer than the kernel
    covers) this raises ValueError.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.ones((1, 10, 4), np.float32)
    >>> kernel = np.ones((8, 3 * 4, 2), np.float32)
    >>> localconv.local_conv1d(x, kernel, 3, 1, 'channels_last').shape
    (1, 8, 2)
    """
    return local(1, inputs, kernel, kernel_size, strides, None, data_format, padding, dilation_rate, groups, bias, out)


def local_conv2d(inputs: ArrayLike, kernel: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts, output_shape: Sequence[int] | None,
                 data_format: str | None = None, *, padding: PaddingLike = "valid", dilation_rate: IntOrInts = (1, 1), groups: int = 1,
                 bias: ArrayLike | None = None, out: Array | None = None) -> Array:
    """2D convolution with a kernel of its own at every output position (unshared, locally connected).

    Parameters
    ----------
    inputs : array_like, float32 or float64
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        Shape (positions, kh * kw * channels / groups, filters), positions row by row. Row ``(i * kw + j) * channels + c`` of a
        position belongs to tap (i, j) and channel c; with channels_first row ``(c * kh + i) * kw + j``.
    kernel_size : int or sequence of 2 ints
        (kh, kw), the taps of the window.
    strides : int or sequence of 2 ints
        Rows and columns from one window to the next.
    output_shape : sequence of 2 ints or None
        Rows and columns of the output. Keras needs it; here it is checked, and None leaves it out.
    data_format, padding, dilation_rate, groups, out
        As in `local_conv1d`, two ints or two pairs instead of one; no 'causal'.
    bias : array_like, optional
        (filters,), or output_shape + (filters,) as Keras stores it; with channels_first the latter is *reshaped* to
        (filters,) + output_shape, as Keras does.

    Returns
    -------
    ndarray
        Shape (batch,) + output_shape + (filters,), or (batch, filters) + output_shape with channels_first; `out` if given.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.ones((1, 5, 6, 3), np.float32)
    >>> kernel = np.ones((3 * 4, 3 * 3 * 3, 2), np.float32)
    >>> localconv.local_conv2d(x, kernel, (3, 3), (1, 1), (3, 4), 'channels_last')[0, 0, 0]
    array([27., 27.], dtype=float32)
    """
    return local(2, inputs, kernel, kernel_size, strides, output_shape, data_format, padding, dilation_rate, groups, bias, out)


def conv1d(x: ArrayLike, kernel: ArrayLike, strides: IntOrInts = 1, padding: PaddingLike = "valid", data_format: str | None = None,
           dilation_rate: IntOrInts = 1, *, groups: int = 1, bias: ArrayLike | None = None, out: Array | None = None) -> Array:
    """1D convolution (in the sense of neural networks: the kernel is not flipped).

    Parameters
    ----------
    x : array_like, float32 or float64
        Shape (..., steps, channels), or (..., channels, steps) with ``data_format='channels_first'``; at least one batch axis.
    kernel : array_like, float32 or float64
        Shape (kernel_size, channels / groups, filters), for both data formats.
    strides : int or sequence of 1 int, optional
        Steps from one window to the next.
    padding : {'valid', 'same', 'causal'} or ((before, after),), optional
        'same' is TensorFlow's SAME: ceil(steps / strides) outputs, the odd element of padding behind. 'causal' pads
        ``(kernel_size - 1) * dilation_rate`` steps in front.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `image_data_format`.
    dilation_rate : int or sequence of 1 int, optional
        Steps from one tap to the next. As in Keras, strides and dilation_rate cannot both be above 1.
    groups : int, optional
        Divides channels and filters; filter group g sees channel group g.
    bias : array_like of shape (filters,), optional
        Added to the sums.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape (..., positions, filters), or (..., filters, positions) with channels_first; `out` if given. float32 if all
        arguments are, else float64.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    >>> kernel = np.array([1, 0, -1], np.float32).reshape(3, 1, 1)
    >>> localconv.conv1d(x, kernel, data_format='channels_last').ravel()
    array([-2., -2., -2.], dtype=float32)
    """
    return shared(1, x, kernel, strides, padding, data_format, dilation_rate, groups, bias, out)


def conv2d(x: ArrayLike, kernel: ArrayLike, strides: IntOrInts = (1, 1), padding: PaddingLike = "valid", data_format: str | None = None,
           dilation_rate: IntOrInts = (1, 1), *, groups: int = 1, bias: ArrayLike | None = None, out: Array | None = None) -> Array:
    """2D convolution (in the sense of neural networks: the kernel is not flipped).

    Parameters
    ----------
    x : array_like, float32 or float64
        Shape (..., rows, columns, channels), or (..., channels, rows, columns) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        Shape (kh, kw, channels / groups, filters), for both data formats.
    strides, padding, data_format, dilation_rate, groups, bias, out
        As in `conv1d`, two ints or two pairs instead of one; no 'causal'.

    Returns
    -------
    ndarray
        Shape (..., rows, columns, filters), or (..., filters, rows, columns) with channels_first; `out` if given.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.ones((2, 6, 5, 3), np.float32)
    >>> kernel = np.ones((3, 3, 3, 4), np.float32)
    >>> localconv.conv2d(x, kernel, padding='same', data_format='channels_last').shape
    (2, 6, 5, 4)
    """
    return shared(2, x, kernel, strides, padding, data_format, dilation_rate, groups, bias, out)


def local_conv1d_transpose(inputs: ArrayLike, kernel: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts,
                           output_shape: Sequence[int | None], data_format: str | None = None, *, padding: PaddingLike = "valid",
                           dilation_rate: IntOrInts = 1, groups: int = 1, out: Array | None = None) -> Array:
    """Transposed 1D convolution with a kernel of its own at every position: the adjoint of `local_conv1d`.

    Every position of the input is spread over a window of the output, each with its own filters; where windows overlap they add up.

    Parameters
    ----------
    inputs : array_like, float32 or float64
        Shape (batch, positions, channels), or (batch, channels, positions) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        That of the `local_conv1d` which maps the output's shape to the input's: (positions, kernel_size * filters / groups,
        channels), where `filters` are the channels of the output.
    kernel_size, strides, padding, dilation_rate, groups
        Of that `local_conv1d`.
    output_shape : sequence of 3 ints
        Shape of the result, (batch, steps, filters) or (batch, filters, steps); None for the batch takes that of `inputs`. Several
        lengths have the same number of positions, which is why it must be said.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `image_data_format`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given. float32 if all arrays are, else float64.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    See Also
    --------
    localconv.grad.local_conv1d_input : the same, as the gradient of `local_conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> kernel = np.arange(6.0).reshape(3, 2, 1)
    >>> localconv.local_conv1d_transpose(np.ones((1, 3, 1)), kernel, 2, 1, (1, 4, 1), 'channels_last').ravel()
    array([0., 3., 7., 5.])
    """
    x = as_float_array(inputs, "inputs")
    return local_input(1, _full_shape(output_shape, x, 1), kernel, x, kernel_size, strides, None, data_format, padding, dilation_rate,
                       groups, out, ("output_shape", "inputs"))


def local_conv2d_transpose(inputs: ArrayLike, kernel: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts,
                           output_shape: Sequence[int | None], data_format: str | None = None, *, padding: PaddingLike = "valid",
                           dilation_rate: IntOrInts = (1, 1), groups: int = 1, out: Array | None = None) -> Array:
    """Transposed 2D convolution with a kernel of its own at every position: the adjoint of `local_conv2d`.

    Parameters
    ----------
    inputs : array_like, float32 or float64
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        That of the `local_conv2d` which maps the output's shape to the input's: (positions, kh * kw * filters / groups, channels),
        where `filters` are the channels of the output.
    kernel_size, strides, padding, dilation_rate, groups
        Of that `local_conv2d`.
    output_shape : sequence of 4 ints
        Shape of the result, batch included; None for the batch takes that of `inputs`.
    data_format, out
        As in `local_conv1d_transpose`.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> kernel = np.ones((4, 2 * 2, 1))
    >>> localconv.local_conv2d_transpose(np.ones((1, 2, 2, 1)), kernel, 2, 1, (None, 3, 3, 1), 'channels_last')[0, :, :, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    x = as_float_array(inputs, "inputs")
    return local_input(2, _full_shape(output_shape, x, 2), kernel, x, kernel_size, strides, None, data_format, padding, dilation_rate,
                       groups, out, ("output_shape", "inputs"))


def conv1d_transpose(x: ArrayLike, kernel: ArrayLike, output_shape: Sequence[int | None], strides: IntOrInts = 1,
                     padding: PaddingLike = "valid", data_format: str | None = None, dilation_rate: IntOrInts = 1, *, groups: int = 1,
                     out: Array | None = None) -> Array:
    """Transposed 1D convolution ("deconvolution"): the adjoint of `conv1d`.

    Parameters
    ----------
    x : array_like, float32 or float64
        Shape (..., positions, channels), or (..., channels, positions) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        That of the `conv1d` which maps the output's shape to the input's: (kernel_size, filters / groups, channels), where
        `filters` are the channels of the output.
    output_shape : sequence of ints
        Shape of the result, batch included; None for the first entry takes that of `x`. Several lengths have the same number of
        positions, which is why it must be said.
    strides, padding, dilation_rate, groups
        Of that `conv1d`.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `image_data_format`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given. float32 if all arrays are, else float64.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`.

    See Also
    --------
    localconv.grad.conv1d_input : the same, as the gradient of `conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> kernel = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> localconv.conv1d_transpose(np.ones((1, 2, 1)), kernel, (1, 5, 1), strides=2, data_format='channels_last').ravel()
    array([1., 2., 4., 2., 3.])
    """
    array = as_float_array(x, "x")
    return shared_input(1, _full_shape(output_shape, array, 1), kernel, array, strides, padding, data_format, dilation_rate, groups, out,
                        ("output_shape", "x"))


def conv2d_transpose(x: ArrayLike, kernel: ArrayLike, output_shape: Sequence[int | None], strides: IntOrInts = (1, 1),
                     padding: PaddingLike = "valid", data_format: str | None = None, dilation_rate: IntOrInts = (1, 1), *,
                     groups: int = 1, out: Array | None = None) -> Array:
    """Transposed 2D convolution ("deconvolution"): the adjoint of `conv2d`, and ``K.conv2d_transpose``.

    Parameters
    ----------
    x : array_like, float32 or float64
        Shape (..., rows, columns, channels), or (..., channels, rows, columns) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        Shape (kh, kw, filters / groups, channels), where `filters` are the channels of the output.
    output_shape : sequence of ints
        Shape of the result, batch included; None for the first entry takes that of `x`.
    strides, padding, data_format, dilation_rate, groups, out
        As in `conv1d_transpose`, two ints or two pairs instead of one.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x, kernel = np.ones((2, 3, 3, 8), np.float32), np.ones((3, 3, 4, 8), np.float32)
    >>> localconv.conv2d_transpose(x, kernel, (None, 6, 6, 4), 2, 'same', 'channels_last').shape
    (2, 6, 6, 4)
    """
    array = as_float_array(x, "x")
    return shared_input(2, _full_shape(output_shape, array, 2), kernel, array, strides, padding, data_format, dilation_rate, groups, out,
                        ("output_shape", "x"))


def im2col(x: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts = 1, padding: PaddingLike = "valid", data_format: str | None = None,
           dilation_rate: IntOrInts = 1, *, out: Array | None = None) -> Array:
    """Every window of the input as a row.

    Parameters
    ----------
    x : array_like, float32 or float64
        Shape (batch, steps, channels) or (batch, rows, columns, channels); channels in front of the spatial axes with
        ``data_format='channels_first'``.
    kernel_size : int or sequence of ints
        Taps of the window.
    strides, padding, data_format, dilation_rate
        As in `conv1d` and `conv2d`. Taps that meet padding are 0.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with `x`.

    Returns
    -------
    ndarray
        Shape (batch, positions, prod(kernel_size) * channels); rows in the order of a locally connected kernel: taps outside
        and channels inside for channels_last, channels outside for channels_first.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> localconv.im2col(np.arange(4.0).reshape(1, 4, 1), 2, data_format='channels_last')[0]
    array([[0., 1.],
           [1., 2.],
           [2., 3.]])
    """
    array = as_float_array(x, "x")
    geometry = _column_geometry(array.shape, kernel_size, strides, padding, data_format, dilation_rate)
    result = output_for(out, (geometry.batch, geometry.positions, geometry.depth), common_dtype(array), (array,))
    if result.size:
        IM2COL[result.dtype](geometry, flat(array, result.dtype), result.reshape(-1), 0, dispatch.threads_for(geometry))
    return deliver(result, out)


def col2im(cols: ArrayLike, input_shape: Sequence[int], kernel_size: IntOrInts, strides: IntOrInts = 1, padding: PaddingLike = "valid",
           data_format: str | None = None, dilation_rate: IntOrInts = 1, *, out: Array | None = None) -> Array:
    """Add rows of windows back into an input: the adjoint of `im2col`.

    Parameters
    ----------
    cols : array_like, float32 or float64
        Shape (batch, positions, prod(kernel_size) * channels), as `im2col` returns.
    input_shape : sequence of ints
        The shape that `im2col` had as its input.
    kernel_size, strides, padding, data_format, dilation_rate
        As in `im2col`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with `cols`.

    Returns
    -------
    ndarray
        Shape `input_shape`; every element is the sum of the window elements that were taken from it.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> localconv.col2im(np.ones((1, 3, 2)), (1, 4, 1), 2, data_format='channels_last').ravel()
    array([1., 2., 2., 1.])
    """
    array = as_float_array(cols, "cols")
    shape = ints(input_shape, None, "input_shape", minimum=0)
    if len(shape) not in (3, 4):
        raise ValueError(f"input_shape must have 3 or 4 axes, got {shape}")
    geometry = _column_geometry(shape, kernel_size, strides, padding, data_format, dilation_rate, "input_shape")
    expected = (geometry.batch, geometry.positions, geometry.depth)
    if array.shape != expected:
        raise ValueError(f"cols must have shape (batch, positions, prod(kernel_size) * channels) = {expected}, got {array.shape}")
    result = output_for(out, shape, common_dtype(array), (array,))
    result[...] = 0
    if result.size:
        COL2IM[result.dtype](geometry, flat(array, result.dtype), result.reshape(-1), 0, dispatch.threads_for(geometry))
    return deliver(result, out)


# ------------------------------------------------------------------------------------------------------- from arguments to the core


def local(rank: int, inputs: ArrayLike, kernel: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts,
          output_shape: Sequence[int] | None, data_format: str | None, padding: PaddingLike, dilation_rate: IntOrInts, groups: int,
          bias: ArrayLike | None, out: Array | None, relu: bool = False) -> Array:
    """`local_conv1d` or `local_conv2d`, with relu in the same pass where asked for; layers call it."""
    x, k = as_float_array(inputs, "inputs"), as_float_array(kernel, "kernel")
    b = None if bias is None else as_float_array(bias, "bias")
    dtype = common_dtype(x, k, b)
    if not type(kernel_size) is type(strides) is type(dilation_rate) is int:  # plain ints are left to the cached function
        kernel_size, strides = ints(kernel_size, rank, "kernel_size"), ints(strides, rank, "strides")
        dilation_rate = ints(dilation_rate, rank, "dilation_rate")
    if output_shape is not None:
        output_shape = ints(output_shape, rank, "output_shape", scalar=False)
    shape, bias_shapes, plan = _prepare_local(rank, x.shape, k.shape, kernel_size, strides, output_shape, is_channels_first(data_format),
                                              padding_of(padding, rank), dilation_rate, groups_of(groups), dtype is FLOAT64,
                                              dispatch.state())
    if b is not None and b.shape not in bias_shapes:
        raise ValueError(f"bias must have shape {' or '.join(map(str, bias_shapes))}, got {b.shape}")
    result = output_for(out, shape, dtype, (x, k, b))
    if plan is not None:
        _LOCAL_FORWARD[dtype](plan, flat(x, dtype), flat(k, dtype), None if b is None else flat(b, dtype), result.reshape(-1), relu)
    return deliver(result, out)


@lru_cache(maxsize=512)
def _prepare_local(rank: int, x_shape: Ints, kernel_shape: Ints, kernel_size: IntOrInts, strides: IntOrInts, output_shape: Ints | None,
                   channels_first: bool, padding: Padding, dilation_rate: IntOrInts, groups: int, double_precision: bool,
                   state: tuple[Any, ...]) -> tuple[Ints, tuple[Ints, ...], _core.LocalPlan | None]:
    """Output shape, accepted shapes of the bias, and the plan (None for an empty batch). `state` only widens the cache's key."""
    size = ints(kernel_size, rank, "kernel_size")
    geometry = local_geometry(x_shape, kernel_shape, size, ints(strides, rank, "strides"), padding, channels_first,
                              ints(dilation_rate, rank, "dilation_rate"), groups)
    output = geometry.output[3 - len(size) :]
    if output_shape is not None and output_shape != output:
        raise ValueError(f"output_shape must be {output} for inputs of shape {x_shape}, got {output_shape}")
    plan = dispatch.plan_local(geometry, double_precision) if geometry.batch else None
    bias_shapes = (geometry.filters,), (*output, geometry.filters)
    return shape_of_output(x_shape[:1], output, geometry), bias_shapes, plan


def shared(rank: int, x: ArrayLike, kernel: ArrayLike, strides: IntOrInts, padding: PaddingLike, data_format: str | None,
           dilation_rate: IntOrInts, groups: int, bias: ArrayLike | None, out: Array | None, relu: bool = False) -> Array:
    """`conv1d` or `conv2d`, with relu in the same pass where asked for; layers call it."""
    array, k = as_float_array(x, "x"), as_float_array(kernel, "kernel")
    b = None if bias is None else as_float_array(bias, "bias")
    dtype = common_dtype(array, k, b)
    if not type(strides) is type(dilation_rate) is int:
        strides, dilation_rate = ints(strides, rank, "strides"), ints(dilation_rate, rank, "dilation_rate")
    shape, geometry, plan = _prepare_shared(rank, array.shape, k.shape, strides, padding_of(padding, rank), is_channels_first(data_format),
                                            dilation_rate, groups_of(groups), dtype is FLOAT64, dispatch.state())
    if b is not None and b.shape != (geometry.filters,):
        raise ValueError(f"bias must have shape {(geometry.filters,)}, got {b.shape}")
    result = output_for(out, shape, dtype, (array, k, b))
    if result.size:
        array, k, b = flat(array, dtype), flat(k, dtype), None if b is None else flat(b, dtype)
        if plan is None:
            with np.errstate(all="ignore"):  # inf and NaN pass through without a word, as in the other algorithms
                conv_by_columns(geometry, array, k, b, result.reshape(-1), relu)
        else:
            _CONV_FORWARD[dtype](plan, array, k, b, result.reshape(-1), relu)
    return deliver(result, out)


@lru_cache(maxsize=512)
def _prepare_shared(rank: int, x_shape: Ints, kernel_shape: Ints, strides: IntOrInts, padding: Padding, channels_first: bool,
                    dilation_rate: IntOrInts, groups: int, double_precision: bool,
                    state: tuple[Any, ...]) -> tuple[Ints, Geometry, _core.ConvPlan | None]:
    """Output shape, geometry, and the plan of the direct algorithm (None: by im2col, or nothing to do).

    `state` only widens the cache's key.
    """
    steps, dilation = ints(strides, rank, "strides"), ints(dilation_rate, rank, "dilation_rate")
    if max(steps) > 1 and max(dilation) > 1:
        raise ValueError(f"strides > 1 cannot be combined with dilation_rate > 1, got strides={steps}, dilation_rate={dilation}")
    geometry = shared_geometry(x_shape, kernel_shape, steps, padding, channels_first, dilation, groups)
    direct = geometry.batch > 0 and dispatch.choose_conv(geometry) == "direct"
    plan = dispatch.plan_conv(geometry, double_precision) if direct else None
    return shape_of_output(x_shape[: -rank - 1], geometry.output[3 - rank :], geometry), geometry, plan


def _full_shape(shape: Sequence[int | None], x: Array, rank: int) -> Ints:
    """The output_shape of a transposed convolution: ints, the first of them from `x` if it is None."""
    if isinstance(shape, (list, tuple)) and shape and shape[0] is None and x.ndim >= rank + 2:
        shape = (x.shape[0], *shape[1:])
    return ints(shape, None, "output_shape", minimum=0)  # type: ignore[arg-type]  # a None elsewhere is refused there


def _column_geometry(shape: Ints, kernel_size: IntOrInts, strides: IntOrInts, padding: PaddingLike, data_format: str | None,
                     dilation_rate: IntOrInts, name: str = "x") -> Geometry:
    """Geometry of im2col and col2im: a shared convolution of one filter."""
    rank = len(shape) - 2
    if rank not in (1, 2):
        raise ValueError(f"{name} must have 3 or 4 axes, got shape {shape}")
    first = is_channels_first(data_format)
    channels = shape[1] if first else shape[-1]
    return shared_geometry(shape, (*ints(kernel_size, rank, "kernel_size"), channels, 1), ints(strides, rank, "strides"),
                           padding_of(padding, rank), first, ints(dilation_rate, rank, "dilation_rate"), 1, name)
