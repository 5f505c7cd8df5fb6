"""From a function's tensors to values: by the operators where somebody watches, straight to the kernels where nobody
does.

The dispatcher and its Python operators cost some 30 microseconds a call and 150 a training step; that is more than a
small layer computes. What an eager program on the processor needs of them is a backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import fallback, native, operators
from .operators import INPUT, OUTPUT, WEIGHT, Product, call_native
from .portable import FORMS, is_portable
from .private import is_plain
from .window import Window

_is_grad_enabled = torch.is_grad_enabled
_is_autocast_enabled = torch.is_autocast_enabled
_is_compiling = torch.compiler.is_compiling


def is_direct(*tensors: Tensor | None) -> bool:
    """Whether the dispatcher has nothing to do."""
    return is_plain(*tensors) and not _is_autocast_enabled("cpu") and not fallback.is_forced() and not is_portable()


def _dispatched(operator: Any, *arguments: Any) -> Any:
    """What the dispatcher makes of an operator; in a file of ONNX, which has no operators of localconv, its form."""
    return FORMS[operator](*arguments) if torch.onnx.is_in_onnx_export() else operator(*arguments)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The convolution of a batch (N, C, ...), plus bias."""
    if _is_compiling() or not is_direct(x, weight, bias):
        result: Any = _dispatched(operators.local_conv, x, weight, bias, *window.arguments)
    elif _is_grad_enabled() and (x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
        operation = (call_native, OUTPUT, (x.shape, weight.shape), window)
        result = Product.apply(x, weight, None, None, bias, operation)
    else:
        result = native.forward(x, weight, bias, window)
    return result  # type: ignore[no-any-return]


def convolve_int8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """`convolve` with a weight of int8 values and float32 scales."""
    if _is_compiling() or not is_direct(x, values, scales, bias):
        result: Any = _dispatched(operators.local_conv_int8, x, values, scales, bias, *window.arguments)
    elif _is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        operation = (call_native, OUTPUT, (x.shape, values.shape), window)
        result = Product.apply(x, values, None, scales, bias, operation)
    else:
        result = native.forward_int8(x, values, scales, bias, window)
    return result  # type: ignore[no-any-return]


def transpose(size: tuple[Any, ...], weight: Tensor, y: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The transposed convolution of a batch (N, F, ...) to one of that size, plus bias."""
    if _is_compiling() or not is_direct(weight, y, bias):
        result: Any = _dispatched(operators.local_conv_input, size, weight, y, bias, *window.arguments)
    elif _is_grad_enabled() and (weight.requires_grad or y.requires_grad or (bias is not None and bias.requires_grad)):
        operation = (call_native, INPUT, (size, weight.shape), window)
        result = Product.apply(None, weight, y, None, bias, operation)
    else:
        result = native.grad_input(size, weight, y, bias, window)
    return result  # type: ignore[no-any-return]


def transpose_int8(
    size: tuple[Any, ...], values: Tensor, scales: Tensor, y: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """`transpose` with a weight of int8 values and float32 scales."""
    if _is_compiling() or not is_direct(values, scales, y, bias):
        result: Any = _dispatched(operators.local_conv_input_int8, size, values, scales, y, bias, *window.arguments)
    elif _is_grad_enabled() and (y.requires_grad or (bias is not None and bias.requires_grad)):
        operation = (call_native, INPUT, (size, values.shape), window)
        result = Product.apply(None, values, y, scales, bias, operation)
    else:
        result = native.grad_input_int8(size, values, scales, y, bias, window)
    return result  # type: ignore[no-any-return]


def filtered(x: Tensor, filters: Tensor, window: Window) -> Tensor:
    """A batch (N, C, ...) through the filters that come with it."""
    if _is_compiling() or not is_direct(x, filters):
        result: Any = _dispatched(operators.local_filter, x, filters, *window.arguments)
    elif _is_grad_enabled() and (x.requires_grad or filters.requires_grad):
        operation = (call_native, OUTPUT, (x.shape, filters.shape), window)
        result = Product.apply(x, filters, None, None, None, operation)
    else:
        result = native.filter_forward(x, filters, window)
    return result  # type: ignore[no-any-return]


def correlated(x: Tensor, size: tuple[Any, ...], y: Tensor, window: Window) -> Tensor:
    """The products of a batch's windows with queries: filters of that size."""
    if _is_compiling() or not is_direct(x, y):
        result: Any = _dispatched(operators.local_filter_filters, x, size, y, *window.arguments)
    elif _is_grad_enabled() and (x.requires_grad or y.requires_grad):
        operation = (call_native, WEIGHT, (x.shape, size), window)
        result = Product.apply(x, None, y, None, None, operation)
    else:
        result = native.filter_grad_kernel(x, size, y, window)
    return result  # type: ignore[no-any-return]
