"""The compiled kernels on plain tensors in the processor's memory.

A tensor's memory is lent to the core for the time of a call, through NumPy's array interface: ``Tensor.numpy()`` would
mark the storage as not resizable for ever, and sharded training (FSDP) resizes storages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from .. import engine
from .._core import num_threads
from ..arrays import DOUBLE, SINGLE, Array, ElementType
from ..geometry import Mismatch
from ..settings import current
from .window import Window

ELEMENTS: dict[torch.dtype, ElementType] = {torch.float32: SINGLE, torch.float64: DOUBLE}

# Computed in float32 and rounded once.
HALVES = (torch.bfloat16, torch.float16)

# Names that PyTorch keeps to itself, all of them questions.
_transforms_active = torch._C._are_functorch_transforms_active
_modes_active = torch._C._len_torch_dispatch_stack
_tracing = torch._C._get_tracing_state
_profiled = torch._C._autograd._profiler_enabled
_is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor

_empty = torch.empty
_get_num_threads = torch.get_num_threads


# Of these types a tensor is nothing but its memory.
_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether the kernels may be called on the memory of tensors with nobody told of it.

    Not where a transform of `torch.func`, a mode, a tracer or the profiler wants to see operators, nor with subclasses,
    other devices and other layouts.
    """
    if _transforms_active() or _modes_active() or _tracing() is not None or _profiled():
        return False
    for tensor in tensors:
        if tensor is not None and not (
            type(tensor) in _PLAIN_TYPES
            and tensor.is_cpu
            and tensor.layout is torch.strided
            and not _is_legacy_batched(tensor)
        ):
            return False
    return True


class _Memory:
    """Lends the memory of a contiguous tensor, and keeps it alive."""

    __slots__ = ("__array_interface__", "tensor")

    def __init__(self, tensor: Tensor, typestr: str) -> None:
        self.tensor = tensor
        self.__array_interface__ = {
            "version": 3,
            "shape": (tensor.numel(),),
            "typestr": typestr,
            "data": (tensor.data_ptr(), False),
        }


def _elements(tensor: Tensor, element: ElementType) -> Array:
    """The elements of a contiguous tensor in one dimension."""
    if tensor.numel() == 0:
        return np.empty(0, element.dtype)
    return np.asarray(_Memory(tensor, element.dtype.str))


def _channels_last(tensor: Tensor) -> Tensor:
    """(N, C, ...) as contiguous (N, ..., C): a view where the memory is in that order."""
    return tensor.movedim(1, -1).resolve_neg().contiguous()


def call(wanted: int, factors: Any, bias: Tensor | None, sizes: Any, window: Window) -> Tensor:
    """As `operators.call`, without the dispatcher."""
    x, weight, y = factors
    if wanted == 2:
        return forward(x, weight, bias, window)
    return grad_input(sizes[0], weight, y, window) if wanted == 0 else grad_weight(x, sizes[1], y, window)


def _prepare(
    operation: str, window: Window, x_shape: Sequence[int], weight_shape: Sequence[int], element: ElementType
) -> engine.Prepared:
    """The plan of an operation on an input of shape (N, ..., C), for no more threads than PyTorch's and localconv's."""
    shape, rows = tuple(x_shape), tuple(weight_shape)
    threads = min(num_threads(), _get_num_threads())
    try:
        return engine.prepare_under(current(), threads, operation, window.spec, shape, rows, element)
    except Mismatch as error:
        n, *spatial, channels = shape
        refuse(error, window, (n, channels, *spatial), rows)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The convolution of (N, C, ...) with rows, plus a bias (F,) or (F, ...)."""
    element = ELEMENTS.get(x.dtype)
    if weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype) or element is None:
        return _forward_of_halves(x, weight, bias, window)
    x, weight = _channels_last(x), weight.resolve_neg().contiguous()
    prepared = _prepare("local_forward", window, x.shape, weight.shape, element)
    terms = None
    if bias is not None:
        ordered = bias.movedim(0, -1).resolve_neg().contiguous()
        if ordered.shape not in prepared.bias_shapes:
            allowed = " or ".join(str([s[-1], *s[:-1]]) for s in prepared.bias_shapes)
            raise RuntimeError(f"Expected bias to have size {allowed}, but got {list(bias.shape)}")
        terms = _elements(ordered, element)
    result = _empty(prepared.output, dtype=x.dtype)
    prepared.job.run(_elements(result, element), _elements(x, element), _elements(weight, element), None, terms)
    return result.movedim(-1, 1)


def grad_input(size: Sequence[int], weight: Tensor, gradient: Tensor, window: Window) -> Tensor:
    """The gradient for an input of that size, which is the transposed convolution of `gradient`."""
    element = ELEMENTS.get(gradient.dtype)
    if weight.dtype != gradient.dtype or element is None:
        common = _half("weight", weight, gradient)
        return grad_input(size, weight.to(torch.float32), gradient.to(torch.float32), window).to(common)
    weight, gradient = weight.resolve_neg().contiguous(), _channels_last(gradient)
    n, channels, *spatial = size
    shape = (n, *spatial, channels)
    prepared = _prepare("local_grad_input", window, shape, weight.shape, element)
    _check_gradient(gradient, prepared.output)
    result = _empty(shape, dtype=gradient.dtype)
    prepared.job.run(_elements(result, element), None, _elements(weight, element), _elements(gradient, element))
    return result.movedim(-1, 1)


def grad_weight(x: Tensor, size: Sequence[int], gradient: Tensor, window: Window) -> Tensor:
    """The gradient for a weight of that size."""
    element = ELEMENTS.get(gradient.dtype)
    if x.dtype != gradient.dtype or element is None:
        common = _half("input", x, gradient)
        return grad_weight(x.to(torch.float32), size, gradient.to(torch.float32), window).to(common)
    x, gradient, shape = _channels_last(x), _channels_last(gradient), tuple(size)
    prepared = _prepare("local_grad_kernel", window, x.shape, shape, element)
    _check_gradient(gradient, prepared.output)
    result = _empty(shape, dtype=gradient.dtype)
    prepared.job.run(_elements(result, element), _elements(x, element), None, _elements(gradient, element))
    return result


def _forward_of_halves(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    common = _half("weight", weight, x)
    wide = None if bias is None else bias.to(torch.float32)
    if bias is not None:
        _half("bias", bias, x)
    return forward(x.to(torch.float32), weight.to(torch.float32), wide, window).to(common)


def _half(name: str, tensor: Tensor, other: Tensor) -> torch.dtype:
    """The dtype of two tensors of 16 bits; RuntimeError for all others."""
    if tensor.dtype != other.dtype:
        raise RuntimeError(
            f"Expected {name} to have the dtype of the other tensors, {other.dtype}, but got {tensor.dtype}"
        )
    if tensor.dtype not in HALVES and tensor.dtype not in ELEMENTS:
        known = ", ".join(map(str, (*ELEMENTS, *HALVES)))
        raise RuntimeError(f"Expected input, weight and bias to have one of the dtypes {known}, but got {tensor.dtype}")
    return tensor.dtype


def _check_gradient(gradient: Tensor, expected: Sequence[int]) -> None:
    if gradient.shape != expected:
        sizes = [[shape[0], shape[-1], *shape[1:-1]] for shape in (expected, gradient.shape)]
        raise RuntimeError(f"Expected a gradient of the output's size {sizes[0]}, but got {sizes[1]}")


def refuse(error: Mismatch, window: Window, input_size: Sequence[Any], weight_size: Sequence[Any]) -> NoReturn:
    """Say in PyTorch's order of axes why an input and a weight do not go together."""
    rank = window.rank
    given = f"input of size {list(input_size)} and weight of size {list(weight_size)}"
    if len(input_size) == rank + 2 and len(weight_size) == 3:
        channels, filters, output = input_size[1], weight_size[2], window.output_size(input_size[2:])
        if min(output) < 1:
            raise RuntimeError(
                f"Expected an input that is at least as large as the dilated kernel, but the output would have size "
                f"{list(output)}: kernel_size={window.kernel_size}, padding={window.padding[::2]}, {given}"
            )
        if channels % window.groups == filters % window.groups == 0 < min(channels, filters):
            positions = 1
            for n in output:
                positions *= n
            expected = [positions, window.taps * channels // window.groups, filters]
            if list(weight_size) != expected:
                raise RuntimeError(
                    f"Expected weight to have size [positions, prod(kernel_size) * in_channels / groups, out_channels] "
                    f"= {expected} for output_size={output}, but got {given}"
                )
        else:
            raise RuntimeError(
                f"Expected groups={window.groups} to divide in_channels and out_channels, but got {given}"
            )
    elif len(weight_size) != 3:
        raise RuntimeError(f"Expected a weight of 3 dimensions, but got {given}")
    raise RuntimeError(f"{error.named(engine.NAMES)} ({given})") from None
