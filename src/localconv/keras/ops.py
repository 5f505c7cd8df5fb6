"""The engine "ops": the convolution in keras.ops alone, so on any backend, device and compiler.

A sum over the taps of the window: each sees a strided slice of the input, and multiplies it at every position with a
matrix (channels, filters) of that position's own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

from keras import ops

from ..windows import Convolution


def convolve(convolution: Convolution, x: Any, kernel: Any, bias: Any) -> Any:
    """As the functions of `backends`; a kernel of another dtype than x is cast tap by tap."""
    spec = convolution.spec
    if spec.channels_first:
        x = ops.moveaxis(x, 1, -1)
    total: Any = None
    for number, tap in enumerate(product(*map(range, convolution.kernel_size))):
        part = _one_tap(x, kernel, number, tap, convolution)
        total = part if total is None else total + part
    y = ops.moveaxis(total, -1, 1) if spec.channels_first else total
    return y if bias is None else y + shown_bias(bias, convolution)


def _one_tap(x: Any, kernel: Any, number: int, tap: tuple[int, ...], convolution: Convolution) -> Any:
    """What a tap adds to the output, as (batch, *output, filters).

    It is computed for the positions where the tap meets the input. A weight that meets padding is in no sum: 0 times
    NaN or inf would be NaN, here and in derivatives.
    """
    spec, groups = convolution.spec, convolution.spec.groups
    positions, filters = convolution.kernel_shape[0], convolution.filters
    inner = convolution.channels // groups
    bounds, place = _inside(tap, convolution)
    batch, box = ops.shape(x)[0], [stop - start for start, stop in bounds]
    rows = (
        ops.reshape(kernel, (positions, inner, convolution.taps, filters))[:, :, number]
        if spec.channels_first
        else kernel[:, number * inner : (number + 1) * inner]
    )
    if prod(box) < positions:
        rows = ops.reshape(rows, (*convolution.output, inner, filters))[tuple(slice(*ends) for ends in bounds)]
        rows = ops.reshape(rows, (prod(box), inner, filters))
    rows = rows if rows.dtype == x.dtype else ops.cast(rows, x.dtype)
    pixels = x[(slice(None), *place)]
    if groups == 1:
        part = ops.einsum("bpc,pcf->bpf", ops.reshape(pixels, (batch, prod(box), inner)), rows)
    else:
        pixels = ops.reshape(pixels, (batch, prod(box), groups, inner))
        weights = ops.reshape(rows, (prod(box), inner, groups, filters // groups))
        part = ops.einsum("bpgc,pcgf->bpgf", pixels, weights)
    part = ops.reshape(part, (batch, *box, filters))
    if prod(box) == positions:
        return part
    around = [(start, count - stop) for (start, stop), count in zip(bounds, convolution.output, strict=True)]
    return ops.pad(part, ((0, 0), *around, (0, 0)))


def _inside(tap: tuple[int, ...], convolution: Convolution) -> tuple[list[tuple[int, int]], list[slice]]:
    """The first position, and the one behind the last, where a tap meets the input, along every axis, and the pixels
    that it meets there.
    """
    spec, bounds, place = convolution.spec, [], []
    axes = zip(
        tap, spec.dilation, spec.strides, convolution.output, convolution.padding, convolution.spatial, strict=True
    )
    for t, d, s, count, (before, _), n in axes:
        first = t * d - before  # the pixel that it meets at position 0
        start = min(count, max(0, -(first // s)))
        stop = max(start, min(count, (n - 1 - first) // s + 1))
        bounds.append((start, stop))
        pixel = max(0, first + start * s)
        place.append(slice(pixel, pixel + (stop - start - 1) * s + 1 if stop > start else pixel, s))
    return bounds, place


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
