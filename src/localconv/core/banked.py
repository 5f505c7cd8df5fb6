"""Convolutions whose kernel is a bank: a few filters, spread over many positions.

Two ways:

- *fold*: where the positions of a box use the same filters, a shared convolution to all of these; then every position
  weighs its results, which is a filter that comes with the data: its taps are the filters, and all images share it;
- *build*: the locally connected convolution itself, whose tasks make the kernel of each position where they read it.

What is folded, and the gradients for filters and weights, are cut into units: boxes of output positions of some images,
each of which goes through the other operations and lies in a cache between them. All are sums of products of the three
arrays, so each derivative is made of the derivatives of its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from math import ceil, prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import engine
from .arguments import Ints
from .arrays import Array, ElementType, as_float_array, contiguous, element_type, of_bank, output_for, write_result
from .bank import KernelBank, spread
from .config import CHANNELS_FIRST, CHANNELS_LAST
from .geometry import Geometry, Mismatch, Names, geometry_of
from .spec import Spec, conv_spec, filter_spec, with_padding
from .windows import Range, axes_of, layout_of

if TYPE_CHECKING:
    from .engine import Context

# Bytes of what a unit makes, results of single filters or kernels, which should stay in the caches of the cores.
UNIT_BYTES = 8 * 2**20
# Costs in products of a shared convolution (both ways measured: tests' sizes and those of networks, 1 to 64 images). Of
# folding: weighing a result; a box that goes through the operations. Of building: a term of an element of a kernel; a
# position.
WEIGHED, FOLDED_BOX = 200, 6_000_000
TERM, BUILT_POSITION = 7, 15_000
# Of the gradients for filters and weights, two convolutions where they are folded. Else kernels' gradients are made:
# what an element of them costs beside its products, and what reading the filters costs each position of a unit.
GRADIENTS, MADE, READ = 3, 30, 160
# Positions of a box of equal filters below which going through boxes costs more than it brings.
BOX_POSITIONS = 64

Box = tuple[Range, ...]

ONE_TAP, ONE_TAP_OF_PLANES = (
    conv_spec(1, 1, "valid", data_format, 1, 1) for data_format in (CHANNELS_LAST, CHANNELS_FIRST)
)


class Unit(NamedTuple):
    """Some output positions of some images; `used`: the filters that all of these positions use, None: all filters."""

    images: slice
    box: Box
    used: Array | None = None

    @property
    def sizes(self) -> Ints:
        """Positions along every axis."""
        return tuple(stop - start for start, stop in self.box)

    @property
    def positions(self) -> int:
        """Positions of one image."""
        return prod(self.sizes)

    @property
    def place(self) -> tuple[slice, ...]:
        """Where they lie among all positions."""
        return tuple(slice(*ends) for ends in self.box)


class Folded(NamedTuple):
    """How the results of single filters lie: as planes, or (positions, filters of the bank, F)."""

    planes: bool
    filters: int
    columns: int

    @property
    def spec(self) -> Spec:
        """The weighted sum over the filters of the bank, as filters that come with the data."""
        size = (self.filters, 1) if self.planes else (1, self.filters)
        return filter_spec(2, size, 1, "valid", CHANNELS_LAST, 1, 1)

    def results(self, images: int, positions: int) -> Ints:
        """The shape of what is summed, images of filters and positions."""
        if self.planes:
            return images * self.columns, self.filters, positions, 1
        return images, positions, self.filters, self.columns

    def sums(self, images: int, positions: int) -> Ints:
        """The shape of the sums."""
        if self.planes:
            return images * self.columns, 1, positions, 1
        return images, positions, 1, self.columns

    def weights(self, positions: int) -> Ints:
        """The shape of the weights."""
        return (1, 1, positions, self.filters) if self.planes else (1, positions, 1, self.filters)


class Banked:
    """A convolution with a bank, for arrays of these sizes, in one dtype; `context` as in the engine; `gradients`:
    those for filters and weights.

    `planes`: results of single filters are made as planes, where the input and the sums lie in planes too.
    """

    def __init__(
        self,
        spec: Spec,
        x_shape: Ints,
        bank: KernelBank,
        dtype: Any,
        names: Names = engine.NAMES,
        context: Context | None = None,
        gradients: bool = False,
    ) -> None:
        try:
            self.geometry: Geometry = geometry_of(spec, x_shape, bank.shape)
            self.output, self.biases = engine.results_of(spec, x_shape, self.geometry)
        except Mismatch as error:
            raise error.named(names) from None
        self.spec, self.x_shape, self.bank, self.context = spec, x_shape, bank, context
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.first = spec.channels_first
        self.axes = axes_of(spec, x_shape[2:] if self.first else x_shape[1:-1])
        self.positions = tuple(axis.outputs for axis in self.axes)
        self.terms = len(bank.filters) if bank.indices is None else bank.indices.shape[1]
        self.rows, self.columns = bank.shape[1:]
        self.filters = bank.filters.astype(self.dtype, copy=False)
        self.planes = self.first or (self.geometry.channels == 1 and self.columns == 1)
        self.kernels: dict[Any, Array] = {}
        self.kept: dict[str, Array] = {}
        self.fold = self.folds(gradients)

    # ----------------------------------------------------------------------------------------------- how it is cut

    def folds(self, gradients: bool) -> bool:
        """Whether folding is possible, and costs less."""
        if self.geometry.groups > 1 and self.bank.weights is not None:
            return False  # filters of several groups do not lie side by side
        if max(self.spec.strides) > 1 and max(self.spec.dilation) > 1:
            return False  # shared convolutions have one of them alone
        boxes = [None] if self.bank.indices is None else self.boxes()
        return boxes is not None and self.folding_costs_less(len(boxes), gradients)

    def folding_costs_less(self, boxes: int, gradients: bool) -> bool:
        """Whether it does, by the costs of an element of the kernel."""
        weighted, images, each = self.bank.weights is not None, self.geometry.batch, self.rows * self.columns
        if gradients:
            together = max(1, UNIT_BYTES // (each * self.dtype.itemsize))
            return GRADIENTS * images * self.terms <= images + self.terms * (1 + READ / together) + MADE
        fold = images * self.terms * (1 + weighted * WEIGHED / self.rows)
        fold += FOLDED_BOX * boxes / (each * self.geometry.positions)
        return fold <= images + weighted * TERM * self.terms + BUILT_POSITION / each

    def boxes(self) -> list[tuple[Box, Array]] | None:
        """Boxes of positions that use the same filters, and these; None: most are small, or there are none."""
        known = self.bank.boxes
        if self.positions not in known:
            assert self.bank.indices is not None
            known[self.positions] = _boxes_of(self.bank.indices.reshape(*self.positions, -1))
        found: list[tuple[Box, Array]] | None = known[self.positions]
        return found

    def units(self) -> Iterator[Unit]:
        """All output positions of all images."""
        whole: Box = tuple((0, n) for n in self.positions)
        batch, column = self.geometry.batch, self.columns * self.dtype.itemsize
        if not self.fold:
            for box in cut(whole, self.rows * column, UNIT_BYTES):
                yield Unit(slice(0, batch), box)
            return
        boxes = [(whole, None)] if self.bank.indices is None else self.boxes()
        for box, used in boxes or ():
            each = len(self.filters if used is None else used) * column
            together = max(1, min(batch, UNIT_BYTES // max(1, each * _size(box))))
            for part in cut(box, each, UNIT_BYTES):
                for start in range(0, batch, together):
                    yield Unit(slice(start, min(start + together, batch)), part, used)

    # ------------------------------------------------------------------------------------------- what a unit needs

    def met(self, unit: Unit) -> tuple[tuple[Any, ...], tuple[Range, ...]]:
        """Where the pixels of the input lie that a unit's windows meet, and the padding around them."""
        met = [axis.met(positions) for axis, positions in zip(self.axes, unit.box, strict=True)]
        return self.images_at(unit, tuple(slice(*ends) for ends, _ in met)), tuple(padding for _, padding in met)

    def results_at(self, unit: Unit) -> tuple[Any, ...]:
        """Where the results of a unit lie."""
        return self.images_at(unit, unit.place)

    def images_at(self, unit: Unit, place: tuple[slice, ...]) -> tuple[Any, ...]:
        """The index of a box of a unit's images in an array of the data format."""
        return layout_of((unit.images,), place, slice(None), self.first)  # type: ignore[arg-type]

    def weights(self, unit: Unit) -> Array | None:
        """The weights of a unit's positions, (positions, M)."""
        return self.by_position(self.bank.weights, unit, self.dtype)

    def indices(self, unit: Unit) -> Array | None:
        """The filters that they are of."""
        return self.by_position(self.bank.indices, unit, np.int32)

    def by_position(self, array: Array | None, unit: Unit, dtype: Any) -> Array | None:
        if array is None:
            return None
        part = array.reshape(*self.positions, -1)[unit.place]
        return np.ascontiguousarray(part.reshape(unit.positions, -1), dtype)

    def folded(self, unit: Unit) -> Folded:
        return Folded(self.planes, len(self.filters if unit.used is None else unit.used), self.columns)

    def shared(self, padding: tuple[Range, ...]) -> Spec:
        """The shared convolution of a unit."""
        spec = self.spec
        return conv_spec(spec.rank, spec.strides, padding, _format(self.planes), spec.dilation, spec.groups)

    def shared_kernel(self, used: Array | None) -> Array:
        """The kernel of that convolution: its filters in the order in which `Folded` has the results."""
        key = None if used is None else tuple(used.tolist())
        if key not in self.kernels:
            filters = self.filters if used is None else self.filters[used]
            taps, inner = self.spec.kernel_size or (), self.geometry.channels // self.geometry.groups
            shape = (inner, *taps) if self.first else (*taps, inner)
            last = filters.reshape(len(filters), *shape, self.columns)
            last = np.moveaxis(last, 0, -1 if self.planes else -2)
            if self.first:
                last = np.moveaxis(last, 0, self.spec.rank)
            self.kernels[key] = np.ascontiguousarray(last.reshape(*taps, inner, -1))
        return self.kernels[key]

    def bank_order(self, gradient: Array, filters: int) -> Array:
        """The gradient for a shared kernel as one for filters of the bank, (filters, rows, F)."""
        taps, inner = self.spec.kernel_size or (), gradient.shape[-2]
        pair = (self.columns, filters) if self.planes else (filters, self.columns)
        last = gradient.reshape(*taps, inner, *pair)
        last = np.moveaxis(last, -1 if self.planes else -2, 0)
        if self.first:
            last = np.moveaxis(last, self.spec.rank + 1, 1)
        return last.reshape(filters, self.rows, self.columns)

    def scratch(self, name: str, shape: Ints) -> Array:
        """An array whose memory the next unit uses again: fresh memory costs more than what is written there."""
        size = prod(shape)
        if name not in self.kept or self.kept[name].size < size:
            self.kept[name] = np.empty(size, self.dtype)
        return self.kept[name][:size].reshape(shape)

    def planar(self, shape: Ints) -> Ints:
        """The shape of images in the format of the shared convolution: of one channel they are planes too."""
        return (shape[0], 1, *shape[1:-1]) if self.planes and not self.first else shape

    # --------------------------------------------------------------------------------------------------- operations

    def build(
        self,
        operation: str,
        result: Array,
        x: Array | None = None,
        gradient: Array | None = None,
        bias: Array | None = None,
        relu: bool = False,
    ) -> None:
        """The locally connected operation, which makes the kernel of a position where it reads it."""
        weights, indices = self.bank.weights, self.bank.indices
        element = of_bank(self.dtype, len(self.filters), self.terms, indices is not None, weights is not None)
        parts = (
            contiguous(self.filters, self.dtype),
            None if weights is None else contiguous(weights, self.dtype),
            None if indices is None else np.ascontiguousarray(indices, np.int32),
        )
        prepared = engine.prepare(operation, self.spec, self.x_shape, self.bank.shape, element, self.context)
        x, gradient = (None if a is None else contiguous(a, self.dtype) for a in (x, gradient))
        prepared.job.run(result, x, parts, gradient, bias, relu)

    def forward(self, x: Array, result: Array, bias: Array | None, relu: bool) -> None:
        if not self.fold:
            self.build(engine.FORWARD[self.spec.family], result, x, bias=bias, relu=relu)
            return
        for unit in self.units():
            place, padding = self.met(unit)
            part, at = x[place], self.results_at(unit)
            if 0 in part.shape:
                result[at] = 0
            else:
                result[at] = self.weighed(self.maps(part, unit, padding), unit).reshape(result[at].shape)
            if bias is not None:
                result[at] += self.bias_at(bias, unit)
            if relu:
                np.maximum(result[at], 0, out=result[at])

    def maps(self, part: Array, unit: Unit, padding: tuple[Range, ...]) -> Array:
        """The results of a unit's single filters."""
        kernel, x = self.shared_kernel(unit.used), part.reshape(self.planar(part.shape))
        maps = self.scratch("maps", layout_of((len(x),), unit.sizes, kernel.shape[-1], self.planes))
        return engine.forward(self.shared(padding), x, kernel, out=maps, context=self.context)

    def weighed(self, maps: Array, unit: Unit) -> Array:
        """The sums of these that a unit's positions have."""
        weights = self.weights(unit)
        if weights is None:
            return maps
        fold = self.folded(unit)
        maps = maps.reshape(fold.results(len(maps), unit.positions))
        return engine.forward(fold.spec, maps, weights.reshape(fold.weights(unit.positions)), context=self.context)

    def spread_out(self, gradient: Array, unit: Unit) -> Array:
        """The adjoint of `weighed`: gradients for the results of single filters."""
        weights = self.weights(unit)
        if weights is None:
            return gradient.reshape(self.planar(gradient.shape))
        fold, images = self.folded(unit), len(gradient)
        results = fold.results(images, unit.positions)
        made = engine.grad_input(
            fold.spec,
            results,
            weights.reshape(fold.weights(unit.positions)),
            gradient.reshape(fold.sums(images, unit.positions)),
            out=self.scratch("spread", results),
            context=self.context,
        )
        return made.reshape(layout_of((images,), unit.sizes, fold.filters * fold.columns, fold.planes))

    def bias_at(self, bias: Array, unit: Unit) -> Array:
        """A bias as a unit's results take it; one for every position is reshaped, not transposed, as Keras does."""
        if bias.ndim == 1:
            return bias.reshape(-1, *(1,) * self.spec.rank) if self.first else bias
        part: Array = bias.reshape(self.output[1:])[self.results_at(unit)[1:]]
        return part

    def grad_input(self, gradient: Array, result: Array) -> None:
        if not self.fold:
            self.build(engine.GRAD_INPUT[self.spec.family], result, gradient=gradient)
            return
        result[...] = 0
        for unit in self.units():
            place, padding = self.met(unit)
            pixels = result[place]
            if 0 in pixels.shape:
                continue
            part = self.spread_out(contiguous(gradient[self.results_at(unit)], self.dtype), unit)
            kernel, shape = self.shared_kernel(unit.used), self.planar(pixels.shape)
            made = engine.grad_input(self.shared(padding), shape, kernel, part, context=self.context)
            pixels += made.reshape(pixels.shape)

    def grad_bank(self, x: Array, gradient: Array) -> tuple[Array, Array | None]:
        """The gradients for the filters and the weights. Those for the filters are summed unit by unit in float64."""
        filters = np.zeros(self.filters.shape)
        weights = None if self.bank.weights is None else np.zeros(self.bank.weights.shape, self.dtype)
        at_positions = None if weights is None else weights.reshape(*self.positions, -1)
        add = self.folded_gradients if self.fold else self.built_gradients
        for unit in self.units():
            place, padding = self.met(unit)
            part, given = x[place], contiguous(gradient[self.results_at(unit)], self.dtype)
            if 0 in part.shape:
                continue
            made = add(part, given, unit, padding, filters)
            if at_positions is not None:
                at_positions[unit.place] += made.reshape(*unit.sizes, -1)
        return filters.astype(self.dtype), weights

    def folded_gradients(
        self, part: Array, gradient: Array, unit: Unit, padding: tuple[Range, ...], filters: Array
    ) -> Any:
        """Adds to the gradient for the filters; returns that for the weights of a unit."""
        kernel, x = self.shared_kernel(unit.used), part.reshape(self.planar(part.shape))
        fold, images = self.folded(unit), len(gradient)
        spread = self.spread_out(gradient, unit)
        made = engine.grad_kernel(self.shared(padding), x, kernel.shape, spread, context=self.context)
        used: Any = slice(None) if unit.used is None else unit.used
        np.add.at(filters, used, self.bank_order(made, fold.filters))  # a box may name a filter twice
        if self.bank.weights is None:
            return None
        maps = self.maps(part, unit, padding).reshape(fold.results(images, unit.positions))
        sums = gradient.reshape(fold.sums(images, unit.positions))
        return engine.grad_kernel(fold.spec, maps, fold.weights(unit.positions), sums, context=self.context)

    def built_gradients(
        self, part: Array, gradient: Array, unit: Unit, padding: tuple[Range, ...], filters: Array
    ) -> Any:
        """As `folded_gradients`."""
        kernel = self.scratch("kernel", (unit.positions, self.rows, self.columns))
        engine.grad_kernel(
            with_padding(self.spec, padding), part, kernel.shape, gradient, out=kernel, context=self.context
        )
        matrix = kernel.reshape(1, unit.positions, -1)
        weights, indices = self.weights(unit), self.indices(unit)
        used: Any = slice(None)
        by_filter = weights
        if indices is not None:
            used, by_filter = spread(indices, weights)
        assert by_filter is not None
        # A kernel is a shared convolution of one tap from weights to its elements: its gradients for kernel and input.
        one = 1, by_filter.shape[1], matrix.shape[2]
        back = engine.grad_kernel(ONE_TAP, by_filter[None], one, matrix, context=self.context)
        filters[used] += back.reshape(-1, self.rows, self.columns)
        if weights is None:
            return None
        # The elements of a kernel are what is summed over: as positions they are neighbours, in planes.
        stored, one = self.filters[used].reshape(one), (1, one[1], unit.positions)
        products = engine.grad_kernel(ONE_TAP_OF_PLANES, stored, one, matrix, context=self.context)[0].T
        return products if indices is None else np.take_along_axis(products, np.searchsorted(used, indices), 1)


def forward(
    spec: Spec,
    x: ArrayLike,
    bank: KernelBank,
    bias: ArrayLike | None,
    out: Array | None,
    relu: bool,
    names: Names,
    context: Context | None,
) -> Array:
    """`engine.forward` with a bank for a kernel."""
    x, b = as_float_array(x, names.input), None if bias is None else as_float_array(bias, "bias")
    element = element_type(bank, x, b)  # type: ignore[arg-type]  # its dtype is all that counts
    work = Banked(spec, x.shape, bank, element.dtype, names, context)
    if b is not None:
        engine.check_bias(b.shape, work.biases)
        b = contiguous(b, element.dtype)
    result, staged = output_for(out, work.output, element, (x, bank, b))
    with np.errstate(all="ignore"):
        work.forward(x, result, b, relu)
    return write_result(result, out, staged, element)


def grad_input(
    spec: Spec,
    input_shape: Ints,
    bank: KernelBank,
    gradient: ArrayLike,
    out: Array | None,
    names: Names,
    context: Context | None,
) -> Array:
    """`engine.grad_input` with a bank for a kernel."""
    gradient = as_float_array(gradient, names.gradient)
    element = element_type(bank, gradient)  # type: ignore[arg-type]
    work = Banked(spec, input_shape, bank, element.dtype, names, context)
    engine.check_gradient(gradient.shape, work.output, names)
    result, staged = output_for(out, input_shape, element, (bank, gradient))
    with np.errstate(all="ignore"):
        work.grad_input(gradient, result)
    return write_result(result, out, staged, element)


def grad_bank(
    spec: Spec, x: ArrayLike, bank: KernelBank, gradient: ArrayLike, names: Names, context: Context | None = None
) -> tuple[Array, Array | None]:
    """The gradients for a bank's filters and for its weights, of which there may be none."""
    x, gradient = as_float_array(x, names.input), as_float_array(gradient, names.gradient)
    element: ElementType = element_type(None, x, gradient)
    work = Banked(spec, x.shape, bank, element.dtype, names, context, gradients=True)
    engine.check_gradient(gradient.shape, work.output, names)
    with np.errstate(all="ignore"):
        return work.grad_bank(x, gradient)


def _format(channels_first: bool) -> str:
    return CHANNELS_FIRST if channels_first else CHANNELS_LAST


def cut(box: Box, each: int, limit: int) -> Iterator[Box]:
    """A box in parts of neighbouring positions, of `each` bytes a position, up to the limit or one position."""
    (start, stop), rest = box[0], box[1:]
    line = each * _size(rest)
    if rest and line > limit:
        for first in range(start, stop):
            for part in cut(rest, each, limit):
                yield (first, first + 1), *part
        return
    parts = ceil((stop - start) / max(1, limit // max(1, line)))
    edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
    yield from ((pair, *rest) for pair in pairwise(edges))


def _size(box: Box) -> int:
    return prod(stop - start for start, stop in box)


def _boxes_of(indices: Array) -> list[tuple[Box, Array]] | None:
    """Boxes of positions that have the same indices: between all places along an axis where some index changes."""
    sizes = indices.shape[:-1]
    if indices.strides[: len(sizes)] == (0,) * len(sizes):
        return [(tuple((0, n) for n in sizes), indices[(0,) * len(sizes)].copy())]
    edges = []
    for axis, size in enumerate(sizes):
        along = np.moveaxis(indices, axis, 0)
        changes = (along[1:] != along[:-1]).any(tuple(range(1, along.ndim)))
        edges.append([0, *(np.flatnonzero(changes) + 1).tolist(), size])
    boxes = list(product(*map(pairwise, edges)))
    if prod(sizes) < BOX_POSITIONS * len(boxes) and len(boxes) > 1:
        return None
    return [(box, indices[tuple(start for start, _ in box)].copy()) for box in boxes]
