"""The three operations in PyTorch's own: for devices that have no compiled kernels here, and wherever operators cannot
have derivatives of their own (`private`).

Windows are gathered and multiplied in one batch of matrices, some positions after the others: `formulation.MEMORY` is
all that a call takes beside its operands, its result, and the sums of 16 bits in 32. Where PyTorch itself
differentiates these operations it keeps all windows for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..core import formulation
from ..core.arguments import Ints
from ..core.formulation import Band, ByTap, Piece, filters_by_tap
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
    gather windows, in at most 64 MiB. **They were tested by Triton's interpreter alone, never on a GPU**: whoever has
    one is asked to compare, with ``benchmarks/device.py``.

    Parameters
    ----------
    enabled : bool
        True: tensors on devices of the types "cuda" and "xpu" go through the kernels; with ``TRITON_INTERPRET=1`` in
        the environment those of the processor too, slowly, and of one thread at a time: the interpreter has one state.

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

    concatenate = staticmethod(torch.cat)
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

    def einsum(self, equation: str, a: Tensor, b: Tensor) -> Tensor:
        """Those of `formulation`, as batches of matrix products."""
        if equation == "npgd,pgdf->npgf":
            return (self.matrices(a) @ b).permute(2, 0, 1, 3)
        if equation == "pgdf,npgf->npgd":
            return (self.matrices(b) @ a.permute(0, 1, 3, 2)).permute(2, 0, 1, 3)
        if equation == "pgdf,npgf->pgdn":
            return a @ self.matrices(b).permute(0, 1, 3, 2)
        assert equation == "npgd,npgf->pgdf"
        return self.matrices(a).permute(0, 1, 3, 2) @ self.matrices(b)

    @staticmethod
    def matrices(x: Tensor) -> Tensor:
        """Something of images and positions as a matrix for every position. `bmm` takes a hundred times as long for
        one whose rows lie far apart in memory.
        """
        return x.permute(1, 2, 0, 3).contiguous()


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


# What makes some rows of a weight: all of them need never be there.
Rows = Callable[[slice], Tensor]


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `native.forward`."""
    check_dtypes(input=x, weight=weight, bias=bias)
    return _forward(x, weight.shape, weight.__getitem__, bias, window)


def _forward(
    x: Tensor, weight_size: Sequence[Any], rows: Rows, bias: Tensor | None, window: Window, made: bool = False
) -> Tensor:
    """The convolution by rows of a weight; made: whether they take memory."""
    size = check_sizes(window, x.shape, weight_size)
    if bias is not None:
        check_bias(bias.shape, size)
        bias = broadcastable_bias(bias, window.rank).movedim(0, -1).expand(*size[2:], -1)
    bands = _bands(window, x, x.shape, weight_size[2], made)
    xp, images = _arrays(x.device), x.movedim(1, -1)

    def parts() -> Iterator[tuple[Any, Tensor]]:
        for band in bands:
            part = formulation.forward(xp, [band.piece], images[(slice(None), *band.pixels)], rows(band.rows))
            yield (slice(None), *band.positions), part if bias is None else part + bias[band.positions]

    # The strides that the fakes of the operators promise, which compiled programs rely on.
    return _joined(parts(), len(bands), (size[0], *size[2:], size[1])).contiguous().movedim(-1, 1)


def grad_input(size: Sequence[Any], weight: Tensor, gradient: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `native.grad_input`."""
    check_dtypes(gradient=gradient, weight=weight, bias=bias)
    return _grad_input(size, weight.shape, weight.__getitem__, gradient, bias, window)


def _grad_input(
    size: Sequence[Any],
    weight_size: Sequence[Any],
    rows: Rows,
    gradient: Tensor,
    bias: Tensor | None,
    window: Window,
    made: bool = False,
) -> Tensor:
    """The gradient for the input, as `_forward`."""
    check_gradient(gradient.shape, check_sizes(window, size, weight_size))
    if bias is not None:
        check_bias(bias.shape, size)
    # The products have been rounded; what is added to them has not.
    wide = torch.promote_types(gradient.dtype, torch.float32)

    def zeros(products: Tensor, shape: Sequence[Any]) -> Tensor:
        return products.new_zeros(shape, dtype=wide)  # of which a batch of `vmap` in any factor is one

    bands = _bands(window, gradient, size, weight_size[2], made)
    xp, sums = _arrays(gradient.device), gradient.movedim(1, -1)
    total: Any = None
    for band in bands:
        here = sums[(slice(None), *band.positions)]
        part = formulation.grad_input(xp, band.piece, rows(band.rows), here, zeros)
        if len(bands) == 1:
            total = part
        else:
            total = zeros(part, (size[0], *size[2:], size[1])) if total is None else total
            total[(slice(None), *band.pixels)] += part
    if bias is not None:
        term = broadcastable_bias(bias, window.rank).movedim(0, -1)
        # Without tools it may be a batch of `vmap` that the sums are not.
        total = total.add_(term) if private.HAS_TOOLS else total + term
    return total.contiguous().movedim(-1, 1).to(gradient.dtype)  # type: ignore[no-any-return]


def grad_weight(x: Tensor, size: Sequence[Any], gradient: Tensor, window: Window) -> Tensor:
    """As `native.grad_weight`."""
    check_dtypes(gradient=gradient, input=x)
    check_gradient(gradient.shape, check_sizes(window, x.shape, size))
    bands, xp = _bands(window, x, x.shape, size[2]), _arrays(x.device)
    images, sums = x.movedim(1, -1), gradient.movedim(1, -1)

    def parts() -> Iterator[tuple[Any, Tensor]]:
        for band in bands:
            seen, here = images[(slice(None), *band.pixels)], sums[(slice(None), *band.positions)]
            yield band.rows, formulation.grad_kernel(xp, band.piece, seen, here, _filled)

    return _joined(parts(), len(bands), size).contiguous()


def _joined(parts: Iterable[tuple[Any, Tensor]], count: int, size: Sequence[Any]) -> Tensor:
    """So many parts, each of its place in a tensor of that size, which it is written to before the next is made."""
    result: Any = None
    for place, part in parts:
        if count == 1:
            return part
        # Like a part, of which a batch of `vmap` in any factor is one.
        result = part.new_empty(size) if result is None else result
        result[place] = part
    return result  # type: ignore[no-any-return]


def _bands(
    window: Window, like: Tensor, size: Sequence[Any], out_channels: Any, made: bool = False
) -> tuple[Band, ...]:
    """The convolution of an input of that size and of a tensor's dtype; made: of rows that take memory."""
    itemsize = 8 if like.dtype == torch.float64 else 4
    return _bands_of(window, tuple(size), out_channels, itemsize, formulation.MEMORY, made)


@lru_cache(maxsize=1024)
def _bands_of(window: Window, size: Ints, out_channels: int, *limits: Any) -> tuple[Band, ...]:
    return formulation.bands(window.convolution(size, out_channels), size[0], *limits)


def _filled(inside: Tensor, x: Tensor, value: float) -> Tensor:
    """`torch.where` in x itself."""
    return x.masked_fill_(~inside, value)


def forward_int8(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """As `native.forward_int8`."""
    check_int8(values, scales, input=x, bias=bias)
    wide = None if bias is None else bias.float()
    return _forward(x.float(), values.shape, _dequantizer(values, scales), wide, window, True).to(x.dtype)


def grad_input_int8(
    size: Sequence[Any], values: Tensor, scales: Tensor, gradient: Tensor, bias: Tensor | None, window: Window
) -> Tensor:
    """As `native.grad_input_int8`."""
    check_int8(values, scales, gradient=gradient, bias=bias)
    wide = None if bias is None else bias.float()
    rows = _dequantizer(values, scales)
    return _grad_input(size, values.shape, rows, gradient.float(), wide, window, True).to(gradient.dtype)


def _dequantizer(values: Tensor, scales: Tensor) -> Rows:
    return lambda rows: dequantized(values[rows], scales[rows])


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
