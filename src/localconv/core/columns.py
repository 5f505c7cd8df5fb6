"""Shared convolution and its gradients as matrix products of im2col columns, by NumPy's BLAS, in blocks of bounded
size.

The algorithm for geometries that the compiled ones refuse or do badly (policy.py says which); jobs like the core's,
over its im2col and col2im. How many threads the BLAS uses, and whether that changes the last bits of a sum, is the
BLAS's affair.

Columns hold a 0 for every tap that meets padding. A product with it is not in the sum: harmless while the other factor
is finite, it would be NaN for inf and NaN. So rows of a kernel, and positions of a gradient, that hold such values stay
out of the matrix product, and are added where their taps are.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from .._core import Job
from .arguments import Ints
from .arrays import Array
from .geometry import Geometry
from .windows import all_inside

# A block of columns stays below this many bytes, and a sum of the gradient for the kernel below this many positions.
COLUMNS_LIMIT = 8 * 2**20
SUM_LIMIT = 256


class _Columns:
    """What the jobs share: a geometry, one image and group of it, and the core's jobs for these.

    A job's `run` has the core's arguments; inf and NaN pass through without a word, as in the compiled
    algorithms.
    """

    nbytes = 0

    def __init__(self, geometry: Geometry, one: Geometry, im2col: Job, col2im: Job) -> None:
        self.geometry, self.one, self.im2col, self.col2im = geometry, one, im2col, col2im
        self.nbytes = im2col.nbytes + col2im.nbytes

    def matrix_of(self, kernel: Array) -> Array:
        """The kernel as (rows of a group, filters), rows in the order of im2col."""
        g = self.geometry
        rows = kernel.reshape(prod(g.kernel), g.channels // g.groups, g.filters)
        return (rows.transpose(1, 0, 2) if g.channels_first else rows).reshape(g.window, g.filters)

    def parts(self) -> Iterator[tuple[int, slice, slice]]:
        """Every image of every group: its number, the group's channels and filters."""
        channels, filters = self.one.channels, self.one.filters
        for g in range(self.geometry.groups):
            for image in range(self.geometry.batch):
                yield image, slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters)

    def images(self, array: Array, pixels: int, channels: int) -> Array:
        """Images with a batch axis, and one of pixels and one of channels in their order."""
        return array.reshape(self.geometry.batch, *self.arranged(pixels, channels))

    def arranged(self, pixels: int, channels: int) -> Ints:
        return (channels, pixels) if self.geometry.channels_first else (pixels, channels)

    def part(self, images: Array, image: int, channels: slice) -> Array:
        """Some channels of one image, as a view (pixels, channels)."""
        return images[image, channels].T if self.geometry.channels_first else images[image, :, channels]

    def inputs(self, array: Array) -> Array:
        """The input, or its gradient, with its axes."""
        return self.images(array, prod(self.geometry.input), self.geometry.channels)

    def outputs(self, array: Array) -> Array:
        """The output, or its gradient, with its axes."""
        return self.images(array, self.geometry.positions, self.geometry.filters)

    def blocks(self, itemsize: int, limit: int | None = None) -> list[slice]:
        """The positions of one image, cut into blocks whose columns stay within their limits."""
        positions = self.one.positions
        rows = max(1, min(positions, limit or positions, COLUMNS_LIMIT // (self.one.window * itemsize)))
        return [slice(first, min(first + rows, positions)) for first in range(0, positions, rows)]

    def columns_of(self, inputs: Array, limit: int | None = None) -> Iterator[tuple[int, slice, slice, Array]]:
        """The im2col rows of every image and group, in blocks of at most `limit` positions.

        Image, the group's filters, the block's positions, and their rows, valid until the next block.
        """
        blocks = self.blocks(inputs.itemsize, limit)
        # One buffer for all of a run: allocated for each image, two would live at once.
        columns = np.empty((blocks[0].stop, self.one.window), inputs.dtype)
        for image, channels, filters in self.parts():
            part = self.part(inputs, image, channels)
            x = np.ascontiguousarray(part.T if self.geometry.channels_first else part)
            for block in blocks:
                rows = columns[: block.stop - block.start]
                self.im2col.run(rows, x, None, None, first=block.start, count=len(rows))
                yield image, filters, block, rows

    def positions_with(self, row: int) -> Array:
        """The positions at which a row of the columns is no padding."""
        g = self.geometry
        tap = row % prod(g.kernel) if g.channels_first else row // self.one.channels
        positions = np.ix_(*map(np.arange, g.output))
        return np.asarray(all_inside(g.axes, positions, np.unravel_index(tap, g.kernel)).ravel())

    def rows_at(self, position: int) -> Array:
        """The rows of one position's column that are no padding."""
        g = self.geometry
        taps = np.ix_(*map(np.arange, g.kernel))
        inside = all_inside(g.axes, np.unravel_index(position, g.output), taps).ravel()
        return np.tile(inside, self.one.channels) if g.channels_first else inside.repeat(self.one.channels)


class ColumnsForward(_Columns):
    """result = act(convolution of input with kernel + bias)."""

    @np.errstate(all="ignore")
    def run(
        self, result: Array, input: Array, kernel: Array, gradient: None, bias: Array | None = None, relu: bool = False
    ) -> None:
        matrix, results = self.matrix_of(kernel), self.outputs(result)
        finite = np.isfinite(matrix).all(1)
        for image, filters, block, columns in self.columns_of(self.inputs(input)):
            target = self.part(results, image, filters)[block]
            if finite.all():
                np.matmul(columns, matrix[:, filters], out=target)
                continue
            target[...] = columns[:, finite] @ matrix[finite, filters]
            for row in np.flatnonzero(~finite).tolist():
                there = self.positions_with(row)[block]
                target[there] += np.outer(columns[there, row], matrix[row, filters])
        if bias is not None:
            results += bias[:, None] if self.geometry.channels_first else bias
        if relu:
            np.maximum(result, 0, out=result)


class ColumnsGradInput(_Columns):
    """result = gradient for the input: every block's columns of gradients, added to the windows they came from."""

    @np.errstate(all="ignore")
    def run(self, result: Array, input: None, kernel: Array, gradient: Array) -> None:
        matrix, gradients, results = self.matrix_of(kernel), self.outputs(gradient), self.inputs(result)
        pixels = prod(self.one.input)
        for image, channels, filters in self.parts():
            part = self.part(gradients, image, filters)
            total = np.zeros(pixels * self.one.channels, result.dtype)
            for block in self.blocks(result.itemsize):
                columns = np.matmul(part[block], matrix[:, filters].T)
                self.col2im.run(total, None, None, columns, first=block.start, count=len(columns))
            arranged = total.reshape(self.arranged(pixels, self.one.channels))
            self.part(results, image, channels)[...] = arranged.T if self.geometry.channels_first else arranged


class ColumnsGradKernel(_Columns):
    """result (+)= gradient for the kernel: columns' transposes times output gradients, summed block by block."""

    @np.errstate(all="ignore")
    def run(
        self,
        result: Array,
        input: Array,
        kernel: None,
        gradient: Array,
        bias: None = None,
        relu: bool = False,
        accumulate: bool = False,
    ) -> None:
        g = self.geometry
        # Of all blocks' sums the total is kept in float64: there may be very many.
        matrix, gradients = np.zeros((g.window, g.filters)), self.outputs(gradient)
        for image, filters, block, columns in self.columns_of(self.inputs(input), SUM_LIMIT):
            self.add_block(matrix[:, filters], columns, self.part(gradients, image, filters)[block], block.start)
        taps, inner = prod(g.kernel), self.one.channels
        rows = matrix.reshape(*((inner, taps) if g.channels_first else (taps, inner)), g.filters)
        total = result.reshape(taps, inner, g.filters)
        total[...] = (rows.transpose(1, 0, 2) if g.channels_first else rows) + (total if accumulate else 0)

    def add_block(self, matrix: Array, columns: Array, gradient: Array, first: int) -> None:
        """Adds the products of a block, whose first position is `first`, to a group's gradient."""
        finite = np.isfinite(gradient).all(1)
        if finite.all():
            matrix += np.matmul(columns.T, gradient)
            return
        matrix += columns[finite].T @ gradient[finite]
        for position in np.flatnonzero(~finite).tolist():
            there = self.rows_at(first + position)
            matrix[there] += np.outer(columns[position, there], gradient[position])
