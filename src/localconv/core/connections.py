"""Which inputs of a locally connected layer meet which outputs, and where Keras's three implementations store their
weights.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from .arguments import Ints
from .arrays import Array
from .windows import Axis, Convolution, all_inside

IMPLEMENTATIONS = (1, 2, 3)


class Connections(Convolution):
    """Which inputs meet which outputs, and where the implementations store the weight of each such pair.

    Of a convolution without dilation and groups; the parameters are those of `Convolution`.
    """

    def stored_shape(self, implementation: int) -> Ints:
        """The shape of the kernel as an implementation stores it."""
        if implementation == 1:
            return self.kernel_shape
        if implementation == 2:
            inner = [(self.channels, *self.spatial), (self.filters, *self.output)]
            return (
                (*inner[0], *inner[1])
                if self.channels_first
                else (*self.spatial, self.channels, *self.output, self.filters)
            )
        return (self._pairs * self.channels * self.filters,)

    def rows(self, stored: Array, implementation: int) -> Array:
        """A stored kernel as (positions, taps * channels, filters);
        rows that meet padding are 0 unless they are stored.
        """
        if implementation == 1:
            return stored
        if implementation == 2:
            return self._rows_of_dense(stored)
        order, mask = self._sparse_order
        if self._valid.all():
            full = stored.reshape(mask.shape)
        else:
            full = np.zeros(mask.shape, stored.dtype)
            full[mask] = stored
        return np.ascontiguousarray(full.transpose(np.argsort(order)))

    def stored(self, rows: Array, implementation: int) -> Array:
        """The inverse of `rows`; what implementation 2 stores for pairs that are not connected is 0."""
        if implementation == 1:
            return rows
        if implementation == 2:
            return self._dense_of_rows(rows)
        order, mask = self._sparse_order
        ordered = rows.transpose(order)
        return np.ascontiguousarray(ordered.reshape(-1) if self._valid.all() else ordered[mask])

    def mask(self) -> Array:
        """1 where an input meets an output, else 0, in float32, for each pair of them.

        Keras multiplies a kernel of implementation 2 with it. It has that shape, but 1 for channels and filters.
        """
        mask = np.ones((), np.float32)
        for axis, (index, inside) in zip(self.axes, self._taps_of_axes, strict=True):
            of_axis = np.zeros((axis.n, axis.outputs), np.float32)
            positions, _ = np.nonzero(inside)
            of_axis[index[inside], positions] = 1
            mask = np.multiply.outer(mask, of_axis)
        rank = len(self.spatial)
        # All axes of the input, then all of the output.
        mask = mask.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
        return np.expand_dims(mask, (0, rank + 1) if self.channels_first else (rank, 2 * rank + 1))

    @property
    def _pairs(self) -> int:
        """How many pairs (position, tap) lie inside the input, found without a list of them:
        sizes in a file may be of any size.
        """
        return prod(_pairs_of(axis) for axis in self.axes)

    @cached_property
    def _taps_of_axes(self) -> list[tuple[Array, Array]]:
        """For each axis the input index of (position, tap), and whether it is inside."""
        pairs = [(axis, np.arange(axis.outputs)[:, None], np.arange(axis.taps)) for axis in self.axes]
        return [(axis.pixel(*pair), axis.inside(*pair)) for axis, *pair in pairs]

    @cached_property
    def _valid(self) -> Array:
        """Whether a tap of a position is inside: (positions, taps)."""
        rank = len(self.axes)
        places = np.ix_(*map(np.arange, self.output + self.kernel_size))
        inside = all_inside(self.axes, places[:rank], places[rank:])
        return np.asarray(inside.reshape(self.positions, self.taps))

    @property
    def _sparse_order(self) -> tuple[tuple[int, int, int], Array]:
        """Implementation 3: the axes of rows in the order of its sorted list, and which elements of those it has.

        It lists pairs (output, input) sorted by output, then by input, each flattened in the data format's own order;
        the rows of a position are in the order of its inputs already.
        """
        inside, shape = self._valid, (self.positions, self.taps, self.channels)
        if self.channels_first:
            depth = np.broadcast_to(inside[:, None, :], (self.positions, self.channels, self.taps)).reshape(
                self.positions, -1
            )
            return (2, 0, 1), np.broadcast_to(depth, (self.filters, *depth.shape))
        depth = np.broadcast_to(inside[:, :, None], shape).reshape(self.positions, -1)
        return (0, 2, 1), np.broadcast_to(depth[:, None, :], (self.positions, self.filters, depth.shape[1]))

    def _dense_places(self) -> Any:
        """For each tap: its number, the positions where it is inside,
        and their places in an array of implementation 2.
        """
        grid = np.indices(self.output).reshape(len(self.output), -1)
        for number, tap in enumerate(np.ndindex(self.kernel_size)):
            inside = np.flatnonzero(self._valid[:, number])
            outputs = tuple(axis[inside] for axis in grid)
            inputs = tuple(index[out, t] for (index, _), out, t in zip(self._taps_of_axes, outputs, tap, strict=True))
            everything = slice(None)
            # One index array per spatial axis, slices between them: NumPy puts the positions in front, then channels,
            # filters.
            place = (
                (everything, *inputs, everything, *outputs)
                if self.channels_first
                else (*inputs, everything, *outputs, everything)
            )
            yield number, inside, place

    def _by_tap(self, rows: Array) -> Array:
        """Rows as (positions, taps, channels, filters), a view."""
        if self.channels_first:
            return rows.reshape(self.positions, self.channels, self.taps, self.filters).swapaxes(1, 2)
        return rows.reshape(self.positions, self.taps, self.channels, self.filters)

    def _rows_of_dense(self, stored: Array) -> Array:
        rows = np.zeros(self.stored_shape(1), stored.dtype)
        by_tap = self._by_tap(rows)
        for number, inside, place in self._dense_places():
            by_tap[inside, number] = stored[place]
        return rows

    def _dense_of_rows(self, rows: Array) -> Array:
        stored = np.zeros(self.stored_shape(2), rows.dtype)
        by_tap = self._by_tap(rows)
        for number, inside, place in self._dense_places():
            stored[place] = by_tap[inside, number]
        return stored


def _pairs_of(axis: Axis) -> int:
    """How many pairs (position, tap) lie inside the input along an axis without dilation."""
    # By how much the window of the first position, and that of the last, is outside; by a stride less at each position
    # further in.
    last = axis.pixel(axis.outputs - 1, axis.taps - 1) + 1 - axis.n
    overhangs = [_series(overhang, axis.stride, axis.outputs) for overhang in (axis.before, last)]
    return axis.outputs * axis.taps - sum(overhangs)


def _series(first: int, step: int, terms: int) -> int:
    """The sum of first, first - step, first - 2 * step, ...: of the terms above 0, and at most so many."""
    count = min(terms, max(0, -(-first // step)))
    return count * first - step * count * (count - 1) // 2
