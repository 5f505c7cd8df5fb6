"""Locally connected convolution for JAX arrays, with the arguments of `localconv.backend`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..core.arguments import IntOrInts, Ints, PaddingLike
from ..core.borders import Borders
from ..core.geometry import Names
from ..core.spec import Spec, local_spec
from ..docstrings import docstring_from_2d
from .arguments import COMPUTED, array_of, full_shape, geometry_for, stored, window_and_borders
from .bank import KernelBank, bank_of, by_bank
from .primitives import forward, grad_input, whole
from .window import Window, window_of

NAMES = Names("inputs", "kernel")
TRANSPOSE_NAMES = Names("output_shape", "kernel", "inputs")


def local_conv1d(
    inputs: Any,
    kernel: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
    bias: Any = None,
) -> jax.Array:
    """1D convolution with a kernel of its own at every output position: `localconv.local_conv1d` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``. The batch may
        be symbolic (`jax.export`), no other axis.
    kernel : array of one of these dtypes, or KernelBank
        Shape (positions, kernel_size * channels / groups, filters); rows as in `localconv.local_conv1d`.
        `localconv.convert` makes it of kernels of `jax.lax.conv_general_dilated_local` and flax, and back.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv1d`.
    bias : array, optional
        Added to the sums: (filters,), or (positions, filters) as Keras stores it, which with channels_first is
        *reshaped* to (filters, positions).

    Returns
    -------
    jax.Array
        Shape (batch, positions, filters), or (batch, filters, positions) with channels_first. The dtype is what JAX
        promotes those of the arrays to; sums of bfloat16 and float16 run in float32 and are rounded once.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    Notes
    -----
    Works under jit, grad, jvp, vjp, linearize, vmap, scan, checkpoint, shard_map and pmap, to any order. On CPUs
    localconv's own kernels run, on other platforms and for a `KernelBank` a formulation in jax.numpy, which follows
    ``jax_default_matmul_precision``.

    Examples
    --------
    >>> import jax.numpy as jnp, localconv.jax
    >>> x, kernel = jnp.ones((1, 10, 4)), jnp.ones((8, 3 * 4, 2))
    >>> localconv.jax.local_conv1d(x, kernel, 3, 1, 'channels_last').shape
    (1, 8, 2)
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, None, padding_mode)
    return _convolve(spec, inputs, kernel, bias)


def local_conv2d(
    inputs: Any,
    kernel: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
    bias: Any = None,
) -> jax.Array:
    """2D convolution with a kernel of its own at every output position: `localconv.local_conv2d` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``. The batch may be symbolic (`jax.export`), no other axis.
    kernel : array of one of these dtypes, or KernelBank
        Shape (positions, kh * kw * channels / groups, filters); rows as in `localconv.local_conv2d`.
    kernel_size, strides, output_shape, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_conv2d`.
    bias : array, optional
        (filters,), or output_shape + (filters,) as Keras stores it; with channels_first the latter is *reshaped* to
        (filters,) + output_shape.

    Returns
    -------
    jax.Array
        Shape (batch,) + output_shape + (filters,), or (batch, filters) + output_shape with channels_first; dtype as in
        `local_conv1d`.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, localconv.jax
    >>> x, kernel = jnp.ones((1, 5, 6, 3)), jnp.ones((3 * 4, 3 * 3 * 3, 2))
    >>> def total(kernel):
    ...     return localconv.jax.local_conv2d(x, kernel, 3, data_format='channels_last').sum()
    >>> jax.grad(total)(kernel).shape
    (12, 27, 2)
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    return _convolve(spec, inputs, kernel, bias)


@docstring_from_2d(
    local_conv2d,
    """
    >>> import jax, jax.numpy as jnp, localconv.jax
    >>> x, kernel = jnp.ones((1, 4, 5, 6, 3)), jnp.ones((2 * 3 * 4, 3 * 3 * 3 * 3, 2))
    >>> def total(kernel):
    ...     return localconv.jax.local_conv3d(x, kernel, 3, data_format='channels_last').sum()
    >>> jax.grad(total)(kernel).shape
    (24, 81, 2)
    """,
)
def local_conv3d(
    inputs: Any,
    kernel: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    output_shape: Sequence[int] | None = None,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
    bias: Any = None,
) -> jax.Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, output_shape, padding_mode)
    return _convolve(spec, inputs, kernel, bias)


def local_conv1d_transpose(
    inputs: Any,
    kernel: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    output_shape: Sequence[int | None],
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> jax.Array:
    """Transposed 1D convolution, a kernel of its own at every position: `localconv.local_conv1d_transpose` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, positions, channels), or (batch, channels, positions) with ``data_format='channels_first'``.
    kernel : array of one of these dtypes
        That of the `local_conv1d` which maps the output's shape to the input's.
    kernel_size, strides, padding, dilation_rate, groups
        Of that `local_conv1d`.
    output_shape : sequence of 3 ints
        Shape of the result, batch included; None for the batch takes that of `inputs`.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.

    Returns
    -------
    jax.Array
        Shape `output_shape`; dtype as in `local_conv1d`.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    Examples
    --------
    >>> import jax.numpy as jnp, localconv.jax
    >>> kernel = jnp.arange(6.0).reshape(3, 2, 1)
    >>> localconv.jax.local_conv1d_transpose(jnp.ones((1, 3, 1)), kernel, 2, 1, (1, 4, 1), 'channels_last').ravel()
    Array([0., 3., 7., 5.], dtype=float32)
    """
    spec = local_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _transpose(spec, inputs, kernel, output_shape)


def local_conv2d_transpose(
    inputs: Any,
    kernel: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    output_shape: Sequence[int | None],
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """Transposed 2D convolution, a kernel of its own at every position: `localconv.local_conv2d_transpose` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``.
    kernel : array of one of these dtypes
        That of the `local_conv2d` which maps the output's shape to the input's.
    kernel_size, strides, padding, dilation_rate, groups
        Of that `local_conv2d`.
    output_shape : sequence of 4 ints
        Shape of the result, batch included; None for the batch takes that of `inputs`.
    data_format
        As in `local_conv1d_transpose`.

    Returns
    -------
    jax.Array
        Shape `output_shape`; dtype as in `local_conv1d`.

    Raises
    ------
    TypeError, ValueError
        As `local_conv1d`.

    Examples
    --------
    >>> import jax.numpy as jnp, localconv.jax
    >>> kernel, x = jnp.ones((4, 2 * 2, 1)), jnp.ones((1, 2, 2, 1))
    >>> localconv.jax.local_conv2d_transpose(x, kernel, 2, 1, (None, 3, 3, 1), 'channels_last')[0, :, :, 0]
    Array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    spec = local_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _transpose(spec, inputs, kernel, output_shape)


@docstring_from_2d(
    local_conv2d_transpose,
    """
    >>> import jax.numpy as jnp, localconv.jax
    >>> kernel, x = jnp.ones((2, 2 * 2 * 2, 1)), jnp.ones((1, 2, 1, 1, 1))
    >>> localconv.jax.local_conv3d_transpose(x, kernel, 2, 1, (None, 3, 2, 2, 1), 'channels_last')[0, :, 0, 0, 0]
    Array([1., 2., 1.], dtype=float32)
    """,
)
def local_conv3d_transpose(
    inputs: Any,
    kernel: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    output_shape: Sequence[int | None],
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = (1, 1, 1),
    groups: int = 1,
) -> jax.Array:
    spec = local_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _transpose(spec, inputs, kernel, output_shape)


# ---------------------------------------------------------------------------------------------- arguments and calls


def _convolve(spec: Spec, inputs: Any, kernel: Any, bias: Any) -> jax.Array:
    x, w = array_of(inputs, "inputs"), bank_of(kernel)
    if w is None:
        w = array_of(kernel, "kernel")
    b = None if bias is None else array_of(bias, "bias")
    geometry = geometry_for(spec, x.shape, w.shape, NAMES)
    output = geometry.output[3 - spec.rank :]
    if b is not None and b.shape not in ((geometry.filters,), (*output, geometry.filters)):
        expected = f"{(geometry.filters,)} or {(*output, geometry.filters)}"
        raise ValueError(f"bias must have shape {expected}, got {b.shape}")
    return convolved(x, w, b, *window_and_borders(spec, x.shape, NAMES))


@partial(jax.jit, static_argnums=(3, 4), inline=True)
def convolved(
    x: jax.Array, kernel: jax.Array | KernelBank, bias: jax.Array | None, window: Window, borders: Borders | None
) -> jax.Array:
    """The convolution by a window; borders: of an input that is to be padded first."""
    dtype = jnp.result_type(*[array.dtype for array in (x, kernel, bias) if array is not None])
    computed = COMPUTED[dtype.name]
    x = x.astype(computed)
    if borders is not None:
        # Not in 16 bits: what a pixel's copies add to its gradient is rounded once.
        x = jnp.pad(x, borders.pairs, mode=borders.mode)
    if isinstance(kernel, KernelBank):
        result = by_bank(x, kernel, window)
    else:
        result = forward(x, stored(kernel, computed), window)
    if bias is not None:
        # As Keras does it: a full bias is reshaped, not transposed.
        shape = window.layout((1,), bias.shape[:-1] or (1,) * window.rank, bias.shape[-1])
        result = result + whole(bias).astype(computed).reshape(shape)
    return result.astype(dtype)


def _transpose(spec: Spec, inputs: Any, kernel: Any, output_shape: Sequence[int | None]) -> jax.Array:
    x, w = array_of(inputs, "inputs"), array_of(kernel, "kernel")
    shape = full_shape(output_shape, x, spec.rank)
    geometry = geometry_for(spec, shape, w.shape, TRANSPOSE_NAMES)
    spatial = geometry.input[3 - spec.rank :]
    window = window_of(spec, spatial)
    expected = window.layout((shape[0],), geometry.output[3 - spec.rank :], geometry.filters)
    if x.shape != expected:
        raise ValueError(f"inputs must have the shape of the forward result, {expected}, got {x.shape}")
    return _transposed(x, w, window, spatial)


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _transposed(x: jax.Array, kernel: jax.Array, window: Window, spatial: Ints) -> jax.Array:
    dtype = jnp.result_type(x, kernel)
    computed = COMPUTED[dtype.name]
    return grad_input(stored(kernel, computed), x.astype(computed), window, spatial).astype(dtype)
