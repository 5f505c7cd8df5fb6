"""Convolutions and their gradients as layers of tasks.

The kernel never moves: a task has one chunk of it, or maps its own rows of a file. What travels has the size of the
input or the output: rows of the input to where a kernel's rows are, and sums of input gradients, which overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple, TypeAlias

import dask
import dask.array as da
from dask.utils import parse_bytes

from ..core.arguments import Ints, brief
from ..core.arrays import ElementType
from ..core.geometry import Geometry
from ..core.policy import Whole
from ..core.spec import Spec
from ..core.windows import Convolution, Range, layout_of, output_of
from .bands import Band, bands_of, even, ranges
from .files import KernelFile, Rows
from .layer import Chunks, Layer
from .tasks import add, forward, grad_input, grad_kernel

Kernel: TypeAlias = da.Array | KernelFile


class Part(NamedTuple):
    """A range of the filters, the channels that they see, and the bands for them."""

    filters: Range
    channels: Range
    bands: list[Band]


@dataclass(frozen=True, eq=False)
class Cut(Convolution):
    """How a call is cut: into bands of rows of these heights, and filters of these widths."""

    batch: int
    heights: Ints
    widths: Ints

    @cached_property
    def parts(self) -> list[Part]:
        """The filters' parts, each of whole groups."""
        each = self.filters // self.spec.groups
        parts = []
        for low, high in ranges(self.widths):
            if self.spec.groups == 1:
                groups, channels = 1, (0, self.channels)
            else:
                groups, seen = (high - low) // each, self.channels // self.spec.groups
                channels = (low // each * seen, high // each * seen)
            parts.append(Part((low, high), channels, bands_of(self.spec, self.spatial, self.heights, groups)))
        return parts

    def within_input(self, images: Range, rows: Range, channels: Range) -> tuple[Range, ...]:
        """A range of the input along every axis."""
        return _layout(images, rows, self.spatial, channels, self.channels_first)

    def within_output(self, images: Range, rows: Range, filters: Range) -> tuple[Range, ...]:
        """A range of the output along every axis."""
        return _layout(images, rows, self.output, filters, self.channels_first)


def _layout(images: Range, rows: Range, spatial: Ints, channels: Range, first: bool) -> tuple[Range, ...]:
    inside = (rows, *((0, n) for n in spatial[1:]))
    return (images, channels, *inside) if first else (images, *inside, channels)


def cut_by_kernel(spec: Spec, geometry: Geometry, kernel: Kernel) -> Cut:
    """How a call is cut that has a kernel: as its chunks say, or as many rows of a file as a task may read."""
    whole = _uncut(spec, geometry)
    width = prod(whole.output[1:])
    if isinstance(kernel, KernelFile):
        return replace(whole, heights=even(whole.output[0], rows_of(kernel.part_bytes, kernel.nbytes, whole.output[0])))
    positions, depths, filters = kernel.chunks
    if any(count % width for count in positions):
        raise ValueError(
            f"kernel's chunks along axis 0 must be of whole rows of the output, multiples of {width} positions, got "
            f"{brief(positions)}: kernel.rechunk({{0: {width * max(1, max(positions) // width)}}})"
        )
    if len(depths) > 1:
        raise ValueError(f"kernel must have one chunk along axis 1, got {brief(depths)}: kernel.rechunk({{1: -1}})")
    each = whole.filters // spec.groups
    if spec.groups > 1 and any(count % each for count in filters):
        raise ValueError(
            f"kernel's chunks along axis 2 must be of whole groups, multiples of {each} filters, got {brief(filters)}: "
            f"kernel.rechunk({{2: {each * max(1, max(filters) // each)}}})"
        )
    # A chunk of nothing would be a band without rows.
    heights = tuple(count // width for count in positions)
    if 0 in heights or 0 in filters:
        raise ValueError(f"kernel must have no chunks of size 0, got {brief(kernel.chunks)}")
    return replace(whole, heights=heights, widths=filters)


def cut_by_gradient(spec: Spec, geometry: Geometry, gradient: da.Array, itemsize: int) -> Cut:
    """How the gradient for a kernel is cut: as the chunks of the output's gradient are along the rows and filters, and
    further where such a part of the kernel would be too large.
    """
    whole = _uncut(spec, geometry)
    rows = gradient.chunks[2 if whole.channels_first else 1]
    filters = gradient.chunks[1 if whole.channels_first else -1]
    each = whole.filters // spec.groups
    if spec.groups > 1 and any(count % each for count in filters):
        filters = (whole.filters,)
    widths = tuple(count for count in filters if count)
    row = prod(whole.output[1:]) * whole.depth * max(widths) * itemsize
    most = max(1, _largest_chunk() // row)
    return replace(whole, heights=tuple(part for count in rows for part in even(count, most)), widths=widths)


def _largest_chunk() -> int:
    """Bytes of the largest chunks that dask makes by itself: a setting of its own."""
    return int(parse_bytes(dask.config.get("array.chunk-size")))


def rows_of(part_bytes: int, nbytes: int, rows: int) -> int:
    """Rows of the output whose kernel has so many bytes, or one."""
    return max(1, part_bytes * rows // nbytes)


def _uncut(spec: Spec, geometry: Geometry) -> Cut:
    spatial, filters = geometry.input[3 - spec.rank :], geometry.filters
    return Cut(spec, spatial, geometry.channels, filters, geometry.batch, output_of(spec, spatial)[:1], (filters,))


# ----------------------------------------------------------------------------------------------------------- the layers


def forward_layer(cut: Cut, x: da.Array, kernel: Kernel, bias: da.Array | None, element: ElementType) -> da.Array:
    """The convolution: a task for every chunk of images, band and part of the filters."""
    layer = _layer(f"local_conv{cut.spec.rank}d", cut, [x, kernel, bias])
    whole = Whole(cut.batch, cut.filters)
    for (n, images), (r, f, part, band) in _tasks(x.chunks[0], cut):
        inputs = layer.piece(x, cut.within_input(images, band.reach, part.channels))
        weights = _weights(kernel, r, f, band)
        added, full = (None, False) if bias is None else _bias(layer, cut, bias, band, part)
        task = partial(forward, band.spec, whole, full)
        layer.tasks[layer.name, *_block(cut, n, r, f)] = (task, inputs, weights, added)
    return layer.array(_chunks(cut, x.chunks[0], cut.output, cut.heights, cut.widths), element.result)


def grad_input_layer(cut: Cut, kernel: Kernel, gradient: da.Array, element: ElementType) -> da.Array:
    """The gradient for the input: a task for every chunk of images, band and part of the filters gives what these add
    to the rows that the band's windows meet; another one for each chunk of the result adds these up.
    """
    layer = _layer(f"local_conv{cut.spec.rank}d_input", cut, [kernel, gradient])
    batches = gradient.chunks[0]
    bands: dict[int, list[tuple[Range, Range, Any]]] = {n: [] for n in range(len(batches))}
    for (n, images), (r, f, part, band) in _tasks(batches, cut):
        if band.reach[0] == band.reach[1]:
            continue
        key = (f"{layer.name}_band", n, r, f)
        shape = [high - low for low, high in cut.within_input(images, band.reach, part.channels)]
        values = layer.piece(gradient, cut.within_output(images, band.rows, part.filters))
        layer.tasks[key] = (partial(grad_input, band.spec, tuple(shape)), _weights(kernel, r, f, band), values)
        bands[n].append((band.reach, part.channels, key))
    rows = _stretches(cut)
    for n, images in enumerate(ranges(batches)):
        for a, (stretch, inside) in enumerate(_meeting(bands[n], ranges(rows))):
            places, parts = _overlaps(layer, cut, images[1] - images[0], stretch, inside)
            shape = [high - low for low, high in cut.within_input(images, stretch, (0, cut.channels))]
            task = partial(add, tuple(shape), element.result, places)
            layer.tasks[layer.name, *_block(cut, n, a, 0)] = (task, parts)
    return layer.array(_chunks(cut, batches, cut.spatial, rows, (cut.channels,)), element.result)


def grad_kernel_layer(cut: Cut, x: da.Array, gradient: da.Array, element: ElementType) -> da.Array:
    """The gradient for the kernel: a task for every band and part of the filters, which sums over all images. Where the
    rows of all images are more than a task should have, a chain of tasks, each of which goes on with the last one's
    sum; sums of several chunks of images at once would be many times the kernel.
    """
    layer = _layer(f"local_conv{cut.spec.rank}d_kernel", cut, [x, gradient])
    for f, part in enumerate(cut.parts):
        for r, band in enumerate(part.bands):
            key: Any = None
            groups = _groups(x.chunks[0], _bytes_of_an_image(cut, part, band, element))
            for number, group in enumerate(groups):
                inputs = [layer.piece(x, cut.within_input(images, band.reach, part.channels)) for images in group]
                values = [layer.piece(gradient, cut.within_output(images, band.rows, part.filters)) for images in group]
                shape = (band.positions[1] - band.positions[0], cut.depth, part.filters[1] - part.filters[0])
                last = number == len(groups) - 1
                before, key = key, (layer.name, r, 0, f) if last else (f"{layer.name}_images", number, r, f)
                layer.tasks[key] = (partial(grad_kernel, band.spec, shape), inputs, values, before)
    positions = tuple(height * prod(cut.output[1:]) for height in cut.heights)
    return layer.array((positions, (cut.depth,), cut.widths), element.result)


def _groups(batches: Ints, image_bytes: int) -> list[list[Range]]:
    """Chunks of images in groups of no more bytes than a chunk should have, or of one chunk."""
    groups: list[list[Range]] = [[]]
    most = _largest_chunk()
    for images in ranges(batches):
        if groups[-1] and (images[1] - groups[-1][0][0]) * image_bytes > most:
            groups.append([])
        groups[-1].append(images)
    return groups


def _bytes_of_an_image(cut: Cut, part: Part, band: Band, element: ElementType) -> int:
    """Of the rows of an image, and of the output's gradient, that a band's windows meet."""
    within = cut.within_input((0, 1), band.reach, part.channels), cut.within_output((0, 1), band.rows, part.filters)
    return element.dtype.itemsize * sum(prod(high - low for low, high in axes) for axes in within)


def _layer(prefix: str, cut: Cut, operands: list[Any]) -> Layer:
    spec = cut.spec
    told = (spec.kernel_size, spec.strides, spec.padding, spec.dilation, spec.groups, spec.channels_first)
    arrays = [operand for operand in operands if isinstance(operand, da.Array)]
    files = [operand for operand in operands if isinstance(operand, KernelFile)]
    return Layer(prefix, arrays, files, told, cut.spatial, cut.channels, cut.heights, cut.widths)


def _tasks(batches: Ints, cut: Cut) -> Iterator[Any]:
    """Every chunk of images with every band of every part of the filters."""
    parts = cut.parts
    for n, images in enumerate(ranges(batches)):
        for r in range(len(cut.heights)):
            for f, part in enumerate(parts):
                yield (n, images), (r, f, part, part.bands[r])


def _block(cut: Cut, n: int, r: int, f: int) -> Ints:
    """The numbers of a block of an array of images."""
    return layout_of((n,), (r, *(0,) * (cut.spec.rank - 1)), f, cut.channels_first)  # type: ignore[return-value]


def _chunks(cut: Cut, batches: Ints, spatial: Ints, heights: Ints, channels: Ints) -> Chunks:
    inside = (heights, *((n,) for n in spatial[1:]))
    return (batches, channels, *inside) if cut.channels_first else (batches, *inside, channels)


def _weights(kernel: Kernel, r: int, f: int, band: Band) -> Any:
    """What a task takes for its kernel: the key of a chunk, or rows of a file."""
    return Rows(kernel, *band.positions) if isinstance(kernel, KernelFile) else (kernel.name, r, 0, f)


def _bias(layer: Layer, cut: Cut, bias: da.Array, band: Band, part: Part) -> tuple[Any, bool]:
    """What a task takes for its bias, and whether that has a value for every position."""
    if bias.ndim == 1:
        return layer.piece(bias, (part.filters,)), False
    whole = tuple((0, n) for n in cut.output[1:])
    if cut.channels_first:  # what Keras stores as (positions, filters) is read as (filters, positions)
        return layer.piece(bias, (part.filters, band.rows, *whole)), True
    return layer.piece(bias, (band.rows, *whole, part.filters)), True


def _stretches(cut: Cut) -> Ints:
    """Rows of the input gradient's chunks: from where one band's windows begin to where the next one's do."""
    bands = cut.parts[0].bands
    starts = [0, *(band.reach[0] for band in bands[1:]), cut.spatial[0]]
    return tuple(after - before for before, after in pairwise(starts) if after > before) or (0,)


def _meeting(pieces: list[Any], stretches: list[Range]) -> Iterator[tuple[Range, list[Any]]]:
    """Every stretch of rows with the pieces that meet it. Both come in the order of their rows, first and last."""
    first = 0
    for stretch in stretches:
        while first < len(pieces) and pieces[first][0][1] <= stretch[0]:
            first += 1
        end = first
        while end < len(pieces) and pieces[end][0][0] < stretch[1]:
            end += 1
        yield stretch, pieces[first:end]


def _overlaps(layer: Layer, cut: Cut, images: int, stretch: Range, inside: list[Any]) -> tuple[Any, list[Any]]:
    """Where in a stretch of rows each band's part belongs, and the tasks that cut it out."""
    places, parts = [], []
    for reach, channels, key in inside:
        low, high = max(stretch[0], reach[0]), min(stretch[1], reach[1])
        places.append(cut.within_input((0, images), (low - stretch[0], high - stretch[0]), channels))
        if (low, high) == reach:
            parts.append(key)
            continue
        within = cut.within_input((0, images), (low - reach[0], high - reach[0]), (0, channels[1] - channels[0]))
        parts.append(layer.cut_out(key, within))
    return tuple(places), parts
