"""Where the windows of a convolution lie: along one axis, and of a locally connected convolution with sizes.

The one place for the output's size, the padding in numbers, the shapes of a kernel of rows and of filters, and which
taps meet the input. Two worlds pad differently: shared convolution as TensorFlow does (valid, SAME, causal), locally
connected layers as Keras 2 does ('same' is the window around ``position * stride``, clipped to the input).
`axis_windows` has both formulas; nothing else knows of padding but as pixels, and of windows that were moved 'inside'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from operator import and_
from typing import Any, NamedTuple, TypeVar

from .arguments import Ints
from .families import FAMILIES
from .spec import Spec

Size = TypeVar("Size", bound=int | None)

# From the first to the one behind the last.
Range = tuple[int, int]


def effective_size(size: int, dilation: int) -> int:
    """Pixels that a window of so many taps reaches over."""
    return (size - 1) * dilation + 1


def axis_windows(
    family: str, n: int, size: int, stride: int, dilation: int, padding: str | tuple[int, int]
) -> tuple[int, int]:
    """Pixels of padding in front of an axis of n pixels, and its output positions: 0 or less where no window fits."""
    reach = effective_size(size, dilation)
    if padding == "same":
        outputs = -(-n // stride)
        centered = FAMILIES[family].centered
        return (reach // 2 if centered else max((outputs - 1) * stride + reach - n, 0) // 2), outputs
    if isinstance(padding, str):
        # Inside: as many outputs as if all of the padding were behind, where `Axis` moves the windows back from.
        before, after = {"valid": (0, 0), "causal": (reach - 1, 0), "inside": (0, reach - 1)}[padding]
    else:
        before, after = padding
    return before, (before + n + after - reach) // stride + 1


def _positive(value: Any) -> Any:
    """What is above 0 of a number, or of an array of integers of any library."""
    return (value + abs(value)) // 2


class Axis(NamedTuple):
    """The windows along one axis of n pixels. Where padding is in numbers, n and so `outputs` may be symbols.

    `before`: pixels of padding in front; `outputs`: positions; `taps`: the window's size; `moved`: there is no padding;
    position p has its window around pixel p, moved as far as it takes, in steps of the dilation, to lie inside.
    """

    n: int
    outputs: int
    taps: int
    stride: int
    dilation: int
    before: int
    moved: bool = False

    @property
    def reach(self) -> int:
        """Pixels that a window reaches over."""
        return effective_size(self.taps, self.dilation)

    @property
    def after(self) -> int:
        """Pixels of padding behind; those that no window reaches are left out."""
        return 0 if self.moved else max(0, (self.outputs - 1) * self.stride + self.reach - self.before - self.n)

    def pixel(self, position: Any, tap: Any) -> Any:
        """The pixel that a tap meets at a position: numbers, or arrays of them. Those in padding are below 0, or n and
        above.
        """
        if self.moved:
            number, phase = position // self.dilation, position % self.dilation
            last = -((phase - self.n) // self.dilation) - self.taps  # start of the last window of this phase
            start = _positive(number - self.taps // 2)
            return phase + (start - _positive(start - last) + tap) * self.dilation
        return position * self.stride + tap * self.dilation - self.before

    def inside(self, position: Any, tap: Any) -> Any:
        """Whether that pixel is of the input, not of its padding."""
        pixel = self.pixel(position, tap)
        return (pixel >= 0) & (pixel < self.n)

    def positions_of(self, tap: int) -> Range:
        """The positions at which a tap meets the input."""
        if self.moved:
            return 0, self.outputs
        first = self.pixel(0, tap)
        start = min(self.outputs, max(0, -(first // self.stride)))
        return start, max(start, min(self.outputs, (self.n - 1 - first) // self.stride + 1))

    def met(self, positions: Range, taps: Range | None = None) -> tuple[Range, tuple[int, int]]:
        """The pixels of the input that some taps (None: all) meet at some positions, and how many of padding before and
        after them.
        """
        if positions[0] == positions[1]:
            return (0, 0), (0, 0)
        first, last = (0, self.taps) if taps is None else taps
        if self.moved:  # along positions of one phase pixels never fall
            start, end = positions
            low = min(self.pixel(p, first) for p in range(start, min(start + self.dilation, end)))
            high = max(self.pixel(p, last - 1) for p in range(max(start, end - self.dilation), end)) + 1
            return (low, high), (0, 0)
        start, end = self.pixel(positions[0], first), self.pixel(positions[1] - 1, last - 1) + 1
        low = min(max(start, 0), self.n)
        high = max(low, min(end, self.n))
        return (low, high), (low - start, end - high) if high > low else (end - start, 0)


def axes_of(spec: Spec, spatial: Sequence[Any], size: Ints | None = None) -> tuple[Axis, ...]:
    """The windows along every axis of an input of these sizes; size: that of a window which the spec does not name."""
    kernel_size = spec.kernel_size if size is None else size
    assert kernel_size is not None
    moved = spec.padding == "inside"
    padding: Any = (spec.padding,) * spec.rank if isinstance(spec.padding, str) else spec.padding
    axes = []
    for n, taps, stride, dilation, pads in zip(spatial, kernel_size, spec.strides, spec.dilation, padding, strict=True):
        before, outputs = axis_windows(spec.family, n, taps, stride, dilation, pads)
        axes.append(Axis(n, outputs, taps, stride, dilation, before, moved))
    return tuple(axes)


def output_of(spec: Spec, spatial: Sequence[Any]) -> Ints:
    """The output's spatial sizes: 0 or less where no window fits."""
    return tuple(axis.outputs for axis in axes_of(spec, spatial))


def all_inside(axes: Sequence[Axis], positions: Sequence[Any], taps: Sequence[Any]) -> Any:
    """Whether taps meet the input, along all axes; of every axis one number, or array that fits those of the others."""
    return reduce(and_, [axis.inside(*pair) for axis, *pair in zip(axes, positions, taps, strict=True)])


def depth_of(kernel_size: Ints, channels: int, groups: int) -> int:
    """Products summed for one output value, which are the rows of a position's kernel."""
    return prod(kernel_size) * channels // groups


def layout_of(
    lead: tuple[Size, ...], spatial: tuple[Size, ...], channels: int, channels_first: bool
) -> tuple[Size | int, ...]:
    """The shape of an array of images: batch axes, spatial sizes, channels, in a data format."""
    return (*lead, channels, *spatial) if channels_first else (*lead, *spatial, channels)


def filters_shape(spec: Spec, batch: Any, output: Sequence[Any]) -> Any:
    """The shape of the filters that come with so many images, with this output: each group's taps in C order."""
    assert spec.kernel_size is not None
    return layout_of((batch,), tuple(output), spec.groups * prod(spec.kernel_size), spec.channels_first)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A locally connected convolution with all sizes but the batch: what follows from them is computed when asked for.

    Nothing is checked here; `geometry.convolution_of` does. Sizes may be symbols where the spec's padding is in
    numbers. One whose filters come with the data has as many filters as channels, and no shape of a kernel or a bias:
    `filters_shape` has that.

    Parameters
    ----------
    spec : Spec
    spatial : tuple of ints
        The input's sizes.
    channels, filters : int
    """

    spec: Spec
    spatial: Ints
    channels: int
    filters: int

    @property
    def kernel_size(self) -> Ints:
        assert self.spec.kernel_size is not None
        return self.spec.kernel_size

    @property
    def channels_first(self) -> bool:
        return self.spec.channels_first

    @property
    def taps(self) -> int:
        """Taps of a window."""
        return prod(self.kernel_size)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The windows along every axis."""
        return axes_of(self.spec, self.spatial)

    @cached_property
    def output(self) -> Ints:
        """Positions along every axis."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def positions(self) -> int:
        """Positions of one image."""
        return prod(self.output)

    def input_shape(self, batch: Any) -> Any:
        """The shape of an array of images."""
        return layout_of((batch,), self.spatial, self.channels, self.channels_first)

    def output_shape(self, batch: Any) -> Any:
        """The shape of an array of outputs."""
        return layout_of((batch,), self.output, self.filters, self.channels_first)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Pixels of padding before and after every axis, whatever the spec calls it; what no window reaches is left
        out.
        """
        return tuple((axis.before, axis.after) for axis in self.axes)

    @property
    def depth(self) -> int:
        """Rows of a position's kernel."""
        return depth_of(self.kernel_size, self.channels, self.spec.groups)

    @property
    def kernel_shape(self) -> tuple[int, int, int]:
        """(positions, rows, filters)."""
        return self.positions, self.depth, self.filters

    @property
    def bias_shape(self) -> Ints:
        """Of a bias with a value for every position, as Keras 2 stores it."""
        return (*self.output, self.filters)
