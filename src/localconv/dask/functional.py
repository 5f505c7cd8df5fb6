"""Locally connected convolution of dask arrays, with the arguments of `localconv.backend`."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
from numpy.typing import ArrayLike

from ..backend import LOCAL_NAMES
from ..core.arguments import IntOrInts, PaddingLike
from ..core.spec import local_spec
from ..docstrings import docstring_from_2d
from .checks import convolve
from .files import KernelFile

__all__ = ["local_conv1d", "local_conv2d", "local_conv3d"]


def local_conv1d(
    inputs: da.Array,
    kernel: da.Array | KernelFile,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    bias: ArrayLike | da.Array | None = None,
) -> da.Array:
    """1D convolution with a kernel of its own at every output position: `localconv.local_conv1d` for dask.

    Parameters
    ----------
    inputs : dask.array.Array, float16, bfloat16, float32 or float64
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``. In any
        chunks.
    kernel : dask.array.Array of one of these dtypes, or KernelFile
        Shape (positions, kernel_size * channels / groups, filters); rows as in `localconv.local_conv1d`. A dask array
        in chunks of positions and, with `groups`, of whole groups of filters; axis 1 in one chunk.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in `localconv.local_conv1d`.
    bias : dask.array.Array or array_like, optional
        Added to the sums: (filters,), or (positions, filters) as Keras stores it, which with channels_first is
        *reshaped* to (filters, positions).

    Returns
    -------
    dask.array.Array
        Shape (batch, positions, filters), or (batch, filters, positions) with channels_first. Its chunks are those of
        `inputs` along the batch, and those of the kernel along positions and filters. dtype as of
        `localconv.local_conv1d`.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit, or chunks of the kernel that would have to be brought
        together; the message names the argument.

    Notes
    -----
    Nothing is computed until it is asked for; arguments are checked at once. A task computes one chunk of the result
    from one chunk of the kernel, or from rows that it reads of a file; only rows of the input travel to it.

    The values have the bits of `localconv.local_conv1d` of the whole arrays, whatever the chunks, where the workers
    compute with the same instruction set.

    Examples
    --------
    >>> import dask.array as da, localconv.dask
    >>> x, kernel = da.ones((2, 10, 4), chunks=(1, 5, 4)), da.ones((8, 3 * 4, 2), chunks=(4, 12, 2))
    >>> y = localconv.dask.local_conv1d(x, kernel, 3, 1, 'channels_last')
    >>> y.chunks, float(y.sum().compute(scheduler='sync'))
    (((1, 1), (4, 4), (2,)), 384.0)
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return convolve(spec, inputs, kernel, bias, LOCAL_NAMES)


def local_conv2d(
    inputs: da.Array,
    kernel: da.Array | KernelFile,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
    bias: ArrayLike | da.Array | None = None,
) -> da.Array:
    """2D convolution with a kernel of its own at every output position: `localconv.local_conv2d` for dask.

    Parameters
    ----------
    inputs : dask.array.Array, float16, bfloat16, float32 or float64
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``. In any chunks.
    kernel : dask.array.Array of one of these dtypes, or KernelFile
        Shape (positions, kh * kw * channels / groups, filters); rows as in `localconv.local_conv2d`. A dask array in
        chunks of whole steps along the output's first spatial axis and, with `groups`, of whole groups of filters;
        axis 1 in one chunk.
    kernel_size, strides, output_shape, data_format, padding, dilation_rate, groups
        As in `localconv.local_conv2d`.
    bias : dask.array.Array or array_like, optional
        (filters,), or output_shape + (filters,) as Keras stores it; with channels_first the latter is *reshaped* to
        (filters,) + output_shape.

    Returns
    -------
    dask.array.Array
        Shape (batch,) + output_shape + (filters,), or (batch, filters) + output_shape with channels_first, in chunks
        along the batch, the first spatial axis and the filters; dtype as in `local_conv1d`.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    Examples
    --------
    >>> import dask.array as da, localconv.dask
    >>> x, kernel = da.ones((1, 5, 6, 3)), da.ones((3 * 4, 3 * 3 * 3, 2), chunks=(4, 27, 2))
    >>> y = localconv.dask.local_conv2d(x, kernel, 3, data_format='channels_last')
    >>> y.chunks
    ((1,), (1, 1, 1), (4,), (2,))
    >>> y[0, 0, 0].compute(scheduler='sync')
    array([27., 27.])
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape)
    return convolve(spec, inputs, kernel, bias, LOCAL_NAMES)


@docstring_from_2d(
    local_conv2d,
    """
    >>> import dask.array as da, localconv.dask
    >>> x, kernel = da.ones((1, 4, 5, 6, 3)), da.ones((2 * 3 * 4, 3 * 3 * 3 * 3, 2), chunks=(12, 81, 2))
    >>> y = localconv.dask.local_conv3d(x, kernel, 3, data_format='channels_last')
    >>> y.chunks
    ((1,), (1, 1), (3,), (4,), (2,))
    >>> y[0, 0, 0, 0].compute(scheduler='sync')
    array([81., 81.])
    """,
)
def local_conv3d(
    inputs: da.Array,
    kernel: da.Array | KernelFile,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
    bias: ArrayLike | da.Array | None = None,
) -> da.Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape)
    return convolve(spec, inputs, kernel, bias, LOCAL_NAMES)
