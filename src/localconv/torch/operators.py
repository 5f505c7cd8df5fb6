"""The operators ``torch.ops.localconv``: what the dispatcher knows of locally connected convolution.

There are three, and each is linear in its two tensors: one sum of products of an input, a weight and an output's
gradient is read in three ways. So the derivatives of each are the two others, of any order, forward and backward, and
one rule serves `torch.vmap` for all: whatever is batched becomes more images, or more groups of channels.

- ``local_conv(input, weight, bias)``: the output, (N, F, ...);
- ``local_conv_input(input_size, weight, grad_output, bias)``: the gradient for the input; with a bias, which is (C,) or
  (C, ...), a transposed convolution;
- ``local_conv_weight(input, weight_size, grad_output)``: the gradient for the weight.

Behind them stand kernel_size, stride, padding (before and after, of every axis), dilation and groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from . import fallback, native
from .arguments import check_bias, check_devices, check_dtypes, check_gradient, check_sizes, shown_bias
from .window import Window, window_from

WINDOW = "int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups"

library = torch.library.Library("localconv", "DEF")
library.define(f"local_conv(Tensor input, Tensor weight, Tensor? bias, {WINDOW}) -> Tensor")
library.define(
    f"local_conv_input(SymInt[] input_size, Tensor weight, Tensor grad_output, Tensor? bias, {WINDOW}) -> Tensor"
)
library.define(f"local_conv_weight(Tensor input, SymInt[] weight_size, Tensor grad_output, {WINDOW}) -> Tensor")

local_conv: Any = torch.ops.localconv.local_conv.default
local_conv_input: Any = torch.ops.localconv.local_conv_input.default
local_conv_weight: Any = torch.ops.localconv.local_conv_weight.default

NAMES = ("local_conv", "local_conv_input", "local_conv_weight")

# The three factors of the sum, by which the operations go: each computes one of them from the others.
INPUT, WEIGHT, OUTPUT = 0, 1, 2

Factors = tuple[Tensor | None, Tensor | None, Tensor | None]
Sizes = tuple[Sequence[Any] | None, Sequence[Any] | None]


def call(wanted: int, factors: Sequence[Any], bias: Tensor | None, sizes: Sequence[Any], window: Window) -> Tensor:
    """The operator that computes the factor `wanted`; `bias`: to be added, not to a weight; `sizes`: of the input and
    of the weight.
    """
    x, weight, y = factors
    if wanted == OUTPUT:
        result: Tensor = local_conv(x, weight, bias, *window.arguments)
    elif wanted == INPUT:
        result = local_conv_input(sizes[INPUT], weight, y, bias, *window.arguments)
    else:
        result = local_conv_weight(x, sizes[WEIGHT], y, *window.arguments)
    return result


# --------------------------------------------------------------------------------------------------------- the values


def register_values(name: str, compiled: Callable[..., Tensor], plain: Callable[..., Tensor]) -> None:
    """The compiled kernels for the processor's tensors, PyTorch's operations for those of every other device."""

    @native.opaque
    def elsewhere(*arguments: Any) -> Tensor:
        return plain(*arguments[:-5], window_from(*arguments[-5:]))

    @native.opaque
    def on_processor(*arguments: Any) -> Tensor:
        compute = plain if fallback.is_forced() else compiled
        return compute(*map(native.as_memory, arguments[:-5]), window_from(*arguments[-5:]))

    library.impl(name, elsewhere, "CompositeExplicitAutograd")
    library.impl(name, on_processor, "CPU")
    # Autocast saves nothing here, as 16 bits are computed in 32: what layers before and behind made of their tensors is
    # brought to float32, and nothing is rounded.
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(f"localconv::{name}", device, torch.float32, lib=library)


register_values("local_conv", native.forward, fallback.forward)
register_values("local_conv_input", native.grad_input, fallback.grad_input)
register_values("local_conv_weight", native.grad_weight, fallback.grad_weight)


# --------------------------------------------------------------------------- shapes: fake tensors and the device meta


def permuted(like: Tensor, n: Any, channels: Any, spatial: Sequence[Any]) -> Tensor:
    """An empty (N, C, ...) whose memory is channels_last."""
    return like.new_empty((n, *spatial, channels)).movedim(-1, 1)


@torch.library.register_fake("localconv::local_conv", lib=library)
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any) -> Tensor:
    check_dtypes(input=x, weight=weight, bias=bias)
    output = check_sizes(window_from(*arguments), x.shape, weight.shape)
    if bias is not None:
        check_bias(bias.shape, output)
    check_devices(x, weight, bias)
    return permuted(x, output[0], output[1], output[2:])


@torch.library.register_fake("localconv::local_conv_input", lib=library)
def _(size: Sequence[Any], weight: Tensor, gradient: Tensor, bias: Tensor | None, *arguments: Any) -> Tensor:
    check_dtypes(gradient=gradient, weight=weight, bias=bias)
    check_gradient(gradient.shape, check_sizes(window_from(*arguments), size, weight.shape))
    if bias is not None:
        check_bias(bias.shape, size)
    check_devices(gradient, weight, bias)
    return permuted(gradient, size[0], size[1], size[2:])


@torch.library.register_fake("localconv::local_conv_weight", lib=library)
def _(x: Tensor, size: Sequence[Any], gradient: Tensor, *arguments: Any) -> Tensor:
    check_dtypes(gradient=gradient, input=x)
    check_gradient(gradient.shape, check_sizes(window_from(*arguments), x.shape, size))
    check_devices(gradient, x)
    return gradient.new_empty(size)


#  the derivatives


class Product(torch.autograd.Function):
    """One of the three operations, differentiable by the others.

    `compute`, called as `call` is, gives the values. Everything about the operation but its tensors comes in one tuple:
    (compute, wanted, sizes, window).
    """

    @staticmethod
    @native.opaque
    def forward(  # type: ignore[override]  # the base class takes anything
        ctx: Any, x: Tensor | None, weight: Tensor | None, y: Tensor | None, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        compute, wanted, sizes, _ = ctx.how = how
        # What a derivative needs is the other factor; the bias has no part in it, but its shape.
        needs = ctx.needs_input_grad
        ctx.bias_dims = None if bias is None else bias.dim()
        if wanted == OUTPUT:
            ctx.save_for_backward(x if needs[WEIGHT] else None, weight if needs[INPUT] else None, None)
        elif wanted == INPUT:
            ctx.save_for_backward(None, weight if needs[OUTPUT] else None, y if needs[WEIGHT] else None)
        else:
            ctx.save_for_backward(x if needs[OUTPUT] else None, None, y if needs[INPUT] else None)
        ctx.set_materialize_grads(False)
        result: Tensor = compute(wanted, (x, weight, y), bias, sizes, how[3])
        return result

    @staticmethod
    @native.opaque
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        if gradient is None:
            return None, None, None, None, None
        _, wanted, sizes, window = ctx.how
        factors, needs = list(ctx.saved_tensors), ctx.needs_input_grad
        factors[wanted] = gradient
        compute = _backward_call(factors)
        found: list[Tensor | None] = [None, None, None]
        for other in (INPUT, WEIGHT, OUTPUT):
            if other != wanted and needs[other]:
                found[other] = compute(other, factors, None, sizes, window)
        for_bias = sum_for_bias(gradient, ctx.bias_dims) if needs[3] else None
        return found[0], found[1], found[2], for_bias, None


def sum_for_bias(gradient: Tensor, dims: int) -> Tensor:
    """The gradient for a bias of so many dimensions."""
    if dims == 1:
        return gradient.sum((0, *range(2, gradient.dim())))
    return gradient.sum(0)


def as_output(part: Tensor, shape: Sequence[Any]) -> Tensor:
    """A tensor expanded to an output, in an output's memory format: forward mode asks for that of the values."""
    return part.expand(shape).movedim(1, -1).contiguous().movedim(-1, 1)


class Linear(Product):
    """`Product` with forward-mode derivatives: what runs below them is saved for both."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor | None, weight: Tensor | None, y: Tensor | None, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        result = Product.forward(ctx, x, weight, y, bias, how)
        ctx.save_for_forward(x, weight, y)
        ctx.shape = result.shape
        return result

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:  # type: ignore[override]
        _, wanted, sizes, window = ctx.how
        saved = ctx.saved_tensors
        total: Tensor | None = None
        for factor in (INPUT, WEIGHT, OUTPUT):
            if tangents[factor] is not None:
                factors = list(saved)
                factors[factor] = tangents[factor]
                part = call(wanted, factors, None, sizes, window)
                total = part if total is None else total + part
        if tangents[3] is not None:
            part = shown_bias(tangents[3], window.rank)
            if total is None:
                return as_output(part, ctx.shape)
            total = total + part
        return total


def _backward_call(factors: Sequence[Tensor | None]) -> Callable[..., Tensor]:
    """What a backward pass computes with: the kernels themselves where nothing watches."""
    if not torch.is_grad_enabled() and native.is_plain(*factors) and not fallback.is_forced():
        return native.call
    return call


def _below_autograd(wanted: int, factors: Any, bias: Tensor | None, sizes: Any, window: Window) -> Tensor:
    """The values, from the next dispatcher key.

    `Function.apply` turns gradients off around a forward pass. Other transforms of `torch.func`, which wait below this
    one, must not see that: their derivatives would be 0 without a word.
    """
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
        return call(wanted, factors, bias, sizes, window)


def once(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """A function's `apply` for an operator's implementation.

    `Function.apply` looks at the whole stack of `torch.func`'s transforms. Here the dispatcher has peeled off one of
    them already, and one level is left to differentiate.
    """
    apply_once: Any = super(torch.autograd.Function, function).apply

    def apply(*arguments: Any) -> Any:
        with enable_single_level_autograd_function():
            return apply_once(*arguments)

    return apply


_apply = once(Linear)


@native.opaque
def _differentiable_output(x: Tensor, weight: Tensor, bias: Tensor | None, *window: Any) -> Any:
    how = (_below_autograd, OUTPUT, (x.shape, weight.shape), window_from(*window))
    return _apply(x, weight, None, bias, how)


@native.opaque
def _differentiable_input(size: Sequence[Any], weight: Tensor, y: Tensor, bias: Tensor | None, *window: Any) -> Any:
    how = (_below_autograd, INPUT, (tuple(size), weight.shape), window_from(*window))
    return _apply(None, weight, y, bias, how)


@native.opaque
def _differentiable_weight(x: Tensor, size: Sequence[Any], y: Tensor, *window: Any) -> Any:
    how = (_below_autograd, WEIGHT, (x.shape, tuple(size)), window_from(*window))
    return _apply(x, None, y, None, how)


for _name, _differentiable in zip(
    NAMES, (_differentiable_output, _differentiable_input, _differentiable_weight), strict=True
):
    library.impl(_name, _differentiable, "Autograd")


#  batches


def batched(
    wanted: int, batch: int, factors: Sequence[Tensor | None], sizes: Sequence[Any], window: Window, dims: Sequence[Any]
) -> tuple[Tensor, int]:
    """An operation on factors that are batched along `dims` (None: not), and along which axis its result is.

    Batches under one weight are more images. A weight for each makes groups of them, or more filters where all see one
    input.
    """
    x, weight, y = [t if t is None or d is None else t.movedim(d, 0) for t, d in zip(factors, dims, strict=True)]
    if wanted != WEIGHT and dims[WEIGHT] is None:
        folded = [t if t is None else t.flatten(0, 1) for t in (x, None, y)]
        folded[WEIGHT] = weight
        size = sizes[INPUT]
        images = [(batch * size[0], *size[1:]), sizes[WEIGHT]] if size is not None else sizes
        return call(wanted, folded, None, images, window).unflatten(0, (batch, -1)), 0
    one_input = wanted != INPUT and dims[INPUT] is None and window.groups == 1
    if x is not None and not one_input:
        x = _by_channels(x, batch, dims[INPUT])
    if y is not None:
        y = _by_channels(y, batch, dims[OUTPUT])
    if weight is not None:
        full = weight if dims[WEIGHT] is not None else weight.expand(batch, *weight.shape)
        weight = full.movedim(0, 2).flatten(2, 3)
    input_size, weight_size = sizes
    if input_size is not None:
        input_size = (input_size[0], batch * input_size[1], *input_size[2:])
    if weight_size is not None:
        weight_size = (*weight_size[:2], batch * weight_size[2])
    grouped = window if one_input else window.with_groups(batch * window.groups)
    axis = 2 if wanted == WEIGHT else 1
    result = call(wanted, (x, weight, y), None, (input_size, weight_size), grouped)
    return result.unflatten(axis, (batch, -1)), axis


def with_batched_bias(y: Tensor, axis: int, bias: Tensor, dim: int | None, rank: int) -> tuple[Tensor, int]:
    """Batched outputs plus a bias that is batched along `dim`, or one for all; and the axis of the batch."""
    terms = bias.unsqueeze(0) if dim is None else bias.movedim(dim, 0)
    # (batch or 1, F, ...) to (batch or 1, 1, F, ...)
    terms = terms.reshape(*terms.shape, *[1] * rank) if terms.dim() == 2 else terms
    return y.movedim(axis, 0) + terms.unsqueeze(1), 0


def _by_channels(tensor: Tensor, batch: int, dim: int | None) -> Tensor:
    """(batch, N, C, ...) or one (N, C, ...) for all as (N, batch * C, ...)."""
    full = tensor if dim is not None else tensor.expand(batch, *tensor.shape)
    return full.movedim(0, 1).flatten(1, 2)


@torch.library.register_vmap("localconv::local_conv", lib=library)
def _(info: Any, dims: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *arguments: Any) -> tuple[Tensor, int]:
    window = window_from(*arguments)
    if dims[0] is None and dims[1] is None:
        y, axis = local_conv(x, weight, None, *arguments).unsqueeze(0), 0
    else:
        y, axis = batched(OUTPUT, info.batch_size, (x, weight, None), (None, None), window, (*dims[:2], None))
    return (y, axis) if bias is None else with_batched_bias(y, axis, bias, dims[2], window.rank)


@torch.library.register_vmap("localconv::local_conv_input", lib=library)
def _(
    info: Any, dims: Any, size: Any, weight: Tensor, y: Tensor, bias: Tensor | None, *arguments: Any
) -> tuple[Tensor, int]:
    window = window_from(*arguments)
    if dims[1] is None and dims[2] is None:
        x, axis = local_conv_input(size, weight, y, None, *arguments).unsqueeze(0), 0
    else:
        x, axis = batched(INPUT, info.batch_size, (None, weight, y), (size, None), window, (None, *dims[1:3]))
    return (x, axis) if bias is None else with_batched_bias(x, axis, bias, dims[3], window.rank)


@torch.library.register_vmap("localconv::local_conv_weight", lib=library)
def _(info: Any, dims: Any, x: Tensor, size: Any, y: Tensor, *arguments: Any) -> tuple[Tensor, int]:
    return batched(
        WEIGHT, info.batch_size, (x, None, y), (None, size), window_from(*arguments), (dims[0], None, dims[2])
    )
