"""Filters that come with the data for JAX arrays, with the arguments of `localconv.filters`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..core.arguments import IntOrInts, PaddingLike
from ..core.spec import Spec, filter_spec
from ..docstrings import docstring_from_2d
from ..filters import CORRELATION_NAMES, FILTER_NAMES
from .arguments import COMPUTED, array_of, check_queries, geometry_for, window_and_borders
from .functional import convolved
from .primitives import grad_kernel
from .window import Window, window_of


def local_filter1d(
    inputs: Any,
    filters: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> jax.Array:
    """1D filtering, a filter of its own for every image and position: `localconv.local_filter1d` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``. The batch may
        be symbolic (`jax.export`), no other axis.
    filters : array of one of these dtypes
        Shape (batch, positions, groups * kernel_size), or (batch, groups * kernel_size, positions) with channels_first:
        each group's taps. Of batch 1: the filters of one image, for all. Those of 16 bits are read as they are where
        float32 is computed.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_filter1d`.

    Returns
    -------
    jax.Array
        Shape (batch, positions, channels), or (batch, channels, positions) with channels_first. The dtype is what JAX
        promotes those of the arrays to; sums of bfloat16 and float16 run in float32 and are rounded once.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    See Also
    --------
    local_correlation1d : the gradient for the filters, as a function of its own.

    Notes
    -----
    Works under jit, grad, jvp, vjp, linearize, vmap, scan, checkpoint, shard_map and pmap, to any order. On CPUs
    localconv's own kernels run, on other platforms a loop over the taps in jax.numpy.

    Examples
    --------
    >>> import jax.numpy as jnp, localconv.jax
    >>> x, filters = jnp.arange(5.0).reshape(1, 5, 1), jnp.ones((1, 5, 3))
    >>> localconv.jax.local_filter1d(x, filters, 3, 1, 'channels_last', padding='inside').ravel()
    Array([3., 3., 6., 9., 9.], dtype=float32)
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    return _filter(spec, inputs, filters)


def local_filter2d(
    inputs: Any,
    filters: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> jax.Array:
    """2D filtering, a filter of its own for every image and position: `localconv.local_filter2d` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``. The batch may be symbolic (`jax.export`), no other axis.
    filters : array of one of these dtypes
        Shape (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns): each group's taps in C order.
        Of batch 1: the filters of one image, for all.
    kernel_size, strides, data_format, padding, padding_mode, dilation_rate, groups
        As in `localconv.local_filter2d`.

    Returns
    -------
    jax.Array
        Shape (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns); dtype as in `local_filter1d`.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_correlation2d : the gradient for the filters, as a function of its own.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, localconv.jax
    >>> x, filters = jnp.ones((2, 5, 6, 4)), jnp.ones((2, 5, 6, 2 * 3 * 3))
    >>> def total(filters):
    ...     return localconv.jax.local_filter2d(x, filters, 3, 1, 'channels_last', padding='same', groups=2).sum()
    >>> jax.grad(total)(filters)[0, 0, 0, :9]
    Array([0., 0., 0., 0., 2., 2., 0., 2., 2.], dtype=float32)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    return _filter(spec, inputs, filters)


@docstring_from_2d(
    local_filter2d,
    """
    >>> import jax.numpy as jnp, localconv.jax
    >>> x, filters = jnp.ones((1, 4, 5, 6, 2)), jnp.ones((1, 4, 5, 6, 27))
    >>> localconv.jax.local_filter3d(x, filters, 3, 1, 'channels_last', padding='same')[0, 0, 0, :, 0]
    Array([ 8., 12., 12., 12., 12.,  8.], dtype=float32)
    """,
)
def local_filter3d(
    inputs: Any,
    filters: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    padding_mode: str = "zeros",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> jax.Array:
    spec = filter_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups, padding_mode)
    return _filter(spec, inputs, filters)


def local_correlation1d(
    inputs: Any,
    queries: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> jax.Array:
    """1D correlation of every position's window with a query: `localconv.local_correlation1d` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``. The batch may
        be symbolic (`jax.export`), no other axis.
    queries : array of one of these dtypes
        Shape (batch, positions, channels), or (batch, channels, positions): that of a result of `local_filter1d`.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in `localconv.local_filter1d`.

    Returns
    -------
    jax.Array
        Shape (batch, positions, groups * kernel_size), or (batch, groups * kernel_size, positions) with channels_first;
        dtype as in `local_filter1d`. Taps that meet padding have 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_filter1d : the sum of windows with such results as weights.

    Examples
    --------
    >>> import jax.numpy as jnp, localconv.jax
    >>> x, queries = jnp.arange(1.0, 5).reshape(1, 4, 1), jnp.ones((1, 4, 1))
    >>> localconv.jax.local_correlation1d(x, queries, 3, 1, 'channels_last', padding='same')[0]
    Array([[0., 1., 2.],
           [1., 2., 3.],
           [2., 3., 4.],
           [3., 4., 0.]], dtype=float32)
    """
    spec = filter_spec(1, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _correlate(spec, inputs, queries)


def local_correlation2d(
    inputs: Any,
    queries: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> jax.Array:
    """2D correlation of every position's window with a query: `localconv.local_correlation2d` for JAX.

    Parameters
    ----------
    inputs : array, bfloat16, float16, float32 or float64
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``. The batch may be symbolic (`jax.export`), no other axis.
    queries : array of one of these dtypes
        Shape (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns): that of a result of `local_filter2d`.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in `localconv.local_filter2d`.

    Returns
    -------
    jax.Array
        Shape (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns); dtype as in `local_filter1d`.
        Taps that meet padding have 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_filter2d : the sum of windows with such results as weights.

    Examples
    --------
    The attention of every pixel to the 3 x 3 around it, with 2 heads:

    >>> import jax, jax.numpy as jnp, localconv.jax
    >>> keys, queries, values = jax.random.normal(jax.random.key(0), (3, 1, 5, 6, 8))
    >>> windows = {'kernel_size': 3, 'data_format': 'channels_last', 'padding': 'inside', 'groups': 2}
    >>> scores = localconv.jax.local_correlation2d(keys, queries / 2, **windows).reshape(1, 5, 6, 2, 9)
    >>> weights = jax.nn.softmax(scores).reshape(1, 5, 6, 18)
    >>> localconv.jax.local_filter2d(values, weights, **windows).shape
    (1, 5, 6, 8)
    """
    spec = filter_spec(2, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _correlate(spec, inputs, queries)


@docstring_from_2d(
    local_correlation2d,
    """
    >>> import jax.numpy as jnp, localconv.jax
    >>> x, queries = jnp.ones((1, 4, 5, 6, 8)), jnp.ones((1, 2, 3, 4, 8))
    >>> localconv.jax.local_correlation3d(x, queries, 3, 1, 'channels_last').shape
    (1, 2, 3, 4, 27)
    """,
)
def local_correlation3d(
    inputs: Any,
    queries: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> jax.Array:
    spec = filter_spec(3, kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _correlate(spec, inputs, queries)


# ----------------------------------------------------------------------------------------------------- public functions


def _filter(spec: Spec, inputs: Any, filters: Any) -> jax.Array:
    x, weights = array_of(inputs, FILTER_NAMES.input), array_of(filters, FILTER_NAMES.kernel)
    geometry_for(spec, x.shape, weights.shape, FILTER_NAMES)
    return convolved(x, weights, None, *window_and_borders(spec, x.shape, FILTER_NAMES))


def _correlate(spec: Spec, inputs: Any, queries: Any) -> jax.Array:
    x, q = array_of(inputs, CORRELATION_NAMES.input), array_of(queries, CORRELATION_NAMES.gradient)
    check_queries(spec, x.shape, q.shape, CORRELATION_NAMES)
    spatial = x.shape[2:] if spec.channels_first else x.shape[1:-1]
    return _correlated(x, q, window_of(spec, spatial))


@partial(jax.jit, static_argnums=2, inline=True)
def _correlated(x: jax.Array, queries: jax.Array, window: Window) -> jax.Array:
    dtype = jnp.result_type(x, queries)
    computed = COMPUTED[dtype.name]
    return grad_kernel(x.astype(computed), queries.astype(computed), window).astype(dtype)
