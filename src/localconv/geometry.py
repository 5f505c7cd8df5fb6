"""One convolution as a record: sizes, strides, padding and groups, computed and checked once.

Two builders make it, because two worlds pad differently: `shared_geometry` follows TensorFlow (valid, SAME, causal),
`local_geometry` the locally connected layers of Keras 2 (SAME is the window around ``position * stride``, clipped to the
input). Below them nothing is checked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Union

Ints = tuple[int, ...]
Padding = Union[str, tuple[tuple[int, int], ...]]

CHANNELS_LAST = "channels_last"
CHANNELS_FIRST = "channels_first"
DATA_FORMATS = (CHANNELS_LAST, CHANNELS_FIRST)

# An element count that a signed 64-bit byte offset still reaches for the widest element.
_LIMIT = 2**59


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of one convolution. The spatial tuples hold (depth, height, width); 1D is 1 x 1 x L, 2D is 1 x H x W."""

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
    def depth(self) -> int:
        """Products summed for one output value: kernel taps times the channels of a group."""
        return prod(self.kernel) * self.channels // self.groups

    @property
    def products(self) -> int:
        """Multiply-adds of the whole convolution, padding counted."""
        return self.batch * self.positions * self.filters * self.depth


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a shared convolution's gradient for the input that is itself a convolution, of the output gradient, of stride 1.

    A window of stride s meets the pixels first_pixel, first_pixel + s, ... of an axis with the taps first_tap, first_tap + s, ...
    only, so each remainder of s is a phase. `geometry`: of that convolution, channels and filters exchanged; `pixels`: sizes of
    the whole input; `step`: pixels and taps from one to the next; `kernel`: taps of the whole kernel.
    """

    geometry: Geometry
    pixels: Ints
    first_pixel: Ints
    first_tap: Ints
    step: Ints
    kernel: Ints


def input_phases(geometry: Geometry) -> list[Phase]:
    """The phases of a shared convolution's gradient for the input. Pixels that no tap meets are in none of them."""
    phases = []
    axes = range(3)
    steps = geometry.strides
    for place in product(*(_first_pixels(geometry, axis) for axis in axes)):
        first, tap = zip(*place, strict=True)
        taps = tuple(len(range(tap[a], geometry.kernel[a], steps[a])) for a in axes)
        pixels = tuple(len(range(first[a], geometry.input[a], steps[a])) for a in axes)
        # The first pixel meets its first tap in the window of this output position; the taps before it, in earlier windows.
        window = tuple((first[a] + geometry.before[a] - tap[a]) // steps[a] for a in axes)
        before = tuple((taps[a] - 1) * geometry.dilation[a] - window[a] for a in axes)
        flipped = Geometry(geometry.batch, geometry.output, geometry.filters, pixels, geometry.channels, taps, (1, 1, 1),
                           geometry.dilation, before, geometry.groups, geometry.channels_first)
        phases.append(Phase(flipped, geometry.input, first, tap, steps, geometry.kernel))
    return phases


def count_input_phases(geometry: Geometry) -> int:
    """How many phases `input_phases` gives, or a few more: at the ends of a short input some have no pixel."""
    return prod(min(s, k, n) for s, k, n in zip(geometry.strides, geometry.kernel, geometry.input, strict=True))


def _first_pixels(geometry: Geometry, axis: int) -> list[tuple[int, int]]:
    """The first pixel and the first tap of every phase along an axis, in the pixels' order: one phase for each tap of the first stride."""
    step, before = geometry.strides[axis], geometry.before[axis]
    pairs = [((tap - before) % step, tap) for tap in range(min(step, geometry.kernel[axis]))]
    return sorted(pair for pair in pairs if pair[0] < geometry.input[axis])


def shared_geometry(x_shape: Ints, kernel_shape: Ints, strides: Ints, padding: Padding, channels_first: bool, dilation: Ints,
                    groups: int, name: str = "x", kernel_name: str = "kernel") -> Geometry:
    """Geometry of an ordinary convolution; arguments as in `backend.conv2d`, already tuples of ints.

    `x_shape` may have several batch axes; `name` and `kernel_name` are the arguments that give the two shapes. Raises ValueError
    where shapes, strides, padding or groups do not fit.
    """
    rank = len(strides)
    if len(x_shape) < rank + 2:
        raise ValueError(f"{name} must have at least {rank + 2} axes {_axes(rank, channels_first)}, got shape {x_shape}")
    if len(kernel_shape) != rank + 2:
        raise ValueError(f"{kernel_name} must have shape kernel_size + (channels / groups, filters), {rank + 2} axes, got {kernel_shape}")
    batch, spatial, channels = _split(x_shape, rank, channels_first)
    size, filters = kernel_shape[:rank], kernel_shape[-1]
    if min(size) < 1:
        raise ValueError(f"{kernel_name} must have a kernel_size of at least 1 along every axis, got shape {kernel_shape}")
    _check_groups(name, kernel_name, channels, filters, groups)
    if kernel_shape[-2] * groups != channels:
        raise ValueError(f"{kernel_name} must have channels / groups = {channels} / {groups} = {channels // groups} along axis -2 for "
                         f"{name} of shape {x_shape}, got shape {kernel_shape}")
    extent = _extents(size, dilation)
    if padding == "same":
        output = tuple(-(-n // s) for n, s in zip(spatial, strides, strict=True))
        before = tuple(max((o - 1) * s + e - n, 0) // 2 for o, s, e, n in zip(output, strides, extent, spatial, strict=True))
    else:
        before, output = _explicit(spatial, extent, strides, padding)
    _check_output(output, spatial, extent, padding)
    return _geometry(batch, spatial, channels, output, filters, size, strides, dilation, before, groups, channels_first)


def local_geometry(x_shape: Ints, kernel_shape: Ints, size: Ints, strides: Ints, padding: Padding, channels_first: bool,
                   dilation: Ints, groups: int, name: str = "inputs", kernel_name: str = "kernel") -> Geometry:
    """Geometry of a locally connected convolution; arguments as in `backend.local_conv2d`, already tuples of ints.

    `name` and `kernel_name` are the arguments that give the two shapes. Raises ValueError where shapes, strides, padding or groups
    do not fit.
    """
    rank = len(strides)
    if len(x_shape) != rank + 2:
        raise ValueError(f"{name} must have {rank + 2} axes {_axes(rank, channels_first)}, got shape {x_shape}")
    if len(kernel_shape) != 3:
        raise ValueError(f"{kernel_name} must have 3 axes (positions, prod(kernel_size) * channels / groups, filters), got shape "
                         f"{kernel_shape}")
    batch, spatial, channels = _split(x_shape, rank, channels_first)
    extent = _extents(size, dilation)
    if padding == "same":
        output = tuple(-(-n // s) for n, s in zip(spatial, strides, strict=True))
        before = tuple(e // 2 for e in extent)
    else:
        before, output = _explicit(spatial, extent, strides, padding)
    _check_output(output, spatial, extent, padding)
    filters = kernel_shape[2]
    _check_groups(name, kernel_name, channels, filters, groups)
    expected = (prod(output), prod(size) * channels // groups, filters)
    if kernel_shape != expected:
        raise ValueError(f"{kernel_name} must have shape (positions, prod(kernel_size) * channels / groups, filters) = {expected} for "
                         f"{name} of shape {x_shape} with output size {output}, got {kernel_shape}")
    return _geometry(batch, spatial, channels, output, filters, size, strides, dilation, before, groups, channels_first)


def _geometry(batch: int, spatial: Ints, channels: int, output: Ints, filters: int, size: Ints, strides: Ints, dilation: Ints,
              before: Ints, groups: int, channels_first: bool) -> Geometry:
    fill = 3 - len(spatial)
    ones, zeros = (1,) * fill, (0,) * fill
    geometry = Geometry(batch, ones + spatial, channels, ones + output, filters, ones + size, ones + strides, ones + dilation,
                        zeros + before, groups, channels_first)
    largest = max(batch * prod(spatial) * channels, batch * prod(output) * filters, prod(output) * prod(size) * channels * filters,
                  *(o * s + e for o, s, e in zip(output, strides, _extents(size, dilation), strict=True)), *dilation)
    if largest > _LIMIT:
        raise ValueError(f"sizes of this convolution would reach {largest}: arrays, strides and dilation_rate may reach {_LIMIT} elements")
    return geometry


def _split(shape: Ints, rank: int, channels_first: bool) -> tuple[int, Ints, int]:
    """Batch, spatial sizes and channels of an input shape."""
    lead = shape[: -rank - 1]
    if channels_first:
        return prod(lead), shape[-rank:], shape[-rank - 1]
    return prod(lead), shape[-rank - 1 : -1], shape[-1]


def _axes(rank: int, channels_first: bool) -> str:
    spatial = {1: "steps", 2: "rows, columns"}[rank]
    return f"(batch, channels, {spatial})" if channels_first else f"(batch, {spatial}, channels)"


def _extents(size: Ints, dilation: Ints) -> Ints:
    return tuple((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))


def _explicit(spatial: Ints, extent: Ints, strides: Ints, padding: Padding) -> tuple[Ints, Ints]:
    """Padding before each axis, and output sizes, where the padding does not follow from the output."""
    if padding == "valid":
        pairs: tuple[tuple[int, int], ...] = ((0, 0),) * len(spatial)
    elif padding == "causal":
        pairs = ((extent[0] - 1, 0),)
    else:
        assert not isinstance(padding, str)
        pairs = padding
    output = tuple((n + lo + hi - e) // s + 1 for n, (lo, hi), e, s in zip(spatial, pairs, extent, strides, strict=True))
    return tuple(lo for lo, _ in pairs), output


def _check_groups(name: str, kernel_name: str, channels: int, filters: int, groups: int) -> None:
    if channels < 1:
        raise ValueError(f"{name} must have at least 1 channel, got {channels}")
    if filters < 1:
        raise ValueError(f"{kernel_name} must have at least 1 filter along its last axis, got {filters}")
    if channels % groups or filters % groups:
        raise ValueError(f"groups must divide the {channels} channels of {name} and the {filters} filters of {kernel_name}, "
                         f"got groups={groups}")


def _check_output(output: Ints, spatial: Ints, extent: Ints, padding: Padding) -> None:
    if min(output) < 1:
        raise ValueError(f"the output would have size {output}: input size {spatial} is too small for a kernel that reaches over {extent} "
                         f"with padding={padding!r}")
