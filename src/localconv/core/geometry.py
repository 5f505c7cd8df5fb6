"""One convolution as a record: a spec, and the sizes that follow from it and the arrays' shapes, computed and checked
once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from .arguments import Ints
from .families import FAMILIES
from .spec import Spec
from .windows import Axis, Convolution, axes_of, depth_of, filters_shape, layout_of

# A distance in elements that a signed 64-bit byte offset still reaches for the widest element.
_LIMIT = 2**59
# Elements of an array, and of one position's kernel: more than any machine addresses, and few enough for 63 bits to
# hold the bytes of what is derived from them (a list of runs, a kernel in full vectors).
_ARRAY_LIMIT = 2**48


class Names(NamedTuple):
    """What the caller's arguments are called that give the input's and the kernel's shape, and the output's gradient;
    and the output itself, whose shape that has.
    """

    input: str = "inputs"
    kernel: str = "kernel"
    gradient: str = "grad_output"
    result: str = "the forward result"


class Mismatch(ValueError):
    """Shapes that do not fit.

    The message calls the arguments {input} and {kernel} until `named` fills in what the caller calls them.
    """

    def named(self, names: Names) -> ValueError:
        """The error that the caller should see."""
        return ValueError(str(self).format(**names._asdict()))


class TooLarge(Mismatch):
    """Sizes that fit each other and no machine."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of one convolution.

    The spatial tuples hold (depth, height, width); 1D is 1 x 1 x L, 2D is 1 x H x W. `by_group`: a
    kernel has one filter for each group, that all its channels go through; `kernel_batch`: images that have kernels of
    their own, 1 or all; `inside`: windows at the border are moved until they lie inside.
    """

    batch: int
    input: Ints
    channels: int
    output: Ints
    filters: int
    kernel: Ints
    strides: Ints
    dilation: Ints
    before: Ints
    groups: int
    channels_first: bool
    by_group: bool = False
    kernel_batch: int = 1
    inside: bool = False

    @property
    def positions(self) -> int:
        """Output positions of one image."""
        return prod(self.output)

    @property
    def window(self) -> int:
        """Products summed for one output value: kernel taps times the channels of a group, or taps alone."""
        return prod(self.kernel) if self.by_group else depth_of(self.kernel, self.channels, self.groups)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The windows along every axis."""
        sizes = (self.input, self.output, self.kernel, self.strides, self.dilation, self.before)
        return tuple(Axis(*axis) for axis in zip(*sizes, (self.inside,) * 3, strict=True))

    @property
    def products(self) -> int:
        """Multiply-adds of the whole convolution, padding counted."""
        return self.batch * self.positions * self.filters * self.window

    def one_row(self) -> Geometry:
        """The same shared convolution with the pixels that follow each other in one row, where each result belongs to
        one pixel: its register tiles are cut anywhere.
        """
        if prod(self.kernel) > 1 or self.input != self.output or self.strides != (1, 1, 1):
            return self
        pixels = self.positions if self.channels_first else self.batch * self.positions
        row = (1, 1, pixels)
        batch = self.batch if self.channels_first else 1
        return replace(self, batch=batch, input=row, output=row, dilation=(1, 1, 1))

    def one_group(self) -> Geometry:
        """One image and one group of this geometry."""
        return replace(
            self, batch=1, channels=self.channels // self.groups, filters=self.filters // self.groups, groups=1
        )


def geometry_of(spec: Spec, x_shape: Ints, kernel_shape: Ints) -> Geometry:
    """The geometry of a spec with arrays of these shapes. Mismatch where shapes, strides, padding or groups do not fit.

    A shared convolution's input may have several batch axes.
    """
    family = FAMILIES[spec.family]
    _check_axes(spec, x_shape)
    batch, spatial, channels = _split(x_shape, spec)
    if family.kernel_by_position:
        return _local_geometry(spec, x_shape, kernel_shape, batch, spatial, channels)
    if family.kernel_by_image:
        return _filter_geometry(spec, x_shape, kernel_shape, batch, spatial, channels)
    return _conv_geometry(spec, x_shape, kernel_shape, batch, spatial, channels)


def filters_geometry(spec: Spec, x_shape: Ints) -> Geometry:
    """The geometry of images of this shape, each with filters of its own."""
    _check_axes(spec, x_shape)
    batch, spatial, _ = _split(x_shape, spec)
    axes = axes_of(spec, spatial)
    return geometry_of(spec, x_shape, filters_shape(spec, batch, [axis.outputs for axis in axes]))


def convolution_of(spec: Spec, spatial: Ints, channels: int, filters: int) -> Convolution:
    """A locally connected convolution of these sizes, or filters that come with the data: as many as channels.
    ValueError where they do not go together.
    """
    convolution = Convolution(spec, spatial, channels, filters)
    try:
        if FAMILIES[spec.family].kernel_by_image:
            filters_geometry(spec, convolution.input_shape(1))
        else:
            geometry_of(spec, convolution.input_shape(1), convolution.kernel_shape)
    except Mismatch as error:
        raise error.named(Names()) from None
    return convolution


def one_image(shape: Ints) -> str:
    """The end of a message for somebody who may have left out the batch axis."""
    return f"; a single image is a batch of shape {(1, *shape)}"


def column_geometry(spec: Spec, x_shape: Ints) -> Geometry:
    """The geometry of im2col and col2im: a shared convolution of one filter, of the window that the spec names."""
    assert spec.kernel_size is not None
    if len(x_shape) != spec.rank + 2:
        raise Mismatch(f"{{input}} must have {spec.rank + 2} axes {_axes(spec)}, got shape {x_shape}")
    channels = x_shape[1] if spec.channels_first else x_shape[-1]
    return geometry_of(spec, x_shape, (*spec.kernel_size, channels, 1))


def _conv_geometry(spec: Spec, x_shape: Ints, kernel_shape: Ints, batch: int, spatial: Ints, channels: int) -> Geometry:
    rank, groups = spec.rank, spec.groups
    if len(kernel_shape) != rank + 2:
        hint = f"; a kernel of its own for every position is for local_conv{rank}d" if len(kernel_shape) == 3 else ""
        raise Mismatch(
            f"{{kernel}} must have shape kernel_size + (channels / groups, filters), {rank + 2} axes, got "
            f"{kernel_shape}{hint}"
        )
    size, filters = kernel_shape[:rank], kernel_shape[-1]
    if min(size) < 1:
        raise Mismatch(f"{{kernel}} must have a kernel_size of at least 1 along every axis, got shape {kernel_shape}")
    _check_groups(channels, filters, groups)
    if kernel_shape[-2] * groups != channels:
        raise Mismatch(
            f"{{kernel}} must have channels / groups = {channels} / {groups} = {channels // groups} along axis -2 for "
            f"{{input}} of shape {x_shape}, got shape {kernel_shape}"
            f"{_conv_advice(spec, x_shape, kernel_shape, channels)}"
        )
    axes = axes_of(spec, spatial, size)
    _check_output(spec, axes)
    return _sized(spec, axes, batch, channels, filters)


def _conv_advice(spec: Spec, x_shape: Ints, kernel_shape: Ints, channels: int) -> str:
    """What somebody may have meant whose kernel does not fit: the other data format, or PyTorch's order of axes."""
    other, spatial, their_channels = _in_other_format(spec, x_shape)
    small = all(k <= n for k, n in zip(kernel_shape, spatial, strict=False))
    if small and kernel_shape[-2] * spec.groups == their_channels:
        return f"; it fits with data_format={other!r}"
    if kernel_shape[1] * spec.groups not in (channels, their_channels):
        return ""
    order = (*range(2, spec.rank + 2), 1, 0)
    too = "" if kernel_shape[1] * spec.groups == channels else f", and the images need data_format={other!r}"
    return f"; filters in front, as PyTorch has them, go to the end with transpose{order}{too}"


def _local_geometry(
    spec: Spec, x_shape: Ints, kernel_shape: Ints, batch: int, spatial: Ints, channels: int
) -> Geometry:
    if len(kernel_shape) != 3:
        raise Mismatch(
            f"{{kernel}} must have 3 axes (positions, prod(kernel_size) * channels / groups, filters), got shape "
            f"{kernel_shape}{_axes_advice(spec, kernel_shape, spatial, channels)}"
        )
    convolution = Convolution(spec, spatial, channels, kernel_shape[2])
    axes, output, filters = convolution.axes, convolution.output, convolution.filters
    _check_output(spec, axes)
    _check_groups(channels, filters, spec.groups)
    expected = convolution.kernel_shape
    if kernel_shape != expected:
        raise Mismatch(
            f"{{kernel}} must have shape (positions, prod(kernel_size) * channels / groups, filters) = {expected} for "
            f"{{input}} of shape {x_shape} with output size {output}, got {kernel_shape}"
            f"{_local_advice(spec, x_shape, kernel_shape)}"
        )
    if spec.output not in (None, output):
        raise Mismatch(f"output_shape must be {output} for {{input}} of shape {x_shape}, got {spec.output}")
    return _sized(spec, axes, batch, channels, filters)


def _axes_advice(spec: Spec, kernel_shape: Ints, spatial: Ints, channels: int) -> str:
    """What somebody may have meant whose local kernel has other axes: those of positions and taps one by one, or one
    kernel for all positions.
    """
    rank = spec.rank
    if len(kernel_shape) == rank + 2:
        return f"; one kernel for all positions is for conv{rank}d"
    if len(kernel_shape) != 2 * rank + 2:
        return ""
    convolution = Convolution(spec, spatial, channels, kernel_shape[-1])
    # A window's rows have the channels outside with channels_first.
    rows = layout_of((), convolution.kernel_size, channels // spec.groups, spec.channels_first)
    if kernel_shape == (*convolution.output, *rows, convolution.filters):
        return f"; reshaped to {convolution.kernel_shape} it is one"
    return "; localconv.convert makes one of other layouts"


def _local_advice(spec: Spec, x_shape: Ints, kernel_shape: Ints) -> str:
    """What somebody may have meant whose kernel does not fit: the other data format."""
    other, spatial, channels = _in_other_format(spec, x_shape)
    fits = kernel_shape == Convolution(spec, spatial, channels, kernel_shape[2]).kernel_shape
    return f"; it fits with data_format={other!r}" if fits else ""


def _filter_geometry(
    spec: Spec, x_shape: Ints, kernel_shape: Ints, batch: int, spatial: Ints, channels: int
) -> Geometry:
    axes = axes_of(spec, spatial)
    _check_inside(axes)
    _check_output(spec, axes)
    output = tuple(axis.outputs for axis in axes)
    one, each = filters_shape(spec, 1, output), filters_shape(spec, batch, output)
    if kernel_shape not in (one, each):
        batches = each if batch == 1 else f"{each} or {one}"
        raise Mismatch(
            f"{{kernel}} must have shape {_axes(spec, 'batch or 1', 'groups * prod(kernel_size)')} = {batches} for "
            f"{{input}} of shape {x_shape}, got {kernel_shape}{_filter_advice(spec, x_shape, kernel_shape, each)}"
        )
    if channels < 1:
        raise Mismatch(f"{{input}} must have at least 1 channel, got {channels}")
    if channels % spec.groups:
        raise Mismatch(f"groups must divide the {channels} channels of {{input}}, got groups={spec.groups}")
    return _sized(spec, axes, batch, channels, channels, kernel_shape[0])


def _filter_advice(spec: Spec, x_shape: Ints, kernel_shape: Ints, expected: Ints) -> str:
    """What somebody may have meant whose filters do not fit: those of one image, of the other family or data format, or
    with axes for groups and taps.
    """
    if kernel_shape == expected[1:]:
        return f"; filters of one image for all have shape {(1, *kernel_shape)}"
    output = expected[2:] if spec.channels_first else expected[1:-1]
    if len(kernel_shape) == 3 and kernel_shape[0] == prod(output):
        return f"; a kernel that is the same for all images is for local_conv{spec.rank}d"
    if not kernel_shape or kernel_shape[0] not in (1, expected[0]):
        return ""
    other, spatial, _ = _in_other_format(spec, x_shape)
    flipped, tail = replace(spec, channels_first=not spec.channels_first), kernel_shape[1:]
    if tail == filters_shape(flipped, 1, [axis.outputs for axis in axes_of(spec, spatial)])[1:]:
        return f"; it fits with data_format={other!r}"
    if tail == filters_shape(flipped, 1, output)[1:]:
        return f"; np.moveaxis{'(-1, 1)' if spec.channels_first else '(1, -1)'} brings its taps to their place"
    positions = kernel_shape[-spec.rank :] if spec.channels_first else kernel_shape[1 : spec.rank + 1]
    if positions == output and prod(tail) == prod(expected[1:]):
        return f"; reshaped to {(kernel_shape[0], *expected[1:])} it does"
    return ""


def _check_inside(axes: tuple[Axis, ...]) -> None:
    """Mismatch if windows are to lie inside an input in which they do not fit."""
    spatial, reaches = tuple(axis.n for axis in axes), tuple(axis.taps * axis.dilation for axis in axes)
    if axes[0].moved and any(n < reach for n, reach in zip(spatial, reaches, strict=True)):
        raise Mismatch(
            f"kernel_size * dilation_rate must be at most the size of {{input}} along every axis with "
            f"padding='inside': got {reaches} for size {spatial}"
        )


def _in_other_format(spec: Spec, x_shape: Ints) -> tuple[str, Ints, int]:
    """The data format that a spec has not; spatial sizes and channels of an input shape if it had."""
    _, spatial, channels = _split(x_shape, replace(spec, channels_first=not spec.channels_first))
    return "channels_last" if spec.channels_first else "channels_first", spatial, channels


def _sized(
    spec: Spec, axes: tuple[Axis, ...], batch: int, channels: int, filters: int, kernel_batch: int | None = None
) -> Geometry:
    """The geometry of windows, with three axes; kernel_batch: images of filters that come with the data. Mismatch if an
    array or an offset would be too long.
    """
    # Of one pixel, one position and one tap.
    three = (Axis(1, 1, 1, 1, 1, 0),) * (3 - len(axes)) + axes
    n, output, kernel, strides, dilation, before, _ = zip(*three, strict=True)
    g = Geometry(
        batch,
        n,
        channels,
        output,
        filters,
        kernel,
        strides,
        dilation,
        before,
        spec.groups,
        spec.channels_first,
        by_group=kernel_batch is not None,
        kernel_batch=1 if kernel_batch is None else kernel_batch,
        inside=axes[0].moved,
    )
    array = max(g.batch * prod(g.input) * g.channels, g.batch * g.positions * g.filters, g.window * g.filters)
    if array > _ARRAY_LIMIT:
        raise TooLarge(f"an array of this convolution would have {array} elements: they may have {_ARRAY_LIMIT}")
    largest = max(
        g.positions * prod(g.kernel) * g.channels * (g.kernel_batch if g.by_group else g.filters),
        *(axis.outputs * axis.stride + axis.reach for axis in axes),
        *(axis.dilation for axis in axes),
    )
    if largest > _LIMIT:
        raise TooLarge(
            f"sizes of this convolution would reach {largest}: kernels, strides and dilation_rate may reach {_LIMIT} "
            "elements"
        )
    return g


def _split(shape: Ints, spec: Spec) -> tuple[int, Ints, int]:
    """Batch, spatial sizes and channels of an input shape."""
    lead = prod(shape[: -spec.rank - 1])
    if spec.channels_first:
        return lead, shape[-spec.rank :], shape[-spec.rank - 1]
    return lead, shape[-spec.rank - 1 : -1], shape[-1]


def _check_axes(spec: Spec, x_shape: Ints) -> None:
    several, axes = FAMILIES[spec.family].batch_axes, spec.rank + 2
    if len(x_shape) != axes and (not several or len(x_shape) < axes):
        least = "at least " if several else ""
        one = one_image(x_shape) if len(x_shape) == spec.rank + 1 else ""
        raise Mismatch(f"{{input}} must have {least}{axes} axes {_axes(spec)}, got shape {x_shape}{one}")


def _axes(spec: Spec, batch: str = "batch", channels: str = "channels") -> str:
    spatial = {1: "steps", 2: "rows, columns", 3: "depths, rows, columns"}[spec.rank]
    return f"({batch}, {channels}, {spatial})" if spec.channels_first else f"({batch}, {spatial}, {channels})"


def _check_groups(channels: int, filters: int, groups: int) -> None:
    if channels < 1:
        raise Mismatch(f"{{input}} must have at least 1 channel, got {channels}")
    if filters < 1:
        raise Mismatch(f"{{kernel}} must have at least 1 filter along its last axis, got {filters}")
    if channels % groups or filters % groups:
        raise Mismatch(
            f"groups must divide the {channels} channels of {{input}} and the {filters} filters of {{kernel}}, "
            f"got groups={groups}"
        )


def _check_output(spec: Spec, axes: tuple[Axis, ...]) -> None:
    output = tuple(axis.outputs for axis in axes)
    if min(output) < 1:
        spatial, reach = tuple(axis.n for axis in axes), tuple(axis.reach for axis in axes)
        raise Mismatch(
            f"the output would have size {output}: input size {spatial} is too small for a kernel that reaches over "
            f"{reach} with padding={spec.padding!r}"
        )
