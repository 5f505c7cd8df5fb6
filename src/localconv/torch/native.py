"""The compiled kernels on plain tensors in the processor's memory.

The core is told where a tensor's memory begins, for the time of a call: ``Tensor.numpy()`` would mark the storage as
not resizable for ever, and sharded training (FSDP) resizes storages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._core import Job, ask_for_huge_pages, num_threads
from ..core import engine
from ..core.arrays import SINGLE, ElementType
from ..core.geometry import Mismatch, Names
from ..core.settings import current
from .arguments import (
    ELEMENTS,
    INT8,
    broadcastable_bias,
    check_bias,
    check_dtypes,
    check_filter_dtypes,
    check_filter_sizes,
    check_gradient,
    check_int8,
    check_queries,
    check_sizes,
    is_channels_last,
)
from .window import Window

# What errors call the arguments of filters that come with the data.
FILTER_NAMES = Names("input", "filters", "queries", "what local_filter returns")

# Bytes from which NumPy asks for huge pages, too.
LARGE = 2**22

# Compiled programs call the operators, and never what is marked by this. But where compilation leaves a program to
# Python, it still looks into every frame that begins below, those of a backward pass and of the operators among them;
# there would be addresses of tensors whose sizes are symbols to it.
opaque = torch.compiler.disable

_empty_strided = torch.empty_strided
_get_num_threads = torch.get_num_threads


def _address(name: str, tensor: Tensor | None) -> int:
    """Where a tensor's elements begin; 0: there is no tensor."""
    if tensor is None:
        return 0
    address = tensor.data_ptr()
    if not address:
        raise RuntimeError(f"Expected {name} to have memory, but its storage was freed or is not allocated yet")
    # A storage may have been resized since the tensor was made: PyTorch keeps the tensor's sizes.
    needed = tensor.nbytes + tensor.storage_offset() * tensor.itemsize
    if tensor.untyped_storage().nbytes() < needed and tensor.is_contiguous():
        raise RuntimeError(
            f"Expected {name} of {tensor.numel()} elements to lie in its storage, which was made smaller"
        )
    return address


def _run(
    job: Any,
    result: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    gradient: Tensor | None,
    bias: Tensor | None = None,
    scales: Tensor | None = None,
) -> None:
    """Runs a job on the memory of contiguous tensors, which the caller keeps."""
    if type(job) is not Job:  # there is nothing to sum
        result.zero_()
        return
    job.run_at(
        result.data_ptr(),
        _address("input", x),
        _address("weight", weight),
        _address("gradient", gradient),
        _address("bias", bias),
        0 if bias is None else bias.numel(),
        True,
        _address("scales", scales),
    )


def ready(tensor: Tensor, element: ElementType) -> Tensor:
    """A contiguous tensor of what is computed in: itself, if it is so already."""
    plain = tensor.resolve_neg()
    if not element.storage or plain.dtype == torch.float32:  # of which `to` would make no copy whatever its strides
        return plain.contiguous()
    return plain.to(torch.float32, memory_format=torch.contiguous_format)


def _channels_last(tensor: Tensor, element: ElementType) -> Tensor:
    """(N, C, ...) as (N, ..., C), ready: a view where the memory is in that order."""
    return ready(tensor.movedim(1, -1), element)


def _made(size: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A new tensor, in huge pages if it is large: a training step makes a gradient as large as the weight."""
    made = _empty_strided(size, strides, dtype=dtype)
    if made.nbytes >= LARGE:
        ask_for_huge_pages(made.data_ptr(), made.nbytes)
    return made


@lru_cache(maxsize=1024)
def _as_channels_last(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Size (N, C, ...) and strides of what lies in memory as (N, ..., C), the shape given."""
    n, *spatial, channels = shape
    steps = [channels * prod(spatial[axis + 1 :]) for axis in range(len(spatial))]
    return (n, channels, *spatial), (channels * prod(spatial), 1, *steps)


def context() -> engine.Context:
    """The settings in force, and no more threads than PyTorch's and localconv's."""
    return engine.Context(current(), min(num_threads(), _get_num_threads()))


def _prepare(
    operation: str, window: Window, x_shape: Sequence[int], weight_shape: Sequence[int], element: ElementType
) -> engine.Prepared:
    """The plan of an operation on an input of shape (N, ..., C)."""
    shape, rows = tuple(x_shape), tuple(weight_shape)
    try:
        return engine.prepare(operation, window.spec, shape, rows, element, context())
    except Mismatch as error:
        n, *spatial, channels = shape
        size = n, channels, *spatial
        check_sizes(window, size, rows)
        raise RuntimeError(f"{error.named(engine.NAMES)} (input of size {size} and weight of size {rows})") from None


@opaque
def forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The convolution of (N, C, ...) with rows, plus a bias (F,) or (F, ...)."""
    common, element = x.dtype, ELEMENTS.get(x.dtype)
    if element is None or weight.dtype != common or (bias is not None and bias.dtype != common):
        element = check_dtypes(input=x, weight=weight, bias=bias)
    return _forward(x, weight, None, bias, window, element)


@opaque
def forward_int8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `forward` with a weight of int8 values and float32 scales, rounded once to the input's dtype."""
    check_int8(values, scales, input=x, bias=bias)
    return _forward(x, values, scales, bias, window, INT8)


def _forward(
    x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None, window: Window, element: ElementType
) -> Tensor:
    common = x.dtype
    if x.dim() != window.rank + 2 or weight.dim() != 3:
        check_sizes(window, x.shape, weight.shape)
    x, weight = _channels_last(x, element), weight.resolve_neg().contiguous()
    prepared = _prepare("local_forward", window, x.shape, weight.shape, element)
    size, strides = _as_channels_last(prepared.output)
    if bias is not None:
        if bias.shape != size[1:] and bias.shape != size[1:2]:
            check_bias(bias.shape, size)
        bias = ready(bias, element)
    result = _made(size, strides, x.dtype)
    scales = None if scales is None else scales.contiguous()
    _run(prepared.job, result, x, weight, None, bias, scales)
    return result.to(common) if element.storage else result


@opaque
def grad_input(size: Sequence[int], weight: Tensor, gradient: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The transposed convolution of `gradient` to that size, plus a bias (C,) or (C, ...); without one, the
    gradient for an input.
    """
    common, element = gradient.dtype, ELEMENTS.get(gradient.dtype)
    if element is None or weight.dtype != common or (bias is not None and bias.dtype != common):
        element = check_dtypes(gradient=gradient, weight=weight, bias=bias)
    return _grad_input(size, weight, None, gradient, bias, window, element)


@opaque
def grad_input_int8(
    size: Sequence[int], values: Tensor, scales: Tensor, gradient: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """As `grad_input` with a weight of int8 values and float32 scales."""
    check_int8(values, scales, gradient=gradient, bias=bias)
    return _grad_input(size, values, scales, gradient, bias, window, INT8)


def _grad_input(
    size: Sequence[int],
    weight: Tensor,
    scales: Tensor | None,
    gradient: Tensor,
    bias: Tensor | None,
    window: Window,
    element: ElementType,
) -> Tensor:
    common = gradient.dtype
    if gradient.dim() != window.rank + 2 or weight.dim() != 3 or len(size) != window.rank + 2 or min(size) < 0:
        check_gradient(gradient.shape, check_sizes(window, size, weight.shape))
    weight, gradient = weight.resolve_neg().contiguous(), _channels_last(gradient, element)
    n, channels, *spatial = size
    shape = (n, *spatial, channels)
    prepared = _prepare("local_grad_input", window, shape, weight.shape, element)
    if gradient.shape != prepared.output:
        _refuse_gradient(gradient, prepared.output)
    if bias is not None:
        check_bias(bias.shape, size)
        _address("bias", bias)
    result = _made(*_as_channels_last(shape), gradient.dtype)
    scales = None if scales is None else scales.contiguous()
    _run(prepared.job, result, None, weight, gradient, None, scales)
    if bias is not None:
        result += broadcastable_bias(bias, window.rank)  # in float32 where the bias has 16 bits
    return result.to(common) if element.storage else result


@opaque
def grad_weight(x: Tensor, size: Sequence[int], gradient: Tensor, window: Window) -> Tensor:
    """The gradient for a weight of that size."""
    common, element = gradient.dtype, ELEMENTS.get(gradient.dtype)
    if element is None or x.dtype != common:
        element = check_dtypes(gradient=gradient, input=x)
    if gradient.dim() != window.rank + 2 or x.dim() != window.rank + 2 or len(size) != 3:
        check_gradient(gradient.shape, check_sizes(window, x.shape, size))
    x, gradient, shape = _channels_last(x, element), _channels_last(gradient, element), tuple(size)
    prepared = _prepare("local_grad_kernel", window, x.shape, shape, SINGLE if element.storage else element)
    if gradient.shape != prepared.output:
        _refuse_gradient(gradient, prepared.output)
    _, depth, filters = shape
    result = _made(shape, (depth * filters, filters, 1), gradient.dtype)
    _run(prepared.job, result, x, None, gradient)
    return result.to(common) if element.storage else result


def _refuse_gradient(gradient: Tensor, expected: Sequence[int]) -> None:
    """Say which size a gradient must have; both are (N, ..., F)."""
    actual, required = ((size[0], size[-1], *size[1:-1]) for size in (gradient.shape, expected))
    check_gradient(actual, required)


# ------------------------------------------------------------------------------------------ filters that come with data


@opaque
def filter_forward(x: Tensor, filters: Tensor, window: Window) -> Tensor:
    """(N, C, ...) through the filters (N or 1, groups * taps, ...) that come with it."""
    element = check_filter_dtypes(filters, input=x)
    if x.dim() != window.rank + 2 or filters.dim() != window.rank + 2:
        check_filter_sizes(window, x.shape, filters.shape)
    common, last = x.dtype, is_channels_last(x, filters)
    x, filters = ready(_ordered(x, last), element), _ordered(filters, last).resolve_neg().contiguous()
    prepared = _prepare_filters("filter_forward", window, x.shape, filters.shape, element, last)
    result = _made_ordered(prepared.output, x.dtype, last)
    _run(prepared.job, result, x, filters, None)
    return result.to(common)


@opaque
def filter_grad_input(size: Sequence[int], filters: Tensor, gradient: Tensor, window: Window) -> Tensor:
    """The gradient for an input of that size."""
    element = check_filter_dtypes(filters, grad_output=gradient)
    if gradient.dim() != window.rank + 2 or filters.dim() != window.rank + 2 or len(size) != window.rank + 2:
        check_queries(gradient.shape, check_filter_sizes(window, size, filters.shape))
    common, last = gradient.dtype, is_channels_last(filters, gradient)
    gradient, filters = ready(_ordered(gradient, last), element), _ordered(filters, last).resolve_neg().contiguous()
    n, channels, *spatial = size
    shape = (n, *spatial, channels) if last else tuple(size)
    prepared = _prepare_filters("filter_grad_input", window, shape, filters.shape, element, last)
    _check_ordered(gradient, prepared.output, last)
    result = _made_ordered(shape, gradient.dtype, last)
    _run(prepared.job, result, None, filters, gradient)
    return result.to(common)


@opaque
def filter_grad_kernel(x: Tensor, size: Sequence[int], gradient: Tensor, window: Window) -> Tensor:
    """The gradient for filters of that size, which is the correlation of an input's windows with queries."""
    element = check_filter_dtypes(None, input=x, queries=gradient)
    if gradient.dim() != window.rank + 2 or x.dim() != window.rank + 2 or len(size) != window.rank + 2:
        check_queries(gradient.shape, check_filter_sizes(window, x.shape, size))
    common, last = gradient.dtype, is_channels_last(x, gradient)
    x, gradient = (ready(_ordered(tensor, last), element) for tensor in (x, gradient))
    n, taps, *spatial = size
    shape = (n, *spatial, taps) if last else tuple(size)
    wide = SINGLE if element.storage else element
    prepared = _prepare_filters("filter_grad_kernel", window, x.shape, shape, wide, last)
    _check_ordered(gradient, prepared.output, last)
    result = _made_ordered(shape, gradient.dtype, last)
    _run(prepared.job, result, x, None, gradient)
    return result.to(common)


def _ordered(tensor: Tensor, last: bool) -> Tensor:
    """(N, C, ...), or it as (N, ..., C)."""
    return tensor.movedim(1, -1) if last else tensor


def _made_ordered(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Tensor:
    """A new tensor (N, C, ...), of which the shape is given in its order of memory."""
    return _made(*(_as_channels_last(shape) if last else _as_channels_first(shape)), dtype)


@lru_cache(maxsize=1024)
def _as_channels_first(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Size and strides of what lies in memory as its size says."""
    return shape, tuple(max(1, prod(shape[axis + 1 :])) for axis in range(len(shape)))


def _check_ordered(gradient: Tensor, expected: tuple[int, ...], last: bool) -> None:
    """RuntimeError unless a gradient has that shape, in its order of memory."""
    if gradient.shape != expected:
        actual, required = (
            _as_channels_last(tuple(shape))[0] if last else shape for shape in (gradient.shape, expected)
        )
        check_queries(actual, required)


def _prepare_filters(
    operation: str,
    window: Window,
    x_shape: Sequence[int],
    filters_shape: Sequence[int],
    element: ElementType,
    last: bool,
) -> engine.Prepared:
    """As `_prepare`, of shapes in their order of memory."""
    shapes = tuple(x_shape), tuple(filters_shape)
    try:
        return engine.prepare(operation, window.specs[not last], *shapes, element, context())
    except Mismatch as error:
        x_size, size = (_as_channels_last(shape)[0] if last else shape for shape in shapes)
        check_filter_sizes(window, x_size, size)
        given = f"input of size {list(x_size)} and filters of size {list(size)}"
        raise RuntimeError(f"{error.named(FILTER_NAMES)} ({given})") from None
