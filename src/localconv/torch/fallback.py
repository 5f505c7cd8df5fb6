"""The three operations in PyTorch's own: for devices that have no compiled kernels here, and wherever operators cannot
have derivatives of their own (`private`).

Windows are gathered, which takes prod(kernel_size) times the input's memory, and multiplied in one batch of matrices.
Padding is zeros there, and 0 * inf is NaN. So a weight's rows for taps in the padding are set to 0, in a copy for the
time of a call, and the same rows of its gradient are 0. The gradient for an input is summed from the products of every
tap, and those in the padding are left out.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from . import private
from .arguments import check_bias, check_dtypes, check_gradient, check_int8, check_sizes, shown_bias
from .window import Window

_forced = False


def is_forced() -> bool:
    """Whether these operations are used for the processor's tensors too."""
    return _forced


@contextlib.contextmanager
def forced() -> Iterator[None]:
    """Use these operations for the processor's tensors too, for tests and measurements, in the whole process."""
    global _forced
    before, _forced = _forced, True
    try:
        yield
    finally:
        _forced = before


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `native.forward`."""
    check_dtypes(input=x, weight=weight, bias=bias)
    size = check_sizes(window, x.shape, weight.shape)
    if bias is not None:
        check_bias(bias.shape, size)
    n, filters, *output = size
    in_padding = _in_padding(window, x.shape, x.device)
    if in_padding is not None:
        weight = weight.masked_fill(in_padding, 0)
    products = torch.bmm(_windows(x, window), _by_group(weight, window))
    # (positions * groups, N, filters / groups) to (N, positions, filters)
    y = products.unflatten(0, (prod(output), window.groups)).permute(2, 0, 1, 3)
    y = y.reshape(n, *output, filters)
    if bias is not None:
        y = y + bias.movedim(0, -1)
    # The strides that the fakes of the operators promise, which compiled programs rely on.
    return y.contiguous().movedim(-1, 1)


def grad_input(size: Sequence[Any], weight: Tensor, gradient: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `native.grad_input`."""
    check_dtypes(gradient=gradient, weight=weight, bias=bias)
    check_gradient(gradient.shape, check_sizes(window, size, weight.shape))
    if bias is not None:
        check_bias(bias.shape, size)
    n, channels, *spatial = size
    output = gradient.shape[2:]
    rows = torch.bmm(_gradients(gradient, window), _by_group(weight, window).mT)
    # (positions * groups, N, taps * channels / groups) to a value for each tap: (N, *output, channels)
    split = (prod(output), window.groups, n, window.taps, channels // window.groups)
    by_tap = rows.reshape(split).permute(3, 2, 0, 1, 4).reshape(window.taps, n, *output, channels)
    pad = window.padding
    padded = [s + pad[2 * i] + pad[2 * i + 1] for i, s in enumerate(spatial)]
    # The products have been rounded; what is added to them has not. A batch in any factor is one of the products.
    total = by_tap.new_zeros((n, *padded, channels), dtype=torch.promote_types(gradient.dtype, torch.float32))
    for part, tap in zip(by_tap, itertools.product(*map(range, window.kernel_size)), strict=True):
        place = [
            slice(t * d, t * d + (out - 1) * s + 1, s)
            for t, d, s, out in zip(tap, window.dilation, window.stride, output, strict=True)
        ]
        total[(slice(None), *place)] += part
    inside = [slice(pad[2 * i], pad[2 * i] + s) for i, s in enumerate(spatial)]
    found = total[(slice(None), *inside)]
    if bias is not None:
        found = found + shown_bias(bias, window.rank).movedim(0, -1)
    return found.contiguous().movedim(-1, 1).to(gradient.dtype)


def grad_weight(x: Tensor, size: Sequence[Any], gradient: Tensor, window: Window) -> Tensor:
    """As `native.grad_weight`."""
    check_dtypes(gradient=gradient, input=x)
    check_gradient(gradient.shape, check_sizes(window, x.shape, size))
    products = torch.bmm(_windows(x, window).mT, _gradients(gradient, window))
    positions, depth, filters = size
    by_group = products.reshape(positions, window.groups, depth, filters // window.groups)
    found = by_group.transpose(1, 2).reshape(positions, depth, filters).contiguous()
    in_padding = _in_padding(window, x.shape, x.device)
    return found if in_padding is None else found.masked_fill_(in_padding, 0)


def forward_int8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `native.forward_int8`."""
    check_int8(values, scales, input=x, bias=bias)
    wide = None if bias is None else bias.float()
    return forward(x.float(), dequantized(values, scales), wide, window).to(x.dtype)


def grad_input_int8(
    size: Sequence[Any], values: Tensor, scales: Tensor, gradient: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """As `native.grad_input_int8`."""
    check_int8(values, scales, gradient=gradient, bias=bias)
    wide = None if bias is None else bias.float()
    return grad_input(size, dequantized(values, scales), gradient.float(), wide, window).to(gradient.dtype)


def dequantized(values: Tensor, scales: Tensor) -> Tensor:
    """The float32 weight that int8 values and their scales stand for; both may be batched."""
    return values * scales.unsqueeze(-2)


def _windows(x: Tensor, window: Window) -> Tensor:
    """What every position sees: (positions * groups, N, taps * channels / groups)."""
    rank, groups = window.rank, window.groups
    if any(window.padding):
        backwards = [n for i in reversed(range(rank)) for n in window.padding[2 * i : 2 * i + 2]]
        x = torch.nn.functional.pad(x, backwards)
    if not private.HAS_TOOLS:
        x = _stacked(x, window)
    else:
        for i in range(rank):
            reach = window.dilation[i] * (window.kernel_size[i] - 1) + 1
            x = x.unfold(2 + i, reach, window.stride[i])[..., :: window.dilation[i]]
    n, channels = x.shape[:2]
    x = x.reshape(n, groups, channels // groups, *x.shape[2:])
    # (N, groups, channels, *output, *taps) to (*output, groups, N, *taps, channels)
    output, taps = range(3, 3 + rank), range(3 + rank, 3 + 2 * rank)
    return x.permute(*output, 1, 0, *taps, 2).flatten(rank + 2).flatten(0, rank)


def _stacked(x: Tensor, window: Window) -> Tensor:
    """A padded input as (N, C, *output, *taps), a copy for each tap. Programs that PyTorch differentiates need it:
    what inductor makes of the derivative of `unfold` is wrong (pytorch/pytorch#171370; 2.13 too).
    """
    for i, (kernel, stride, dilation) in enumerate(
        zip(window.kernel_size, window.stride, window.dilation, strict=True)
    ):
        axis = 2 + i
        last = x.shape[axis] - dilation * (kernel - 1)
        before = (slice(None),) * axis
        x = torch.stack([x[(*before, slice(t * dilation, t * dilation + last, stride))] for t in range(kernel)], -1)
    return x


def _in_padding(window: Window, size: Sequence[Any], device: torch.device) -> Tensor | None:
    """Which rows of a weight meet the padding of an input of that size alone: (positions, depth, 1); None: none does.

    It is made on the device, for no call may wait for a copy, nor may a call that is being captured in a CUDA graph.
    """
    if not any(window.padding):
        return None
    rank, spatial = window.rank, size[2:]
    inside = torch.ones((), dtype=torch.bool, device=device)
    for i, (n, count) in enumerate(zip(spatial, window.output_size(spatial), strict=True)):
        starts = torch.arange(count, device=device) * window.stride[i] - window.padding[2 * i]
        taps = torch.arange(window.kernel_size[i], device=device) * window.dilation[i]
        pixels = starts.unsqueeze(1) + taps
        shape = [1] * (2 * rank)
        shape[i], shape[rank + i] = pixels.shape
        inside = inside & ((pixels >= 0) & (pixels < n)).reshape(shape)
    rows = inside.flatten(0, rank - 1).flatten(1)
    # Every tap has a row for each channel of a group.
    return ~rows.repeat_interleave(size[1] // window.groups, 1).unsqueeze(2)


def _by_group(weight: Tensor, window: Window) -> Tensor:
    """(positions * groups, depth, filters / groups)."""
    positions, depth, filters = weight.shape
    split = weight.reshape(positions, depth, window.groups, filters // window.groups)
    return split.transpose(1, 2).reshape(-1, depth, filters // window.groups)


def _gradients(gradient: Tensor, window: Window) -> Tensor:
    """(N, filters, *output) as (positions * groups, N, filters / groups)."""
    n, filters = gradient.shape[:2]
    split = gradient.reshape(n, window.groups, filters // window.groups, prod(gradient.shape[2:]))
    return split.permute(3, 1, 0, 2).flatten(0, 1)
