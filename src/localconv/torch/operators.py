"""The operators ``torch.ops.localconv``: what the dispatcher knows of locally connected convolution.

One sum of products of an input, a weight and an output's gradient is read in three ways, and each is linear in its
tensors. So the derivatives of each are the others, of any order, forward and backward, and one rule serves `torch.vmap`
for all: whatever is batched becomes more images, or more groups of channels.

- ``local_conv(input, weight, bias)``: the output, (N, F, ...);
- ``local_conv_input(input_size, weight, grad_output, bias)``: the gradient for the input; with a bias, which is (C,) or
  (C, ...), a transposed convolution;
- ``local_conv_weight(input, weight_size, grad_output)``: the gradient for the weight.

The first two are there for weights of int8 values and float32 scales too, ``local_conv_int8`` and
``local_conv_input_int8``, which are for inference: such a weight is ``values * scales``, with a scale for each position
and filter, and is never made, for the kernels read the values. It has no derivative. Input, gradient and bias may then
be float32, bfloat16 or float16, each by itself; what comes out has the dtype of the first.

Filters that come with the data, `filters` (N or 1, groups * taps, ...), are the weight of another such sum:

- ``local_filter(input, filters)``: the output, of as many channels as the input;
- ``local_filter_input(input_size, filters, grad_output)``: the gradient for the input;
- ``local_filter_filters(input, filters_size, grad_output)``: the gradient for the filters, which is the correlation of
  the input's windows with `grad_output`.

Behind these arguments stand kernel_size, stride, padding (before and after, of every axis; of
filters none: windows are moved inside), dilation and groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from ..core.families import FILTER, LOCAL
from . import fallback, native, private
from .arguments import (
    broadcastable_bias,
    check_bias,
    check_devices,
    check_dtypes,
    check_filter_dtypes,
    check_filter_sizes,
    check_gradient,
    check_int8,
    check_queries,
    check_sizes,
    is_channels_last,
    numbers_of,
)
from .window import Window, window_from

WINDOW = "int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups"

# What operators take before the window, in this order: `Operands`. The first three are the factors of the sum, by which
# the operators go: each computes one of them from the others.
SHARED_ARGUMENTS = {
    "input": "Tensor",
    "weight": "Tensor",
    "grad_output": "Tensor",
    "scales": "Tensor",
    "bias": "Tensor?",
    "input_size": "SymInt[]",
    "weight_size": "SymInt[]",
}
INPUT, WEIGHT, OUTPUT, SCALES, BIAS = range(5)
# What an operator may call these instead.
OTHER_NAMES = {"values": "weight", "filters": "weight", "filters_size": "weight_size"}

Operands = Sequence[Any]

CPU = torch.device("cpu")

library = torch.library.Library("localconv", "DEF")


class Operator:
    """A row of the table: which factor it computes, its arguments (`values` are an int8 weight, `filters` come with the
    data), and the functions of these and a window that give the values, on the processor and elsewhere.
    """

    def __init__(
        self, name: str, target: int, arguments: str, compiled: Callable[..., Tensor], plain: Callable[..., Tensor]
    ) -> None:
        self.name, self.target, self.compiled, self.plain = name, target, compiled, plain
        names = arguments.split()
        self.is_int8 = "values" in names
        self.family = FILTER if "filters" in names or "filters_size" in names else LOCAL
        places = [list(SHARED_ARGUMENTS).index(OTHER_NAMES.get(name, name)) for name in names]
        #: The operator's own arguments before the window, of all operands.
        self.arguments_of: Callable[[Operands], tuple[Any, ...]] = itemgetter(*places)
        self._places = places
        types = [list(SHARED_ARGUMENTS.values())[place] for place in places]
        schema = ", ".join(f"{kind} {name}" for kind, name in zip(types, names, strict=True))
        library.define(f"{name}({schema}, {WINDOW}) -> Tensor")
        #: The names of all its arguments, none of which has a default.
        self.arguments = (*names, *(part.split()[-1] for part in WINDOW.split(",")))
        self.packet: Any = getattr(torch.ops.localconv, name)
        self.overload: Any = self.packet.default

    def operands_of(self, arguments: Sequence[Any]) -> list[Any]:
        """The operands among the dispatcher's arguments, or what else comes one for each; None where there is none."""
        operands: list[Any] = [None] * len(SHARED_ARGUMENTS)
        for place, argument in zip(self._places, arguments, strict=False):
            operands[place] = argument
        return operands

    def window_of(self, arguments: Sequence[Any]) -> Window:
        """The window among the dispatcher's arguments."""
        kernel_size, stride, padding, dilation, groups = arguments[-5:]
        return window_from(kernel_size, stride, padding, dilation, groups, self.family)


OPERATORS = [
    Operator("local_conv", OUTPUT, "input weight bias", native.forward, fallback.forward),
    Operator("local_conv_input", INPUT, "input_size weight grad_output bias", native.grad_input, fallback.grad_input),
    Operator("local_conv_weight", WEIGHT, "input weight_size grad_output", native.grad_weight, fallback.grad_weight),
    Operator("local_conv_int8", OUTPUT, "input values scales bias", native.forward_int8, fallback.forward_int8),
    Operator(
        "local_conv_input_int8",
        INPUT,
        "input_size values scales grad_output bias",
        native.grad_input_int8,
        fallback.grad_input_int8,
    ),
    Operator("local_filter", OUTPUT, "input filters", native.filter_forward, fallback.filter_forward),
    Operator(
        "local_filter_input",
        INPUT,
        "input_size filters grad_output",
        native.filter_grad_input,
        fallback.filter_grad_input,
    ),
    Operator(
        "local_filter_filters",
        WEIGHT,
        "input filters_size grad_output",
        native.filter_grad_kernel,
        fallback.filter_grad_kernel,
    ),
]
(
    local_conv,
    local_conv_input,
    local_conv_weight,
    local_conv_int8,
    local_conv_input_int8,
    local_filter,
    local_filter_input,
    local_filter_filters,
) = [operator.overload for operator in OPERATORS]
_FOR = {(operator.target, operator.family, operator.is_int8): operator for operator in OPERATORS}


def call(target: int, operands: Operands, window: Window) -> Tensor:
    """The operator that computes the factor `target`, called with those of the operands that it takes. Where there are
    scales, the weight has int8 values.
    """
    operator = _FOR[target, window.family, operands[SCALES] is not None]
    result: Tensor = operator.overload(*operator.arguments_of(operands), *window.arguments)
    return result


def call_native(target: int, operands: Operands, window: Window) -> Tensor:
    """As `call`, without the dispatcher."""
    operator = _FOR[target, window.family, operands[SCALES] is not None]
    return operator.compiled(*operator.arguments_of(operands), window)


# --------------------------------------------------------------------------------------------------------- the values


def register_values(operator: Operator) -> None:
    """The compiled kernels for the processor's tensors, PyTorch's operations for those of every other device."""
    compiled, plain = operator.compiled, operator.plain

    @native.opaque
    def elsewhere(*arguments: Any) -> Tensor:
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        return fallback.kernels_for(plain, device)(*arguments[:-5], operator.window_of(arguments))

    @native.opaque
    def without_kernels(*arguments: Any) -> Tensor:
        return elsewhere(*map(private.as_operand, arguments))

    @native.opaque
    def on_processor(*arguments: Any) -> Tensor:
        compute = fallback.kernels_for(plain, CPU) if fallback.is_forced() else compiled
        return compute(*map(private.as_memory, arguments[:-5]), operator.window_of(arguments))

    if private.HAS_TOOLS:
        library.impl(operator.name, elsewhere, "CompositeExplicitAutograd")
        library.impl(operator.name, on_processor, "CPU")
    else:
        library.impl(operator.name, without_kernels, "CompositeImplicitAutograd")
    # Autocast saves nothing here, as 16 bits are computed in 32: what layers before and behind made of their tensors is
    # brought to float32, and nothing is rounded.
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(f"localconv::{operator.name}", device, torch.float32, lib=library)


# --------------------------------------------------------------------------- shapes: fake tensors and the device meta


def checked(operator: Operator, arguments: Sequence[Any]) -> tuple[Tensor, tuple[Any, ...], bool]:
    """Which tensor the result is like, its size (N, C, ...) or that of a weight, and whether its memory is
    channels_last. RuntimeError for tensors that do not go together.
    """
    operands, window = operator.operands_of(arguments), operator.window_of(arguments)
    like = next(operands[place] for place in (OUTPUT, INPUT) if operands[place] is not None)
    check = _checked_filters if operator.family == FILTER else _checked_convolution
    return like, *check(operator, operands, window)


def _sizes(tensor: Tensor | None, size: Sequence[Any] | None = None) -> Any:
    """A tensor's, or those given."""
    return numbers_of(tensor.shape if size is None else size)  # type: ignore[union-attr]


def _checked_convolution(operator: Operator, operands: Operands, window: Window) -> tuple[Any, bool]:
    x, weight, y, scales, bias, input_size, weight_size = operands
    # In the order in which errors name them.
    given = {"input": x, "bias": bias} if y is None else {"gradient": y, "input": x, "bias": bias}
    given = {name: tensor for name, tensor in given.items() if tensor is not None}
    if operator.is_int8:
        check_int8(weight, scales, **given)
    else:
        first = next(iter(given))
        check_dtypes(**{first: given[first], "weight": weight} | given)
    size, of_weight = _sizes(x, input_size), _sizes(weight, weight_size)
    output = check_sizes(window, size, of_weight)
    if y is not None:
        check_gradient(_sizes(y), output)
    if bias is not None:
        check_bias(_sizes(bias), output if y is None else size)
    check_devices(x if y is None else y, x, weight, scales, bias)
    if operator.target == WEIGHT:
        return of_weight, False
    return output if y is None else size, True


def _checked_filters(operator: Operator, operands: Operands, window: Window) -> tuple[Any, bool]:
    x, filters, y, _, _, input_size, filters_size = operands
    names = ("input", "queries" if operator.target == WEIGHT else "grad_output")
    given = {name: tensor for name, tensor in zip(names, (x, y), strict=True) if tensor is not None}
    check_filter_dtypes(filters, **given)
    size, taps = _sizes(x, input_size), _sizes(filters, filters_size)
    output = check_filter_sizes(window, size, taps)
    if y is not None:
        check_queries(_sizes(y), output)
    check_devices(x if y is None else y, x, filters)
    return {INPUT: size, WEIGHT: taps, OUTPUT: output}[operator.target], is_channels_last(x, filters, y)


def register_shapes(operator: Operator) -> None:
    """Checks, and an empty result."""

    def fake(*arguments: Any) -> Tensor:
        like, size, last = checked(operator, arguments)
        if not last:
            return like.new_empty(size)
        n, channels, *spatial = size
        return like.new_empty((n, *spatial, channels)).movedim(-1, 1)

    torch.library.register_fake(f"localconv::{operator.name}", fake, lib=library)


# ---------------------------------------------------------------------------------------------------- the derivatives


class Product(torch.autograd.Function):
    """One of the operations, differentiable by the others.

    `compute`, called as `call` is, gives the values. Everything about the operation but its tensors comes in one tuple:
    (compute, target, sizes of input and weight, window).
    """

    @staticmethod
    @native.opaque
    def forward(  # type: ignore[override]  # the base class takes anything
        ctx: Any,
        x: Tensor | None,
        weight: Tensor | None,
        y: Tensor | None,
        scales: Tensor | None,
        bias: Tensor | None,
        operation: tuple[Any, ...],
    ) -> Tensor:
        compute, target, sizes, window = ctx.operation = operation
        needs = ctx.needs_input_grad
        if needs[SCALES]:
            raise RuntimeError("Expected scales that require no gradient: a weight of int8 has no derivative")
        # What a derivative needs is the other factor; the bias has no part in it, but its shape and dtype.
        ctx.bias = None if bias is None else (bias.dim(), bias.dtype)
        if target == OUTPUT:
            ctx.save_for_backward(x if needs[WEIGHT] else None, weight if needs[INPUT] else None, None, scales)
        elif target == INPUT:
            ctx.save_for_backward(None, weight if needs[OUTPUT] else None, y if needs[WEIGHT] else None, scales)
        else:
            ctx.save_for_backward(x if needs[OUTPUT] else None, None, y if needs[INPUT] else None, None)
        ctx.set_materialize_grads(False)
        result: Tensor = compute(target, (x, weight, y, scales, bias, *sizes), window)
        return result

    @staticmethod
    @native.opaque
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        if gradient is None:
            return None, None, None, None, None, None
        _, target, sizes, window = ctx.operation
        tensors, needs = list(ctx.saved_tensors), ctx.needs_input_grad
        tensors[target] = gradient
        compute = _backward_call(tensors)
        operands = (*tensors, None, *sizes)
        gradients: list[Tensor | None] = [None, None, None]
        for other in (INPUT, WEIGHT, OUTPUT):
            if other != target and needs[other]:
                gradients[other] = compute(other, operands, window)
        for_bias = sum_for_bias(gradient, *ctx.bias) if needs[BIAS] else None
        return gradients[0], gradients[1], gradients[2], None, for_bias, None


def sum_for_bias(gradient: Tensor, dims: int, dtype: torch.dtype) -> Tensor:
    """The gradient for a bias of so many dimensions and that dtype."""
    total = gradient.sum((0, *range(2, gradient.dim())) if dims == 1 else 0)
    return total if total.dtype == dtype else total.to(dtype)


class Linear(Product):
    """`Product` with forward-mode derivatives: what runs below them is saved for both."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor | None,
        weight: Tensor | None,
        y: Tensor | None,
        scales: Tensor | None,
        bias: Tensor | None,
        operation: tuple[Any, ...],
    ) -> Tensor:
        result = Product.forward(ctx, x, weight, y, scales, bias, operation)
        ctx.save_for_forward(x, weight, y, scales)
        ctx.like = result.shape, result.dtype
        return result

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:  # type: ignore[override]
        _, target, sizes, window = ctx.operation
        if tangents[SCALES] is not None:
            raise RuntimeError("Expected scales without a tangent: a weight of int8 has no derivative")
        total: Tensor | None = None
        for factor in (INPUT, WEIGHT, OUTPUT):
            if tangents[factor] is not None:
                tensors = list(ctx.saved_tensors)
                tensors[factor] = tangents[factor]
                part = call(target, (*tensors, None, *sizes), window)
                total = part if total is None else total + part
        if tangents[BIAS] is not None:
            shape, dtype = ctx.like
            part = broadcastable_bias(tangents[BIAS], window.rank).to(dtype)
            if total is None:  # in an output's memory format: forward mode asks for that of the values
                return part.expand(shape).movedim(1, -1).contiguous().movedim(-1, 1)
            total = total + part
        return total


def _backward_call(tensors: Sequence[Tensor | None]) -> Callable[..., Tensor]:
    """What a backward pass computes with: the kernels themselves where nothing watches."""
    if not torch.is_grad_enabled() and private.is_plain(*tensors) and not fallback.is_forced():
        return call_native
    return call


def _call_below_autograd(target: int, operands: Operands, window: Window) -> Tensor:
    """The values, from the next dispatcher key."""
    return private.below_autograd(call, target, operands, window)


def register_derivatives(operator: Operator) -> None:
    """Those of every order, in both modes."""
    apply = private.once(Linear)

    @native.opaque
    def differentiable(*arguments: Any) -> Any:
        x, weight, y, scales, bias, input_size, weight_size = operator.operands_of(arguments)
        sizes = (
            x.shape if input_size is None else tuple(input_size),
            weight.shape if weight_size is None else tuple(weight_size),
        )
        operation = (_call_below_autograd, operator.target, sizes, operator.window_of(arguments))
        return apply(x, weight, y, scales, bias, operation)

    library.impl(operator.name, differentiable, "Autograd")


# ------------------------------------------------------------------------------------------------------------- batches


def batched(target: int, batch: int, operands: Operands, window: Window, dims: Sequence[Any]) -> tuple[Tensor, int]:
    """An operation on operands that are batched along `dims` (None: not), and along which axis its result is; a bias is
    left out.

    Batches under one weight are more images. A weight for each makes groups of them, or more filters where all see one
    input; one of int8 is made float32 for that.
    """
    x, weight, y, scales = [
        t if t is None or d is None else t.movedim(d, 0) for t, d in zip(operands[:BIAS], dims[:BIAS], strict=True)
    ]
    input_size, weight_size = operands[BIAS + 1 :]
    one_weight = dims[WEIGHT] is None and dims[SCALES] is None
    if target != WEIGHT and one_weight:
        x, y = [t if t is None else t.flatten(0, 1) for t in (x, y)]
        size = None if input_size is None else (batch * input_size[0], *input_size[1:])
        return call(target, (x, weight, y, scales, None, size, weight_size), window).unflatten(0, (batch, -1)), 0
    if scales is not None:
        parts = zip((weight, scales), (dims[WEIGHT], dims[SCALES]), strict=True)
        weight = fallback.dequantized(*[t.unsqueeze(0) if d is None else t for t, d in parts])
    one_input = target != INPUT and dims[INPUT] is None and window.groups == 1
    if x is not None and not one_input:
        x = _by_channels(x, batch, dims[INPUT])
    if y is not None:
        y = _by_channels(y, batch, dims[OUTPUT])
    if weight is not None:
        full = weight.expand(batch, *weight.shape) if one_weight else weight
        weight = full.movedim(0, 2).flatten(2, 3)
    if input_size is not None:
        input_size = (input_size[0], batch * input_size[1], *input_size[2:])
    if weight_size is not None:
        weight_size = (*weight_size[:2], batch * weight_size[2])
    grouped = window if one_input else window.with_groups(batch * window.groups)
    axis = 2 if target == WEIGHT else 1
    result = call(target, (x, weight, y, None, None, input_size, weight_size), grouped)
    return result.unflatten(axis, (batch, -1)), axis


def batched_filters(
    target: int, batch: int, operands: Operands, window: Window, dims: Sequence[Any]
) -> tuple[Tensor, int]:
    """`batched` of filters that come with the data: batches are more images, each with its filters, unless one serves
    them all.
    """
    x, filters, y = [
        t if t is None or d is None else t.movedim(d, 0) for t, d in zip(operands[:SCALES], dims[:SCALES], strict=True)
    ]
    input_size, filters_size = operands[BIAS + 1 :]
    # Of one call: operands that do not fit each other may do so when their batches are images.
    each, taps, outputs = [
        None if t is None else t.shape if d is None else t.shape[1:]
        for t, d in zip((x, filters, y), dims[:SCALES], strict=True)
    ]
    size = input_size if each is None else each
    output = check_filter_sizes(window, size, filters_size if taps is None else taps)
    if outputs is not None:
        check_queries(outputs, output)
    images = size[0]
    if filters is not None and not (dims[WEIGHT] is None and filters.shape[0] == 1):
        filters = _by_images(filters, batch, images, dims[WEIGHT])
    x, y = _by_images(x, batch, images, dims[INPUT]), _by_images(y, batch, images, dims[OUTPUT])
    if target != WEIGHT:
        folded = None if input_size is None else (batch * images, *input_size[1:])
        return call(target, (x, filters, y, None, None, folded, None), window).unflatten(0, (batch, images)), 0
    assert x is not None
    assert y is not None
    shared, dtype = filters_size[0] == 1 != images, y.dtype
    if shared and dtype != torch.float64:  # rounded when all images are in
        x, y = x.float(), y.float()
    result = call(target, (x, None, y, None, None, None, (batch * images, *filters_size[1:])), window)
    result = result.unflatten(0, (batch, images))
    return (result.sum(1, keepdim=True).to(dtype) if shared else result), 0


def _by_images(tensor: Tensor | None, batch: int, images: int, dim: int | None) -> Tensor | None:
    """(batch, N or 1, C, ...) or one (N or 1, C, ...) for all as (batch * N, C, ...)."""
    if tensor is None:
        return None
    full = tensor.unsqueeze(0) if dim is None else tensor
    return full.expand(batch, images if full.shape[1] == 1 else -1, *full.shape[2:]).flatten(0, 1)


def with_batched_bias(y: Tensor, axis: int, bias: Tensor, dim: int | None, rank: int) -> tuple[Tensor, int]:
    """Batched outputs plus a bias that is batched along `dim`, or one for all; and the axis of the batch."""
    biases = bias.unsqueeze(0) if dim is None else bias.movedim(dim, 0)
    # (batch or 1, F, ...) to (batch or 1, 1, F, ...)
    biases = biases.reshape(*biases.shape, *[1] * rank) if biases.dim() == 2 else biases
    return y.movedim(axis, 0) + biases.unsqueeze(1), 0


def _by_channels(tensor: Tensor, batch: int, dim: int | None) -> Tensor:
    """(batch, N, C, ...) or one (N, C, ...) for all as (N, batch * C, ...)."""
    full = tensor if dim is not None else tensor.expand(batch, *tensor.shape)
    return full.movedim(0, 1).flatten(1, 2)


def register_batches(operator: Operator) -> None:
    """The rule for `torch.vmap`."""
    target = operator.target
    compute = batched_filters if operator.family == FILTER else batched

    def rule(info: Any, dims: Any, *arguments: Any) -> tuple[Tensor, int]:
        operands, places = operator.operands_of(arguments), operator.operands_of(dims)
        window = operator.window_of(arguments)
        bias, operands[BIAS] = operands[BIAS], None
        given = OUTPUT if target == INPUT else INPUT
        dtype = operands[given].dtype
        if operator.is_int8:  # rounded when the bias is in
            operands[given] = operands[given].float()
        if any(dim is not None for dim in places[:BIAS]):
            result, axis = compute(target, info.batch_size, operands, window, places)
        else:
            result, axis = call(target, operands, window).unsqueeze(0), 0
        if bias is not None:
            result, axis = with_batched_bias(result, axis, bias, places[BIAS], window.rank)
        return (result.to(dtype) if operator.is_int8 else result), axis

    torch.library.register_vmap(f"localconv::{operator.name}", rule, lib=library)


for _operator in OPERATORS:
    register_values(_operator)
    if private.HAS_TOOLS:  # without them, PyTorch derives both from the operations that it finds
        register_shapes(_operator)
        register_derivatives(_operator)
    register_batches(_operator)
