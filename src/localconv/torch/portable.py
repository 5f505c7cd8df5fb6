"""The operators in PyTorch's own, for programs that leave: ONNX files, programs that run where localconv is not.

Every operator has a form (`FORMS`), which is made of operators that every runtime has: padding, slices, permutations,
batches of matrix products. Sizes are numbers in it, but for the batch, which a reshape finds out by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..core import formulation
from ..core.families import FILTER
from ..core.formulation import ByTap, Piece, filters_by_tap, whole
from ..core.windows import Convolution
from . import operators
from .arguments import numbers_of
from .fallback import TorchArrays
from .operators import INPUT, OUTPUT, Operator
from .window import Window

__all__ = ["decompositions", "portable"]

# What a reshape finds out by itself: the batch may be another one where the program runs.
ANY = -1


class _Standard(TorchArrays):
    """PyTorch's functions that exporters know, with sizes in numbers."""

    def shape(self, x: Tensor) -> Sequence[Any]:
        return ANY, *_fixed(x.shape)

    def einsum(self, equation: str, a: Tensor, b: Tensor) -> Tensor:
        """As `TorchArrays.einsum`, in products of three axes: for more of them PyTorch asks whether the batch is 1, and
        a program that was traced with one image would then be one for one image.
        """
        _, positions, groups, _ = (a if equation[0] == "n" else b).shape

        def by_position(x: Tensor) -> Tensor:
            return torch.reshape(x, (ANY, positions * groups, x.shape[-1])).permute(1, 0, 2)

        def flat(x: Tensor) -> Tensor:
            return torch.reshape(x, (positions * groups, *x.shape[2:]))

        if equation == "npgd,pgdf->npgf":
            made = torch.bmm(by_position(a), flat(b))
        elif equation == "pgdf,npgf->npgd":
            made = torch.bmm(by_position(b), flat(a).permute(0, 2, 1))
        else:
            assert equation == "npgd,npgf->pgdf"
            made = torch.bmm(by_position(a).permute(0, 2, 1), by_position(b))
            return torch.reshape(made, (positions, groups, *made.shape[1:]))
        # Laid out anew at once: where axes could be one, a reshape asks for the batch too.
        images = made.permute(1, 0, 2).clone(memory_format=torch.contiguous_format)
        return torch.reshape(images, (ANY, positions, groups, made.shape[-1]))

    @staticmethod
    def moveaxis(x: Tensor, source: int, destination: int) -> Tensor:
        order = [*range(x.dim())]
        order.insert(destination % x.dim(), order.pop(source))
        return x.permute(order)

    def windows(self, piece: Piece, x: Tensor) -> Tensor:
        """As `formulation.windows`, along one axis after the other: a slice for each tap of each axis, and not for each
        combination of them, of which an exporter takes a minute. What is before the axis, and what is behind it, is one
        axis each time: some runtimes have no more than six.
        """
        c, rank, inner = piece.convolution, len(piece.box), piece.convolution.channels
        sizes = [n + sum(pads) for n, pads in zip(c.spatial, piece.padding, strict=True)]
        for number in reversed(range(rank)):
            axis, start, count = c.axes[number], piece.start[number], piece.box[number]
            if (piece.window[number], count) == (1, sizes[number]):
                continue  # a slice of all is an operator that not every runtime has
            x = x.reshape(ANY, sizes[number], prod(piece.box[number + 1 :]), inner)
            firsts = [start + t * axis.dilation for t in range(piece.window[number])]
            seen = [x[:, first : first + (count - 1) * axis.stride + 1 : axis.stride] for first in firsts]
            x, inner = torch.stack(seen, 3), inner * piece.window[number]
        positions, groups, taps = prod(piece.box), c.spec.groups, prod(piece.window)
        x = x.reshape(ANY, positions, taps, groups, c.channels // groups)
        return x.permute(0, 1, 3, 2, 4).reshape(ANY, positions, groups, taps * (c.channels // groups))


class _Finite(_Standard):
    """For weights that are never inf or NaN: those that meet only padding may be multiplied with its zeros."""

    @staticmethod
    def where(condition: Tensor, x: Tensor, other: float) -> Tensor:
        return x


def _fixed(sizes: Sequence[Any]) -> tuple[int, ...]:
    """All sizes but the batch, which the program is for."""
    return tuple(int(n) for n in numbers_of(sizes)[1:])


def _whole(window: Window, channels: int, spatial: tuple[int, ...], filters: int) -> Piece:
    return whole(window.convolution((ANY, channels, *spatial), filters))


def _by_tap(window: Window, channels: int, spatial: tuple[int, ...], channels_first: bool) -> ByTap:
    return filters_by_tap(window.convolution((ANY, channels, *spatial), channels, channels_first))


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, *range(2, x.dim()), 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, x.dim() - 1, *range(1, x.dim() - 1))


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else x.to(dtype)


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Images with their channels last, plus a bias (F,) or (F, ...)."""
    if bias is None:
        return y
    return y + _cast(bias.permute(*range(1, bias.dim()), 0), y.dtype)


def _forward(window: Window, x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None) -> Tensor:
    """The output. Of an int8 weight the sums are multiplied by the scales: nothing of the weight's size is made."""
    piece = _whole(window, *_channels_and_size(x.shape), *_fixed(weight.shape)[1:])
    if scales is None:
        y = formulation.forward(_Standard(x.device), [piece], _channels_last(x), weight)
    else:
        wide = _cast(_channels_last(x), torch.float32)
        y = formulation.forward(_Finite(x.device), [piece], wide, weight, _of_int8)
        y = y * _by_position(piece.convolution, scales)
    return _cast(_channels_first(_with_bias(y, bias)), x.dtype)


def _grad_input(
    window: Window, size: Sequence[Any], weight: Tensor, scales: Tensor | None, y: Tensor, bias: Tensor | None
) -> Tensor:
    """The gradient for the input, or the transposed convolution."""
    piece, gradient = _whole(window, *_channels_and_size(size), *_fixed(weight.shape)[1:]), _channels_last(y)
    if scales is not None:
        weight, gradient = _of_int8(weight), _single(gradient) * _by_position(piece.convolution, scales)
    # The products have been rounded; what is added to them has not.
    x = formulation.grad_input_by_axes(_Standard(y.device), piece, weight, gradient, _at_least_single)
    return _cast(_channels_first(_with_bias(x, bias)), y.dtype)


def _grad_weight(window: Window, x: Tensor, size: Sequence[Any], y: Tensor) -> Tensor:
    """The gradient for the weight."""
    xp, piece = _Standard(x.device), _whole(window, *_channels_and_size(x.shape), *_fixed(size)[1:])
    return formulation.grad_kernel(xp, piece, _channels_last(x), _channels_last(y), torch.where)


def _channels_and_size(size: Sequence[Any]) -> tuple[int, tuple[int, ...]]:
    """Those of images (N, C, ...)."""
    channels, *spatial = _fixed(size)
    return channels, tuple(spatial)


def _by_position(c: Convolution, scales: Tensor) -> Tensor:
    return scales.reshape(*c.output, c.filters)


def _single(x: Tensor) -> Tensor:
    return _cast(x, torch.float32)


def _of_int8(values: Tensor) -> Tensor:
    """Values in what they are multiplied in. torch.onnx's older exporter would write these in the place of the values,
    and so make a file four times as large, but for an operator before them that it does not compute itself.
    """
    return _single(values.expand(*numbers_of(values.shape)))


def _at_least_single(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else _single(x)


def _filtered(operator: Operator, window: Window, operands: Sequence[Any], last: bool) -> Tensor:
    """One of the sums with filters that come with the data."""
    x, filters, y, _, _, input_size, filters_size = operands
    by_tap = _by_tap(window, *_channels_and_size(x.shape if input_size is None else input_size), not last)
    xp, dtype = _Standard((x if y is None else y).device), (x if y is None else y).dtype

    def ready(tensor: Tensor) -> Tensor:
        return _at_least_single(_channels_last(tensor) if last else tensor)

    if operator.target == OUTPUT:
        result = formulation.filter_forward(xp, by_tap, ready(x), ready(filters))
    elif operator.target == INPUT:
        result = formulation.filter_grad_input(xp, by_tap, ready(filters), ready(y))
    else:
        # Filters of another batch than the images' are of one for all. Asked whether its batch is 1, a program would be
        # for that one alone.
        one = numbers_of(filters_size)[0] != numbers_of(x.shape)[0]
        result = formulation.filter_grad_kernel(xp, by_tap, ready(x), ready(y), one)
    return _cast(_channels_first(result) if last else result, dtype)


def _of_one_size(operator: Operator, operands: Sequence[Any]) -> Sequence[Any]:
    """Operands of a trace so that it refuses images of other sizes than it has seen, but for their number: its reshapes
    would take what they find for more or fewer images. Programs of `torch.export` check what they are given.
    """
    if not torch.jit.is_tracing():
        return operands

    def checked(a: Tensor | None) -> Tensor | None:
        return None if a is None else torch.reshape(a, (a.shape[0], *_fixed(a.shape)))

    x, weight, y, *rest = operands
    return checked(x), checked(weight) if operator.family == FILTER else weight, checked(y), *rest


def _form(operator: Operator) -> Callable[..., Tensor]:
    """The function of an operator's arguments that computes what it does."""

    def compute(*arguments: Any) -> Tensor:
        *_, last = operators.checked(operator, arguments)
        operands, window = _of_one_size(operator, operator.operands_of(arguments)), operator.window_of(arguments)
        if operator.family == FILTER:
            return _filtered(operator, window, operands, last)
        x, weight, y, scales, bias, input_size, weight_size = operands
        if operator.target == OUTPUT:
            return _forward(window, x, weight, scales, bias)
        if operator.target == INPUT:
            return _grad_input(window, input_size, weight, scales, y, bias)
        return _grad_weight(window, x, weight_size, y)

    def form(*arguments: Any) -> Tensor:
        device = next(a for a in arguments if isinstance(a, Tensor)).device.type
        if not torch.is_autocast_enabled(device):
            return compute(*arguments)
        # As the operators' own rule: nothing is rounded to 16 bits.
        with torch.autocast(device, enabled=False):
            return compute(*map(_widened, arguments))

    form.__name__ = operator.name
    # Tracing begins below Python: nothing here is looked through but what is computed of tensors.
    return torch.compiler.allow_in_graph(form)


def _widened(argument: Any) -> Any:
    narrow = isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
    return argument.float() if narrow else argument


FORMS: dict[Any, Callable[..., Tensor]] = {operator.overload: _form(operator) for operator in operators.OPERATORS}
# Whoever calls an operator by its name need not say which overload there is.
_CALLED = {called: operator for operator in operators.OPERATORS for called in (operator.overload, operator.packet)}


class _State(threading.local):
    """How many contexts this thread is in."""

    def __init__(self) -> None:
        self.depth = 0


_state = _State()
_was_entered = False  # by any thread, ever: a thread's own state takes longer to ask for


class _Portable(ContextDecorator, TorchFunctionMode):
    """Calls the form of an operator where a function calls the operator.

    Modes are a thread's own, and programs of `torch.compile` are compiled for those that they run in.
    """

    def __enter__(self) -> Any:
        global _was_entered
        _was_entered = True
        _state.depth += 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _state.depth -= 1
        super().__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operator, named = _CALLED.get(func), kwargs or {}
        rest = () if operator is None else operator.arguments[len(args) :]
        if operator is None or named.keys() != set(rest):  # which is an error for PyTorch to tell
            return func(*args, **named)
        return FORMS[operator.overload](*args, *(named[name] for name in rest))


def is_portable() -> bool:
    """Whether this thread is in `portable`."""
    return _was_entered and _state.depth > 0


def portable() -> TorchFunctionMode:
    """Compute by PyTorch's own operators, in this thread, while the context lasts: what is made there can leave.

    Whatever traces modules and functions of `localconv.torch` in the context finds padding, slices, permutations and
    matrix products in the place of localconv's operators: `torch.export.export`, `torch.jit.trace`, `torch.compile`.
    Their programs run where localconv is not installed. `torch.onnx.export` needs no context, but that of PyTorch 2.7
    with ``dynamo=True`` does.

    Returns
    -------
    context manager
        Contexts may be nested, and each thread has its own. Models need not be made in it. It decorates functions too.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        In the context, as without it.

    See Also
    --------
    localconv.torch.decompositions : for programs that were traced without the context.

    Notes
    -----
    The size of the images is a number in such programs, the batch may be another one. Results are those of the compiled
    kernels but for rounding: products of float16 and bfloat16 are those of the runtime. The weight stays as it is, int8
    values with their scales among them. All windows of a batch are gathered: for one image they take no more memory
    than the weight has.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LocalConv2d, portable
    >>> layer = LocalConv2d(3, 16, kernel_size=3, input_size=(8, 8))
    >>> with portable():
    ...     program = torch.export.export(layer, (torch.ones(2, 3, 8, 8),))
    >>> any("localconv" in str(node.target) for node in program.graph.nodes)
    False
    """
    return _Portable()


def decompositions() -> dict[Any, Callable[..., Tensor]]:
    """Return PyTorch's own operators for localconv's, in a table for ``ExportedProgram.run_decompositions``.

    Returns
    -------
    dict
        From every operator of ``torch.ops.localconv``, gradients among them, to a function of its arguments: what
        `portable` computes.

    See Also
    --------
    localconv.torch.portable : for what is yet to be traced.

    Examples
    --------
    >>> import torch
    >>> from localconv.torch import LocalConv1d, decompositions
    >>> layer = LocalConv1d(4, 8, kernel_size=3, input_size=10)
    >>> program = torch.export.export(layer, (torch.ones(2, 4, 10),))
    >>> [str(node.target) for node in program.graph.nodes if "localconv" in str(node.target)]
    ['localconv.local_conv.default']
    >>> program = program.run_decompositions(decompositions())
    >>> [str(node.target) for node in program.graph.nodes if "localconv" in str(node.target)]
    []
    """
    return dict(FORMS)
