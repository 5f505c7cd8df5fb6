"""Filters that come with the data, as functions of tensors in the manner of torch.nn.functional."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function

from ..core.families import FILTER
from ..docstrings import docstring_from_2d
from . import autograd
from .arguments import is_overridden, numbers_of
from .functional import window_for
from .window import IntOrInts, Padding, Window

__all__ = [
    "local_correlation1d",
    "local_correlation2d",
    "local_correlation3d",
    "local_filter1d",
    "local_filter2d",
    "local_filter3d",
]


def _filtered(name: str, x: Tensor, filters: Tensor, window: Window) -> Tensor:
    """A batch through its filters. Operators check sizes and dtypes."""
    if is_overridden(x, filters, names=("input", "filters")):
        return _overridden(name, x, filters, window)
    _check_dims(name, x, window.rank)
    return autograd.filtered(x, filters, window)


def _correlated(name: str, x: Tensor, queries: Tensor, window: Window) -> Tensor:
    """The products of a batch's windows with queries. Operators check sizes and dtypes."""
    if is_overridden(x, queries, names=("input", "queries")):
        return _overridden(name, x, queries, window)
    _check_dims(name, x, window.rank)
    return autograd.correlated(x, window.filters_size(numbers_of(x.shape)), queries, window)


def _overridden(name: str, x: Any, other: Any, window: Window) -> Any:
    """What those arguments that are no tensors make of a call of a public function."""
    arguments = (x, other, window.kernel_size, window.stride, window.padding_argument, window.dilation, window.groups)
    return handle_torch_function(globals()[name], (x, other), *arguments)


def _check_dims(name: str, x: Tensor, rank: int) -> None:
    if x.dim() != rank + 2:
        raise RuntimeError(
            f"Expected {rank + 2}D (batched) input to {name} (a single image is one of a batch: unsqueeze(0)), but got "
            f"input of size: {list(x.shape)}"
        )


def local_filter1d(
    input: Tensor,
    filters: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """1D filtering, with a filter of its own for every image and position that all channels of a group share.

    Parameters
    ----------
    input : Tensor
        (N, C, L).
    filters : Tensor
        (N, groups * kernel_size, positions), or (1, ...) for all images; channel ``g * kernel_size + i`` is tap i of
        group g. Of the input's dtype, or float16 or bfloat16 with a float32 input.
    kernel_size : int or sequence of 1 int
    stride, dilation : int or sequence of 1 int, optional
    padding : int, sequence of 1 int, 'valid', 'same' or 'inside', optional
        As in `torch.nn.functional.conv1d`; a pair (before, after) for every axis; or 'inside': windows at the border
        are moved until they lie inside, as in `localconv.local_filter1d`.
    groups : int, optional
        Groups of channels, each with filters of its own.

    Returns
    -------
    Tensor
        (N, C, positions), of the input's dtype. Its memory is channels_last if that of the arguments is.

    Raises
    ------
    RuntimeError
        For tensors whose sizes or dtypes do not go together.
    ValueError, TypeError
        For other arguments, arrays of NumPy among them; all name the argument.

    Notes
    -----
    float32 and float64 are computed as such, float16 and bfloat16 in float32 and rounded once. All of PyTorch's
    transforms apply: derivatives of any order, `torch.func`, `torch.compile`, `torch.export`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import local_filter1d
    >>> filters = torch.ones(2, 3, 10) / 3
    >>> local_filter1d(torch.arange(20.0).view(2, 1, 10), filters, 3, padding='inside')[0, 0, :3]
    tensor([1., 1., 2.])
    """
    window = window_for(1, kernel_size, stride, padding, dilation, groups, FILTER)
    return _filtered("local_filter1d", input, filters, window)


def local_filter2d(
    input: Tensor,
    filters: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """2D filtering, with a filter of its own for every image and position that all channels of a group share.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W).
    filters : Tensor
        (N, groups * kh * kw, output rows, output columns), or (1, ...) for all images; channel
        ``(g * kh + i) * kw + j`` is tap (i, j) of group g. Of the input's dtype, or float16 or bfloat16 with a float32
        input.
    kernel_size : int or sequence of 2 ints
    stride, padding, dilation, groups : optional
        As in `local_filter1d`.

    Returns
    -------
    Tensor
        (N, C, output rows, output columns), of the input's dtype. Its memory is channels_last if that of the arguments
        is.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As `local_filter1d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import local_filter2d
    >>> filters = torch.softmax(torch.randn(2, 2 * 25, 8, 8).view(2, 2, 25, 8, 8), 2).flatten(1, 2)
    >>> local_filter2d(torch.ones(2, 6, 8, 8), filters, 5, padding='same', groups=2).shape
    torch.Size([2, 6, 8, 8])
    """
    window = window_for(2, kernel_size, stride, padding, dilation, groups, FILTER)
    return _filtered("local_filter2d", input, filters, window)


@docstring_from_2d(
    local_filter2d,
    """
    >>> import torch
    >>> from localconv.torch import local_filter3d
    >>> local_filter3d(torch.ones(2, 6, 4, 8, 8), torch.ones(1, 27, 4, 8, 8), 3, padding='inside').shape
    torch.Size([2, 6, 4, 8, 8])
    """,
)
def local_filter3d(
    input: Tensor,
    filters: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    window = window_for(3, kernel_size, stride, padding, dilation, groups, FILTER)
    return _filtered("local_filter3d", input, filters, window)


def local_correlation1d(
    input: Tensor,
    queries: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """1D correlation of every position's query with the pixels of its window: what `local_filter1d` takes as filters.

    Parameters
    ----------
    input : Tensor
        (N, C, L).
    queries : Tensor
        (N, C, positions), as a result of `local_filter1d`; of the input's dtype.
    kernel_size, stride, padding, dilation, groups : optional
        As in `local_filter1d`.

    Returns
    -------
    Tensor
        (N, groups * kernel_size, positions): for every tap of a group the sum over its channels of pixel times query;
        0 where a tap is outside the input.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As `local_filter1d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import local_correlation1d
    >>> local_correlation1d(torch.ones(2, 4, 10), torch.ones(2, 4, 10), 3, padding='same')[0, :, 0]
    tensor([0., 4., 4.])
    """
    window = window_for(1, kernel_size, stride, padding, dilation, groups, FILTER)
    return _correlated("local_correlation1d", input, queries, window)


def local_correlation2d(
    input: Tensor,
    queries: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """2D correlation of every position's query with the pixels of its window: what `local_filter2d` takes as filters.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W).
    queries : Tensor
        (N, C, output rows, output columns), as a result of `local_filter2d`; of the input's dtype.
    kernel_size, stride, padding, dilation, groups : optional
        As in `local_filter1d`.

    Returns
    -------
    Tensor
        (N, groups * kh * kw, output rows, output columns): for every tap of a group the sum over its channels of pixel
        times query; 0 where a tap is outside the input.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        As `local_filter1d`.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import local_correlation2d
    >>> keys, queries = torch.randn(2, 2, 16, 14, 14)
    >>> local_correlation2d(keys, queries, 7, padding='inside', groups=4).shape
    torch.Size([2, 196, 14, 14])
    """
    window = window_for(2, kernel_size, stride, padding, dilation, groups, FILTER)
    return _correlated("local_correlation2d", input, queries, window)


@docstring_from_2d(
    local_correlation2d,
    """
    >>> import torch
    >>> from localconv.torch import local_correlation3d
    >>> local_correlation3d(torch.ones(2, 6, 4, 8, 8), torch.ones(2, 6, 4, 8, 8), 3, padding='same').shape
    torch.Size([2, 27, 4, 8, 8])
    """,
)
def local_correlation3d(
    input: Tensor,
    queries: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts = 1,
    padding: Padding = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    window = window_for(3, kernel_size, stride, padding, dilation, groups, FILTER)
    return _correlated("local_correlation3d", input, queries, window)
