"""Locally connected convolution and its transpose as functions of tensors, in the manner of torch.nn.functional."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from ..core.arguments import ints
from ..core.families import LOCAL
from ..docstrings import docstring_from_2d
from . import autograd
from .arguments import check_int8_tensors, check_transposed, is_overridden, numbers_of
from .window import LARGEST_SIZE, IntOrInts, Padding, Window, arguments_of, window_of

__all__ = [
    "local_conv1d",
    "local_conv2d",
    "local_conv3d",
    "local_conv_transpose1d",
    "local_conv_transpose2d",
    "local_conv_transpose3d",
]


@lru_cache(maxsize=1024)
def _known_window(*arguments: Any) -> Window:
    return window_of(arguments_of(*arguments), arguments[-1])


@torch.compiler.assume_constant_result  # or compilation would look through the caches below, and warn of them
def window_for(
    rank: int,
    kernel_size: IntOrInts,
    stride: IntOrInts,
    padding: Padding,
    dilation: IntOrInts,
    groups: int,
    family: str = LOCAL,
) -> Window:
    """The window of a user's arguments. TypeError or ValueError names one that cannot be."""
    given = (rank, kernel_size, stride, padding, dilation, groups, family)
    if any(type(part) is bool or type(part) is float for part in given):
        # Equal to an int, and no int: the cache would not tell them apart.
        return window_of(arguments_of(*given), family)
    try:
        return _known_window(*given)
    except TypeError:
        return window_of(arguments_of(*given), family)


def convolve(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The convolution of a batch or of one image."""
    if is_overridden(x, weight, bias):
        return _overridden("local_conv", x, weight, bias, window, window.dilation, window.groups)
    rank = window.rank
    if x.dim() == rank + 2:
        return autograd.convolve(x, weight, bias, window)
    _check_dims(name, x, rank)
    return autograd.convolve(x.unsqueeze(0), weight, bias, window).squeeze(0)


def convolve_int8(name: str, x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """`convolve` with a weight of int8 values and float32 scales."""
    check_int8_tensors(x, values, scales, bias)
    if x.dim() == window.rank + 2:
        return autograd.convolve_int8(x, values, scales, bias, window)
    _check_dims(name, x, window.rank)
    return autograd.convolve_int8(x.unsqueeze(0), values, scales, bias, window).squeeze(0)


def transpose(
    name: str, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, output_padding: tuple[int, ...]
) -> Tensor:
    """The transposed convolution of a batch or of one image."""
    if is_overridden(x, weight, bias):
        more = (output_padding, window.groups, window.dilation)
        return _overridden("local_conv_transpose", x, weight, bias, window, *more)
    if x.dim() == window.rank + 2:
        return autograd.transpose(_transposed(x, weight, window, output_padding), weight, x, bias, window)
    _check_dims(name, x, window.rank)
    return transpose(name, x.unsqueeze(0), weight, bias, window, output_padding).squeeze(0)


def transpose_int8(
    name: str,
    x: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    window: Window,
    output_padding: tuple[int, ...],
) -> Tensor:
    """`transpose` with a weight of int8 values and float32 scales."""
    check_int8_tensors(x, values, scales, bias)
    if x.dim() == window.rank + 2:
        size = _transposed(x, values, window, output_padding)
        return autograd.transpose_int8(size, values, scales, x, bias, window)
    _check_dims(name, x, window.rank)
    return transpose_int8(name, x.unsqueeze(0), values, scales, bias, window, output_padding).squeeze(0)


def _overridden(name: str, x: Any, weight: Any, bias: Any, window: Window, *more: Any) -> Any:
    """What those arguments that are no tensors make of a call of a public function."""
    arguments = (x, weight, window.kernel_size, bias, window.stride, window.padding_argument, *more)
    return handle_torch_function(globals()[f"{name}{window.rank}d"], (x, weight, bias), *arguments)


def _transposed(x: Tensor, weight: Tensor, window: Window, output_padding: tuple[int, ...]) -> tuple[Any, ...]:
    """The size of the transposed convolution of a batch."""
    size, of_weight = numbers_of(x.shape), numbers_of(weight.shape)
    if len(of_weight) != 3 or of_weight[1] % window.taps:
        raise RuntimeError(
            f"Expected weight to have size [positions, prod(kernel_size) * out_channels / groups, in_channels], with "
            f"kernel_size={window.kernel_size}, but got {list(of_weight)}"
        )
    spatial = window.transposed_size(size[2:], output_padding)
    if not all(type(n) is int and 1 <= n <= LARGEST_SIZE for n in spatial):  # or symbols
        check_transposed(window, size, spatial)
    return (size[0], of_weight[1] // window.taps * window.groups, *spatial)


def _check_dims(name: str, x: Tensor, rank: int) -> None:
    if x.dim() != rank + 1:
        raise RuntimeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {name}, but got input of size: "
            f"{list(x.shape)}"
        )


def output_padding_for(window: Window, output_padding: IntOrInts) -> tuple[int, ...]:
    """Pixels at the end that no window begins at. ValueError where there would be a position more."""
    pixels = ints(output_padding, window.rank, "output_padding", minimum=0)
    if any(n >= s for n, s in zip(pixels, window.stride, strict=True)):
        raise ValueError(f"output_padding must be smaller than stride={window.stride}, got {output_padding!r}")
    return pixels


def local_conv1d(
    input: Tensor,
    weight: Tensor,
    kernel_size: IntOrInts,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """1D convolution with a weight of its own at every output position.

    Parameters
    ----------
    input : Tensor
        (N, C, L) or (C, L).
    weight : Tensor
        (positions, kernel_size * C / groups, out_channels), row ``i * (C / groups) + c`` for tap i and channel c: the
        kernel of Keras's implementation 1.
    kernel_size : int or sequence of 1 int
    bias : Tensor, optional
        (out_channels, positions), or (out_channels,) for all positions.
    stride, dilation : int or sequence of 1 int, optional
    padding : int, sequence of 1 int, 'valid' or 'same', optional
        As in `torch.nn.functional.conv1d`.
    groups : int, optional

    Returns
    -------
    Tensor
        (N, out_channels, positions) or (out_channels, positions), of the input's dtype. Its memory is in the order
        (N, positions, out_channels), as for torch's own convolutions of channels_last tensors: ``reshape`` what other
        layers would ``view``.

    Raises
    ------
    RuntimeError
        For tensors whose sizes or dtypes do not go together.
    ValueError, TypeError
        For other arguments, arrays of NumPy among them; all name the argument.

    Notes
    -----
    float32 and float64 are computed as such, float16 and bfloat16 in float32 and rounded once; under
    `torch.autocast` everything is float32. All of PyTorch's transforms apply: derivatives of any order, `torch.func`,
    `torch.compile`, `torch.export`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch.functional import local_conv1d
    >>> local_conv1d(torch.ones(2, 4, 10), torch.ones(8, 3 * 4, 5), 3).shape
    torch.Size([2, 5, 8])
    """
    return convolve("local_conv1d", input, weight, bias, window_for(1, kernel_size, stride, padding, dilation, groups))


def local_conv2d(
    input: Tensor,
    weight: Tensor,
    kernel_size: IntOrInts,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """2D convolution with a weight of its own at every output position.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W). No copy is made where its memory is channels_last.
    weight : Tensor
        (positions, kh * kw * C / groups, out_channels), row ``(i * kw + j) * (C / groups) + c`` for tap (i, j) and
        channel c; positions in C order.
    kernel_size : int or sequence of 2 ints
    bias : Tensor, optional
        (out_channels, output rows, output columns), or (out_channels,) for all positions.
    stride, padding, dilation, groups : optional
        As in `torch.nn.functional.conv2d`.

    Returns
    -------
    Tensor
        (N, out_channels, output rows, output columns), without N if the input is. Its memory is channels_last.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As `local_conv1d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch.functional import local_conv2d
    >>> local_conv2d(torch.ones(2, 3, 8, 8), torch.ones(16, 9 * 3, 5), 3, stride=2, padding=1).shape
    torch.Size([2, 5, 4, 4])
    """
    return convolve("local_conv2d", input, weight, bias, window_for(2, kernel_size, stride, padding, dilation, groups))


@docstring_from_2d(
    local_conv2d,
    """
    >>> import torch
    >>> from localconv.torch.functional import local_conv3d
    >>> local_conv3d(torch.ones(2, 3, 4, 8, 8), torch.ones(32, 27 * 3, 5), 3, stride=2, padding=1).shape
    torch.Size([2, 5, 2, 4, 4])
    """,
)
def local_conv3d(
    input: Tensor,
    weight: Tensor,
    kernel_size: IntOrInts,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    return convolve("local_conv3d", input, weight, bias, window_for(3, kernel_size, stride, padding, dilation, groups))


def local_conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    kernel_size: IntOrInts,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
) -> Tensor:
    """1D transposed convolution with a weight of its own at every *input* position: the gradient of `local_conv1d`.

    Parameters
    ----------
    input : Tensor
        (N, C, L) or (C, L).
    weight : Tensor
        (L, kernel_size * out_channels / groups, C): that of the convolution from out_channels to C channels whose
        transpose this is.
    kernel_size : int or sequence of 1 int
    bias : Tensor, optional
        (out_channels, output length), or (out_channels,).
    stride, padding, output_padding, groups, dilation : optional
        As in `torch.nn.functional.conv_transpose1d`; `output_padding` must be smaller than `stride`.

    Returns
    -------
    Tensor
        (N, out_channels, (L - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1).

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As `local_conv1d`.

    Notes
    -----
    Sums, the bias in them, are computed and rounded as by `local_conv1d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch.functional import local_conv_transpose1d
    >>> local_conv_transpose1d(torch.ones(2, 5, 8), torch.ones(8, 3 * 4, 5), 3).shape
    torch.Size([2, 4, 10])
    """
    return _local_conv_transpose(1, input, weight, kernel_size, bias, stride, padding, output_padding, groups, dilation)


def local_conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    kernel_size: IntOrInts,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
) -> Tensor:
    """2D transposed convolution with a weight of its own at every *input* position: the gradient of `local_conv2d`.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    weight : Tensor
        (H * W, kh * kw * out_channels / groups, C).
    kernel_size : int or sequence of 2 ints
    bias : Tensor, optional
        (out_channels, output rows, output columns), or (out_channels,).
    stride, padding, output_padding, groups, dilation : optional
        As in `torch.nn.functional.conv_transpose2d`; `output_padding` must be smaller than `stride`.

    Returns
    -------
    Tensor
        (N, out_channels, output rows, output columns), sizes as in `local_conv_transpose1d`.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As `local_conv1d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch.functional import local_conv_transpose2d
    >>> local_conv_transpose2d(torch.ones(2, 5, 4, 4), torch.ones(16, 4 * 3, 5), 2, stride=2).shape
    torch.Size([2, 3, 8, 8])
    """
    return _local_conv_transpose(2, input, weight, kernel_size, bias, stride, padding, output_padding, groups, dilation)


@docstring_from_2d(
    local_conv_transpose2d,
    """
    >>> import torch
    >>> from localconv.torch.functional import local_conv_transpose3d
    >>> local_conv_transpose3d(torch.ones(2, 5, 2, 4, 4), torch.ones(32, 8 * 3, 5), 2, stride=2).shape
    torch.Size([2, 3, 4, 8, 8])
    """,
)
def local_conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    kernel_size: IntOrInts,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
) -> Tensor:
    return _local_conv_transpose(3, input, weight, kernel_size, bias, stride, padding, output_padding, groups, dilation)


def _local_conv_transpose(
    rank: int,
    x: Tensor,
    weight: Tensor,
    kernel_size: IntOrInts,
    bias: Tensor | None,
    stride: IntOrInts,
    padding: IntOrInts,
    output_padding: IntOrInts,
    groups: int,
    dilation: IntOrInts,
) -> Tensor:
    window = window_for(rank, kernel_size, stride, reject_named_padding(padding), dilation, groups)
    pixels = output_padding_for(window, output_padding)
    return transpose(f"local_conv_transpose{rank}d", x, weight, bias, window, pixels)


def reject_named_padding(padding: Any) -> Any:
    """Padding of a transposed convolution, which has no names in PyTorch."""
    if isinstance(padding, str):
        raise ValueError(f"padding must be an int or a sequence of ints for a transposed convolution, got {padding!r}")
    return padding
