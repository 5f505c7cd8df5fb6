"""The operators for weights of int8 values and float32 scales, which are for inference.

A weight is ``values * scales``, with a scale for each position and filter, and is never made: the kernels read the
values. Both operators are linear in the one tensor that has derivatives, and each is the other's; the weight has none.

- ``local_conv_int8(input, values, scales, bias)``: the output, (N, F, ...);
- ``local_conv_input_int8(input_size, values, scales, grad_output, bias)``: the gradient for the input; with a bias a
  transposed convolution.

Input, gradient and bias may be float32, bfloat16 or float16, each by itself; what comes out has the dtype of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import fallback, native
from .arguments import check_bias, check_devices, check_gradient, check_int8, check_sizes, shown_bias
from .operators import (
    INPUT,
    OUTPUT,
    WINDOW,
    as_output,
    batched,
    library,
    once,
    permuted,
    register_values,
    sum_for_bias,
    with_batched_bias,
)
from .window import Window, window_from

library.define(f"local_conv_int8(Tensor input, Tensor values, Tensor scales, Tensor? bias, {WINDOW}) -> Tensor")
library.define(
    "local_conv_input_int8(SymInt[] input_size, Tensor values, Tensor scales, Tensor grad_output, Tensor? bias, "
    f"{WINDOW}) -> Tensor"
)

local_conv_int8: Any = torch.ops.localconv.local_conv_int8.default
local_conv_input_int8: Any = torch.ops.localconv.local_conv_input_int8.default

NAMES = ("local_conv_int8", "local_conv_input_int8")


def call(
    wanted: int, given: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, size: Any, window: Window
) -> Tensor:
    """The operator that computes INPUT, of that size, or OUTPUT from the other; `weight`: values and scales."""
    result: Tensor = (
        local_conv_int8(given, *weight, bias, *window.arguments)
        if wanted == OUTPUT
        else local_conv_input_int8(size, *weight, given, bias, *window.arguments)
    )
    return result


def call_native(
    wanted: int, given: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, size: Any, window: Window
) -> Tensor:
    """As `call`, without the dispatcher."""
    if wanted == OUTPUT:
        return native.forward_int8(given, *weight, bias, window)
    return native.grad_input_int8(size, *weight, given, bias, window)


# --------------------------------------------------------------------------------------------------------- the values


register_values("local_conv_int8", native.forward_int8, fallback.forward_int8)
register_values("local_conv_input_int8", native.grad_input_int8, fallback.grad_input_int8)


@torch.library.register_fake("localconv::local_conv_int8", lib=library)
def _(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, *arguments: Any) -> Tensor:
    check_int8(values, scales, input=x, bias=bias)
    output = check_sizes(window_from(*arguments), x.shape, values.shape)
    if bias is not None:
        check_bias(bias.shape, output)
    check_devices(x, values, scales, bias)
    return permuted(x, output[0], output[1], output[2:])


@torch.library.register_fake("localconv::local_conv_input_int8", lib=library)
def _(
    size: Sequence[Any], values: Tensor, scales: Tensor, gradient: Tensor, bias: Tensor | None, *arguments: Any
) -> Tensor:
    check_int8(values, scales, gradient=gradient, bias=bias)
    check_gradient(gradient.shape, check_sizes(window_from(*arguments), size, values.shape))
    if bias is not None:
        check_bias(bias.shape, size)
    check_devices(gradient, values, scales, bias)
    return permuted(gradient, size[0], size[1], size[2:])


# ----------------------------------------------------------------------------------------------------- the derivatives


class QuantizedProduct(torch.autograd.Function):
    """One of the two operators, differentiable by the other.

    `compute`, called as `call` is, gives the values. All but the tensors comes in one tuple: (compute, wanted, size of
    the input, window).
    """

    @staticmethod
    @native.opaque
    def forward(  # type: ignore[override]  # the base class takes anything
        ctx: Any, given: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        compute, wanted, size, window = ctx.how = how
        if ctx.needs_input_grad[2]:
            raise RuntimeError("Expected scales that require no gradient: a weight of int8 has no derivative")
        ctx.bias = None if bias is None else (bias.dim(), bias.dtype)
        ctx.save_for_backward(values, scales)
        ctx.save_for_forward(values, scales)
        ctx.set_materialize_grads(False)
        result: Tensor = compute(wanted, given, (values, scales), bias, size, window)
        ctx.like = result.shape, result.dtype
        return result

    @staticmethod
    @native.opaque
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        if gradient is None:
            return None, None, None, None, None
        _, wanted, size, window = ctx.how
        weight, needs = ctx.saved_tensors, ctx.needs_input_grad
        watched = torch.is_grad_enabled() or not native.is_plain(gradient, *weight) or fallback.is_forced()
        compute = call if watched else call_native
        found = compute(INPUT + OUTPUT - wanted, gradient, weight, None, size, window) if needs[0] else None
        for_bias = None
        if needs[3]:
            dims, dtype = ctx.bias
            for_bias = sum_for_bias(gradient, dims).to(dtype)
        return found, None, None, for_bias, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:  # type: ignore[override]
        _, wanted, size, window = ctx.how
        given, _, scales, bias, _ = tangents
        if scales is not None:
            raise RuntimeError("Expected scales without a tangent: a weight of int8 has no derivative")
        total = None if given is None else call(wanted, given, ctx.saved_tensors, None, size, window)
        if bias is None:
            return total
        shape, dtype = ctx.like
        part = shown_bias(bias, window.rank).to(dtype)
        return as_output(part, shape) if total is None else total + part


def _below_autograd(
    wanted: int, given: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, size: Any, window: Window
) -> Tensor:
    """As `operators._below_autograd`."""
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), torch._C._AutoDispatchBelowAutograd():
        return call(wanted, given, weight, bias, size, window)


_apply = once(QuantizedProduct)


@native.opaque
def _differentiable_output(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, *window: Any) -> Any:
    return _apply(x, values, scales, bias, (_below_autograd, OUTPUT, x.shape, window_from(*window)))


@native.opaque
def _differentiable_input(
    size: Sequence[Any], values: Tensor, scales: Tensor, y: Tensor, bias: Tensor | None, *window: Any
) -> Any:
    return _apply(y, values, scales, bias, (_below_autograd, INPUT, tuple(size), window_from(*window)))


for _name, _differentiable in zip(NAMES, (_differentiable_output, _differentiable_input), strict=True):
    library.impl(_name, _differentiable, "Autograd")


# ------------------------------------------------------------------------------------------------------------- batches


def _batched(
    wanted: int,
    batch: int,
    given: Tensor,
    weight: tuple[Tensor, Tensor],
    size: Sequence[Any] | None,
    window: Window,
    dims: Sequence[Any],
) -> tuple[Tensor, int]:
    """An operator on tensors that are batched along `dims`, and along which axis its result is; `size`: of the input
    that is wanted.

    Batches under one weight are more images. A weight for each is made float32, and goes the way of those.
    """
    of_given, *of_weight = dims
    if of_weight == [None, None]:
        images = given.movedim(of_given, 0).flatten(0, 1)
        result = call(wanted, images, weight, None, size and (batch * size[0], *size[1:]), window)
        return result.unflatten(0, (batch, -1)), 0
    parts = [t.unsqueeze(0) if d is None else t.movedim(d, 0) for t, d in zip(weight, of_weight, strict=True)]
    floats = fallback.dequantized(*parts)
    factors: list[Any] = [None, floats, None]
    places: list[Any] = [None, 0, None]
    factors[INPUT + OUTPUT - wanted], places[INPUT + OUTPUT - wanted] = given.float(), of_given
    result, axis = batched(wanted, batch, factors, (size, floats.shape[1:]), window, places)
    return result.to(given.dtype), axis


@torch.library.register_vmap("localconv::local_conv_int8", lib=library)
def _(
    info: Any, dims: Any, x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, *arguments: Any
) -> tuple[Tensor, int]:
    return _batched_with_bias(OUTPUT, info.batch_size, x, (values, scales), bias, None, arguments, dims)


@torch.library.register_vmap("localconv::local_conv_input_int8", lib=library)
def _(
    info: Any, dims: Any, size: Any, values: Tensor, scales: Tensor, y: Tensor, bias: Tensor | None, *arguments: Any
) -> tuple[Tensor, int]:
    places = dims[3], dims[1], dims[2], dims[4]
    return _batched_with_bias(INPUT, info.batch_size, y, (values, scales), bias, size, arguments, places)


def _batched_with_bias(
    wanted: int,
    batch: int,
    given: Tensor,
    weight: tuple[Tensor, Tensor],
    bias: Tensor | None,
    size: Sequence[Any] | None,
    arguments: Sequence[Any],
    dims: Sequence[Any],
) -> tuple[Tensor, int]:
    """`_batched` plus a bias; `dims`: of what is given, the values, the scales and the bias."""
    window, wide = window_from(*arguments), given.float()  # rounded when the bias is in
    if dims[0] is dims[1] is dims[2] is None:
        result, axis = call(wanted, wide, weight, None, size, window).unsqueeze(0), 0
    else:
        result, axis = _batched(wanted, batch, wide, weight, size, window, dims[:3])
    if bias is not None:
        result, axis = with_batched_bias(result, axis, bias, dims[3], window.rank)
    return result.to(given.dtype), axis
