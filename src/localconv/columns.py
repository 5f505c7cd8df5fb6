"""Shared convolution and its gradients as matrix products of im2col columns, by NumPy's BLAS, in blocks of bounded size.

The algorithm for geometries that the direct kernels do badly (dispatch.py says which). All arrays come flat.

Columns hold a 0 for every tap that meets padding. A product with it is not in the sum: harmless while the other factor is finite, it would
be NaN for inf and NaN. So rows of a kernel, and positions of a gradient, that hold such values stay out of the matrix product, and are added
where their taps are.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from . import _core, dispatch
from .arrays import FLOAT32, FLOAT64, Array
from .geometry import Geometry, Ints

IM2COL = {FLOAT32: _core.im2col["float"], FLOAT64: _core.im2col["double"]}
COL2IM = {FLOAT32: _core.col2im["float"], FLOAT64: _core.col2im["double"]}

# A block of columns stays below this many bytes, and a sum of the gradient for the kernel below this many positions.
COLUMNS_LIMIT = 8 * 2**20
SUM_LIMIT = 256


def conv_by_columns(geometry: Geometry, x: Array, kernel: Array, bias: Array | None, out: Array, relu: bool) -> None:
    """out = act(convolution of x with kernel + bias)."""
    matrix = _to_matrix(geometry, kernel)
    finite = np.isfinite(matrix).all(1)
    results = _images(geometry, out, geometry.positions, geometry.filters)
    for image, channels, filters in _parts(geometry):
        part = _part(_images(geometry, x, prod(geometry.input), geometry.channels), geometry, image, channels)
        target = _part(results, geometry, image, filters)
        for block, columns in _columns_of(_group_geometry(geometry), part):
            if finite.all():
                np.matmul(columns, matrix[:, filters], out=target[block])
                continue
            target[block] = columns[:, finite] @ matrix[finite, filters]
            for row in np.flatnonzero(~finite):
                there = _present(geometry, row)[block]
                target[block][there] += np.outer(columns[there, row], matrix[row, filters])
    if bias is not None:
        results += bias[:, None] if geometry.channels_first else bias
    if relu:
        np.maximum(out, 0, out=out)


def grad_input_by_columns(geometry: Geometry, kernel: Array, grad_output: Array, out: Array) -> None:
    """out = gradient for the input: every block's columns of gradients, added to the windows they came from."""
    matrix, group = _to_matrix(geometry, kernel), _group_geometry(geometry)
    results = _images(geometry, out, prod(geometry.input), geometry.channels)
    threads = dispatch.threads_for(geometry)
    for image, channels, filters in _parts(geometry):
        gradient = _part(_images(geometry, grad_output, geometry.positions, geometry.filters), geometry, image, filters)
        total = np.zeros(prod(group.input) * group.channels, out.dtype)
        for first, last in _blocks(group, out.itemsize):
            columns = np.matmul(gradient[first:last], matrix[:, filters].T)
            COL2IM[out.dtype](group, columns.reshape(-1), total, first, threads)
        arranged = total.reshape(_arrange(group, prod(group.input), group.channels))
        _part(results, geometry, image, channels)[...] = arranged.T if geometry.channels_first else arranged


def grad_kernel_by_columns(geometry: Geometry, x: Array, grad_output: Array, out: Array, accumulate: bool) -> None:
    """out (+)= gradient for the kernel: columns' transposes times output gradients, summed block by block."""
    matrix = np.zeros((geometry.depth, geometry.filters), out.dtype)
    for image, channels, filters in _parts(geometry):
        part = _part(_images(geometry, x, prod(geometry.input), geometry.channels), geometry, image, channels)
        gradient = _part(_images(geometry, grad_output, geometry.positions, geometry.filters), geometry, image, filters)
        for block, columns in _columns_of(_group_geometry(geometry), part, SUM_LIMIT):
            finite = np.isfinite(gradient[block]).all(1)
            if finite.all():
                matrix[:, filters] += np.matmul(columns.T, gradient[block])
                continue
            matrix[:, filters] += columns[finite].T @ gradient[block][finite]
            for position in np.flatnonzero(~finite):
                there = _rows_present(geometry, block.start + position)
                matrix[there, filters] += np.outer(columns[position, there], gradient[block][position])
    taps, channels_inside = prod(geometry.kernel), geometry.channels // geometry.groups
    inner = (channels_inside, taps) if geometry.channels_first else (taps, channels_inside)
    rows = matrix.reshape(*inner, geometry.filters)
    result = out.reshape(taps, channels_inside, geometry.filters)
    result[...] = (rows.transpose(1, 0, 2) if geometry.channels_first else rows) + (result if accumulate else 0)


def _to_matrix(geometry: Geometry, kernel: Array) -> Array:
    """The kernel as (rows of a group, filters), rows in the order of im2col."""
    rows = kernel.reshape(prod(geometry.kernel), geometry.channels // geometry.groups, geometry.filters)
    return (rows.transpose(1, 0, 2) if geometry.channels_first else rows).reshape(geometry.depth, geometry.filters)


def _taps_inside(geometry: Geometry, axis: int, positions: Array, taps: Array) -> Array:
    """Whether taps of an axis meet the input, not its padding, in the windows of output positions."""
    pixels = positions * geometry.strides[axis] - geometry.before[axis] + taps * geometry.dilation[axis]
    return (pixels >= 0) & (pixels < geometry.input[axis])


def _present(geometry: Geometry, row: int) -> Array:
    """The positions at which a row of the columns is no padding."""
    tap = row % prod(geometry.kernel) if geometry.channels_first else row // (geometry.channels // geometry.groups)
    taps = np.unravel_index(tap, geometry.kernel)
    inside = [_taps_inside(geometry, axis, np.arange(geometry.output[axis]), taps[axis]) for axis in range(3)]
    return _all_axes(inside)


def _rows_present(geometry: Geometry, position: int) -> Array:
    """The rows of one position's column that are no padding."""
    place = np.unravel_index(position, geometry.output)
    inside = [_taps_inside(geometry, axis, place[axis], np.arange(geometry.kernel[axis])) for axis in range(3)]
    taps, channels = _all_axes(inside), geometry.channels // geometry.groups
    return np.tile(taps, channels) if geometry.channels_first else taps.repeat(channels)


def _all_axes(inside: list[Array]) -> Array:
    """What holds along all three axes, row by row."""
    return (inside[0][:, None, None] & inside[1][:, None] & inside[2]).ravel()


def _parts(geometry: Geometry) -> Iterator[tuple[int, slice, slice]]:
    """Every image of every group: its number, the group's channels and filters."""
    channels, filters = geometry.channels // geometry.groups, geometry.filters // geometry.groups
    for g in range(geometry.groups):
        for image in range(geometry.batch):
            yield image, slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters)


def _part(images: Array, geometry: Geometry, image: int, channels: slice) -> Array:
    """Some channels of one image, as a view (pixels, channels)."""
    return images[image, channels].T if geometry.channels_first else images[image, :, channels]


def _columns_of(geometry: Geometry, part: Array, limit: int | None = None) -> Iterator[tuple[slice, Array]]:
    """Blocks of at most `limit` positions of one image and group, and their im2col rows, valid until the next block."""
    x = np.ascontiguousarray(part.T if geometry.channels_first else part).reshape(-1)
    blocks, threads = _blocks(geometry, x.itemsize, limit), dispatch.threads_for(geometry)
    columns = np.empty((blocks[0][1], geometry.depth), x.dtype)
    for first, last in blocks:
        rows = columns[: last - first]
        IM2COL[x.dtype](geometry, x, rows.reshape(-1), first, threads)
        yield slice(first, last), rows


def _blocks(geometry: Geometry, itemsize: int, limit: int | None = None) -> list[tuple[int, int]]:
    """Positions first .. last-1 of each block."""
    rows = max(1, min(geometry.positions, limit or geometry.positions, COLUMNS_LIMIT // (geometry.depth * itemsize)))
    return [(first, min(first + rows, geometry.positions)) for first in range(0, geometry.positions, rows)]


def _images(geometry: Geometry, array: Array, pixels: int, channels: int) -> Array:
    return array.reshape(geometry.batch, *_arrange(geometry, pixels, channels))


def _group_geometry(geometry: Geometry) -> Geometry:
    """One image and one group of a geometry, as a geometry."""
    return Geometry(1, geometry.input, geometry.channels // geometry.groups, geometry.output, geometry.filters // geometry.groups,
                    geometry.kernel, geometry.strides, geometry.dilation, geometry.before, 1, geometry.channels_first)


def _arrange(geometry: Geometry, pixels: int, channels: int) -> Ints:
    return (channels, pixels) if geometry.channels_first else (pixels, channels)
