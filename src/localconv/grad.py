"""Gradients of the backend's convolutions, for their input and for their kernel.

Named after ``torch.nn.grad``: ``conv2d_input`` and ``conv2d_kernel`` are the two gradients of `localconv.conv2d`, and so on. Each
takes the arguments of the forward function behind its first three. With L = sum(forward(x, kernel) * grad_output), the functions
ending in ``_input`` return dL/dx and those ending in ``_kernel`` dL/dkernel. The gradient for a bias is the sum of ``grad_output``
over the axes that the bias is broadcast along, and needs no function.

The gradients for the input are the transposed convolutions: `localconv.conv2d_transpose` and its kin are the same computation under
the names and with the arguments of Keras.
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
from .columns import grad_input_by_columns, grad_kernel_by_columns
from .geometry import Geometry, Ints, Padding, local_geometry, shared_geometry

__all__ = [
    "conv1d_input",
    "conv1d_kernel",
    "conv2d_input",
    "conv2d_kernel",
    "local_conv1d_input",
    "local_conv1d_kernel",
    "local_conv2d_input",
    "local_conv2d_kernel",
]

_LOCAL_INPUT = {FLOAT32: _core.local_grad_input["float"], FLOAT64: _core.local_grad_input["double"]}
_LOCAL_KERNEL = {FLOAT32: _core.local_grad_kernel["float"], FLOAT64: _core.local_grad_kernel["double"]}
_CONV_INPUT = {FLOAT32: _core.conv_grad_input["float"], FLOAT64: _core.conv_grad_input["double"]}
_CONV_INPUT_NARROW = {FLOAT32: _core.conv_grad_input_narrow["float"], FLOAT64: _core.conv_grad_input_narrow["double"]}
_CONV_KERNEL = {FLOAT32: _core.conv_grad_kernel["float"], FLOAT64: _core.conv_grad_kernel["double"]}


def local_conv1d_input(input_shape: Sequence[int], kernel: ArrayLike, grad_output: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts,
                       data_format: str | None = None, *, padding: PaddingLike = "valid", dilation_rate: IntOrInts = 1, groups: int = 1,
                       out: Array | None = None) -> Array:
    """Gradient of `localconv.local_conv1d` for its input.

    Parameters
    ----------
    input_shape : sequence of 3 ints
        Shape of the input: (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        The kernel of the forward call, (positions, kernel_size * channels / groups, filters). Rows that meet padding do nothing,
        whatever they hold.
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape: (batch, positions, filters), or (batch, filters, positions).
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. float32 if all arrays are, else float64.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    Notes
    -----
    Every input value is the sum, over the positions whose windows hold it, of its kernel row times that position's `grad_output`;
    the order of the sum depends neither on the number of threads nor on how work is cut.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> kernel, grad_output = np.ones((8, 3 * 4, 2), np.float32), np.ones((1, 8, 2), np.float32)
    >>> localconv.grad.local_conv1d_input((1, 10, 4), kernel, grad_output, 3, 1, 'channels_last')[0, :, 0]
    array([2., 4., 6., 6., 6., 6., 6., 6., 4., 2.], dtype=float32)
    """
    return local_input(1, input_shape, kernel, grad_output, kernel_size, strides, None, data_format, padding, dilation_rate, groups, out)


def local_conv1d_kernel(inputs: ArrayLike, kernel_shape: Sequence[int], grad_output: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts,
                        data_format: str | None = None, *, padding: PaddingLike = "valid", dilation_rate: IntOrInts = 1, groups: int = 1,
                        out: Array | None = None, accumulate: bool = False) -> Array:
    """Gradient of `localconv.local_conv1d` for its kernel.

    Parameters
    ----------
    inputs : array_like, float32 or float64
        The input of the forward call, (batch, steps, channels) or (batch, channels, steps).
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (positions, kernel_size * channels / groups, filters).
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape: (batch, positions, filters), or (batch, filters, positions).
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.
    accumulate : bool, optional
        Add the gradient to what `out` holds, which must be given then.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given. float32 if all arrays are, else float64. Rows that meet padding are 0 (with
        `accumulate`: unchanged).

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
    return _local_kernel(1, inputs, kernel_shape, grad_output, kernel_size, strides, None, data_format, padding, dilation_rate, groups,
                         out, accumulate)


def local_conv2d_input(input_shape: Sequence[int], kernel: ArrayLike, grad_output: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts,
                       output_shape: Sequence[int] | None, data_format: str | None = None, *, padding: PaddingLike = "valid",
                       dilation_rate: IntOrInts = (1, 1), groups: int = 1, out: Array | None = None) -> Array:
    """Gradient of `localconv.local_conv2d` for its input.

    Parameters
    ----------
    input_shape : sequence of 4 ints
        Shape of the input: (batch, rows, columns, channels), or (batch, channels, rows, columns).
    kernel : array_like, float32 or float64
        The kernel of the forward call, (positions, kh * kw * channels / groups, filters).
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape.
    output_shape : sequence of 2 ints or None
        Rows and columns of the forward result; checked, and None leaves it out.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.
    out
        As in `local_conv1d_input`.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given.

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
    return local_input(2, input_shape, kernel, grad_output, kernel_size, strides, output_shape, data_format, padding, dilation_rate,
                       groups, out)


def local_conv2d_kernel(inputs: ArrayLike, kernel_shape: Sequence[int], grad_output: ArrayLike, kernel_size: IntOrInts, strides: IntOrInts,
                        output_shape: Sequence[int] | None, data_format: str | None = None, *, padding: PaddingLike = "valid",
                        dilation_rate: IntOrInts = (1, 1), groups: int = 1, out: Array | None = None, accumulate: bool = False) -> Array:
    """Gradient of `localconv.local_conv2d` for its kernel.

    Parameters
    ----------
    inputs : array_like, float32 or float64
        The input of the forward call, (batch, rows, columns, channels) or (batch, channels, rows, columns).
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (positions, kh * kw * channels / groups, filters).
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape.
    output_shape : sequence of 2 ints or None
        Rows and columns of the forward result; checked, and None leaves it out.
    kernel_size, strides, data_format, padding, dilation_rate, groups
        As in the forward call.
    out, accumulate
        As in `local_conv1d_kernel`.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given.

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
    return _local_kernel(2, inputs, kernel_shape, grad_output, kernel_size, strides, output_shape, data_format, padding, dilation_rate,
                         groups, out, accumulate)


def conv1d_input(input_shape: Sequence[int], kernel: ArrayLike, grad_output: ArrayLike, strides: IntOrInts = 1,
                 padding: PaddingLike = "valid", data_format: str | None = None, dilation_rate: IntOrInts = 1, *, groups: int = 1,
                 out: Array | None = None) -> Array:
    """Gradient of `localconv.conv1d` for its input.

    Parameters
    ----------
    input_shape : sequence of ints
        Shape of the input: (..., steps, channels), or (..., channels, steps) with ``data_format='channels_first'``.
    kernel : array_like, float32 or float64
        The kernel of the forward call, (kernel_size, channels / groups, filters).
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape: (..., positions, filters), or (..., filters, positions).
    strides, padding, data_format, dilation_rate, groups
        As in the forward call.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given. float32 if all arrays are, else float64. Steps that no window holds are 0.

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
    >>> localconv.grad.conv1d_input((1, 5, 1), kernel, np.ones((1, 3, 1), np.float32), data_format='channels_last').ravel()
    array([ 1.,  1.,  0., -1., -1.], dtype=float32)
    """
    return shared_input(1, input_shape, kernel, grad_output, strides, padding, data_format, dilation_rate, groups, out)


def conv1d_kernel(x: ArrayLike, kernel_shape: Sequence[int], grad_output: ArrayLike, strides: IntOrInts = 1,
                  padding: PaddingLike = "valid", data_format: str | None = None, dilation_rate: IntOrInts = 1, *, groups: int = 1,
                  out: Array | None = None, accumulate: bool = False) -> Array:
    """Gradient of `localconv.conv1d` for its kernel.

    Parameters
    ----------
    x : array_like, float32 or float64
        The input of the forward call, (..., steps, channels) or (..., channels, steps).
    kernel_shape : sequence of 3 ints
        Shape of the kernel, (kernel_size, channels / groups, filters).
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape: (..., positions, filters), or (..., filters, positions).
    strides, padding, data_format, dilation_rate, groups
        As in the forward call.
    out : ndarray, optional
        Takes the result: same shape and dtype, no memory in common with an input.
    accumulate : bool, optional
        Add the gradient to what `out` holds, which must be given then.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given. float32 if all arrays are, else float64.

    Raises
    ------
    TypeError, ValueError
        As `conv1d_input`.

    Notes
    -----
    The sums over all positions of all images are taken in blocks whose sizes depend on the shapes alone: the result is the same for
    any number of threads, and float32 stays accurate over millions of positions.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x = np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    >>> localconv.grad.conv1d_kernel(x, (3, 1, 1), np.ones((1, 3, 1), np.float32), data_format='channels_last').ravel()
    array([3., 6., 9.], dtype=float32)
    """
    return _shared_kernel(1, x, kernel_shape, grad_output, strides, padding, data_format, dilation_rate, groups, out, accumulate)


def conv2d_input(input_shape: Sequence[int], kernel: ArrayLike, grad_output: ArrayLike, strides: IntOrInts = (1, 1),
                 padding: PaddingLike = "valid", data_format: str | None = None, dilation_rate: IntOrInts = (1, 1), *, groups: int = 1,
                 out: Array | None = None) -> Array:
    """Gradient of `localconv.conv2d` for its input.

    Parameters
    ----------
    input_shape : sequence of ints
        Shape of the input: (..., rows, columns, channels), or (..., channels, rows, columns).
    kernel : array_like, float32 or float64
        The kernel of the forward call, (kh, kw, channels / groups, filters).
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape.
    strides, padding, data_format, dilation_rate, groups, out
        As in `conv1d_input`, two ints or two pairs instead of one.

    Returns
    -------
    ndarray
        Shape `input_shape`; `out` if given.

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
    return shared_input(2, input_shape, kernel, grad_output, strides, padding, data_format, dilation_rate, groups, out)


def conv2d_kernel(x: ArrayLike, kernel_shape: Sequence[int], grad_output: ArrayLike, strides: IntOrInts = (1, 1),
                  padding: PaddingLike = "valid", data_format: str | None = None, dilation_rate: IntOrInts = (1, 1), *, groups: int = 1,
                  out: Array | None = None, accumulate: bool = False) -> Array:
    """Gradient of `localconv.conv2d` for its kernel.

    Parameters
    ----------
    x : array_like, float32 or float64
        The input of the forward call, (..., rows, columns, channels) or (..., channels, rows, columns).
    kernel_shape : sequence of 4 ints
        Shape of the kernel, (kh, kw, channels / groups, filters).
    grad_output : array_like, float32 or float64
        Gradient for the forward result, of its shape.
    strides, padding, data_format, dilation_rate, groups, out, accumulate
        As in `conv1d_kernel`, two ints or two pairs instead of one.

    Returns
    -------
    ndarray
        Shape `kernel_shape`; `out` if given.

    Raises
    ------
    TypeError, ValueError
        As `conv1d_input`.

    Examples
    --------
    >>> import numpy as np, localconv.grad
    >>> x, grad_output = np.ones((2, 6, 5, 3), np.float32), np.ones((2, 6, 5, 4), np.float32)
    >>> localconv.grad.conv2d_kernel(x, (3, 3, 3, 4), grad_output, padding='same', data_format='channels_last')[:, :, 0, 0]
    array([[40., 50., 40.],
           [48., 60., 48.],
           [40., 50., 40.]], dtype=float32)
    """
    return _shared_kernel(2, x, kernel_shape, grad_output, strides, padding, data_format, dilation_rate, groups, out, accumulate)


# ------------------------------------------------------------------------------------------------------- from arguments to the core


def local_input(rank: int, input_shape: Sequence[int], kernel: ArrayLike, grad_output: ArrayLike, kernel_size: IntOrInts,
                strides: IntOrInts, output_shape: Sequence[int] | None, data_format: str | None, padding: PaddingLike,
                dilation_rate: IntOrInts, groups: int, out: Array | None, names: tuple[str, str] = ("input_shape", "grad_output")) -> Array:
    """The gradient for the input of a locally connected convolution; `names`: of the first and the third argument to the caller."""
    k, g = as_float_array(kernel, "kernel"), as_float_array(grad_output, names[1])
    dtype = common_dtype(k, g)
    shape = ints(input_shape, None, names[0], minimum=0)
    expected, plan = _prepare_local(False, (names[0], "kernel"), rank, shape, k.shape, ints(kernel_size, rank, "kernel_size"),
                                    ints(strides, rank, "strides"), _output_ints(output_shape, rank), is_channels_first(data_format),
                                    padding_of(padding, rank), ints(dilation_rate, rank, "dilation_rate"), groups_of(groups),
                                    dtype is FLOAT64, dispatch.state())
    _check_gradient(g, expected, names[1])
    result = output_for(out, shape, dtype, (k, g))
    if plan is not None:
        _LOCAL_INPUT[dtype](plan, flat(k, dtype), flat(g, dtype), result.reshape(-1))
    return deliver(result, out)


def _local_kernel(rank: int, inputs: ArrayLike, kernel_shape: Sequence[int], grad_output: ArrayLike, kernel_size: IntOrInts,
                  strides: IntOrInts, output_shape: Sequence[int] | None, data_format: str | None, padding: PaddingLike,
                  dilation_rate: IntOrInts, groups: int, out: Array | None, accumulate: bool) -> Array:
    x, g = as_float_array(inputs, "inputs"), as_float_array(grad_output, "grad_output")
    dtype = common_dtype(x, g)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    expected, plan = _prepare_local(True, ("inputs", "kernel_shape"), rank, x.shape, shape, ints(kernel_size, rank, "kernel_size"),
                                    ints(strides, rank, "strides"), _output_ints(output_shape, rank), is_channels_first(data_format),
                                    padding_of(padding, rank), ints(dilation_rate, rank, "dilation_rate"), groups_of(groups),
                                    dtype is FLOAT64, dispatch.state())
    _check_gradient(g, expected, "grad_output")
    _check_accumulate(accumulate, out)
    result = output_for(out, shape, dtype, (x, g))
    add = accumulate and result is out
    if plan is not None:
        _LOCAL_KERNEL[dtype](plan, flat(x, dtype), flat(g, dtype), result.reshape(-1), add)
    elif not add:
        result[...] = 0
    return _deliver_sum(result, out, accumulate)


@lru_cache(maxsize=512)
def _prepare_local(for_kernel: bool, names: tuple[str, str], rank: int, x_shape: Ints, kernel_shape: Ints, size: Ints, strides: Ints,
                   output_shape: Ints | None, channels_first: bool, padding: Padding, dilation: Ints, groups: int, double_precision: bool,
                   state: tuple[Any, ...]) -> tuple[Ints, _core.GradientPlan | None]:
    """Shape of the forward result, and the gradient's plan (None: nothing to do). `state` only widens the cache's key."""
    geometry = local_geometry(x_shape, kernel_shape, size, strides, padding, channels_first, dilation, groups, *names)
    output = geometry.output[3 - rank :]
    if output_shape is not None and output_shape != output:
        raise ValueError(f"output_shape must be {output} for {names[0]} of shape {x_shape}, got {output_shape}")
    plan = dispatch.plan_local_grad_kernel if for_kernel else dispatch.plan_local_grad_input
    expected = shape_of_output(x_shape[:1], output, geometry)
    return expected, None if _nothing(geometry, for_kernel) else plan(geometry, double_precision)


def shared_input(rank: int, input_shape: Sequence[int], kernel: ArrayLike, grad_output: ArrayLike, strides: IntOrInts,
                 padding: PaddingLike, data_format: str | None, dilation_rate: IntOrInts, groups: int, out: Array | None,
                 names: tuple[str, str] = ("input_shape", "grad_output")) -> Array:
    """The gradient for the input of a shared convolution; `names`: of the first and the third argument to the caller."""
    k, g = as_float_array(kernel, "kernel"), as_float_array(grad_output, names[1])
    dtype = common_dtype(k, g)
    shape = ints(input_shape, None, names[0], minimum=0)
    expected, geometry, plan = _prepare_shared(False, (names[0], "kernel"), rank, shape, k.shape, ints(strides, rank, "strides"),
                                               padding_of(padding, rank), is_channels_first(data_format),
                                               ints(dilation_rate, rank, "dilation_rate"), groups_of(groups), dtype is FLOAT64,
                                               dispatch.state())
    _check_gradient(g, expected, names[1])
    result = output_for(out, shape, dtype, (k, g))
    if result.size:
        k, g = flat(k, dtype), flat(g, dtype)
        if isinstance(plan, _core.NarrowPlan):
            _CONV_INPUT_NARROW[dtype](plan, k, g, result.reshape(-1))
        elif isinstance(plan, _core.ConvPlan):
            if any(s > n for s, n in zip(geometry.strides, geometry.kernel, strict=True)):
                result[...] = 0  # there are pixels between the windows
            _CONV_INPUT[dtype](plan, k, g, result.reshape(-1))
        else:
            with np.errstate(all="ignore"):  # inf and NaN pass through without a word, as in the other algorithms
                grad_input_by_columns(geometry, k, g, result.reshape(-1))
    return deliver(result, out)


def _shared_kernel(rank: int, x: ArrayLike, kernel_shape: Sequence[int], grad_output: ArrayLike, strides: IntOrInts, padding: PaddingLike,
                   data_format: str | None, dilation_rate: IntOrInts, groups: int, out: Array | None, accumulate: bool) -> Array:
    array, g = as_float_array(x, "x"), as_float_array(grad_output, "grad_output")
    dtype = common_dtype(array, g)
    shape = ints(kernel_shape, None, "kernel_shape", minimum=0)
    expected, geometry, plan = _prepare_shared(True, ("x", "kernel_shape"), rank, array.shape, shape, ints(strides, rank, "strides"),
                                               padding_of(padding, rank), is_channels_first(data_format),
                                               ints(dilation_rate, rank, "dilation_rate"), groups_of(groups), dtype is FLOAT64,
                                               dispatch.state())
    _check_gradient(g, expected, "grad_output")
    _check_accumulate(accumulate, out)
    result = output_for(out, shape, dtype, (array, g))
    add = accumulate and result is out
    if geometry.batch:
        array, g = flat(array, dtype), flat(g, dtype)
        if plan is not None:
            _CONV_KERNEL[dtype](plan, array, g, result.reshape(-1), add)
        else:
            with np.errstate(all="ignore"):
                grad_kernel_by_columns(geometry, array, g, result.reshape(-1), add)
    elif not add:
        result[...] = 0
    return _deliver_sum(result, out, accumulate)


@lru_cache(maxsize=512)
def _prepare_shared(for_kernel: bool, names: tuple[str, str], rank: int, x_shape: Ints, kernel_shape: Ints, strides: Ints, padding: Padding,
                    channels_first: bool, dilation: Ints, groups: int, double_precision: bool,
                    state: tuple[Any, ...]) -> tuple[Ints, Geometry, Any]:
    """Shape of the forward result, the geometry, and the plan of the direct algorithm (None: by columns, or nothing to do).

    `state` only widens the cache's key.
    """
    if max(strides) > 1 and max(dilation) > 1:
        raise ValueError(f"strides > 1 cannot be combined with dilation_rate > 1, got strides={strides}, dilation_rate={dilation}")
    geometry = shared_geometry(x_shape, kernel_shape, strides, padding, channels_first, dilation, groups, *names)
    expected = shape_of_output(x_shape[: -rank - 1], geometry.output[3 - rank :], geometry)
    if _nothing(geometry, for_kernel):
        return expected, geometry, None
    plan = dispatch.plan_conv_grad_kernel if for_kernel else dispatch.plan_conv_grad_input
    return expected, geometry, plan(geometry, double_precision)


def _nothing(geometry: Geometry, for_kernel: bool) -> bool:
    """Whether a gradient has nothing to compute: no images, or no pixels to compute one for (the output may be padding alone)."""
    return geometry.batch == 0 or (not for_kernel and 0 in geometry.input)


def _output_ints(output_shape: Sequence[int] | None, rank: int) -> Ints | None:
    return None if output_shape is None else ints(output_shape, rank, "output_shape", scalar=False)


def _check_gradient(gradient: Array, expected: Ints, name: str) -> None:
    if gradient.shape != expected:
        raise ValueError(f"{name} must have the shape of the forward result, {expected}, got {gradient.shape}")


def _check_accumulate(accumulate: bool, out: Array | None) -> None:
    if not isinstance(accumulate, (bool, np.bool)):
        raise TypeError(f"accumulate must be True or False, got {accumulate!r}")
    if accumulate and out is None:
        raise ValueError("accumulate=True adds to out, which must be given, got out=None")


def _deliver_sum(result: Array, out: Array | None, accumulate: bool) -> Array:
    """`deliver`, or with `accumulate` what could not be added in place."""
    if accumulate and out is not None and result is not out:
        out += result
        return out
    return deliver(result, out)
