"""The three operations in PyTorch's own: for devices that have no compiled kernels here, and wherever operators cannot
have derivatives of their own (`private`).

Windows are gathered, which takes prod(kernel_size) times the input's memory, and multiplied in one batch of matrices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..core import formulation
from ..core.arguments import Ints
from ..core.formulation import ByTap, Piece, filters_by_tap, whole
from ..core.windows import effective_size
from . import private
from .arguments import (
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

_forced = False
# The module of Triton's kernels, where `use_triton` has asked for it; whether they take the processor's tensors too.
_triton: Any = None
_interpreted = False


def is_forced() -> bool:
    """Whether these operations, or Triton's kernels, are used for the processor's tensors too."""
    return _forced or _interpreted


def use_triton(enabled: bool) -> None:
    """Compute on GPUs with Triton's kernels, from now on and in the whole process; or no more.

    They need no memory beside the operands and the result; PyTorch's own operations, which compute there otherwise,
    gather windows. **They were tested by Triton's interpreter alone, never on a GPU**: whoever has one is asked to
    compare, with ``benchmarks/device.py``.

    Parameters
    ----------
    enabled : bool
        True: tensors on devices of the types "cuda" and "xpu" go through the kernels; with ``TRITON_INTERPRET=1`` in
        the environment those of the processor too, slowly.

    Raises
    ------
    TypeError
        If `enabled` is no bool.
    ImportError
        Where Triton is not installed.

    Examples
    --------
    >>> import localconv.torch
    >>> localconv.torch.use_triton(False)
    """
    global _triton, _interpreted
    if type(enabled) is not bool:
        raise TypeError(f"enabled must be True or False, got {enabled!r}")
    if not enabled:
        _triton, _interpreted = None, False
        return
    try:
        from . import triton_kernels
    except ImportError as error:
        raise ImportError("localconv.torch.use_triton needs Triton: pip install triton") from error
    _triton, _interpreted = triton_kernels, triton_kernels.INTERPRETED


def kernels_for(plain: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """One of the functions here, or Triton's kernels for the same."""
    if _triton is None or not (_interpreted or device.type in ("cuda", "xpu")):
        return plain
    return getattr(_triton, plain.__name__, plain)


@contextlib.contextmanager
def forced() -> Iterator[None]:
    """Use these operations for the processor's tensors too, for tests and measurements, in the whole process."""
    global _forced
    before, _forced = _forced, True
    try:
        yield
    finally:
        _forced = before


class TorchArrays:
    """PyTorch's functions as `formulation.Arrays`. What is made is made on a device: no call may wait for a copy, nor
    may a call that is being captured in a CUDA graph.
    """

    concatenate = staticmethod(torch.concatenate)
    einsum = staticmethod(torch.einsum)
    moveaxis = staticmethod(torch.moveaxis)
    reshape = staticmethod(torch.reshape)
    stack = staticmethod(torch.stack)
    sum = staticmethod(torch.sum)
    where = staticmethod(torch.where)

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def arange(self, start: int, end: int) -> Tensor:
        return torch.arange(start, end, device=self.device)

    def shape(self, x: Tensor) -> Sequence[Any]:
        return x.shape

    def pad(self, x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
        return torch.nn.functional.pad(x, [n for pair in reversed(widths) for n in pair])


class _Unfolding(TorchArrays):
    """With windows by `Tensor.unfold`. Not for programs that PyTorch differentiates: what inductor makes of its
    derivative is wrong (pytorch/pytorch#171370; 2.13 too).
    """

    def windows(self, piece: Piece, x: Tensor) -> Tensor:
        """As `formulation.windows`, in one copy: in the order of memory in which they are multiplied."""
        rank, groups = len(piece.box), piece.convolution.spec.groups
        for i, (axis, start, count, taps) in enumerate(
            zip(piece.convolution.axes, piece.start, piece.box, piece.window, strict=True)
        ):
            reach = effective_size(taps, axis.dilation)
            seen = x.narrow(1 + i, start, (count - 1) * axis.stride + reach)
            x = seen.unfold(1 + i, reach, axis.stride)[..., :: axis.dilation]
        x = x.unflatten(1 + rank, (groups, piece.convolution.channels // groups))
        # (N, *box, groups, channels, *taps) to (*box, groups, N, *taps, channels)
        order = (*range(1, 2 + rank), 0, *range(3 + rank, 3 + 2 * rank), 2 + rank)
        return x.permute(order).flatten(2 + rank).flatten(0, rank - 1).permute(2, 0, 1, 3)


def _arrays(device: torch.device) -> TorchArrays:
    return (_Unfolding if private.HAS_TOOLS else TorchArrays)(device)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `native.forward`."""
    check_dtypes(input=x, weight=weight, bias=bias)
    size = check_sizes(window, x.shape, weight.shape)
    if bias is not None:
        check_bias(bias.shape, size)
    piece = _piece(window, x.shape, weight.shape[2])
    y = formulation.forward(_arrays(x.device), [piece], x.movedim(1, -1), weight)
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
    # The products have been rounded; what is added to them has not.
    wide = torch.promote_types(gradient.dtype, torch.float32)

    def zeros(products: Tensor, shape: Sequence[Any]) -> Tensor:
        return products.new_zeros(shape, dtype=wide)  # of which a batch of `vmap` in any factor is one

    piece = _piece(window, tuple(size), weight.shape[2])
    result = formulation.grad_input(_arrays(gradient.device), piece, weight, gradient.movedim(1, -1), zeros)
    if bias is not None:
        result = result + broadcastable_bias(bias, window.rank).movedim(0, -1)
    return result.contiguous().movedim(-1, 1).to(gradient.dtype)


def grad_weight(x: Tensor, size: Sequence[Any], gradient: Tensor, window: Window) -> Tensor:
    """As `native.grad_weight`."""
    check_dtypes(gradient=gradient, input=x)
    check_gradient(gradient.shape, check_sizes(window, x.shape, size))
    piece, xp = _piece(window, x.shape, size[2]), _arrays(x.device)
    return formulation.grad_kernel(xp, piece, x.movedim(1, -1), gradient.movedim(1, -1), _filled).contiguous()


@lru_cache(maxsize=1024)
def _piece(window: Window, size: Ints, out_channels: int) -> Piece:
    """The convolution of an input of that size."""
    return whole(window.convolution(size, out_channels))


def _filled(inside: Tensor, x: Tensor, value: float) -> Tensor:
    """`torch.where` in x itself."""
    return x.masked_fill_(~inside, value)


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


# ------------------------------------------------------------------------------------------ filters that come with data


def filter_forward(x: Tensor, filters: Tensor, window: Window) -> Tensor:
    """As `native.filter_forward`."""
    check_filter_dtypes(filters, input=x)
    check_filter_sizes(window, x.shape, filters.shape)
    common, last = x.dtype, is_channels_last(x, filters)
    by_tap, xp = _by_tap(window, x.shape, last), _arrays(x.device)
    y = formulation.filter_forward(xp, by_tap, _ordered(x, last), _ordered(filters, last), _wide)
    return _laid_out(y, last, common)


def filter_grad_input(size: Sequence[Any], filters: Tensor, gradient: Tensor, window: Window) -> Tensor:
    """As `native.filter_grad_input`."""
    check_filter_dtypes(filters, grad_output=gradient)
    check_queries(gradient.shape, check_filter_sizes(window, size, filters.shape))
    common, last = gradient.dtype, is_channels_last(filters, gradient)
    by_tap, xp = _by_tap(window, tuple(size), last), _arrays(gradient.device)
    x = formulation.filter_grad_input(xp, by_tap, _ordered(filters, last), _ordered(gradient, last), _wide)
    return _laid_out(x, last, common)


def filter_grad_kernel(x: Tensor, size: Sequence[Any], gradient: Tensor, window: Window) -> Tensor:
    """As `native.filter_grad_kernel`."""
    check_filter_dtypes(None, input=x, queries=gradient)
    check_queries(gradient.shape, check_filter_sizes(window, x.shape, size))
    common, last = gradient.dtype, is_channels_last(x, gradient)
    by_tap, xp, one = _by_tap(window, x.shape, last), _arrays(x.device), bool(size[0] == 1)
    filters = formulation.filter_grad_kernel(xp, by_tap, _ordered(x, last), _ordered(gradient, last), one, _wide)
    return _laid_out(filters, last, common)


@lru_cache(maxsize=1024)
def _sums_by_tap(window: Window, channels: int, spatial: Ints, channels_first: bool) -> ByTap:
    return filters_by_tap(window.convolution((1, channels, *spatial), channels, channels_first))


def _by_tap(window: Window, size: Sequence[Any], last: bool) -> ByTap:
    """The sums for an input of that size, whatever its batch."""
    return _sums_by_tap(window, size[1], tuple(size[2:]), not last)


def _wide(part: Tensor) -> Tensor:
    """A part of an operand in what is computed."""
    return part if part.dtype == torch.float64 else part.to(torch.float32)


def _ordered(tensor: Tensor, last: bool) -> Tensor:
    """(N, C, ...), or it as (N, ..., C)."""
    return tensor.movedim(1, -1) if last else tensor


def _laid_out(result: Tensor, last: bool, dtype: torch.dtype) -> Tensor:
    """The inverse of `_ordered`, with the strides that the fakes of the operators promise."""
    result = result.to(dtype).contiguous()
    return result.movedim(-1, 1) if last else result
