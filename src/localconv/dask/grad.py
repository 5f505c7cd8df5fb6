"""Gradients of the convolutions of dask arrays, with the names and arguments of `localconv.grad`.

With L = sum(forward(x, kernel) * grad_output), the functions ending in ``_input`` return dL/dx and those ending in
``_kernel`` dL/dkernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da

from ..core.arguments import IntOrInts, PaddingLike, ints
from ..core.spec import local_spec
from ..docstrings import docstring_from_2d
from ..grad import FOR_INPUT, FOR_LOCAL_KERNEL
from .checks import grad_input, grad_kernel
from .files import KernelFile

__all__ = [
    "local_conv1d_input",
    "local_conv1d_kernel",
    "local_conv2d_input",
    "local_conv2d_kernel",
    "local_conv3d_input",
    "local_conv3d_kernel",
]


def local_conv1d_input(
    input_shape: Sequence[int],
    kernel: da.Array | KernelFile,
    grad_output: da.Array,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> da.Array:
    """Gradient of `localconv.dask.local_conv1d` for its input.

    Parameters
    ----------
    input_shape : sequence of 3 ints
        Shape of the input: (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    kernel : dask.array.Array of floats, or KernelFile
        The kernel of the forward call, (positions, kernel_size * channels / groups, filters), in chunks as there.
    grad_output : dask.array.Array of floats
        Gradient for the forward result, of its shape: (batch, positions, filters), or (batch, filters, positions). In
        any chunks.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.

    Returns
    -------
    dask.array.Array
        Shape `input_shape`. Its chunks are those of `grad_output` along the batch, and along the first spatial axis
        they begin where the windows of a chunk of the kernel do. Of the dtype that NumPy promotes the arrays to.

    Raises
    ------
    TypeError, ValueError
        As `localconv.dask.local_conv1d`.

    Notes
    -----
    Where windows of two chunks of the kernel meet the same rows, and over chunks of filters, sums are added up, in
    float32 where all arrays have 16 bits: the result may differ from that of `localconv.grad` within its rounding.

    Examples
    --------
    >>> import dask.array as da, localconv.dask
    >>> kernel, grad_output = da.ones((8, 3 * 4, 2), chunks=(4, 12, 2)), da.ones((1, 8, 2))
    >>> gradient = localconv.dask.grad.local_conv1d_input((1, 10, 4), kernel, grad_output, 3, 1, 'channels_last')
    >>> gradient[0, :, 0].compute(scheduler='sync')
    array([2., 4., 6., 6., 6., 6., 6., 6., 4., 2.])
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return grad_input(spec, shape, kernel, grad_output, FOR_INPUT)


def local_conv1d_kernel(
    inputs: da.Array,
    kernel_shape: Sequence[int],
    grad_output: da.Array,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> da.Array:
    """Gradient of `localconv.dask.local_conv1d` for its kernel.

    Parameters
    ----------
    inputs : dask.array.Array of floats
        The input of the forward call, (batch, steps, channels) or (batch, channels, steps). In any chunks.
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (positions, kernel_size * channels / groups, filters).
    grad_output : dask.array.Array of floats
        Gradient for the forward result, of its shape: (batch, positions, filters), or (batch, filters, positions). In
        any chunks.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.

    Returns
    -------
    dask.array.Array
        Shape `kernel_shape`, in chunks of the positions and filters that those of `grad_output` hold; of no more bytes
        than dask's setting ``array.chunk-size`` (128 MiB), if that is one step along the first spatial axis or more.
        float64 if an array is, else float32.

    Raises
    ------
    TypeError, ValueError
        As `localconv.dask.local_conv1d`.

    Notes
    -----
    A task sums over the images of one chunk of `inputs` after the other. ``dask.array.store(gradient, file,
    lock=False)`` writes what it gives into a `KernelFile` as it comes; ``compute()`` brings all of it together.

    Examples
    --------
    >>> import dask.array as da, localconv.dask
    >>> x, grad_output = da.ones((5, 10, 4)), da.ones((5, 8, 2), chunks=(5, 4, 2))
    >>> gradient = localconv.dask.grad.local_conv1d_kernel(x, (8, 3 * 4, 2), grad_output, 3, 1, 'channels_last')
    >>> gradient.chunks, gradient[0, 0].compute(scheduler='sync')
    (((4, 4), (12,), (2,)), array([5., 5.]))
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return grad_kernel(spec, inputs, shape, grad_output, FOR_LOCAL_KERNEL)


def local_conv2d_input(
    input_shape: Sequence[int],
    kernel: da.Array | KernelFile,
    grad_output: da.Array,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
) -> da.Array:
    """Gradient of `localconv.dask.local_conv2d` for its input.

    Parameters
    ----------
    input_shape : sequence of 4 ints
        Shape of the input: (batch, rows, columns, channels), or (batch, channels, rows, columns).
    kernel : dask.array.Array of floats, or KernelFile
        The kernel of the forward call, (positions, kh * kw * channels / groups, filters), in chunks as there.
    grad_output : dask.array.Array of floats
        Gradient for the forward result, of its shape. In any chunks.
    output_shape : sequence of 2 ints, optional
        The forward result's size along every axis, to be checked.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.

    Returns
    -------
    dask.array.Array
        Shape `input_shape`; chunks and dtype as in `local_conv1d_input`.

    Raises
    ------
    TypeError, ValueError
        As `localconv.dask.local_conv1d`.

    Examples
    --------
    >>> import dask.array as da, localconv.dask
    >>> kernel, grad_output = da.ones((3 * 4, 3 * 3 * 3, 2), chunks=(4, 27, 2)), da.ones((1, 3, 4, 2))
    >>> gradient = localconv.dask.grad.local_conv2d_input((1, 5, 6, 3), kernel, grad_output, 3, 1, (3, 4),
    ...                                                   'channels_last')
    >>> gradient[0, 0, :, 0].compute(scheduler='sync')
    array([2., 4., 6., 6., 4., 2.])
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return grad_input(spec, shape, kernel, grad_output, FOR_INPUT)


@docstring_from_2d(
    local_conv2d_input,
    """
    >>> import dask.array as da, localconv.dask
    >>> kernel, grad_output = da.ones((4, 3 * 3 * 3 * 3, 2), chunks=(4, 81, 1)), da.ones((1, 1, 1, 4, 2))
    >>> shape = (1, 3, 3, 6, 3)
    >>> gradient = localconv.dask.grad.local_conv3d_input(shape, kernel, grad_output, 3, data_format='channels_last')
    >>> gradient[0, 0, 0, :, 0].compute(scheduler='sync')
    array([2., 4., 6., 6., 4., 2.])
    """,
)
def local_conv3d_input(
    input_shape: Sequence[int],
    kernel: da.Array | KernelFile,
    grad_output: da.Array,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
) -> da.Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape)
    shape = ints(input_shape, None, "input_shape", minimum=0)
    return grad_input(spec, shape, kernel, grad_output, FOR_INPUT)


def local_conv2d_kernel(
    inputs: da.Array,
    kernel_shape: Sequence[int],
    grad_output: da.Array,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
) -> da.Array:
    """Gradient of `localconv.dask.local_conv2d` for its kernel.

    Parameters
    ----------
    inputs : dask.array.Array of floats
        The input of the forward call, (batch, rows, columns, channels) or (batch, channels, rows, columns). In any
        chunks.
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (positions, kh * kw * channels / groups, filters).
    grad_output : dask.array.Array of floats
        Gradient for the forward result, of its shape. In any chunks.
    output_shape : sequence of 2 ints, optional
        The forward result's size along every axis, to be checked.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.

    Returns
    -------
    dask.array.Array
        Shape `kernel_shape`; chunks and dtype as in `local_conv1d_kernel`.

    Raises
    ------
    TypeError, ValueError
        As `localconv.dask.local_conv1d`.

    Examples
    --------
    >>> import dask.array as da, localconv.dask
    >>> x, grad_output = da.ones((2, 5, 6, 3)), da.ones((2, 3, 4, 2), chunks=(2, 2, 4, 2))
    >>> shape = (3 * 4, 3 * 3 * 3, 2)
    >>> gradient = localconv.dask.grad.local_conv2d_kernel(x, shape, grad_output, 3, data_format='channels_last')
    >>> gradient.chunks, gradient[0, 0].compute(scheduler='sync')
    (((8, 4), (27,), (2,)), array([2., 2.]))
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return grad_kernel(spec, inputs, shape, grad_output, FOR_LOCAL_KERNEL)


@docstring_from_2d(
    local_conv2d_kernel,
    """
    >>> import dask.array as da, localconv.dask
    >>> x, grad_output = da.ones((2, 4, 5, 6, 3)), da.ones((2, 2, 3, 4, 2), chunks=(1, 1, 3, 4, 2))
    >>> shape = (2 * 3 * 4, 3 * 3 * 3 * 3, 2)
    >>> gradient = localconv.dask.grad.local_conv3d_kernel(x, shape, grad_output, 3, data_format='channels_last')
    >>> gradient.chunks, gradient[0, 0].compute(scheduler='sync')
    (((12, 12), (81,), (2,)), array([2., 2.]))
    """,
)
def local_conv3d_kernel(
    inputs: da.Array,
    kernel_shape: Sequence[int],
    grad_output: da.Array,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
) -> da.Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    return grad_kernel(spec, inputs, shape, grad_output, FOR_LOCAL_KERNEL)
