"""Low-rank locally connected layers: filters of every position are weighted sums of a few.

On the processor, where nothing watches, `core.banked` computes, which never makes the kernel of all positions. Anything
else, compiled and exported programs, transforms, other devices and derivatives of derivatives, is a shared convolution
to all filters and a weighted sum of its results, in PyTorch's operations.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import banked, engine
from ..core.arguments import ZEROS, ints
from ..core.bank import NORMALIZATIONS, SMALL, KernelBank
from ..core.windows import depth_of
from . import autograd, native
from .arguments import ELEMENTS, broadcastable_bias, check_dtypes, check_sizes, numbers_of
from .modules import LocalConv1d, LocalConv2d, _LocalConv
from .window import IntOrInts, Padding, Window

__all__ = ["LowRankLocalConv1d", "LowRankLocalConv2d"]


class _Lent:
    """A contiguous tensor's memory as NumPy sees it, for the time of a call: `native` says why not by Tensor.numpy."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "typestr": ELEMENTS[tensor.dtype].dtype.str,
            "version": 3,
        }


def _lent(tensor: Tensor) -> Any:
    """An array of what is computed, which keeps the memory that it shows: the tensor's, if that is ready."""
    ready = native.ready(tensor.detach(), ELEMENTS[tensor.dtype])
    return np.asarray(_Lent(ready)) if ready.numel() else np.empty(ready.shape, ELEMENTS[tensor.dtype].dtype)


def _images(tensor: Tensor) -> Any:
    """(N, C, ...) as (N, ..., C)."""
    return _lent(tensor.movedim(1, -1))


class _Banked(torch.autograd.Function):
    """The convolution with a bank by `core.banked`; its derivatives too, unless they are to have derivatives."""

    @staticmethod
    @native.opaque
    def forward(ctx: Any, x: Tensor, filters: Tensor, weights: Tensor, window: Window) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, filters, weights)
        ctx.window = window
        bank = KernelBank(_lent(filters), _lent(weights))
        made = banked.forward(window.spec, _images(x), bank, None, None, False, engine.NAMES, native.context())
        return torch.from_numpy(made).movedim(-1, 1).to(x.dtype)

    @staticmethod
    @native.opaque
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, filters, weights = tensors = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            y = in_operations(x, filters, weights, ctx.window)
            wanted = [tensor for tensor, needed in zip(tensors, needs, strict=False) if needed]
            made = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
            return *(next(made) if needed else None for needed in needs[:3]), None
        image, given, bank = _images(x), _images(gradient), KernelBank(_lent(filters), _lent(weights))
        spec, how = ctx.window.spec, (engine.NAMES, native.context())
        results: list[Tensor | None] = [None, None, None]
        if needs[0]:
            back = banked.grad_input(spec, image.shape, bank, given, None, *how)
            results[0] = torch.from_numpy(back).movedim(-1, 1).to(x.dtype)
        if needs[1] or needs[2]:
            pair = banked.grad_bank(spec, image, bank, given, *how)
            for place, (tensor, made) in enumerate(zip(tensors[1:], pair, strict=True), 1):
                assert made is not None
                results[place] = torch.from_numpy(made).to(tensor.dtype)
        return *results, None


def in_operations(x: Tensor, filters: Tensor, weights: Tensor, window: Window) -> Tensor:
    """The same of PyTorch's operations: a convolution to all filters, and a weighted sum of what it makes."""
    rank, groups, (bank, depth, outputs) = window.rank, window.groups, numbers_of(filters.shape)
    channels = depth // math.prod(window.kernel_size)
    # No more than five axes: some runtimes have no others.
    kernel = filters.reshape(bank, depth // channels, channels, groups, outputs // groups)
    kernel = kernel.permute(3, 0, 4, 2, 1).flatten(0, 2).unflatten(2, window.kernel_size)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    padded = F.pad(x, window.ends) if any(window.padding) else x
    maps = convolve(padded, kernel, None, window.stride, 0, window.dilation, groups)
    # Sizes in numbers: of no images, a runtime cannot find out what is left for an axis.
    batch, size = maps.shape[0], numbers_of(maps.shape[2:])
    by_filter = maps.reshape(batch, groups, bank, outputs // groups, math.prod(size))
    by_position = weights.transpose(0, 1).unsqueeze(1)
    return (by_filter * by_position).sum(2).reshape(batch, outputs, *size)


def convolve_bank(x: Tensor, filters: Tensor, weights: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """The convolution of a batch (N, C, ...) with the kernel ``weights @ filters``, plus a bias (F,) or (F, ...)."""
    if torch.compiler.is_compiling():  # which cannot look through the checks; the operations have their own
        y = in_operations(x, filters, weights, window)
    else:
        check_dtypes(input=x, weight=filters, bias=bias)
        check_sizes(window, numbers_of(x.shape), numbers_of((weights.shape[0], *filters.shape[1:])))
        watched = not autograd.is_direct(x, filters, weights, bias)
        y = (in_operations if watched else _Banked.apply)(x, filters, weights, window)
    return y if bias is None else y + broadcastable_bias(bias, window.rank)


class _LowRankLocalConv(_LocalConv):
    """What the modules of both ranks share."""

    filters: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        input_size: IntOrInts,
        rank: int,
        stride: IntOrInts = 1,
        padding: Padding = 0,
        dilation: IntOrInts = 1,
        groups: int = 1,
        bias: bool | str = True,
        padding_mode: str = ZEROS,
        separable: bool = False,
        normalize_weights: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        (terms,) = ints(rank, 1, "rank")
        if type(separable) is not bool:
            raise TypeError(f"separable must be True or False, got {separable!r}")
        if normalize_weights not in NORMALIZATIONS:
            raise ValueError(f"normalize_weights must be None, 'softmax' or 'norm', got {normalize_weights!r}")
        if separable and self._rank == 1:
            raise ValueError("separable must be False in one dimension, which has no rows and columns")
        self.rank, self.separable, self.normalize_weights = terms, separable, normalize_weights
        windows = (kernel_size, input_size, stride, padding, dilation, groups)
        super().__init__(in_channels, out_channels, *windows, bias, padding_mode, device, dtype)

    def _make_parameters(self, device: Any, dtype: torch.dtype | None) -> None:
        assert self.output_size is not None
        _, bias = self._shapes()
        depth = depth_of(self.kernel_size, self.in_channels, self.groups)
        like = {"device": device, "dtype": dtype}
        self.filters = nn.Parameter(torch.empty(self.rank, depth, self.out_channels, **like))
        for name, positions in self._weights_by_name().items():
            self.register_parameter(name, nn.Parameter(torch.empty(positions, self.rank, **like)))
        self.register_parameter("bias", nn.Parameter(torch.empty(bias, **like)) if self._bias else None)
        self.reset_parameters()

    def _weights_by_name(self) -> dict[str, int]:
        """The parameters that the weights are made of, and their lengths."""
        assert self.output_size is not None
        if self.separable:
            return dict(zip(("row_weights", "column_weights"), self.output_size, strict=True))
        return {"position_weights": math.prod(self.output_size)}

    def reset_parameters(self) -> None:
        """Draw filters and bias as `torch.nn.Conv2d` does, and give all positions the same weights: the module begins
        as a convolution.

        Those of a position are 1 / sqrt(rank) each, half of that for rows and for columns.
        """
        bound = 1 / math.sqrt(self.filters.shape[1])
        nn.init.uniform_(self.filters, -bound, bound)
        names = self._weights_by_name()
        start = 1 / (math.sqrt(self.rank) * len(names))
        for name in names:
            nn.init.constant_(getattr(self, name), start)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def weights(self) -> Tensor:
        """The weights of every position's filters, (positions, rank), in C order, as they are used."""
        if self.separable:
            weights = (self.row_weights[:, None] + self.column_weights).flatten(0, 1)
        else:
            weights = self.position_weights
        if self.normalize_weights == "norm":
            return weights / (weights.square().sum(1, keepdim=True) + SMALL).sqrt()
        return weights.softmax(1) if self.normalize_weights else weights

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of (N, in_channels, *input_size) or (in_channels, *input_size)."""
        if not isinstance(input, Tensor) and (leaf := self._as_leaf(input)) is not None:
            return leaf  # type: ignore[no-any-return]
        self._check_image(input)
        window = self._window
        if self.padding_mode != ZEROS:
            input, window = self._padded(input)
        if input.dim() == self._rank + 1:
            return convolve_bank(input.unsqueeze(0), self.filters, self.weights, self.bias, window).squeeze(0)
        return convolve_bank(input, self.filters, self.weights, self.bias, window)

    def quantize(self, mode: str = "int8") -> Self:
        """Refuse: the filters of a few are small as they are.

        Raises
        ------
        ValueError
            Always: ``module.to_local().quantize()`` makes a module of int8.
        """
        raise ValueError(f"{type(self).__name__} cannot be quantized, got mode={mode!r}: to_local().quantize() can")

    def _more_repr(self) -> list[str]:
        parts = [f"rank={self.rank}"]
        if self.separable:
            parts.append("separable=True")
        if self.normalize_weights:
            parts.append(f"normalize_weights={self.normalize_weights!r}")
        return parts

    def _full(self, module: type[_LocalConv]) -> _LocalConv:
        """The module with a kernel for every position."""
        assert self.input_size is not None
        window = (self.kernel_size, self.input_size, self.stride, self.padding, self.dilation, self.groups)
        like = {"device": self.filters.device, "dtype": self.filters.dtype}
        made = module(self.in_channels, self.out_channels, *window, self._bias, self.padding_mode, **like)
        with torch.no_grad():
            made.weight.copy_(torch.tensordot(self.weights, self.filters, 1))
            if made.bias is not None and self.bias is not None:
                made.bias.copy_(self.bias)
        return made.train(self.training)


class LowRankLocalConv1d(_LowRankLocalConv):
    """1D convolution whose filters at every position are weighted sums of a few.

    Between a convolution (rank 1, constant weights) and `LocalConv1d` (rank of the number of positions): position p's
    weight is ``sum_k weights[p, k] * filters[k]``, which is never made for all positions.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of 1 int
    input_size : int or sequence of 1 int
        Length of the inputs, on which the number of weights depends.
    rank : int
        The number of filters that are mixed at every position, for each output channel. With 1 the module is a
        convolution that is scaled at every position; with as many as positions it can be any locally connected one.
    stride, padding, dilation, groups : optional
        As in `torch.nn.Conv1d`; padding may be 'same' or 'valid'.
    bias : bool or 'shared', optional
        True: one for each filter and position; 'shared': one for each filter.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, optional
        What padding holds, as in `LocalConv1d`.
    separable : bool, optional
        False: one dimension has no rows and columns.
    normalize_weights : {None, 'softmax', 'norm'}, optional
        'softmax' makes those of every position positive, with a sum of 1; 'norm' divides them by their Euclidean norm.
    device, dtype : optional
        As in `torch.nn.Conv1d`.

    Attributes
    ----------
    filters : Parameter
        (rank, kernel_size * in_channels / groups, out_channels), rows as in `LocalConv1d`.
    position_weights : Parameter
        (positions, rank); of separable ones ``row_weights`` (rows, rank) and ``column_weights`` (columns, rank).
    bias : Parameter or None
        ``(out_channels, *output_size)``, or (out_channels,).
    weights, output_size : Tensor, tuple of int
        (positions, rank), the weights that these parameters make; and the positions along every axis.

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; the message names one.

    See Also
    --------
    localconv.KernelBank : the same for NumPy arrays, and how it is computed.

    Notes
    -----
    Low-rank local connectivity is of Elsayed, Ramachandran, Shlens and Kornblith, "Revisiting Spatial Invariance with
    Low-Rank Local Connectivity" (ICML 2020), separable and normalized weights too.

    Compiled and exported programs, transforms of `torch.func`, second derivatives and other devices than the processor
    compute by a convolution to ``rank * out_channels`` channels and a weighted sum, in PyTorch's operations: they need
    the memory of these channels.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LowRankLocalConv1d
    >>> layer = LowRankLocalConv1d(4, 8, kernel_size=3, input_size=10, rank=2)
    >>> layer(torch.ones(2, 4, 10)).shape
    torch.Size([2, 8, 8])
    """

    _rank = 1

    def to_local(self) -> LocalConv1d:
        """Return a `LocalConv1d` of the same function, with copies of its parameters."""
        return self._full(LocalConv1d)  # type: ignore[return-value]


class LowRankLocalConv2d(_LowRankLocalConv):
    """2D convolution whose filters at every position are weighted sums of a few.

    Between a convolution (rank 1, constant weights) and `LocalConv2d` (rank of the number of positions): position p's
    weight is ``sum_k weights[p, k] * filters[k]``, which is never made for all positions.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of 2 ints
    input_size : int or sequence of 2 ints
        Rows and columns of the inputs, on which the number of weights depends.
    rank : int
        The number of filters that are mixed at every position, for each output channel. With 1 the module is a
        convolution that is scaled at every position; with as many as positions it can be any locally connected one.
    stride, padding, dilation, groups : optional
        As in `torch.nn.Conv2d`; padding may be 'same' or 'valid'.
    bias : bool or 'shared', optional
        True: one for each filter and position; 'shared': one for each filter.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, optional
        What padding holds, as in `LocalConv2d`.
    separable : bool, optional
        True makes a position's weights the sum of its row's and its column's: ``(rows + columns) * rank`` parameters in
        place of ``rows * columns * rank``.
    normalize_weights : {None, 'softmax', 'norm'}, optional
        'softmax' makes those of every position positive, with a sum of 1; 'norm' divides them by their Euclidean norm.
    device, dtype : optional
        As in `torch.nn.Conv2d`.

    Attributes
    ----------
    filters : Parameter
        (rank, kh * kw * in_channels / groups, out_channels), rows as in `LocalConv2d`.
    position_weights : Parameter
        (positions, rank); of separable ones ``row_weights`` (rows, rank) and ``column_weights`` (columns, rank).
    bias : Parameter or None
        ``(out_channels, *output_size)``, or (out_channels,).
    weights, output_size : Tensor, tuple of int
        (positions, rank), the weights that these parameters make; and the positions along every axis.

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; the message names one.

    See Also
    --------
    LocalConv2d : filters of their own at every position; `to_local` makes one.

    Notes
    -----
    The module begins as a convolution: all positions have the same weights. `LowRankLocalConv1d` names the paper, and
    says how it is computed.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LowRankLocalConv2d
    >>> layer = LowRankLocalConv2d(3, 16, 3, input_size=(8, 8), rank=4, padding='same', separable=True)
    >>> layer(torch.ones(2, 3, 8, 8)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([2, 16, 8, 8]), 2816)
    >>> sum(p.numel() for p in layer.to_local().parameters())
    28672
    """

    _rank = 2

    def to_local(self) -> LocalConv2d:
        """Return a `LocalConv2d` of the same function, with copies of its parameters."""
        return self._full(LocalConv2d)  # type: ignore[return-value]
