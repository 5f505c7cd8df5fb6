"""Gradients of the convolutions for their input and for their kernel, and of the filters that come with the data.

Named after ``torch.nn.grad``: ``conv2d_input`` and ``conv2d_kernel`` are the two gradients of `localconv.conv2d`, and
so on. Each takes the arguments of the forward function behind its first three. With L = sum(forward(x, kernel) *
grad_output), the functions ending in ``_input`` return dL/dx and those ending in ``_kernel`` dL/dkernel; `bias` returns
dL/dbias for all four. Those of `localconv.local_filter2d` and `localconv.local_correlation2d` end in what they are for:
``_input``, ``_filters`` and ``_queries``.

The gradients for the input are the transposed convolutions: `localconv.conv2d_transpose` and its kin are the same
computation under the names and with the arguments of Keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from . import backend, filters
from .core import engine
from .core.arguments import IntOrInts, Ints, PaddingLike, ints
from .core.arrays import Array, KernelLike, as_float_array
from .core.bank import KernelBank
from .core.geometry import Names
from .core.spec import Spec, conv_spec, filter_spec, local_spec
from .docstrings import docstring_from_2d, whole
from .hints import MissingName

__all__ = [
    "bias",
    "conv1d_input",
    "conv1d_kernel",
    "conv2d_input",
    "conv2d_kernel",
    "conv3d_input",
    "conv3d_kernel",
    "local_conv1d_bank",
    "local_conv1d_input",
    "local_conv1d_kernel",
    "local_conv2d_bank",
    "local_conv2d_input",
    "local_conv2d_kernel",
    "local_conv3d_bank",
    "local_conv3d_input",
    "local_conv3d_kernel",
    "local_correlation1d_input",
    "local_correlation1d_queries",
    "local_correlation2d_input",
    "local_correlation2d_queries",
    "local_correlation3d_input",
    "local_correlation3d_queries",
    "local_filter1d_filters",
    "local_filter1d_input",
    "local_filter2d_filters",
    "local_filter2d_input",
    "local_filter3d_filters",
    "local_filter3d_input",
]


def __dir__() -> list[str]:
    return list(__all__)


if not TYPE_CHECKING:  # for type checkers a module with this function has every name

    def __getattr__(name: str) -> Any:
        raise MissingName(__name__, name)


# What the arguments are called that errors speak of.
FOR_INPUT = Names("input_shape", "kernel")
FOR_LOCAL_KERNEL = Names("inputs", "kernel_shape")
FOR_BANK = Names("inputs", "bank")
FOR_SHARED_KERNEL = Names("x", "kernel_shape")
FOR_FILTER_INPUT = Names("input_shape", "filters")
FOR_FILTERS = Names("inputs", "filters_shape")
FOR_CORRELATION_INPUT = Names("input_shape", "grad_output", "queries", "a result of local_filter")
FOR_QUERIES = Names("inputs", "grad_output", "queries_shape", "a result of local_filter")


@whole(backend.local_conv1d)
def local_conv1d_input(
    input_shape: Sequence[int],
    kernel: KernelLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_conv1d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of 3 ints
        Shape of the input: (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    kernel : array_like of floats, QuantizedKernel or KernelBank
        The kernel of the forward call, (positions, kernel_size * channels / groups, filters). Rows that meet padding of
        zeros do nothing, whatever they hold.
    grad_output : array_like of floats
        Gradient for the forward result, of its shape: (batch, positions, filters), or (batch, filters, positions).
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv1d`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    Notes
    -----
    Every input value is the sum, over the positions whose windows hold it, of its kernel row times that position's
    `grad_output`; the order of the sum depends neither on the number of threads nor on how work is cut.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> kernel, grad_output = np.ones((8, 3 * 4, 2), np.float32), np.ones((1, 8, 2), np.float32)
    >>> localconv.grad.local_conv1d_input((1, 10, 4), kernel, grad_output, 3, 1, 'channels_last')[0, :, 0]
    array([2., 4., 6., 6., 6., 6., 6., 6., 4., 2.], dtype=float32)
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, None, padding_mode)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, kernel, grad_output, out, FOR_INPUT)


@whole(backend.local_conv1d, local_conv1d_input)
def local_conv1d_kernel(
    inputs: ArrayLike,
    kernel_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Gradient of `localconv.local_conv1d` for its kernel.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, steps, channels) or (batch, channels, steps).
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (positions, kernel_size * channels / groups, filters).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape: (batch, positions, filters), or (batch, filters, positions).
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv1d`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.
    accumulate : bool, optional
        Add the gradient to what `out` holds, which must be given then.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given. float64 if an array is, else float32; an `out` of 16 bits is
        rounded into once. Rows that meet padding of zeros are 0 (with `accumulate`: unchanged).

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((5, 10, 4), np.float32), np.ones((5, 8, 2), np.float32)
    >>> localconv.grad.local_conv1d_kernel(x, (8, 3 * 4, 2), grad_output, 3, 1, 'channels_last')[0, 0]
    array([5., 5.], dtype=float32)
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, None, padding_mode)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return engine.grad_kernel(spec, inputs, shape, grad_output, out, accumulate, FOR_LOCAL_KERNEL)


@whole(backend.local_conv2d, local_conv1d_input)
def local_conv2d_input(
    input_shape: Sequence[int],
    kernel: KernelLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_conv2d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of 4 ints
        Shape of the input: (batch, rows, columns, channels), or (batch, channels, rows, columns).
    kernel : array_like of floats, QuantizedKernel or KernelBank
        The kernel of the forward call, (positions, kh * kw * channels / groups, filters).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    output_shape : sequence of 2 ints, optional
        The forward result's size along every axis, to be checked.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv2d`.
    out
        As in `local_conv1d_input`.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> kernel, grad_output = np.ones((3 * 4, 3 * 3 * 3, 2), np.float32), np.ones((1, 3, 4, 2), np.float32)
    >>> localconv.grad.local_conv2d_input((1, 5, 6, 3), kernel, grad_output, 3, 1, (3, 4), 'channels_last')[0, 0, :, 0]
    array([2., 4., 6., 6., 4., 2.], dtype=float32)
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, kernel, grad_output, out, FOR_INPUT)


@docstring_from_2d(
    local_conv2d_input,
    """
    >>> import numpy as np, localconv.grad
    >>> kernel, grad_output = np.ones((4, 3 * 3 * 3 * 3, 2), np.float32), np.ones((1, 1, 1, 4, 2), np.float32)
    >>> shape = (1, 3, 3, 6, 3)
    >>> localconv.grad.local_conv3d_input(shape, kernel, grad_output, 3, data_format='channels_last')[0, 0, 0, :, 0]
    array([2., 4., 6., 6., 4., 2.], dtype=float32)
    """,
)
def local_conv3d_input(
    input_shape: Sequence[int],
    kernel: KernelLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, kernel, grad_output, out, FOR_INPUT)


@whole(backend.local_conv2d, local_conv1d_input, local_conv1d_kernel)
def local_conv2d_kernel(
    inputs: ArrayLike,
    kernel_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Gradient of `localconv.local_conv2d` for its kernel.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, rows, columns, channels) or (batch, channels, rows, columns).
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (positions, kh * kw * channels / groups, filters).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    output_shape : sequence of 2 ints, optional
        The forward result's size along every axis, to be checked.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv2d`.
    out, accumulate
        As in `local_conv1d_kernel`.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given. float64 if an array is, else float32; an `out` of 16 bits is
        rounded into once. Rows that meet padding of zeros are 0 (with `accumulate`: unchanged).

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((5, 5, 6, 3), np.float32), np.ones((5, 3, 4, 2), np.float32)
    >>> localconv.grad.local_conv2d_kernel(x, (3 * 4, 3 * 3 * 3, 2), grad_output, 3, 1, (3, 4), 'channels_last').shape
    (12, 27, 2)
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return engine.grad_kernel(spec, inputs, shape, grad_output, out, accumulate, FOR_LOCAL_KERNEL)


@docstring_from_2d(
    local_conv2d_kernel,
    """
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((5, 3, 3, 6, 3), np.float32), np.ones((5, 1, 1, 4, 2), np.float32)
    >>> shape = (4, 3 * 3 * 3 * 3, 2)
    >>> localconv.grad.local_conv3d_kernel(x, shape, grad_output, 3, data_format='channels_last').shape
    (4, 81, 2)
    """,
)
def local_conv3d_kernel(
    inputs: ArrayLike,
    kernel_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return engine.grad_kernel(spec, inputs, shape, grad_output, out, accumulate, FOR_LOCAL_KERNEL)


@whole(filters.local_filter1d)
def local_filter1d_input(
    input_shape: Sequence[int],
    filters: ArrayLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_filter1d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of 3 ints
        Shape of the input, (batch, steps, channels) or (batch, channels, steps).
    filters : array_like of floats
        The filters of the forward call,
        (batch, positions, groups * kernel_size) or (batch, groups * kernel_size, positions).
        Of batch 1: for all images.
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_filter1d`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to. Steps that no window holds
        are 0.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    Notes
    -----
    Every input value is the sum over the windows that hold it; its order depends neither on the number of threads
    nor on how work is cut.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> filters, grad_output = np.ones((1, 4, 3)), np.ones((1, 4, 2))
    >>> localconv.grad.local_filter1d_input((1, 6, 2), filters, grad_output, 3, 1, 'channels_last')[0, :, 0]
    array([1., 2., 3., 3., 2., 1.])
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, filters, grad_output, out, FOR_FILTER_INPUT)


@whole(filters.local_filter2d, local_filter1d_input)
def local_filter2d_input(
    input_shape: Sequence[int],
    filters: ArrayLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_filter2d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of 4 ints
        Shape of the input, (batch, rows, columns, channels) or (batch, channels, rows, columns).
    filters : array_like of floats
        The filters of the forward call,
        (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns).
        Of batch 1: for all images.
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_filter2d`.
    out
        As in `local_filter1d_input`.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to. Pixels that no window holds
        are 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> filters, grad_output = np.ones((1, 3, 4, 9), np.float32), np.ones((1, 3, 4, 2), np.float32)
    >>> localconv.grad.local_filter2d_input((1, 5, 6, 2), filters, grad_output, 3, 1, 'channels_last')[0, 2, :, 0]
    array([3., 6., 9., 9., 6., 3.], dtype=float32)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, filters, grad_output, out, FOR_FILTER_INPUT)


@docstring_from_2d(
    local_filter2d_input,
    """
    >>> import numpy as np, localconv.grad
    >>> filters, grad_output = np.ones((1, 1, 3, 4, 27), np.float32), np.ones((1, 1, 3, 4, 2), np.float32)
    >>> shape = (1, 3, 5, 6, 2)
    >>> localconv.grad.local_filter3d_input(shape, filters, grad_output, 3, 1, 'channels_last')[0, 0, 2, :, 0]
    array([3., 6., 9., 9., 6., 3.], dtype=float32)
    """,
)
def local_filter3d_input(
    input_shape: Sequence[int],
    filters: ArrayLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    spec = filter_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, filters, grad_output, out, FOR_FILTER_INPUT)


@whole(filters.local_filter1d, local_filter1d_input)
def local_filter1d_filters(
    inputs: ArrayLike,
    filters_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Gradient of `localconv.local_filter1d` for its filters.

    It is `localconv.local_correlation1d`, of one image or of all. Strides, padding and the like are those of the
    forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, steps, channels) or (batch, channels, steps).
    filters_shape : sequence of 3 ints
        Shape of the filters, (batch, positions, groups * kernel_size) or (batch, groups * kernel_size, positions).
        Of batch 1: the gradient is summed over the images.
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_filter1d`.
    out
        As in `local_filter1d_input`.
    accumulate : bool, optional
        Add the gradient to what `out` holds, which must be given then.

    Returns
    -------
    ndarray
        Shape `filters_shape`; `out` if given. float64 if an array is, else float32; an `out` of 16 bits is
        rounded into once. Taps that meet padding of zeros have 0 (with `accumulate`: unchanged).

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((5, 6, 2), np.float32), np.ones((5, 4, 2), np.float32)
    >>> localconv.grad.local_filter1d_filters(x, (5, 4, 3), grad_output, 3, 1, 'channels_last')[0, 0]
    array([2., 2., 2.], dtype=float32)
    >>> localconv.grad.local_filter1d_filters(x, (1, 4, 3), grad_output, 3, 1, 'channels_last')[0, 0]
    array([10., 10., 10.], dtype=float32)
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    shape = ints(filters_shape, None, "filters_shape", minimum=0)
    return engine.grad_kernel(spec, inputs, shape, grad_output, out, accumulate, FOR_FILTERS)


@whole(filters.local_filter2d, local_filter1d_input, local_filter1d_filters)
def local_filter2d_filters(
    inputs: ArrayLike,
    filters_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Gradient of `localconv.local_filter2d` for its filters.

    It is `localconv.local_correlation2d`, of one image or of all. Strides, padding and the like are those of the
    forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, rows, columns, channels) or (batch, channels, rows, columns).
    filters_shape : sequence of 4 ints
        Shape of the filters,
        (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns).
        Of batch 1: the gradient is summed over the images.
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_filter2d`.
    out, accumulate
        As in `local_filter1d_filters`.

    Returns
    -------
    ndarray
        Shape `filters_shape`; `out` if given. float64 if an array is, else float32; an `out` of 16 bits is
        rounded into once. Taps that meet padding of zeros have 0 (with `accumulate`: unchanged).

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((5, 5, 6, 4), np.float32), np.ones((5, 3, 4, 4), np.float32)
    >>> shape = (1, 3, 4, 2 * 3 * 3)
    >>> localconv.grad.local_filter2d_filters(x, shape, grad_output, 3, 1, 'channels_last', groups=2)[0, 0, 0, :3]
    array([10., 10., 10.], dtype=float32)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    shape = ints(filters_shape, None, "filters_shape", minimum=0)
    return engine.grad_kernel(spec, inputs, shape, grad_output, out, accumulate, FOR_FILTERS)


@docstring_from_2d(
    local_filter2d_filters,
    """
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((5, 3, 5, 6, 4), np.float32), np.ones((5, 1, 3, 4, 4), np.float32)
    >>> shape = (5, 1, 3, 4, 27)
    >>> localconv.grad.local_filter3d_filters(x, shape, grad_output, 3, 1, 'channels_last')[0, 0, 0, 0, :3]
    array([4., 4., 4.], dtype=float32)
    """,
)
def local_filter3d_filters(
    inputs: ArrayLike,
    filters_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    spec = filter_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    shape = ints(filters_shape, None, "filters_shape", minimum=0)
    return engine.grad_kernel(spec, inputs, shape, grad_output, out, accumulate, FOR_FILTERS)


@whole(filters.local_filter1d, local_filter1d_input)
def local_correlation1d_input(
    input_shape: Sequence[int],
    queries: ArrayLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_correlation1d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of 3 ints
        Shape of the input, (batch, steps, channels) or (batch, channels, steps).
    queries : array_like of floats
        The queries of the forward call, (batch, positions, channels) or (batch, channels, positions).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in `localconv.local_filter1d`.
    out
        As in `local_filter1d_input`.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to. Steps that no window holds
        are 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> queries, grad_output = np.ones((1, 4, 2)), np.ones((1, 4, 3))
    >>> localconv.grad.local_correlation1d_input((1, 6, 2), queries, grad_output, 3, 1, 'channels_last')[0, :, 0]
    array([1., 2., 3., 3., 2., 1.])
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return _correlation_input(spec, shape, queries, grad_output, out)


@whole(filters.local_filter2d, local_filter1d_input)
def local_correlation2d_input(
    input_shape: Sequence[int],
    queries: ArrayLike,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_correlation2d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of 4 ints
        Shape of the input, (batch, rows, columns, channels) or (batch, channels, rows, columns).
    queries : array_like of floats
        The queries of the forward call,
        (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in `localconv.local_filter2d`.
    out
        As in `local_filter1d_input`.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to. Pixels that no window holds
        are 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> queries, grad_output = np.ones((1, 3, 4, 2), np.float32), np.ones((1, 3, 4, 9), np.float32)
    >>> shape = (1, 5, 6, 2)
    >>> localconv.grad.local_correlation2d_input(shape, queries, grad_output, 3, 1, 'channels_last')[0, 2, :, 0]
    array([3., 6., 9., 9., 6., 3.], dtype=float32)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return _correlation_input(spec, shape, queries, grad_output, out)


@docstring_from_2d(
    local_correlation2d_input,
    """
    >>> import numpy as np, localconv.grad
    >>> queries, grad_output = np.ones((1, 1, 3, 4, 2), np.float32), np.ones((1, 1, 3, 4, 27), np.float32)
    >>> shape = (1, 3, 5, 6, 2)
    >>> localconv.grad.local_correlation3d_input(shape, queries, grad_output, 3, 1, 'channels_last')[0, 0, 2, :, 0]
    array([3., 6., 9., 9., 6., 3.], dtype=float32)
    """,
)
def local_correlation3d_input(
    input_shape: Sequence[int],
    queries: ArrayLike,
    grad_output: ArrayLike,
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
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return _correlation_input(spec, shape, queries, grad_output, out)


@whole(filters.local_filter1d, local_filter1d_input)
def local_correlation1d_queries(
    inputs: ArrayLike,
    queries_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_correlation1d` for its queries.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, steps, channels) or (batch, channels, steps).
    queries_shape : sequence of 3 ints
        Shape of the queries, (batch, positions, channels) or (batch, channels, positions).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in `localconv.local_filter1d`.
    out
        As in `local_filter1d_input`.

    Returns
    -------
    ndarray
        Shape `queries_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((1, 6, 2)), np.ones((1, 4, 3))
    >>> localconv.grad.local_correlation1d_queries(x, (1, 4, 2), grad_output, 3, 1, 'channels_last')[0, :, 0]
    array([3., 3., 3., 3.])
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    shape = ints(queries_shape, None, "queries_shape", minimum=0)
    return _correlation_queries(spec, inputs, shape, grad_output, out)


@whole(filters.local_filter2d, local_filter1d_input)
def local_correlation2d_queries(
    inputs: ArrayLike,
    queries_shape: Sequence[int],
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.local_correlation2d` for its queries.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, rows, columns, channels) or (batch, channels, rows, columns).
    queries_shape : sequence of 4 ints
        Shape of the queries,
        (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in `localconv.local_filter2d`.
    out
        As in `local_filter1d_input`.

    Returns
    -------
    ndarray
        Shape `queries_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((1, 5, 6, 2), np.float32), np.ones((1, 3, 4, 9), np.float32)
    >>> localconv.grad.local_correlation2d_queries(x, (1, 3, 4, 2), grad_output, 3, 1, 'channels_last')[0, 0, :, 0]
    array([9., 9., 9., 9.], dtype=float32)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups)
    shape = ints(queries_shape, None, "queries_shape", minimum=0)
    return _correlation_queries(spec, inputs, shape, grad_output, out)


@docstring_from_2d(
    local_correlation2d_queries,
    """
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((1, 3, 5, 6, 2), np.float32), np.ones((1, 1, 3, 4, 27), np.float32)
    >>> shape = (1, 1, 3, 4, 2)
    >>> localconv.grad.local_correlation3d_queries(x, shape, grad_output, 3, 1, 'channels_last')[0, 0, 0, :, 0]
    array([27., 27., 27., 27.], dtype=float32)
    """,
)
def local_correlation3d_queries(
    inputs: ArrayLike,
    queries_shape: Sequence[int],
    grad_output: ArrayLike,
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
    shape = ints(queries_shape, None, "queries_shape", minimum=0)
    return _correlation_queries(spec, inputs, shape, grad_output, out)


def _correlation_input(spec: Spec, shape: Ints, queries: ArrayLike, grad_output: ArrayLike, out: Array | None) -> Array:
    """The gradient of a correlation for its input: its own gradient takes the part of the filters."""
    gradient = _of_correlation(spec, shape, grad_output, FOR_CORRELATION_INPUT)
    return engine.grad_input(spec, shape, gradient, queries, out, FOR_CORRELATION_INPUT)


def _correlation_queries(
    spec: Spec, inputs: ArrayLike, shape: Ints, grad_output: ArrayLike, out: Array | None
) -> Array:
    """The gradient of a correlation for its queries: filters that are its own gradient."""
    x = as_float_array(inputs, "inputs")
    gradient = _of_correlation(spec, x.shape, grad_output, FOR_QUERIES)
    expected, _ = engine.shapes_of_correlation(spec, x.shape, FOR_QUERIES)
    engine.check_gradient(shape, expected, FOR_QUERIES)
    return engine.forward(spec, x, gradient, None, out, False, FOR_QUERIES)


def _of_correlation(spec: Spec, x_shape: Ints, grad_output: ArrayLike, names: Names) -> Array:
    """A gradient for a correlation. ValueError unless it has the shape of that, which has filters for every image."""
    gradient = as_float_array(grad_output, names.kernel)
    _, expected = engine.shapes_of_correlation(spec, x_shape, names)
    if gradient.shape != expected:
        raise ValueError(
            f"{names.kernel} must have the shape of the correlation, with groups * prod(kernel_size) values for each "
            f"position, {expected}, got {gradient.shape}"
        )
    return gradient


@whole(backend.local_conv1d, local_conv1d_input)
def local_conv1d_bank(
    inputs: ArrayLike,
    bank: KernelBank,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> tuple[Array, Array | None]:
    """Gradients of `localconv.local_conv1d` with a `localconv.KernelBank` for its filters and weights.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, steps, channels) or (batch, channels, steps).
    bank : KernelBank
        That of the forward call.
    grad_output : array_like of floats
        Gradient for the forward result, of its shape: (batch, positions, filters), or (batch, filters, positions).
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv1d`.

    Returns
    -------
    filters : ndarray
        Gradient for the filters of the bank, of their shape. float64 if an array of data is, else float32.
    weights : ndarray or None
        Gradient for its weights, of their shape and the same dtype; None if it has none.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> bank = localconv.KernelBank(np.ones((2, 3 * 4, 5), np.float32), weights=np.ones((8, 2), np.float32))
    >>> x, grad_output = np.ones((1, 10, 4), np.float32), np.ones((1, 8, 5), np.float32)
    >>> filters, weights = localconv.grad.local_conv1d_bank(x, bank, grad_output, 3, 1, 'channels_last')
    >>> float(filters[0, 0, 0]), float(weights[0, 0])
    (8.0, 60.0)
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, None, padding_mode)
    return engine.grad_bank(spec, inputs, bank, grad_output, FOR_BANK)


@whole(backend.local_conv2d, local_conv1d_input)
def local_conv2d_bank(
    inputs: ArrayLike,
    bank: KernelBank,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
) -> tuple[Array, Array | None]:
    """Gradients of `localconv.local_conv2d` with a `localconv.KernelBank` for its filters and weights.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    inputs : array_like of floats
        The input of the forward call, (batch, rows, columns, channels) or (batch, channels, rows, columns).
    bank : KernelBank
        That of the forward call.
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    output_shape : sequence of 2 ints, optional
        The forward result's size along every axis, to be checked.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv2d`.

    Returns
    -------
    filters : ndarray
        Gradient for the filters of the bank, of their shape. float64 if an array of data is, else float32.
    weights : ndarray or None
        Gradient for its weights, of their shape and the same dtype; None if it has none.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> bank = localconv.KernelBank(np.ones((2, 3 * 3 * 3, 5), np.float32), indices=np.arange(12) % 2)
    >>> x, grad_output = np.ones((1, 5, 6, 3), np.float32), np.ones((1, 3, 4, 5), np.float32)
    >>> filters, weights = localconv.grad.local_conv2d_bank(x, bank, grad_output, 3, data_format='channels_last')
    >>> float(filters[0, 0, 0]), weights
    (6.0, None)
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    return engine.grad_bank(spec, inputs, bank, grad_output, FOR_BANK)


@docstring_from_2d(
    local_conv2d_bank,
    """
    >>> import numpy as np, localconv
    >>> bank = localconv.KernelBank(np.ones((2, 3 * 3 * 3 * 3, 5), np.float32), indices=np.arange(24) % 2)
    >>> x, grad_output = np.ones((1, 4, 5, 6, 3), np.float32), np.ones((1, 2, 3, 4, 5), np.float32)
    >>> filters, weights = localconv.grad.local_conv3d_bank(x, bank, grad_output, 3, data_format='channels_last')
    >>> float(filters[0, 0, 0]), weights
    (12.0, None)
    """,
)
def local_conv3d_bank(
    inputs: ArrayLike,
    bank: KernelBank,
    grad_output: ArrayLike,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
) -> tuple[Array, Array | None]:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    return engine.grad_bank(spec, inputs, bank, grad_output, FOR_BANK)


@whole(backend.conv1d)
def conv1d_input(
    input_shape: Sequence[int],
    kernel: KernelLike,
    grad_output: ArrayLike,
    strides: IntOrInts = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = 1,
    *,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.conv1d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of ints
        Shape of the input: (..., steps, channels), or (..., channels, steps) with ``data_format='channels_first'``.
    kernel : array_like of floats, or QuantizedKernel
        The kernel of the forward call, (kernel_size, channels / groups, filters).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape: (..., positions, filters), or (..., filters, positions).
    strides, padding, data_format, dilation_rate, groups
        As in `localconv.conv1d`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to. Steps that no
        window holds are 0.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> kernel = np.array([1, 0, -1], np.float32).reshape(3, 1, 1)
    >>> grad_output = np.ones((1, 3, 1), np.float32)
    >>> localconv.grad.conv1d_input((1, 5, 1), kernel, grad_output, data_format='channels_last').ravel()
    array([ 1.,  1.,  0., -1., -1.], dtype=float32)
    """
    spec = conv_spec(1, strides, padding, data_format, dilation_rate, groups)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, kernel, grad_output, out, FOR_INPUT)


@whole(backend.conv1d, conv1d_input)
def conv1d_kernel(
    x: ArrayLike,
    kernel_shape: Sequence[int],
    grad_output: ArrayLike,
    strides: IntOrInts = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = 1,
    *,
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Gradient of `localconv.conv1d` for its kernel.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    x : array_like of floats
        The input of the forward call, (..., steps, channels) or (..., channels, steps).
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (kernel_size, channels / groups, filters).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape: (..., positions, filters), or (..., filters, positions).
    strides, padding, data_format, dilation_rate, groups
        As in `localconv.conv1d`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.
    accumulate : bool, optional
        Add the gradient to what `out` holds, which must be given then.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given. float64 if an array is, else float32; an `out` of 16 bits is
        rounded into once.

    Raises
    ------
    TypeError, ValueError
        As `conv1d_input`.

    Notes
    -----
    The sums over all positions of all images are taken in blocks whose sizes depend on the shapes alone: the result is
    the same for any number of threads, and float32 stays accurate over millions of positions.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x = np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    >>> localconv.grad.conv1d_kernel(x, (3, 1, 1), np.ones((1, 3, 1), np.float32), data_format='channels_last').ravel()
    array([3., 6., 9.], dtype=float32)
    """
    spec = conv_spec(1, strides, padding, data_format, dilation_rate, groups)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return engine.grad_kernel(spec, x, shape, grad_output, out, accumulate, FOR_SHARED_KERNEL)


@whole(backend.conv2d, conv1d_input)
def conv2d_input(
    input_shape: Sequence[int],
    kernel: KernelLike,
    grad_output: ArrayLike,
    strides: IntOrInts = (1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1),
    *,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """Gradient of `localconv.conv2d` for its input.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    input_shape : sequence of ints
        Shape of the input: (..., rows, columns, channels), or (..., channels, rows, columns).
    kernel : array_like of floats, or QuantizedKernel
        The kernel of the forward call, (kh, kw, channels / groups, filters).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    strides, padding, data_format, dilation_rate, groups
        As in `localconv.conv2d`.
    out
        As in `conv1d_input`.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> kernel, grad_output = np.ones((2, 2, 1, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    >>> localconv.grad.conv2d_input((1, 3, 3, 1), kernel, grad_output, data_format='channels_last')[0, :, :, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    spec = conv_spec(2, strides, padding, data_format, dilation_rate, groups)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, kernel, grad_output, out, FOR_INPUT)


@docstring_from_2d(
    conv2d_input,
    """
    >>> import numpy as np, localconv.grad
    >>> kernel, grad_output = np.ones((1, 2, 2, 1, 1)), np.ones((1, 1, 2, 2, 1))
    >>> localconv.grad.conv3d_input((1, 1, 3, 3, 1), kernel, grad_output, data_format='channels_last')[0, 0, ..., 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """,
)
def conv3d_input(
    input_shape: Sequence[int],
    kernel: KernelLike,
    grad_output: ArrayLike,
    strides: IntOrInts = (1, 1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1, 1),
    *,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    spec = conv_spec(3, strides, padding, data_format, dilation_rate, groups)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return engine.grad_input(spec, shape, kernel, grad_output, out, FOR_INPUT)


@whole(backend.conv2d, conv1d_input, conv1d_kernel)
def conv2d_kernel(
    x: ArrayLike,
    kernel_shape: Sequence[int],
    grad_output: ArrayLike,
    strides: IntOrInts = (1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1),
    *,
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Gradient of `localconv.conv2d` for its kernel.

    Strides, padding and the like are those of the forward call.

    Parameters
    ----------
    x : array_like of floats
        The input of the forward call, (..., rows, columns, channels) or (..., channels, rows, columns).
    kernel_shape : sequence of 4 ints
        Shape of the kernel, (kh, kw, channels / groups, filters).
    grad_output : array_like of floats
        Gradient for the forward result, of its shape.
    strides, padding, data_format, dilation_rate, groups
        As in `localconv.conv2d`.
    out, accumulate
        As in `conv1d_kernel`.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given. float64 if an array is, else float32; an `out` of 16 bits is
        rounded into once.

    Raises
    ------
    TypeError, ValueError
        As `conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((2, 6, 5, 3), np.float32), np.ones((2, 6, 5, 4), np.float32)
    >>> grad_kernel = localconv.grad.conv2d_kernel(x, (3, 3, 3, 4), grad_output, 1, 'same', 'channels_last')
    >>> grad_kernel[:, :, 0, 0]
    array([[40., 50., 40.],
           [48., 60., 48.],
           [40., 50., 40.]], dtype=float32)
    """
    spec = conv_spec(2, strides, padding, data_format, dilation_rate, groups)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return engine.grad_kernel(spec, x, shape, grad_output, out, accumulate, FOR_SHARED_KERNEL)


@docstring_from_2d(
    conv2d_kernel,
    """
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((2, 3, 4, 4, 3), np.float32), np.ones((2, 3, 4, 4, 5), np.float32)
    >>> localconv.grad.conv3d_kernel(x, (3, 3, 3, 3, 5), grad_output, 1, 'same', 'channels_last')[1, 1, 1, 0]
    array([96., 96., 96., 96., 96.], dtype=float32)
    """,
)
def conv3d_kernel(
    x: ArrayLike,
    kernel_shape: Sequence[int],
    grad_output: ArrayLike,
    strides: IntOrInts = (1, 1, 1),
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: IntOrInts = (1, 1, 1),
    *,
    groups: int = 1,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    spec = conv_spec(3, strides, padding, data_format, dilation_rate, groups)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return engine.grad_kernel(spec, x, shape, grad_output, out, accumulate, FOR_SHARED_KERNEL)


@whole(conv1d_input)
def bias(
    bias_shape: Sequence[int], grad_output: ArrayLike, data_format: str | None = None, *, out: Array | None = None
) -> Array:
    """Gradient of any of the convolutions for its bias.

    Parameters
    ----------
    bias_shape : sequence of ints
        (filters,) for one value a filter; output sizes + (filters,) for one a position and filter, as locally connected
        convolutions take it too.
    grad_output : array_like of floats
        Gradient for the forward result: (batch, positions..., filters), or (batch, filters, positions...) with
        ``data_format='channels_first'``; for (filters,) and channels_last any batch axes.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with `grad_output`.

    Returns
    -------
    ndarray
        Shape `bias_shape`; `out` if given. The dtype of `grad_output`.

    Raises
    ------
    TypeError, ValueError
        As `conv1d_input`.

    Notes
    -----
    The sum of `grad_output` over the axes along which the bias was added. float32 stays accurate over millions of
    positions: it is summed in blocks, and the blocks in float64. As the forward pass adds it, a full bias and its
    gradient are with channels_first in the order (filters, positions), whatever their shape says.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> localconv.grad.bias((2,), np.ones((5, 8, 2), np.float32), 'channels_last')
    array([40., 40.], dtype=float32)
    >>> localconv.grad.bias((8, 2), np.ones((5, 8, 2), np.float32), 'channels_last')[0]
    array([5., 5.], dtype=float32)
    """
    g = as_float_array(grad_output, "grad_output")
    shape = ints(bias_shape, None, "bias_shape", minimum=1)
    if g.ndim < 3:
        raise ValueError(f"grad_output must have at least 3 axes, batch, positions and filters, got shape {g.shape}")
    spec = conv_spec(g.ndim - 2, 1, "valid", data_format, 1, 1)
    filters, positions = (g.shape[1], g.shape[2:]) if spec.channels_first else (g.shape[-1], g.shape[1:-1])
    if shape not in ((filters,), (*positions, filters)):
        raise ValueError(
            f"bias_shape must be {(filters,)} or {(*positions, filters)} for grad_output of shape {g.shape}, got "
            f"{shape}"
        )
    return engine.grad_bias(spec, shape, g, out)
