"""The locally connected convolution, and the filters that come with the data, in array operations: for those who have
no compiled kernels, PyTorch on other devices, JAX on other platforms, and Keras's engine "ops".

They are written once, over the functions of `Arrays`. The convolution is computed in pieces: some taps of the window at
some positions. A bridge chooses the pieces, and with them the memory: windows are gathered for one piece at a time,
which takes its taps times the memory of the pixels that it sees. `bands` are pieces that take no more than `MEMORY`.

Padding is zeros in windows, and 0 * inf is NaN. What is not in the sum is not multiplied: where a piece has taps in
padding, their rows of the kernel are set to 0, and so are the same rows of its gradient.

Filters that come with the data are multiplied tap by tap, each at the positions where it meets the input: a few arrays
of the result's size are all the memory, whatever the window, and there is no padding to be multiplied.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple, Protocol

from .arguments import Ints
from .spec import with_padding
from .windows import Axis, Convolution, Range, all_inside, layout_of

# Bytes that a formulation may take beside its operands and its result. A single position is never divided.
MEMORY = 2**26

# Copies of what a band gathers and multiplies that are there at once: as it was found, and in the order of a product.
COPIES = 2


class Arrays(Protocol):
    """What computes with arrays, by NumPy's names: `numpy`, `jax.numpy` and `keras.ops` do."""

    @property
    def arange(self) -> Callable[..., Any]: ...
    @property
    def concatenate(self) -> Callable[..., Any]: ...
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
    def sum(self) -> Callable[..., Any]: ...
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


class Band(NamedTuple):
    """Positions of a convolution that follow each other, which are a convolution of their own.

    `piece`: that convolution, whole; `rows`: its positions in a kernel; `positions`, `pixels`: along every axis, those
    that it has of the output and sees of the input.
    """

    piece: Piece
    rows: slice
    positions: tuple[slice, ...]
    pixels: tuple[slice, ...]


def box_within(convolution: Convolution, batch: Any, itemsize: int, memory: int, copied: bool = False) -> Ints:
    """The positions of a band along every axis, so that its arrays take no more bytes than `memory`: some along one
    axis, one along those before it, all along those behind it.

    What a symbol stands for nobody knows yet: a batch counts as one image then, and spatial axes are not cut. copied:
    whether rows of the kernel are made for products; those in bands, with groups or with padding are in any case.
    """
    c, images = convolution, batch if isinstance(batch, int) else 1
    if not all(isinstance(n, int) for n in (*c.output, *c.spatial)) or 0 in c.output:
        return c.output

    def nbytes(box: Ints, rows: bool = True) -> int:
        seen = [(n - 1) * axis.stride + axis.reach for n, axis in zip(box, c.axes, strict=True)]
        values = images * (c.taps * c.channels + c.filters) + rows * c.depth * c.filters
        return itemsize * (images * c.channels * prod(seen) + COPIES * prod(box) * values)

    if nbytes(c.output, copied or c.spec.groups > 1 or any(map(any, c.padding))) <= memory:
        return c.output
    for number, count in enumerate(c.output):
        around = (1,) * number, c.output[number + 1 :]
        fitting = bisect_right(range(1, count + 1), memory, key=lambda n: nbytes((*around[0], n, *around[1])))
        if fitting:
            size = -(-count // -(-count // fitting))  # bands of one size, or nearly
            return (*around[0], size, *around[1])
    return (1,) * len(c.output)


def bands(convolution: Convolution, batch: Any, itemsize: int, memory: int, copied: bool = False) -> tuple[Band, ...]:
    """The convolution in bands, one behind the other; the arguments are those of `box_within`."""
    box = box_within(convolution, batch, itemsize, memory, copied)
    if box == convolution.output:
        everything = (slice(None),) * len(box)
        return (Band(whole(convolution), slice(None), everything, everything),)
    cuts = [
        [(start, min(start + size, count)) for start in range(0, count, size)]
        for size, count in zip(box, convolution.output, strict=True)
    ]
    return tuple(_band(convolution, positions) for positions in product(*cuts))


def _band(convolution: Convolution, positions: tuple[Range, ...]) -> Band:
    first = 0
    for (start, _), count in zip(positions, convolution.output, strict=True):
        first = first * count + start
    met = [axis.met(ends) for axis, ends in zip(convolution.axes, positions, strict=True)]
    pixels, padding = (tuple(parts) for parts in zip(*met, strict=True))
    own = Convolution(
        with_padding(convolution.spec, padding),
        tuple(high - low for low, high in pixels),
        convolution.channels,
        convolution.filters,
    )
    rows = slice(first, first + own.positions)
    return Band(whole(own), rows, *(tuple(slice(*ends) for ends in ranges) for ranges in (positions, pixels)))


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
    rows = _by_group(xp, c, rows_of(xp, piece, kernel, load))
    sums = xp.einsum("npgd,pgdf->npgf", windows(xp, piece, _channels_last(xp, c, x)), rows)
    part = xp.reshape(sums, (xp.shape(x)[0], *piece.box, c.filters))
    around = [(start, count - end) for (start, end), count in zip(piece.positions, c.output, strict=True)]
    return xp.pad(part, ((0, 0), *around, (0, 0))) if piece.box != c.output else part


def rows_of(xp: Arrays, piece: Piece, kernel: Any, load: Callable[[Any], Any] = lambda rows: rows) -> Any:
    """The rows of a kernel that a piece multiplies windows with, as (positions, depth, filters).

    load: as of `forward`.
    """
    return _without_padding(xp, piece, load(_rows(xp, piece, kernel)), xp.where)


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

    Products that belong to padding are left out of the result, whatever they are. Taps are summed along one axis after
    the other, with the batch in the innermost axis, where it makes long rows.
    """
    c, batch, rank = piece.convolution, xp.shape(gradient)[0], len(piece.box)
    products = xp.einsum("pgdf,npgf->pgdn", _by_group(xp, c, kernel), _gradient(xp, c, gradient))
    rows = _in_rows(c, c.kernel_size, c.channels // c.spec.groups)
    total = xp.reshape(products, (*c.output, c.spec.groups, *rows, batch))
    for number, axis in reversed([*enumerate(c.axes)]):
        taps = rank + 1 + c.channels_first + number
        shape = xp.shape(total)
        pixels = zeros(total, (*shape[:number], axis.n, *shape[number + 1 : taps], *shape[taps + 1 :]))
        for t, tap in met_along(axis):
            values = total[(*[slice(None)] * taps, t)]
            pixels[(*[slice(None)] * number, tap.places)] += _cut(values, number, *tap.positions)
        total = pixels
    return _laid_out(xp, c, xp.moveaxis(xp.reshape(total, (*c.spatial, c.channels, batch)), rank + 1, 0))


def grad_input_by_axes(
    xp: Arrays, piece: Piece, kernel: Any, gradient: Any, load: Callable[[Any], Any] = lambda products: products
) -> Any:
    """`grad_input` that writes into no array: taps are summed along one axis after the other, each where it meets the
    input; load: makes of the products what is summed.

    What is before the axis, and between it and its taps, is one axis each time: some runtimes have no more than six.
    """
    c, groups, batch = piece.convolution, piece.convolution.spec.groups, xp.shape(gradient)[0]
    first, last = (c.channels // groups, 1) if c.channels_first else (1, c.channels // groups)
    total = load(_products(xp, piece, kernel, gradient))
    for number, axis in reversed([*enumerate(c.axes)]):
        between = prod(c.spatial[number + 1 :]) * groups * first * prod(c.kernel_size[:number])
        total = xp.reshape(total, (-1, axis.outputs, between, axis.taps, last))
        seen = [(tap, tap.at_its_positions(total[:, :, :, t], 1)) for t, tap in met_along(axis)]
        parts = [tap.back(xp, values, 1) for tap, values in seen]
        total = sum(parts[1:], parts[0])
    return _laid_out(xp, c, xp.reshape(total, (batch, *c.spatial, c.channels)))


def _products(xp: Arrays, piece: Piece, kernel: Any, gradient: Any) -> Any:
    """What the gradient for an output comes to in windows, as (batch, positions, groups, taps and channels in the order
    of a kernel's rows).
    """
    c, groups = piece.convolution, piece.convolution.spec.groups
    batch = xp.shape(gradient)[0]
    products = xp.einsum("pgdf,npgf->npgd", _by_group(xp, c, kernel), _gradient(xp, c, gradient))
    return xp.reshape(products, (batch, c.positions, groups, *_in_rows(c, (c.taps,), c.channels // groups)))


def _channels_last(xp: Arrays, convolution: Convolution, x: Any) -> Any:
    """Images, or outputs, with their channels last."""
    # Axes counted from the front: exporters of PyTorch write -1 into files as it is.
    return xp.moveaxis(x, 1, convolution.spec.rank + 1) if convolution.channels_first else x


def _laid_out(xp: Arrays, convolution: Convolution, x: Any) -> Any:
    """The inverse of `_channels_last`."""
    return xp.moveaxis(x, convolution.spec.rank + 1, 1) if convolution.channels_first else x


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
    positions, taps = ([xp.arange(start, end) for start, end in ranges] for ranges in (piece.positions, piece.taps))
    return rows_inside(xp, piece.convolution, positions, taps, rows, where)


def rows_inside(
    xp: Arrays, convolution: Convolution, positions: list[Any], taps: list[Any], rows: Any, where: Callable[..., Any]
) -> Any:
    """Rows of a kernel for some positions and taps, given along every axis: those that meet padding 0."""
    c, rank, inner = convolution, len(positions), convolution.channels // convolution.spec.groups
    shown = [xp.reshape(r, (-1, *[1] * (2 * rank - 1 - i))) for i, r in enumerate((*positions, *taps))]
    inside = all_inside(c.axes, shown[:rank], shown[rank:])
    boxes, window = (prod(r.shape[0] for r in ranges) for ranges in (positions, taps))
    inside = xp.reshape(inside, (boxes, *_in_rows(c, (window,), 1), 1))
    split = xp.reshape(rows, (boxes, *_in_rows(c, (window,), inner), c.filters))
    return xp.reshape(where(inside, split, 0), (boxes, window * inner, c.filters))


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


# ------------------------------------------------------------------------------------------ filters that come with data


def _as_it_is(part: Any) -> Any:
    return part


def filter_forward(xp: Arrays, by_tap: ByTap, x: Any, filters: Any, load: Callable[[Any], Any] = _as_it_is) -> Any:
    """Every position's sum over its own taps.

    load: makes of a part of an operand what products are taken of and summed, in the dtype of the result.
    """
    y = by_tap.forward(xp, load, by_tap.pixels(xp, x), by_tap.filters(xp, filters))
    return by_tap.joined(xp, y, by_tap.output)


def filter_grad_input(
    xp: Arrays, by_tap: ByTap, filters: Any, gradient: Any, load: Callable[[Any], Any] = _as_it_is
) -> Any:
    """The gradient for the input; load: as of `filter_forward`."""
    x = by_tap.back(xp, load, by_tap.filters(xp, filters), by_tap.pixels(xp, gradient))
    return by_tap.joined(xp, x, by_tap.spatial)


def filter_grad_kernel(
    xp: Arrays, by_tap: ByTap, x: Any, gradient: Any, one: bool = False, load: Callable[[Any], Any] = _as_it_is
) -> Any:
    """The gradient for the filters, which is the correlation; one: of the filters of one image for all. load: as of
    `filter_forward`.
    """
    filters = by_tap.correlation(xp, load, by_tap.pixels(xp, x), by_tap.pixels(xp, gradient), one)
    return by_tap.joined(xp, filters, by_tap.output)


class Tap(NamedTuple):
    """One tap of the windows along one axis: the pixels that it meets, one for each of some positions.

    Where windows are moved inside, those at the two ends meet what their neighbours do: with dilation they repeat the
    first, or the last, so many pixels.

    `positions`: those at which the tap meets the input; `first`: the pixel that it meets there first; `repeated`: how
    often its first and its last `axis.dilation` pixels are met once more.
    """

    axis: Axis
    positions: Range
    first: int
    repeated: tuple[int, int] = (0, 0)

    @property
    def pixels(self) -> int:
        """Pixels that are met."""
        return self.positions[1] - self.positions[0] - sum(self.repeated) * self.axis.dilation

    @property
    def places(self) -> slice:
        """The pixels that are met, but for what is repeated."""
        end = self.first + (self.pixels - 1) * self.axis.stride + 1 if self.pixels else self.first
        return slice(self.first, end, self.axis.stride)

    def seen(self, xp: Arrays, x: Any, along: int) -> Any:
        """What the positions see of pixels, along this axis of x."""
        count, ends = self.pixels, self.axis.dilation
        if count == self.axis.n:
            return x  # a slice of all is an operator that not every runtime has
        seen = x[(*[slice(None)] * along, self.places)]
        before, after = self.repeated
        if not before and not after:
            return seen
        first, last = _cut(seen, along, 0, ends), _cut(seen, along, count - ends, count)
        return xp.concatenate([first] * before + [seen] + [last] * after, along)

    def back(self, xp: Arrays, values: Any, along: int) -> Any:
        """The pixels of the whole axis, each with the sum of the values of the positions that see it."""
        step, count, ends = self.axis.stride, self.pixels, self.axis.dilation
        before, after = self.repeated
        end = before * ends + count
        found = _cut(values, along, before * ends, end) if before or after else values
        for block in range(before):
            first = _cut(values, along, block * ends, (block + 1) * ends)
            found = found + _padded(xp, first, along, 0, count - ends)
        for block in range(after):
            last = _cut(values, along, end + block * ends, end + (block + 1) * ends)
            found = found + _padded(xp, last, along, count - ends, 0)
        if step > 1 and count > 1:
            found = _cut(_spread(xp, found, along, step), along, 0, (count - 1) * step + 1)
        reach = (count - 1) * step + 1 if count else 0
        return _padded(xp, found, along, self.first, self.axis.n - self.first - reach)

    def at_its_positions(self, values: Any, along: int) -> Any:
        """Of the values of all positions those of the ones at which the tap meets the input."""
        # A slice of all is an operator that not every runtime has.
        return values if self.positions == (0, self.axis.outputs) else _cut(values, along, *self.positions)

    def at_all_positions(self, xp: Arrays, values: Any, along: int) -> Any:
        """The values of the positions at which the tap meets the input, and zeros at the others."""
        return _padded(xp, values, along, self.positions[0], self.axis.outputs - self.positions[1])


def taps_along(axis: Axis) -> list[Tap]:
    """All taps of an axis."""
    if axis.moved:
        repeated = axis.taps // 2, axis.taps - 1 - axis.taps // 2
        return [Tap(axis, (0, axis.n), t * axis.dilation, repeated) for t in range(axis.taps)]
    ranges = [axis.positions_of(t) for t in range(axis.taps)]
    return [Tap(axis, (p, end), axis.pixel(p, t) if end > p else 0) for t, (p, end) in enumerate(ranges)]


def met_along(axis: Axis) -> list[tuple[int, Tap]]:
    """The taps of an axis that meet the input anywhere, with their numbers; if none does, one of no pixels."""
    numbered = list(enumerate(taps_along(axis)))
    return [(t, tap) for t, tap in numbered if tap.pixels] or numbered[:1]


class ByTap:
    """The three sums of a convolution whose filters come with the data, each a loop over the taps of one axis around
    that over those of the next. It is made once, not in a program that is being traced.

    Arrays are in the data format of the convolution, their channels split into those of a group and the groups: images
    (batch, groups, inner, *spatial) or (batch, *spatial, groups, inner); in filters the taps are the inner axis, which
    has a length of 1 for one of them, and so fits all channels of the group. One group has no axis: some runtimes have
    no more than five.
    """

    def __init__(self, convolution: Convolution) -> None:
        rank, self.channels_first = len(convolution.axes), convolution.channels_first
        self.spatial, self.output = convolution.spatial, convolution.output
        self.groups, self.channels = convolution.spec.groups, convolution.channels
        lead = 2 if self.groups > 1 else 1
        self.along = [*range(lead + 1, lead + 1 + rank)] if self.channels_first else [*range(1, rank + 1)]
        self.inner = lead if self.channels_first else rank + lead
        self.taps = [taps_along(axis) for axis in convolution.axes]
        self.window = convolution.taps
        self.met = [met_along(axis) for axis in convolution.axes]

    def pixels(self, xp: Arrays, x: Any) -> Any:
        """An image, or an output, with its groups."""
        return self._split(xp, x, self.channels // self.groups)

    def filters(self, xp: Arrays, filters: Any) -> Any:
        """Filters with their groups."""
        return self._split(xp, filters, self.window)

    def _split(self, xp: Arrays, x: Any, inner: int) -> Any:
        if self.groups == 1:
            return x
        shape = xp.shape(x)
        if self.channels_first:
            return xp.reshape(x, (shape[0], self.groups, inner, *shape[2:]))
        return xp.reshape(x, (*shape[:-1], self.groups, inner))

    def joined(self, xp: Arrays, x: Any, spatial: Ints) -> Any:
        """An array without the axis of groups."""
        if self.groups == 1:
            return x
        shape = xp.shape(x)
        return xp.reshape(x, layout_of((shape[0],), spatial, self.groups * shape[self.inner], self.channels_first))

    def forward(
        self, xp: Arrays, load: Callable[[Any], Any], x: Any, filters: Any, level: int = 0, number: int = 0
    ) -> Any:
        """The sum over the taps of this axis and of those behind it; number: that of a tap of the axes before it."""
        if level == len(self.taps):
            return load(x) * load(_cut(filters, self.inner, number, number + 1))
        along, total = self.along[level], None
        for t, tap in self.met[level]:
            seen, here = tap.seen(xp, x, along), tap.at_its_positions(filters, along)
            part = self.forward(xp, load, seen, here, level + 1, number * len(self.taps[level]) + t)
            part = tap.at_all_positions(xp, part, along)
            total = part if total is None else total + part
        return total

    def back(
        self, xp: Arrays, load: Callable[[Any], Any], filters: Any, gradient: Any, level: int = 0, number: int = 0
    ) -> Any:
        """The sum for the pixels over the taps of this axis and of those behind it."""
        if level == len(self.taps):
            return load(gradient) * load(_cut(filters, self.inner, number, number + 1))
        along, total = self.along[level], None
        for t, tap in self.met[level]:
            weights, values = (tap.at_its_positions(array, along) for array in (filters, gradient))
            part = self.back(xp, load, weights, values, level + 1, number * len(self.taps[level]) + t)
            part = tap.back(xp, part, along)
            total = part if total is None else total + part
        return total

    def correlation(
        self, xp: Arrays, load: Callable[[Any], Any], x: Any, gradient: Any, one: bool, level: int = 0
    ) -> Any:
        """The sums over a group's channels, for the taps of this axis and of those behind it."""
        if level == len(self.taps):
            sums = xp.sum(load(x) * load(gradient), axis=self.inner, keepdims=True)
            return xp.sum(sums, axis=0, keepdims=True) if one else sums
        along, parts = self.along[level], []
        for tap in self.taps[level]:
            seen, here = tap.seen(xp, x, along), tap.at_its_positions(gradient, along)
            part = self.correlation(xp, load, seen, here, one, level + 1)
            parts.append(tap.at_all_positions(xp, part, along))
        return xp.concatenate(parts, self.inner) if len(parts) > 1 else parts[0]


@lru_cache(maxsize=1024)
def filters_by_tap(convolution: Convolution) -> ByTap:
    """The sums of a convolution of the family of filters, which has as many filters as channels."""
    return ByTap(convolution)


def _cut(x: Any, along: int, start: int, end: int, step: int = 1) -> Any:
    """A part of an array along one axis."""
    return x[(*[slice(None)] * along, slice(start, end, step))]


def _padded(xp: Arrays, x: Any, along: int, before: int, after: int) -> Any:
    """An array with zeros before and after it along one axis."""
    if not before and not after:
        return x
    return xp.pad(x, [(before, after) if axis == along else (0, 0) for axis in range(len(x.shape))])


def _spread(xp: Arrays, x: Any, along: int, step: int) -> Any:
    """An array with zeros behind each of its elements along one axis, so that they are a step apart."""
    shape = xp.shape(x)
    apart = _padded(xp, xp.reshape(x, (*shape[: along + 1], 1, *shape[along + 1 :])), along + 1, 0, step - 1)
    return xp.reshape(apart, (*shape[:along], shape[along] * step, *shape[along + 1 :]))
