"""The compiled kernels on plain tensors in the processor's memory.

The core is told where a tensor's memory begins, for the time of a call: ``Tensor.numpy()`` would mark the storage as
not resizable for ever, and sharded training (FSDP) resizes storages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import engine
from .._core import Job, ask_for_huge_pages, num_threads
from ..arrays import DOUBLE, SINGLE, ElementType, single_with
from ..geometry import Mismatch
from ..settings import current
from .window import Window

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

# Bytes from which NumPy asks for huge pages, too.
LARGE = 2**22

# Names that PyTorch keeps to itself, all of them questions.
_transforms_active = torch._C._are_functorch_transforms_active
_modes_active = torch._C._len_torch_dispatch_stack
_tracing = torch._C._get_tracing_state
_profiled = torch._C._autograd._profiler_enabled
_is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor

_empty_strided = torch.empty_strided
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


def _address(name: str, tensor: Tensor | None) -> int:
    """Where a tensor's elements begin; 0: there is no tensor."""
    if tensor is None:
        return 0
    address = tensor.data_ptr()
    if not address:
        raise RuntimeError(f"Expected {name} to have memory, but its storage was freed or is not allocated yet")
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
        _address("the result", result),
        _address("input", x),
        _address("weight", weight),
        _address("gradient", gradient),
        _address("bias", bias),
        0 if bias is None else bias.numel(),
        True,
        _address("scales", scales),
    )


def _ready(tensor: Tensor, element: ElementType) -> Tensor:
    """A contiguous tensor of what is computed in: itself, if it is so already."""
    plain = tensor.resolve_neg()
    if not element.store or plain.dtype == torch.float32:  # of which `to` would make no copy whatever its strides
        return plain.contiguous()
    return plain.to(torch.float32, memory_format=torch.contiguous_format)


def _channels_last(tensor: Tensor, element: ElementType) -> Tensor:
    """(N, C, ...) as (N, ..., C), ready: a view where the memory is in that order."""
    return _ready(tensor.movedim(1, -1), element)


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
    common, element = x.dtype, ELEMENTS.get(x.dtype)
    if element is None or weight.dtype != common or (bias is not None and bias.dtype != common):
        _refuse_dtypes(input=x, weight=weight, bias=bias)
    return _forward(x, weight, None, bias, window, element)


def forward_int8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `forward` with a weight of int8 values and float32 scales, rounded once to the input's dtype."""
    check_int8(values, scales, input=x, bias=bias)
    return _forward(x, values, scales, bias, window, INT8)


def _forward(
    x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None, window: Window, element: ElementType
) -> Tensor:
    common = x.dtype
    x, weight = _channels_last(x, element), weight.resolve_neg().contiguous()
    prepared = _prepare("local_forward", window, x.shape, weight.shape, element)
    size, strides = _as_channels_last(prepared.output)
    if bias is not None:
        if bias.shape != size[1:] and bias.shape != size[1:2]:
            raise RuntimeError(
                f"Expected bias to have size {[size[1]]} or {list(size[1:])}, but got {list(bias.shape)}"
            )
        bias = _ready(bias, element)
    result = _made(size, strides, x.dtype)
    scales = None if scales is None else scales.contiguous()
    _run(prepared.job, result, x, weight, None, bias, scales)
    return result.to(common) if element.store else result


def grad_input(size: Sequence[int], weight: Tensor, gradient: Tensor, window: Window) -> Tensor:
    """The gradient for an input of that size, which is the transposed convolution of `gradient`."""
    common, element = gradient.dtype, ELEMENTS.get(gradient.dtype)
    if element is None or weight.dtype != common:
        _refuse_dtypes(gradient=gradient, weight=weight)
    return _grad_input(size, weight, None, gradient, window, element)


def grad_input_int8(size: Sequence[int], values: Tensor, scales: Tensor, gradient: Tensor, window: Window) -> Tensor:
    """As `grad_input` with a weight of int8 values and float32 scales."""
    check_int8(values, scales, gradient=gradient)
    return _grad_input(size, values, scales, gradient, window, INT8)


def _grad_input(
    size: Sequence[int], weight: Tensor, scales: Tensor | None, gradient: Tensor, window: Window, element: ElementType
) -> Tensor:
    common = gradient.dtype
    weight, gradient = weight.resolve_neg().contiguous(), _channels_last(gradient, element)
    n, channels, *spatial = size
    shape = (n, *spatial, channels)
    prepared = _prepare("local_grad_input", window, shape, weight.shape, element)
    _check_gradient(gradient, prepared.output)
    result = _made(*_as_channels_last(shape), gradient.dtype)
    scales = None if scales is None else scales.contiguous()
    _run(prepared.job, result, None, weight, gradient, None, scales)
    return result.to(common) if element.store else result


def grad_weight(x: Tensor, size: Sequence[int], gradient: Tensor, window: Window) -> Tensor:
    """The gradient for a weight of that size."""
    common, element = gradient.dtype, ELEMENTS.get(gradient.dtype)
    if element is None or x.dtype != common:
        _refuse_dtypes(gradient=gradient, input=x)
    x, gradient, shape = _channels_last(x, element), _channels_last(gradient, element), tuple(size)
    prepared = _prepare("local_grad_kernel", window, x.shape, shape, SINGLE if element.store else element)
    _check_gradient(gradient, prepared.output)
    _, depth, filters = shape
    result = _made(shape, (depth * filters, filters, 1), gradient.dtype)
    _run(prepared.job, result, x, None, gradient)
    return result.to(common) if element.store else result


def _refuse_dtypes(**tensors: Tensor | None) -> NoReturn:
    """Say which tensor has not the dtype of the first, or that this is none of those that are known here."""
    (_, first), *others = tensors.items()
    assert first is not None
    for name, tensor in others:
        if tensor is not None and tensor.dtype != first.dtype:
            raise RuntimeError(
                f"Expected {name} to have the dtype of the other tensors, {first.dtype}, but got {tensor.dtype}"
            )
    known = ", ".join(map(str, ELEMENTS))
    raise RuntimeError(f"Expected input, weight and bias to have one of the dtypes {known}, but got {first.dtype}")


def check_int8(values: Tensor, scales: Tensor, **tensors: Tensor | None) -> None:
    """RuntimeError unless the parts of a weight fit each other, and float32 is wide enough for what it meets."""
    if values.dtype != torch.int8 or scales.dtype != torch.float32:
        raise RuntimeError(
            f"Expected values of torch.int8 and scales of torch.float32, but got {values.dtype} and {scales.dtype}"
        )
    if values.dim() != 3 or scales.shape != (values.shape[0], values.shape[2]):
        raise RuntimeError(
            f"Expected values of size [positions, depth, out_channels] and scales of size [positions, out_channels], "
            f"but got {list(values.shape)} and {list(scales.shape)}"
        )
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in INT8_INPUTS:
            known = ", ".join(map(str, INT8_INPUTS))
            raise RuntimeError(
                f"Expected {name} to have one of the dtypes {known} where the weight is int8, but got {tensor.dtype}"
            )


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
