"""One convolution as a record: a spec, and the sizes that follow from it and the arrays' shapes, computed and checked
once.

Two worlds pad differently: shared convolution as TensorFlow does (valid, SAME, causal), locally connected layers as
Keras 2 does ('same' is the window around ``position * stride``, clipped to the input). `axis_windows` holds both
formulas; below it nobody knows of padding but as the pixels in front of an axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple, TypeVar

from .arguments import Ints
from .families import FAMILIES
from .spec import Spec

Size = TypeVar("Size", bound=int | None)

# A distance in elements that a signed 64-bit byte offset still reaches for the widest element.
_LIMIT = 2**59
# Elements of an array, and of one position's kernel: more than any machine addresses, and few enough for 63 bits to
# hold the bytes of what is derived from them (a list of runs, a kernel in full vectors).
_ARRAY_LIMIT = 2**48


class Names(NamedTuple):
    """What the caller's arguments are called that give the input's and the kernel's shape,
    and the output's gradient.
    """

    input: str = "inputs"
    kernel: str = "kernel"
    gradient: str = "grad_output"


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

    The spatial tuples hold (depth, height, width); 1D is 1 x 1 x L, 2D is 1 x H x W.
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

    @property
    def positions(self) -> int:
        """Output positions of one image."""
        return prod(self.output)

    @property
    def window(self) -> int:
        """Products summed for one output value: kernel taps times the channels of a group."""
        return prod(self.kernel) * self.channels // self.groups

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


def reach_of(size: int, dilation: int) -> int:
    """Pixels that a window of so many taps reaches over."""
    return (size - 1) * dilation + 1


def axis_windows(
    family: str, n: int, size: int, stride: int, dilation: int, padding: str | tuple[int, int]
) -> tuple[int, int]:
    """Pixels of padding in front of an axis of n pixels, and its output positions: 0 or less where no window fits."""
    reach = reach_of(size, dilation)
    if padding == "same":
        outputs = -(-n // stride)
        centered = FAMILIES[family].centered
        return (reach // 2 if centered else max((outputs - 1) * stride + reach - n, 0) // 2), outputs
    before, after = {"valid": (0, 0), "causal": (reach - 1, 0)}[padding] if isinstance(padding, str) else padding
    return before, (before + n + after - reach) // stride + 1


def windows_of(spec: Spec, spatial: Ints, size: Ints) -> tuple[Ints, Ints]:
    """`axis_windows` of every axis: padding in front, and output sizes."""
    paddings: tuple[str | tuple[int, int], ...] = (
        (spec.padding,) * spec.rank if isinstance(spec.padding, str) else spec.padding
    )
    axes = zip(spatial, size, spec.strides, spec.dilation, paddings, strict=True)
    before, output = zip(*[axis_windows(spec.family, *axis) for axis in axes], strict=True)
    return before, output


def padding_reached(spec: Spec, spatial: Ints) -> tuple[tuple[int, int], ...]:
    """Pixels of padding before and after every axis, whatever the spec calls it; what no window reaches is left out."""
    assert spec.kernel_size is not None
    before, output = windows_of(spec, spatial, spec.kernel_size)
    return tuple(
        (front, max(0, (count - 1) * stride + reach_of(size, spacing) - n - front))
        for front, count, stride, size, spacing, n in zip(
            before, output, spec.strides, spec.kernel_size, spec.dilation, spatial, strict=True
        )
    )


def layout_of(
    lead: tuple[Size, ...], spatial: tuple[Size, ...], channels: int, channels_first: bool
) -> tuple[Size | int, ...]:
    """The shape of an array of images: batch axes, spatial sizes, channels, in a data format."""
    return (*lead, channels, *spatial) if channels_first else (*lead, *spatial, channels)


def geometry_of(spec: Spec, x_shape: Ints, kernel_shape: Ints) -> Geometry:
    """The geometry of a spec with arrays of these shapes. Mismatch where shapes, strides, padding or groups do not fit.

    A shared convolution's input may have several batch axes.
    """
    family = FAMILIES[spec.family]
    if len(x_shape) != spec.rank + 2 and (not family.batch_axes or len(x_shape) < spec.rank + 2):
        least = "at least " if family.batch_axes else ""
        one = one_image(x_shape) if len(x_shape) == spec.rank + 1 else ""
        raise Mismatch(f"{{input}} must have {least}{spec.rank + 2} axes {_axes(spec)}, got shape {x_shape}{one}")
    batch, spatial, channels = _split(x_shape, spec)
    if family.kernel_by_position:
        return _local_geometry(spec, x_shape, kernel_shape, batch, spatial, channels)
    return _conv_geometry(spec, x_shape, kernel_shape, batch, spatial, channels)


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
    before, output = windows_of(spec, spatial, size)
    _check_output(spec, output, spatial, size)
    return _sized(
        Geometry(
            batch,
            spatial,
            channels,
            output,
            filters,
            size,
            spec.strides,
            spec.dilation,
            before,
            groups,
            spec.channels_first,
        )
    )


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
    assert spec.kernel_size is not None
    size, groups = spec.kernel_size, spec.groups
    if len(kernel_shape) != 3:
        raise Mismatch(
            f"{{kernel}} must have 3 axes (positions, prod(kernel_size) * channels / groups, filters), got shape "
            f"{kernel_shape}{_axes_advice(spec, kernel_shape, spatial, channels)}"
        )
    before, output = windows_of(spec, spatial, size)
    _check_output(spec, output, spatial, size)
    filters = kernel_shape[2]
    _check_groups(channels, filters, groups)
    expected = (prod(output), prod(size) * channels // groups, filters)
    if kernel_shape != expected:
        raise Mismatch(
            f"{{kernel}} must have shape (positions, prod(kernel_size) * channels / groups, filters) = {expected} for "
            f"{{input}} of shape {x_shape} with output size {output}, got {kernel_shape}"
            f"{_local_advice(spec, x_shape, kernel_shape)}"
        )
    if spec.output not in (None, output):
        raise Mismatch(f"output_shape must be {output} for {{input}} of shape {x_shape}, got {spec.output}")
    return _sized(
        Geometry(
            batch,
            spatial,
            channels,
            output,
            filters,
            size,
            spec.strides,
            spec.dilation,
            before,
            groups,
            spec.channels_first,
        )
    )


def _axes_advice(spec: Spec, kernel_shape: Ints, spatial: Ints, channels: int) -> str:
    """What somebody may have meant whose local kernel has other axes: those of positions and taps one by one, or one
    kernel for all positions.
    """
    assert spec.kernel_size is not None
    size, rank = spec.kernel_size, spec.rank
    if len(kernel_shape) == rank + 2:
        return f"; one kernel for all positions is for conv{rank}d"
    if len(kernel_shape) != 2 * rank + 2:
        return ""
    _, output = windows_of(spec, spatial, size)
    rows, filters = (*size, channels // spec.groups), kernel_shape[-1]
    if spec.channels_first:  # where a window's rows have the channels outside
        rows = (rows[-1], *size)
    if kernel_shape == (*output, *rows, filters):
        return f"; reshaped to {(prod(output), prod(rows), filters)} it is one"
    return "; localconv.convert makes one of other layouts"


def _local_advice(spec: Spec, x_shape: Ints, kernel_shape: Ints) -> str:
    """What somebody may have meant whose kernel does not fit: the other data format."""
    assert spec.kernel_size is not None
    other, spatial, channels = _in_other_format(spec, x_shape)
    _, output = windows_of(spec, spatial, spec.kernel_size)
    rows = prod(spec.kernel_size) * channels // spec.groups
    return f"; it fits with data_format={other!r}" if kernel_shape[:2] == (prod(output), rows) else ""


def _in_other_format(spec: Spec, x_shape: Ints) -> tuple[str, Ints, int]:
    """The data format that a spec has not; spatial sizes and channels of an input shape if it had."""
    _, spatial, channels = _split(x_shape, replace(spec, channels_first=not spec.channels_first))
    return "channels_last" if spec.channels_first else "channels_first", spatial, channels


def _sized(g: Geometry) -> Geometry:
    """A geometry with three axes. Mismatch if an array or an offset would be too long."""
    array = max(g.batch * prod(g.input) * g.channels, g.batch * g.positions * g.filters, g.window * g.filters)
    if array > _ARRAY_LIMIT:
        raise TooLarge(f"an array of this convolution would have {array} elements: they may have {_ARRAY_LIMIT}")
    reach = [reach_of(k, d) for k, d in zip(g.kernel, g.dilation, strict=True)]
    largest = max(
        g.positions * prod(g.kernel) * g.channels * g.filters,
        *(o * s + r for o, s, r in zip(g.output, g.strides, reach, strict=True)),
        *g.dilation,
    )
    if largest > _LIMIT:
        raise TooLarge(
            f"sizes of this convolution would reach {largest}: kernels, strides and dilation_rate may reach {_LIMIT} "
            "elements"
        )
    fill = 3 - len(g.input)
    ones, zeros = (1,) * fill, (0,) * fill
    return Geometry(
        g.batch,
        ones + g.input,
        g.channels,
        ones + g.output,
        g.filters,
        ones + g.kernel,
        ones + g.strides,
        ones + g.dilation,
        zeros + g.before,
        g.groups,
        g.channels_first,
    )


def _split(shape: Ints, spec: Spec) -> tuple[int, Ints, int]:
    """Batch, spatial sizes and channels of an input shape."""
    lead = prod(shape[: -spec.rank - 1])
    if spec.channels_first:
        return lead, shape[-spec.rank :], shape[-spec.rank - 1]
    return lead, shape[-spec.rank - 1 : -1], shape[-1]


def _axes(spec: Spec) -> str:
    spatial = {1: "steps", 2: "rows, columns", 3: "depths, rows, columns"}[spec.rank]
    return f"(batch, channels, {spatial})" if spec.channels_first else f"(batch, {spatial}, channels)"


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


def _check_output(spec: Spec, output: Ints, spatial: Ints, size: Ints) -> None:
    if min(output) < 1:
        reach = tuple(reach_of(k, d) for k, d in zip(size, spec.dilation, strict=True))
        raise Mismatch(
            f"the output would have size {output}: input size {spatial} is too small for a kernel that reaches over "
            f"{reach} "
            f"with padding={spec.padding!r}"
        )
