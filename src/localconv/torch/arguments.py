"""Validation of tensors: types, dtypes, devices and sizes, with errors that name the argument.

The kernels, the formulation in PyTorch's operations and the fakes of the operators all ask here. Sizes may be symbols:
what is not known of them is taken to be right, and remembered.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import has_torch_function

from ..core.arrays import DOUBLE, SINGLE, ElementType, single_with
from ..core.quantized import QuantizedKernel
from .private import check
from .window import LARGEST_SIZE, Window

# What is computed by a weight's dtype: those of 16 bits are read as they are, all else is float32 and rounded once.
ELEMENTS: dict[torch.dtype, ElementType] = {
    torch.float32: SINGLE,
    torch.float64: DOUBLE,
    torch.bfloat16: single_with("bfloat16"),
    torch.float16: single_with("float16"),
}

# What a weight of int8 values and float32 scales is computed as, whatever the dtype of its input.
INT8 = single_with("int8")
INT8_INPUTS = (torch.float32, torch.bfloat16, torch.float16)


def is_overridden(first: Any, second: Any, bias: Any = None, names: Sequence[str] = ("input", "weight")) -> bool:
    """Whether one of a function's arguments is no tensor and says itself what functions do, as the proxies of torch.fx
    do. TypeError unless the others are tensors; the bias may be None.
    """
    # In one expression: this is a part of what a small call costs.
    if isinstance(first, Tensor) and isinstance(second, Tensor) and (bias is None or isinstance(bias, Tensor)):
        return False
    if has_torch_function([part for part in (first, second, bias) if not isinstance(part, Tensor)]):
        return True
    check_tensor(names[0], first)
    check_tensor(names[1], second)
    if bias is not None:
        check_tensor("bias", bias)
    return False


def check_int8_tensors(input: Any, values: Any, scales: Any, bias: Any) -> None:
    """TypeError unless the arguments are tensors, the parts of a weight among them; the bias may be None."""
    if isinstance(input, Tensor) and isinstance(values, Tensor) and isinstance(scales, Tensor):
        if bias is not None:
            check_tensor("bias", bias)
        return
    check_tensor("input", input)
    check_tensor("weight", values)
    check_tensor("weight_scales", scales)


def check_tensor(name: str, value: Any) -> None:
    """TypeError, with what to do, unless an argument is a tensor."""
    if isinstance(value, Tensor):
        return
    remedy = ""
    if isinstance(value, np.ndarray):
        remedy = f": torch.from_numpy({name}) is one"
    elif isinstance(value, QuantizedKernel):
        remedy = (
            f": weights of int8 are those of modules, after module.quantize('int8'); "
            f"torch.from_numpy({name}.dequantize()) is a float one"
        )
    raise TypeError(f"{name} must be a Tensor, got {type(value).__name__}{remedy}")


def numbers_of(sizes: Sequence[Any]) -> Sequence[Any]:
    """Sizes as they are; in a trace of torch.jit, where they are tensors, their numbers, which a trace keeps."""
    if not torch.jit.is_tracing():
        return sizes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return tuple(int(n) for n in sizes)


def check_dtypes(**tensors: Tensor | None) -> ElementType:
    """What is computed. RuntimeError unless all tensors have the dtype of the first, and that is one of `ELEMENTS`."""
    (role, first), *others = tensors.items()
    assert first is not None
    if first.dtype not in ELEMENTS and any(tensor is not None and tensor.dtype in ELEMENTS for _, tensor in others):
        raise RuntimeError(f"Expected {role} to have a dtype of floats, but got {first.dtype}: try {role}.float()")
    for name, tensor in others:
        if tensor is not None and tensor.dtype != first.dtype:
            raise RuntimeError(
                f"Expected {name} to have the dtype of the other tensors, {first.dtype}, but got {tensor.dtype}"
            )
    if first.dtype not in ELEMENTS:
        known = ", ".join(map(str, ELEMENTS))
        raise RuntimeError(f"Expected input, weight and bias to have one of the dtypes {known}, but got {first.dtype}")
    return ELEMENTS[first.dtype]


def check_int8(values: Tensor, scales: Tensor, **tensors: Tensor | None) -> None:
    """RuntimeError unless the parts of a weight fit each other, and float32 is wide enough for what it meets."""
    if values.dtype != torch.int8 or scales.dtype != torch.float32:
        raise RuntimeError(
            f"Expected values of torch.int8 and scales of torch.float32, but got {values.dtype} and {scales.dtype}"
        )
    if values.layout is not torch.strided or scales.layout is not torch.strided:
        raise RuntimeError(f"Expected values and scales that are not sparse, but got {values.layout}, {scales.layout}")
    size, of_scales = numbers_of(values.shape), numbers_of(scales.shape)
    if len(size) != 3 or of_scales != (size[0], size[2]):
        raise RuntimeError(
            f"Expected values of size [positions, depth, out_channels] and scales of size [positions, out_channels], "
            f"but got {list(size)} and {list(of_scales)}"
        )
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in INT8_INPUTS:
            known = ", ".join(map(str, INT8_INPUTS))
            raise RuntimeError(
                f"Expected {name} to have one of the dtypes {known} where the weight is int8, but got {tensor.dtype}"
            )


def check_filter_dtypes(filters: Tensor | None, **tensors: Tensor) -> ElementType:
    """What is computed of data and filters that come with it. RuntimeError unless the data have one dtype, and filters
    that of the data, or 16 bits where these are float32.
    """
    (role, first), *others = tensors.items()
    if first.dtype not in ELEMENTS:
        known = ", ".join(map(str, ELEMENTS))
        raise RuntimeError(f"Expected {role} to have one of the dtypes {known}, but got {first.dtype}")
    for name, tensor in others:
        if tensor.dtype != first.dtype:
            raise RuntimeError(f"Expected {name} to have the dtype of {role}, {first.dtype}, but got {tensor.dtype}")
    if filters is None or filters.dtype == first.dtype:
        return ELEMENTS[first.dtype]
    narrow = (torch.bfloat16, torch.float16) if first.dtype == torch.float32 else ()
    if filters.dtype not in narrow:
        known = " or ".join(map(str, (first.dtype, *narrow)))
        raise RuntimeError(
            f"Expected filters to have the dtype {known} for {role} of {first.dtype}, but got {filters.dtype}"
        )
    return ELEMENTS[filters.dtype]


def check_devices(first: Tensor, *others: Tensor | None) -> None:
    """RuntimeError unless all tensors are on one device: where one is on meta, no kernel would say so."""
    for other in others:
        if other is not None and other.device != first.device:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but got at least two, {first.device} and "
                f"{other.device}"
            )


def check_sizes(window: Window, input_size: Sequence[Any], weight_size: Sequence[Any]) -> tuple[Any, ...]:
    """RuntimeError unless a weight fits an input. Returns the output's size, (N, out_channels, ...)."""
    rank, groups = window.rank, window.groups

    def given() -> str:
        return f"input of size {list(input_size)} and weight of size {list(weight_size)}"

    check(len(weight_size) == 3, lambda: f"Expected a weight of 3 dimensions, but got {given()}")
    check(len(input_size) == rank + 2, lambda: f"Expected an input of {rank + 2} dimensions, but got {given()}")
    for n in (*input_size, *weight_size):
        check(n >= 0, lambda: f"Expected sizes of at least 0, but got {given()}")
    convolution = window.convolution(input_size, weight_size[2])
    channels, filters, output = convolution.channels, convolution.filters, convolution.output
    for n in output:
        check(
            n >= 1,
            lambda: (
                f"Expected an input that is at least as large as the dilated kernel, but the output would have size "
                f"{list(output)}: kernel_size={window.kernel_size}, padding={window.padding[::2]}, {given()}"
            ),
        )
    for n in (channels, filters):
        check(n >= 1, lambda: f"Expected at least one channel and one filter, but got {given()}")
        check(
            n % groups == 0,
            lambda: f"Expected groups={groups} to divide in_channels and out_channels, but got {given()}",
        )
    expected = convolution.kernel_shape
    for n, m in zip(weight_size, expected, strict=True):
        check(
            n == m,
            lambda: (
                f"Expected weight to have size [positions, prod(kernel_size) * in_channels / groups, out_channels] "
                f"= {list(expected)} for output_size={output}, but got {given()}"
            ),
        )
    return (input_size[0], filters, *output)


def check_filter_sizes(window: Window, input_size: Sequence[Any], filters_size: Sequence[Any]) -> tuple[Any, ...]:
    """RuntimeError unless filters that come with the data fit an input. Returns the output's size, (N, C, ...)."""
    rank, groups = window.rank, window.groups

    def given() -> str:
        return f"input of size {list(input_size)} and filters of size {list(filters_size)}"

    check(
        len(input_size) == rank + 2,
        lambda: (
            f"Expected an input of {rank + 2} dimensions (a single image is one of a batch: unsqueeze(0)), but got "
            f"{given()}"
        ),
    )
    check(len(filters_size) == rank + 2, lambda: f"Expected filters of {rank + 2} dimensions, but got {given()}")
    for n in (*input_size, *filters_size):
        check(n >= 0, lambda: f"Expected sizes of at least 0, but got {given()}")
    if window.inside:
        for n, taps, dilation in zip(input_size[2:], window.kernel_size, window.dilation, strict=True):
            check(
                n >= taps * dilation,
                lambda: (
                    f"Expected kernel_size * dilation to be at most the input's size along every axis with "
                    f"padding='inside', but got kernel_size={window.kernel_size}, dilation={window.dilation}, {given()}"
                ),
            )
    batch, channels = input_size[:2]
    expected = window.filters_size(input_size)
    for n in expected[2:]:
        check(
            n >= 1,
            lambda: (
                f"Expected an input that is at least as large as the dilated kernel, but the output would have size "
                f"{list(expected[2:])}: kernel_size={window.kernel_size}, padding={window.padding[::2]}, {given()}"
            ),
        )
    check(channels >= 1, lambda: f"Expected at least one channel, but got {given()}")
    check(channels % groups == 0, lambda: f"Expected groups={groups} to divide the input's channels, but got {given()}")
    shared = type(filters_size[0]) is int and filters_size[0] == 1
    for n, m in zip(filters_size[shared:], expected[shared:], strict=True):
        check(
            n == m,
            lambda: (
                f"Expected filters to have size [batch or 1, groups * prod(kernel_size), ...] = {list(expected)}, the "
                f"first of which may be 1, but got {given()}"
            ),
        )
    return (batch, channels, *expected[2:])


def check_transposed(window: Window, input_size: Sequence[Any], spatial: Sequence[Any]) -> None:
    """RuntimeError unless the transposed convolution of an input can have so many pixels along every axis."""

    def given() -> str:
        return (
            f"kernel_size={window.kernel_size}, stride={window.stride}, padding={window.padding[::2]}, "
            f"dilation={window.dilation}, input of size {list(input_size)}"
        )

    for n in spatial:
        check(
            n >= 1,
            lambda: (
                f"Expected padding that leaves at least one pixel of the output along every axis, but the output would "
                f"have size {list(spatial)}: {given()}"
            ),
        )
        if type(n) is int and n > LARGEST_SIZE:
            raise RuntimeError(
                f"Expected an output of at most {LARGEST_SIZE} pixels along every axis, but it would have size "
                f"{list(spatial)}: {given()}"
            )


def check_bias(bias_size: Sequence[Any], output_size: Sequence[Any]) -> None:
    """RuntimeError unless a bias fits an output (N, F, ...): (F,) or (F, ...)."""
    expected = output_size[1:2] if len(bias_size) == 1 else output_size[1:]
    _check_equal(
        bias_size,
        expected,
        lambda: f"Expected bias to have size {[output_size[1]]} or {list(output_size[1:])}, but got {list(bias_size)}",
    )


def broadcastable_bias(bias: Tensor, rank: int) -> Tensor:
    """A bias (F,) or (F, ...) in the shape of an output image's."""
    return bias.reshape(-1, *[1] * rank) if bias.dim() == 1 else bias


def check_gradient(gradient_size: Sequence[Any], output_size: Sequence[Any]) -> None:
    """RuntimeError unless a gradient has the output's size."""
    _check_equal(
        gradient_size,
        output_size,
        lambda: f"Expected a gradient of the output's size {list(output_size)}, but got {list(gradient_size)}",
    )


def check_queries(queries_size: Sequence[Any], output_size: Sequence[Any]) -> None:
    """RuntimeError unless queries, or a gradient, have the size of a filtered input."""
    _check_equal(
        queries_size,
        output_size,
        lambda: (
            f"Expected queries, or a gradient, of the size of what local_filter returns, {list(output_size)}, but got "
            f"{list(queries_size)}"
        ),
    )


def is_channels_last(*tensors: Tensor | None) -> bool:
    """In which order of memory filters that come with the data are computed, and the result's: that of the tensors; if
    they do not agree, (N, C, ...).

    Those that lie in both orders, or in none, do not count.
    """
    found = False
    for tensor in tensors:
        if tensor is None:
            continue
        first, last = tensor.is_contiguous(), tensor.movedim(1, -1).is_contiguous()
        if first and not last:
            return False
        found = found or (last and not first)
    return found


def _check_equal(actual: Sequence[Any], expected: Sequence[Any], message: Any) -> None:
    # One by one: sizes may be symbols, which tuples are not asked for.
    check(len(actual) == len(expected), message)
    for n, m in zip(actual, expected, strict=True):
        check(n == m, message)
