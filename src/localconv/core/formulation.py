"""The locally connected convolution in array operations, for those who have no compiled kernels: PyTorch on other
devices, JAX on other platforms, and Keras's engine "ops".

It is written once, over the functions of `Arrays`, and in pieces: some taps of the window at some positions. A bridge
chooses the pieces, and with them the memory: windows are gathered for one piece at a time, which takes its taps times
the memory of the input.

Padding is zeros in windows, and 0 * inf is NaN. What is not in the sum is not multiplied: where a piece has taps in
padding, their rows of the kernel are set to 0, and so are the same rows of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from typing import Any, Protocol

from .arguments import Ints
from .windows import Convolution, Range, all_inside


class Arrays(Protocol):
    """What computes with arrays, by NumPy's names: `numpy`, `jax.numpy` and `keras.ops` do."""

    @property
    def arange(self) -> Callable[..., Any]: ...
    @property
    def einsum(self) -> Callable[..., Any]: ...
    @property
    def moveaxis(self) -> Callable[..., Any]: ...
    @property
    def pad(self) -> Callable[..., Any]: ...
    @property
    def reshape(self) -> Callable[..., Any]: ...
    @property
    def shape(self) -> Callable[..., Any]: ...
    @property
    def stack(self) -> Callable[..., Any]: ...
    @property
    def where(self) -> Callable[..., Any]: ...


@dataclass(frozen=True, eq=False)
class Piece:
    """Some taps at some positions of a convolution: those of a box, along every axis from the first to the one behind
    the last. Its taps must follow each other in the rows of a kernel.
    """

    convolution: Convolution
    positions: tuple[Range, ...]
    taps: tuple[Range, ...]

    @cached_property
    def box(self) -> Ints:
        """Positions along every axis."""
        return tuple(end - start for start, end in self.positions)

    @cached_property
    def window(self) -> Ints:
        """Taps along every axis."""
        return tuple(end - start for start, end in self.taps)

    @cached_property
    def numbers(self) -> Range:
        """The number of the first tap in the rows of a kernel, and of the one behind the last."""
        first = 0
        for (start, _), taps in zip(self.taps, self.convolution.kernel_size, strict=True):
            first = first * taps + start
        return first, first + prod(self.window)

    @cached_property
    def _met(self) -> list[tuple[Range, tuple[int, int]]]:
        axes = zip(self.convolution.axes, self.positions, self.taps, strict=True)
        return [axis.met(positions, taps) for axis, positions, taps in axes]

    @cached_property
    def padding(self) -> list[tuple[int, int]]:
        """Pixels of padding that the taps meet before and after every axis."""
        return [padding for _, padding in self._met]

    @cached_property
    def has_padding(self) -> bool:
        """Whether a tap meets padding."""
        return any(map(any, self.padding))

    @cached_property
    def start(self) -> Ints:
        """The pixel of an image with this padding that the first tap meets at the first position."""
        return tuple(low if high > low else 0 for (low, high), _ in self._met)

    @cached_property
    def places(self) -> list[tuple[slice, ...]]:
        """The pixels of an image with this padding that every tap meets, one after the other."""
        places = []
        for tap in product(*map(range, self.window)):
            axes = zip(self.start, tap, self.box, self.convolution.axes, strict=True)
            firsts = [(first + t * axis.dilation, count, axis.stride) for first, t, count, axis in axes]
            places.append(
                tuple(
                    slice(first, first + (count - 1) * stride + 1 if count else first, stride)
                    for first, count, stride in firsts
                )
            )
        return places


@lru_cache(maxsize=1024)
def whole(convolution: Convolution) -> Piece:
    """The convolution in one piece."""
    axes = convolution.axes
    return Piece(convolution, tuple((0, axis.outputs) for axis in axes), tuple((0, axis.taps) for axis in axes))


@lru_cache(maxsize=1024)
def by_tap(convolution: Convolution) -> tuple[Piece, ...]:
    """The convolution tap by tap, each at the positions where it meets the input: no piece has padding."""
    return tuple(
        Piece(
            convolution,
            tuple(axis.positions_of(t) for axis, t in zip(convolution.axes, tap, strict=True)),
            tuple((t, t + 1) for t in tap),
        )
        for tap in product(*map(range, convolution.kernel_size))
    )


def forward(
    xp: Arrays, pieces: Iterable[Piece], x: Any, kernel: Any, load: Callable[[Any], Any] = lambda rows: rows
) -> Any:
    """The convolution, whose pieces are given, of x with kernel; load: makes rows of x's dtype of a piece's rows."""
    total: Any = None
    for piece in pieces:
        part = _forward_of_piece(xp, piece, x, kernel, load)
        total = part if total is None else total + part
    return _laid_out(xp, piece.convolution, total)


def _forward_of_piece(xp: Arrays, piece: Piece, x: Any, kernel: Any, load: Callable[[Any], Any]) -> Any:
    """What a piece adds to the output, as (batch, *output, filters)."""
    c = piece.convolution
    rows = _by_group(xp, c, _without_padding(xp, piece, load(_rows(xp, piece, kernel)), xp.where))
    sums = xp.einsum("npgd,pgdf->npgf", windows(xp, piece, _channels_last(xp, c, x)), rows)
    part = xp.reshape(sums, (xp.shape(x)[0], *piece.box, c.filters))
    around = [(start, count - end) for (start, end), count in zip(piece.positions, c.output, strict=True)]
    return xp.pad(part, ((0, 0), *around, (0, 0))) if piece.box != c.output else part


def grad_kernel(xp: Arrays, piece: Piece, x: Any, gradient: Any, where: Callable[..., Any]) -> Any:
    """The gradient for the kernel, of all of the convolution; where: as in `Arrays`, but it may write into its second
    argument.
    """
    c = piece.convolution
    x, gradient = _channels_last(xp, c, x), _gradient(xp, c, gradient)
    rows = xp.einsum("npgd,npgf->pgdf", windows(xp, piece, x), gradient)
    rows = xp.reshape(xp.moveaxis(rows, 1, 2) if c.spec.groups > 1 else rows, c.kernel_shape)
    return _without_padding(xp, piece, rows, where)


def grad_input(xp: Arrays, piece: Piece, kernel: Any, gradient: Any, zeros: Callable[[Any, Ints], Any]) -> Any:
    """The gradient for the input, of all of the convolution; zeros: makes an array like the products, of another
    shape, that is added to in place, of what precision the sums shall have.

    Products that belong to padding are left out of the result, whatever they are.
    """
    c = piece.convolution
    gradient = _gradient(xp, c, gradient)
    products = xp.einsum("pgdf,npgf->npgd", _by_group(xp, c, kernel), gradient)
    batch, groups = xp.shape(gradient)[0], c.spec.groups
    products = xp.reshape(products, (batch, c.positions, groups, *_in_rows(c, (c.taps,), c.channels // groups)))
    total = zeros(
        products, (batch, *(n + sum(pads) for n, pads in zip(c.spatial, piece.padding, strict=True)), c.channels)
    )
    for number, place in enumerate(piece.places):
        part = products[(..., *_in_rows(c, (number,), slice(None)))]
        total[(slice(None), *place)] += xp.reshape(part, (batch, *piece.box, c.channels))
    inside = [slice(before, before + n) for n, (before, _) in zip(c.spatial, piece.padding, strict=True)]
    return _laid_out(xp, c, total[(slice(None), *inside)])


def _channels_last(xp: Arrays, convolution: Convolution, x: Any) -> Any:
    """Images, or outputs, with their channels last."""
    return xp.moveaxis(x, 1, -1) if convolution.channels_first else x


def _laid_out(xp: Arrays, convolution: Convolution, x: Any) -> Any:
    """The inverse of `_channels_last`."""
    return xp.moveaxis(x, -1, 1) if convolution.channels_first else x


def windows(xp: Arrays, piece: Piece, x: Any) -> Any:
    """What the positions of a piece see of images, as (batch, positions, groups, depth), in the order of a kernel's
    rows. A namespace may have a function `windows` of its own.
    """
    c, groups = piece.convolution, piece.convolution.spec.groups
    if piece.has_padding:
        x = xp.pad(x, ((0, 0), *piece.padding, (0, 0)))
    gathered = getattr(xp, "windows", None)
    if gathered is not None:
        return gathered(piece, x)
    taps = [x[(slice(None), *place)] for place in piece.places]
    leading, inner = (xp.shape(x)[0], prod(piece.box)), c.channels // groups
    if len(taps) == 1:
        return xp.reshape(taps[0], (*leading, groups, inner))
    seen = xp.stack(taps, -1 if c.channels_first else -2)
    if groups > 1 and not c.channels_first:
        seen = xp.moveaxis(xp.reshape(seen, (*leading, len(taps), groups, inner)), 2, 3)
    return xp.reshape(seen, (*leading, groups, len(taps) * inner))


def _rows(xp: Arrays, piece: Piece, kernel: Any) -> Any:
    """The rows of a kernel for a piece, as (positions, depth, filters)."""
    c, inner = piece.convolution, piece.convolution.channels // piece.convolution.spec.groups
    rows, depth = kernel, prod(piece.window) * inner
    if piece.window != c.kernel_size:
        first, last = piece.numbers
        if c.channels_first:
            rows = xp.reshape(rows, (c.positions, inner, c.taps, c.filters))[:, :, first:last]
            rows = xp.reshape(rows, (c.positions, depth, c.filters))
        else:
            rows = rows[:, first * inner : last * inner]
    if piece.box != c.output:
        rows = xp.reshape(rows, (*c.output, depth, c.filters))[tuple(slice(*ends) for ends in piece.positions)]
        rows = xp.reshape(rows, (prod(piece.box), depth, c.filters))
    return rows


def _in_rows(convolution: Convolution, taps: Any, channels: Any) -> tuple[Any, ...]:
    """Something of taps and of channels, in the order that a kernel's rows have."""
    return (channels, *taps) if convolution.channels_first else (*taps, channels)


def _without_padding(xp: Arrays, piece: Piece, rows: Any, where: Callable[..., Any]) -> Any:
    """Rows of a piece, as (positions, depth, filters), those of taps in padding 0."""
    if not piece.has_padding:
        return rows
    c, rank, positions, taps = piece.convolution, len(piece.box), prod(piece.box), prod(piece.window)
    ranges = [xp.arange(start, end) for start, end in piece.positions + piece.taps]
    shown = [xp.reshape(r, (-1, *[1] * (2 * rank - 1 - i))) for i, r in enumerate(ranges)]
    inside = all_inside(c.axes, shown[:rank], shown[rank:])
    inside = xp.reshape(inside, (positions, *_in_rows(c, (taps,), 1), 1))
    inner = c.channels // c.spec.groups
    split = xp.reshape(rows, (positions, *_in_rows(c, (taps,), inner), c.filters))
    return xp.reshape(where(inside, split, 0), (positions, taps * inner, c.filters))


def _by_group(xp: Arrays, convolution: Convolution, rows: Any) -> Any:
    """Rows (positions, depth, filters) as (positions, groups, depth, filters of a group)."""
    groups, (positions, depth, filters) = convolution.spec.groups, xp.shape(rows)
    if groups == 1:  # without moving an axis of length 1, which makes some frameworks copy
        return xp.reshape(rows, (positions, 1, depth, filters))
    return xp.moveaxis(xp.reshape(rows, (positions, depth, groups, filters // groups)), 2, 1)


def _gradient(xp: Arrays, convolution: Convolution, gradient: Any) -> Any:
    """The gradient for an output as (batch, positions, groups, filters of a group)."""
    gradient = _channels_last(xp, convolution, gradient)
    batch, groups = xp.shape(gradient)[0], convolution.spec.groups
    return xp.reshape(gradient, (batch, convolution.positions, groups, convolution.filters // groups))
