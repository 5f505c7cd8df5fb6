"""The engine "ops": the convolution in keras.ops alone, so on any backend, device and compiler.

A sum over the taps of the window: each sees a strided slice of the input, and multiplies it at every position with a
matrix (channels, filters) of that position's own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from keras import ops

from .convolution import Convolution


def convolve(convolution: Convolution, x: Any, kernel: Any, bias: Any) -> Any:
    """As the functions of `backends`; a kernel of another dtype than x is cast tap by tap."""
    spec = convolution.spec
    if spec.channels_first:
        x = ops.moveaxis(x, 1, -1)
    if any(before or after for before, after in convolution.padding):
        x = ops.pad(x, ((0, 0), *convolution.padding, (0, 0)))
    total: Any = None
    for number, tap in enumerate(product(*map(range, convolution.kernel_size))):
        part = _one_tap(x, kernel, number, tap, convolution)
        total = part if total is None else total + part
    y = ops.reshape(total, (ops.shape(x)[0], *convolution.output, convolution.filters))
    if spec.channels_first:
        y = ops.moveaxis(y, -1, 1)
    return y if bias is None else y + shown_bias(bias, convolution)


def _one_tap(x: Any, kernel: Any, number: int, tap: tuple[int, ...], convolution: Convolution) -> Any:
    """What a tap adds to the output, as (batch, positions, filters)."""
    spec, groups = convolution.spec, convolution.spec.groups
    positions, filters = convolution.kernel_shape[0], convolution.filters
    inner = convolution.channels // groups
    place = [
        slice(t * d, t * d + (count - 1) * s + 1, s)
        for t, d, s, count in zip(tap, spec.dilation, spec.strides, convolution.output, strict=True)
    ]
    batch = ops.shape(x)[0]
    rows = (
        ops.reshape(kernel, (positions, inner, convolution.taps, filters))[:, :, number]
        if spec.channels_first
        else kernel[:, number * inner : (number + 1) * inner]
    )
    rows = rows if rows.dtype == x.dtype else ops.cast(rows, x.dtype)
    pixels = x[(slice(None), *place)]
    if groups == 1:
        return ops.einsum("bpc,pcf->bpf", ops.reshape(pixels, (batch, positions, inner)), rows)
    pixels = ops.reshape(pixels, (batch, positions, groups, inner))
    weights = ops.reshape(rows, (positions, inner, groups, filters // groups))
    return ops.reshape(ops.einsum("bpgc,pcgf->bpgf", pixels, weights), (batch, positions, filters))


def scaled(
    convolution: Convolution, compute: Callable[[Any, Any], Any], x: Any, values: Any, scales: Any, bias: Any
) -> Any:
    """A kernel's scales, of which there is one for each output of an image, multiply the sums that `compute` makes of x
    and the kernel's values.
    """
    positions_last = convolution.spec.channels_first
    shape = (convolution.filters, *convolution.output) if positions_last else convolution.bias_shape
    y = compute(x, values) * ops.reshape(ops.transpose(scales) if positions_last else scales, shape)
    return y if bias is None else y + shown_bias(bias, convolution)


def shown_bias(bias: Any, convolution: Convolution) -> Any:
    """A stored bias in the shape of an image of the output.

    Keras 2 reshapes it, and does not transpose it, to (filters, positions) with channels_first.
    """
    if convolution.spec.channels_first:
        return ops.reshape(bias, (convolution.filters, *convolution.output))
    return bias
