"""The functions of the Keras 2 backend, on NumPy arrays: locally connected and ordinary convolution.

Signatures, patch order and shapes are those of ``K.local_conv1d``, ``K.local_conv2d``, ``K.conv1d``, ``K.conv2d`` and
``K.conv2d_transpose`` in Keras 2.15 (read from its source and checked against it); what follows the ``*`` in a
signature is localconv's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from .core import engine
from .core.arguments import IntOrInts, Ints, PaddingLike, ints
from .core.arrays import Array, KernelLike, as_float_array
from .core.geometry import Names, one_image
from .core.spec import column_spec, conv_spec, local_spec
from .docstrings import docstring_from_2d, whole

__all__ = [
    "col2im",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "im2col",
    "local_conv1d",
    "local_conv1d_transpose",
    "local_conv2d",
    "local_conv2d_transpose",
    "local_conv3d",
    "local_conv3d_transpose",
]

# What the arguments are called that errors speak of.
LOCAL_NAMES = Names("inputs", "kernel")
SHARED_NAMES = Names("x", "kernel")
LOCAL_TRANSPOSE_NAMES = Names("output_shape", "kernel", "inputs")
SHARED_TRANSPOSE_NAMES = Names("output_shape", "kernel", "x")
COLUMN_NAMES = Names("x", "cols")
WINDOW_NAMES = Names("input_shape", "cols")


def local_conv1d(
    inputs: ArrayLike,
    kernel: KernelLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    normalize: bool = False,
    bias: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """1D convolution with a kernel of its own at every output position (unshared, locally connected).

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    kernel : array_like of floats, QuantizedKernel or KernelBank
        Shape (positions, kernel_size * channels / groups, filters). Row ``i * channels + c`` of a position belongs to
        tap i and channel c; with channels_first row ``c * kernel_size + i``. With `groups` the rows run over one
        group's channels, and the filters are cut into groups of equal size, as in grouped convolution.
    kernel_size : int or sequence of 1 int
        Taps of the window.
    strides : int or sequence of 1 int, optional
        Steps from one window to the next.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.
    padding : {'valid', 'same', 'causal'} or ((before, after),), optional
        'same' is that of Keras's locally connected layers: the window of position p starts at
        ``p * strides - extent // 2``, where extent is the dilated size of the window, is clipped to the input, and
        there are ceil(steps / strides) positions. It is not TensorFlow's SAME for even windows, nor at strides above 1.
        'causal' pads ``(kernel_size - 1) * dilation_rate`` steps in front. Kernel rows that meet padding of zeros do
        nothing, whatever they hold.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, optional
        What padding holds, by PyTorch's names. 'zeros': zeros, which are in no sum. All others fill a padded copy of
        the input with elements of the input, which are in the sums like any element: 'reflect' mirrors the input at its
        outermost elements without repeating them, 'replicate' repeats the outermost elements, and 'circular' continues
        at the other end. Along every axis padding must be less than the size of the input with 'reflect', and at most
        that size with 'circular'.
    dilation_rate : int or sequence of 1 int, optional
        Steps from one tap to the next.
    groups : int, optional
        Divides channels and filters.
    normalize : bool, optional
        Divide every result by the sum of its kernel's taps that lie inside the input, as is wanted of a blur: what it
        loses at the border is made up for. With another padding_mode than 'zeros' these are all taps. Where the sum is
        0 the result is that of NumPy's division, inf or nan, without a warning. There is no bias then.
    bias : array_like, optional
        Added to the sums: (filters,), or (positions, filters) as Keras stores it. With channels_first Keras *reshapes*
        the latter to (filters, positions) instead of transposing it, and so does this.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape (batch, positions, filters), or (batch, filters, positions) with channels_first; `out` if given. Of the
        dtype that NumPy promotes the arrays to, a `QuantizedKernel` being float32.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument. Also where Keras
        reinterprets or truncates: a kernel of too few positions or of other rows, an input longer than the kernel
        covers.

    See Also
    --------
    conv1d : the same with one kernel for all positions.

    Notes
    -----
    Floats are float16, float32, float64 and, where ml_dtypes is installed, bfloat16. What has no float64 is summed in
    float32 and rounded once; a kernel of 16 or 8 bits is read as it is, never copied to float32, and gives the same
    bits as its float32 copy would.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.ones((1, 10, 4), np.float32)
    >>> kernel = np.ones((8, 3 * 4, 2), np.float32)
    >>> localconv.local_conv1d(x, kernel, 3, 1, 'channels_last').shape
    (1, 8, 2)
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, None, padding_mode)
    return engine.forward_or_normalized(spec, inputs, kernel, bias, normalize, out, LOCAL_NAMES)


@whole(local_conv1d)
def local_conv2d(
    inputs: ArrayLike,
    kernel: KernelLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
    normalize: bool = False,
    bias: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """2D convolution with a kernel of its own at every output position (unshared, locally connected).

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``.
    kernel : array_like of floats, QuantizedKernel or KernelBank
        Shape (positions, kh * kw * channels / groups, filters), positions in C order. Row
        ``(i * kw + j) * channels + c`` of a position belongs to tap (i, j) and channel c; with channels_first row
        ``(c * kh + i) * kw + j``. With `groups` the rows run over one group's channels, and the filters are cut into
        groups of equal size, as in grouped convolution.
    kernel_size : int or sequence of 2 ints
        (kh, kw), the taps of the window.
    strides : int or sequence of 2 ints, optional
        Pixels along every axis from one window to the next.
    output_shape : sequence of 2 ints, optional
        The output's size along every axis. Keras needs it; here it is only checked.
    data_format, padding, padding_mode, dilation_rate, groups, normalize
        As in `local_conv1d`.
    bias : array_like, optional
        Added to the sums: (filters,), or output_shape + (filters,) as Keras stores it; with channels_first the latter
        is *reshaped* to (filters,) + output_shape, as Keras does.
    out
        As in `local_conv1d`.

    Returns
    -------
    ndarray
        Shape (batch,) + output_shape + (filters,), or (batch, filters) + output_shape with channels_first; `out` if
        given. Of the dtype that NumPy promotes the arrays to, a `QuantizedKernel` being float32.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    See Also
    --------
    conv2d : the same with one kernel for all positions.

    Notes
    -----
    As in `local_conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.ones((1, 5, 6, 3), np.float32)
    >>> kernel = np.ones((3 * 4, 3 * 3 * 3, 2), np.float32)
    >>> localconv.local_conv2d(x, kernel, (3, 3), (1, 1), (3, 4), 'channels_last')[0, 0, 0]
    array([27., 27.], dtype=float32)
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    return engine.forward_or_normalized(spec, inputs, kernel, bias, normalize, out, LOCAL_NAMES)


@docstring_from_2d(
    local_conv2d,
    """
    >>> import numpy as np, localconv
    >>> x = np.ones((1, 4, 5, 6, 2), np.float32)
    >>> kernel = np.ones((2 * 3 * 4, 3 * 3 * 3 * 2, 2), np.float32)
    >>> localconv.local_conv3d(x, kernel, 3, data_format='channels_last')[0, 0, 0, 0]
    array([54., 54.], dtype=float32)
    """,
)
def local_conv3d(
    inputs: ArrayLike,
    kernel: KernelLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
    normalize: bool = False,
    bias: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    return engine.forward_or_normalized(spec, inputs, kernel, bias, normalize, out, LOCAL_NAMES)


@whole(local_conv1d)
def conv1d(
    x: ArrayLike,
    kernel: KernelLike,
    strides: IntOrInts = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = 1,
    *,
    groups: int = 1,
    bias: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """1D convolution (in the sense of neural networks: the kernel is not flipped).

    Parameters
    ----------
    x : array_like of floats
        Shape (..., steps, channels), or (..., channels, steps) with ``data_format='channels_first'``; at least one
        batch axis.
    kernel : array_like of floats, or QuantizedKernel
        Shape (kernel_size, channels / groups, filters), for both data formats.
    strides : int or sequence of 1 int, optional
        Steps from one window to the next.
    padding : {'valid', 'same', 'causal'} or ((before, after),), optional
        'same' is TensorFlow's SAME: ceil(steps / strides) outputs, the odd element of padding behind. 'causal' pads
        ``(kernel_size - 1) * dilation_rate`` steps in front.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.
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
        Shape (..., positions, filters), or (..., filters, positions) with channels_first; `out` if given. Of the dtype
        that NumPy promotes the arrays to, a `QuantizedKernel` being float32.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    Notes
    -----
    As in `local_conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    >>> kernel = np.array([1, 0, -1], np.float32).reshape(3, 1, 1)
    >>> localconv.conv1d(x, kernel, data_format='channels_last').ravel()
    array([-2., -2., -2.], dtype=float32)
    """
    spec = conv_spec(1, strides, padding, data_format, dilation_rate, groups)
    return engine.forward(spec, x, kernel, bias, out, False, SHARED_NAMES)


@whole(conv1d, local_conv1d)
def conv2d(
    x: ArrayLike,
    kernel: KernelLike,
    strides: IntOrInts = (1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1),
    *,
    groups: int = 1,
    bias: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """2D convolution (in the sense of neural networks: the kernel is not flipped).

    Parameters
    ----------
    x : array_like of floats
        Shape (..., rows, columns, channels), or (..., channels, rows, columns) with ``data_format='channels_first'``.
    kernel : array_like of floats, or QuantizedKernel
        Shape (kh, kw, channels / groups, filters), for both data formats.
    strides, padding, data_format, dilation_rate, groups, bias, out
        As in `conv1d`.

    Returns
    -------
    ndarray
        Shape (..., rows, columns, filters), or (..., filters, rows, columns) with channels_first; `out` if given. Of
        the dtype that NumPy promotes the arrays to, a `QuantizedKernel` being float32.

    Raises
    ------
    TypeError, ValueError
        As `conv1d`.

    Notes
    -----
    As in `local_conv1d`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> x = np.ones((2, 6, 5, 3), np.float32)
    >>> kernel = np.ones((3, 3, 3, 4), np.float32)
    >>> localconv.conv2d(x, kernel, padding='same', data_format='channels_last').shape
    (2, 6, 5, 4)
    """
    spec = conv_spec(2, strides, padding, data_format, dilation_rate, groups)
    return engine.forward(spec, x, kernel, bias, out, False, SHARED_NAMES)


@docstring_from_2d(
    conv2d,
    """
    >>> import numpy as np, localconv
    >>> x = np.ones((2, 4, 6, 5, 3), np.float32)
    >>> kernel = np.ones((3, 3, 3, 3, 4), np.float32)
    >>> localconv.conv3d(x, kernel, padding='same', data_format='channels_last').shape
    (2, 4, 6, 5, 4)
    """,
)
def conv3d(
    x: ArrayLike,
    kernel: KernelLike,
    strides: IntOrInts = (1, 1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1, 1),
    *,
    groups: int = 1,
    bias: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    spec = conv_spec(3, strides, padding, data_format, dilation_rate, groups)
    return engine.forward(spec, x, kernel, bias, out, False, SHARED_NAMES)


@whole(local_conv1d)
def local_conv1d_transpose(
    inputs: ArrayLike,
    kernel: KernelLike,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    output_shape: Sequence[int | None],
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Transposed 1D convolution with a kernel of its own at every position: the adjoint of `local_conv1d`.

    Every position of the input is spread over a window of the output, each with its own filters; where windows overlap
    they add up. `kernel_size`, `strides`, `padding`, `dilation_rate` and `groups` are those of that `local_conv1d`,
    whose input is the output here. Padding is 'zeros': `localconv.grad.local_conv1d_input` is the adjoint for every
    `padding_mode`.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, positions, channels), or (batch, channels, positions) with ``data_format='channels_first'``.
    kernel : array_like of floats, QuantizedKernel or KernelBank
        That of the `local_conv1d` which maps the output's shape to the input's: (positions, kernel_size * filters /
        groups, channels), where `filters` are the channels of the output.
    kernel_size, strides, padding, dilation_rate, groups
        As in `local_conv1d`.
    output_shape : sequence of 3 ints
        Shape of the result, (batch, steps, filters) or (batch, filters, steps); None for the batch takes that of
        `inputs`. Several lengths have the same number of positions, which is why it must be said.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    See Also
    --------
    localconv.grad.local_conv1d_input : the same, as the gradient of `local_conv1d`; takes `padding_mode`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> kernel = np.arange(6.0).reshape(3, 2, 1)
    >>> localconv.local_conv1d_transpose(np.ones((1, 3, 1)), kernel, 2, 1, (1, 4, 1), 'channels_last').ravel()
    array([0., 3., 7., 5.])
    """
    x = as_float_array(inputs, "inputs")
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return engine.grad_input(spec, _full_shape(output_shape, x, 1, "inputs"), kernel, x, out, LOCAL_TRANSPOSE_NAMES)


@whole(local_conv1d, local_conv2d, local_conv1d_transpose)
def local_conv2d_transpose(
    inputs: ArrayLike,
    kernel: KernelLike,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    output_shape: Sequence[int | None],
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Transposed 2D convolution with a kernel of its own at every position: the adjoint of `local_conv2d`.

    Every position of the input is spread over a window of the output, each with its own filters; where windows overlap
    they add up. `kernel_size`, `strides`, `padding`, `dilation_rate` and `groups` are those of that `local_conv2d`,
    whose input is the output here. Padding is 'zeros': `localconv.grad.local_conv2d_input` is the adjoint for every
    `padding_mode`.

    Parameters
    ----------
    inputs : array_like of floats
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``.
    kernel : array_like of floats, QuantizedKernel or KernelBank
        That of the `local_conv2d` which maps the output's shape to the input's: (positions, kh * kw * filters / groups,
        channels), where `filters` are the channels of the output.
    kernel_size, strides, padding, dilation_rate, groups
        As in `local_conv2d`.
    output_shape : sequence of 4 ints
        Shape of the result, batch included; None for the batch takes that of `inputs`. Several sizes have the same
        number of positions, which is why it must be said.
    data_format, out
        As in `local_conv1d_transpose`.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    See Also
    --------
    localconv.grad.local_conv2d_input : the same, as the gradient of `local_conv2d`; takes `padding_mode`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> kernel = np.ones((4, 2 * 2, 1))
    >>> inputs = np.ones((1, 2, 2, 1))
    >>> localconv.local_conv2d_transpose(inputs, kernel, 2, 1, (None, 3, 3, 1), 'channels_last')[0, :, :, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    x = as_float_array(inputs, "inputs")
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return engine.grad_input(spec, _full_shape(output_shape, x, 2, "inputs"), kernel, x, out, LOCAL_TRANSPOSE_NAMES)


@docstring_from_2d(
    local_conv2d_transpose,
    """
    >>> import numpy as np, localconv
    >>> kernel, inputs = np.ones((2, 2 * 2 * 2, 1)), np.ones((1, 2, 1, 1, 1))
    >>> localconv.local_conv3d_transpose(inputs, kernel, 2, 1, (None, 3, 2, 2, 1), 'channels_last')[0, :, 0, 0, 0]
    array([1., 2., 1.])
    """,
)
def local_conv3d_transpose(
    inputs: ArrayLike,
    kernel: KernelLike,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    output_shape: Sequence[int | None],
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    x = as_float_array(inputs, "inputs")
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return engine.grad_input(spec, _full_shape(output_shape, x, 3, "inputs"), kernel, x, out, LOCAL_TRANSPOSE_NAMES)


@whole(conv1d)
def conv1d_transpose(
    x: ArrayLike,
    kernel: KernelLike,
    output_shape: Sequence[int | None],
    strides: IntOrInts = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = 1,
    *,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Transposed 1D convolution ("deconvolution"): the adjoint of `conv1d`.

    `strides`, `padding`, `dilation_rate` and `groups` are those of that `conv1d`, whose input is the output here.

    Parameters
    ----------
    x : array_like of floats
        Shape (..., positions, channels), or (..., channels, positions) with ``data_format='channels_first'``.
    kernel : array_like of floats, or QuantizedKernel
        That of the `conv1d` which maps the output's shape to the input's: (kernel_size, filters / groups, channels),
        where `filters` are the channels of the output.
    output_shape : sequence of ints
        Shape of the result, batch included; None for the first entry takes that of `x`. Several lengths have the same
        number of positions, which is why it must be said.
    strides, padding, dilation_rate, groups
        As in `conv1d`.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

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
    >>> x = np.ones((1, 2, 1))
    >>> localconv.conv1d_transpose(x, kernel, (1, 5, 1), strides=2, data_format='channels_last').ravel()
    array([1., 2., 4., 2., 3.])
    """
    array = as_float_array(x, "x")
    spec = conv_spec(1, strides, padding, data_format, dilation_rate, groups)
    return engine.grad_input(spec, _full_shape(output_shape, array, 1, "x"), kernel, array, out, SHARED_TRANSPOSE_NAMES)


@whole(conv1d, conv2d, conv1d_transpose)
def conv2d_transpose(
    x: ArrayLike,
    kernel: KernelLike,
    output_shape: Sequence[int | None],
    strides: IntOrInts = (1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1),
    *,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Transposed 2D convolution ("deconvolution"): the adjoint of `conv2d`, and ``K.conv2d_transpose``.

    `strides`, `padding`, `dilation_rate` and `groups` are those of that `conv2d`, whose input is the output here.

    Parameters
    ----------
    x : array_like of floats
        Shape (..., rows, columns, channels), or (..., channels, rows, columns) with ``data_format='channels_first'``.
    kernel : array_like of floats, or QuantizedKernel
        Shape (kh, kw, filters / groups, channels), where `filters` are the channels of the output.
    output_shape : sequence of ints
        Shape of the result, batch included; None for the first entry takes that of `x`. Several sizes have the same
        number of positions, which is why it must be said.
    strides, padding, data_format, dilation_rate, groups
        As in `conv2d`.
    out
        As in `conv1d_transpose`.

    Returns
    -------
    ndarray
        Shape `output_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

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
    spec = conv_spec(2, strides, padding, data_format, dilation_rate, groups)
    return engine.grad_input(spec, _full_shape(output_shape, array, 2, "x"), kernel, array, out, SHARED_TRANSPOSE_NAMES)


@docstring_from_2d(
    conv2d_transpose,
    """
    >>> import numpy as np, localconv
    >>> x, kernel = np.ones((2, 3, 3, 3, 8), np.float32), np.ones((3, 3, 3, 4, 8), np.float32)
    >>> localconv.conv3d_transpose(x, kernel, (None, 6, 6, 6, 4), 2, 'same', 'channels_last').shape
    (2, 6, 6, 6, 4)
    """,
)
def conv3d_transpose(
    x: ArrayLike,
    kernel: KernelLike,
    output_shape: Sequence[int | None],
    strides: IntOrInts = (1, 1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1, 1),
    *,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    array = as_float_array(x, "x")
    spec = conv_spec(3, strides, padding, data_format, dilation_rate, groups)
    return engine.grad_input(spec, _full_shape(output_shape, array, 3, "x"), kernel, array, out, SHARED_TRANSPOSE_NAMES)


@whole(conv1d)
def im2col(
    x: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Every window of the input as a row.

    Parameters
    ----------
    x : array_like of floats
        Shape (batch, steps, channels), (batch, rows, columns, channels) or (batch, depths, rows, columns, channels);
        channels in front of the spatial axes with ``data_format='channels_first'``.
    kernel_size : int or sequence of ints
        Taps of the window.
    strides, padding, data_format, dilation_rate
        As in `conv1d`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with `x`.

    Returns
    -------
    ndarray
        Shape (batch, positions, prod(kernel_size) * channels); rows in the order of a locally connected kernel: taps
        outside and channels inside for channels_last, channels outside for channels_first. Taps that meet padding are
        0. `out` if given.

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
    spec = column_spec(_column_rank(array.shape, "x"), kernel_size, strides, padding, data_format, dilation_rate)
    return engine.im2col(spec, array, out, COLUMN_NAMES)


@whole(conv1d, im2col)
def col2im(
    cols: ArrayLike,
    input_shape: Sequence[int],
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = 1,
    *,
    out: Array | None = None,
) -> Array:
    """Add rows of windows back into an input: the adjoint of `im2col`.

    Parameters
    ----------
    cols : array_like of floats
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
        Shape `input_shape`; every element is the sum of the window elements that were taken from it. `out` if given.

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
    spec = column_spec(_column_rank(shape, "input_shape"), kernel_size, strides, padding, data_format, dilation_rate)
    return engine.col2im(spec, array, shape, out, WINDOW_NAMES)


def _full_shape(shape: Sequence[int | None], x: Array, rank: int, name: str) -> Ints:
    """The output_shape of a transposed convolution: ints, the first of them from `x` if it is None."""
    if isinstance(shape, (list, tuple)) and shape and shape[0] is None:
        if x.ndim < rank + 2:
            raise ValueError(
                f"{name} must have {rank + 2} axes, batch included, got shape {x.shape}{one_image(x.shape)}"
            )
        shape = (x.shape[0], *shape[1:])
    return ints(shape, None, "output_shape", minimum=0)  # type: ignore[arg-type]  # a None elsewhere is refused there


def _column_rank(shape: Ints, name: str) -> int:
    """The spatial axes of an input of im2col."""
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"{name} must have 3 to 5 axes, got {'' if name == 'input_shape' else 'shape '}{shape}")
    return len(shape) - 2
