"""The engine "ops": the convolution, and filters that come with the data, in keras.ops alone, so on any backend, device
and compiler.

A sum over the taps of the window: each sees a strided slice of the input, and multiplies it at every position with a
matrix (channels, filters) of that position's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from ..core import formulation
from ..core.spec import Spec
from ..core.windows import Convolution
from .checks import split


def convolver(convolution: Convolution) -> Callable[[Any, Any, Any], Any]:
    """A function of x, the kernel and the bias, as those of `backends`; a kernel of another dtype than x is cast tap by
    tap.
    """
    # Here, and not at every call: Dynamo warns of functions that keep results.
    pieces = formulation.by_tap(convolution)

    def convolve(x: Any, kernel: Any, bias: Any) -> Any:
        y = formulation.forward(ops, pieces, x, kernel, _cast_to(x.dtype))
        return y if bias is None else y + broadcastable_bias(bias, convolution)

    return convolve


def scaled(
    convolution: Convolution, compute: Callable[[Any, Any], Any], x: Any, values: Any, scales: Any, bias: Any
) -> Any:
    """A kernel's scales, of which there is one for each output of an image, multiply the sums that `compute` makes of x
    and the kernel's values.
    """
    positions_last = convolution.spec.channels_first
    shape = (convolution.filters, *convolution.output) if positions_last else convolution.bias_shape
    y = compute(x, values) * ops.reshape(ops.transpose(scales) if positions_last else scales, shape)
    return y if bias is None else y + broadcastable_bias(bias, convolution)


def filter_by_taps(spec: Spec, x: Any, filters: Any) -> Any:
    """`local_filter`; filters of another dtype than x are cast tap by tap."""
    return formulation.filter_forward(ops, _by_tap(spec, x), x, filters, _cast_to(x.dtype))


def correlate_by_taps(spec: Spec, x: Any, queries: Any) -> Any:
    """`local_correlation`."""
    return formulation.filter_grad_kernel(ops, _by_tap(spec, x), x, queries)


def _by_tap(spec: Spec, x: Any) -> formulation.ByTap:
    spatial, channels = split(spec, tuple(x.shape))
    if channels is None or None in spatial:
        raise ValueError(
            f"inputs must have sizes and channels that are known where keras.ops computes; only the batch may be None, "
            f"got shape {tuple(x.shape)}"
        )
    # Without the cache of `formulation`: Dynamo warns of functions that keep results.
    return formulation.ByTap(Convolution(spec, spatial, channels, channels))  # type: ignore[arg-type]


def _cast_to(dtype: Any) -> Callable[[Any], Any]:
    def cast(part: Any) -> Any:
        return part if part.dtype == dtype else ops.cast(part, dtype)

    return cast


def broadcastable_bias(bias: Any, convolution: Convolution) -> Any:
    """A stored bias in the shape of an image of the output.

    Keras 2 reshapes it, and does not transpose it, to (filters, positions) with channels_first.
    """
    if convolution.spec.channels_first:
        return ops.reshape(bias, (convolution.filters, *convolution.output))
    return bias
