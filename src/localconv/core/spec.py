"""How a convolution goes, whatever the sizes of its arrays: one frozen record, made and checked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .arguments import (
    ZEROS,
    IntOrInts,
    Ints,
    Padding,
    PaddingLike,
    groups_of,
    ints,
    is_channels_first,
    padding_mode_of,
    padding_of,
)
from .families import CONV, FAMILIES, FILTER, LOCAL


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """One way to convolve, made by the functions below, which check it. Plans are kept by the object: the functions
    return the same one for the same arguments.

    `family`: a name in `families.FAMILIES`; `kernel_size`: the taps of the
    window (None: CONV's kernel has them in its shape); `output`: sizes that the output must have (None: whatever
    follows); `padding_mode`: what padding holds, zeros or pixels of the input (borders.py).
    """

    family: str
    rank: int
    kernel_size: Ints | None
    strides: Ints
    padding: Padding
    dilation: Ints
    groups: int
    channels_first: bool
    output: Ints | None
    padding_mode: str = ZEROS

    def __reduce__(self) -> tuple[Any, ...]:
        """Through the makers: a process unpickles the same object every time, which its plans are kept by."""
        if self.family != CONV:
            return _spec_of_windows, (
                self.family,
                self.rank,
                self.kernel_size,
                self.strides,
                self.padding,
                self.channels_first,
                self.dilation,
                self.groups,
                self.output,
                self.padding_mode,
            )
        made = (self.strides, self.padding, self.channels_first, self.dilation)
        if self.kernel_size is not None:
            return _column_spec, (self.rank, self.kernel_size, *made)
        return _conv_spec, (self.rank, *made, self.groups)


def local_spec(
    rank: int,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    padding: PaddingLike,
    data_format: str | None,
    dilation_rate: IntOrInts,
    groups: int,
    output_shape: Sequence[int] | None = None,
    padding_mode: str = ZEROS,
) -> Spec:
    """The spec of a locally connected convolution; arguments as in `backend.local_conv2d`.

    TypeError or ValueError names one.
    """
    if output_shape is not None:
        output_shape = ints(output_shape, rank, "output_shape", scalar=False)
    windows = (kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _checked_windows(LOCAL, rank, *windows, output_shape, padding_mode)


def filter_spec(
    rank: int,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    padding: PaddingLike,
    data_format: str | None,
    dilation_rate: IntOrInts,
    groups: int,
    padding_mode: str = ZEROS,
) -> Spec:
    """The spec of filters that come with the data; arguments as in `filters.local_filter2d`.

    TypeError or ValueError names one.
    """
    windows = (kernel_size, strides, padding, data_format, dilation_rate, groups)
    return _checked_windows(FILTER, rank, *windows, None, padding_mode)


def without_padding(spec: Spec) -> Spec:
    """The spec of the same windows over an input that has its padding already."""
    return with_padding(spec, "valid", spec.output)


def with_padding(spec: Spec, padding: Padding, output: Ints | None = None) -> Spec:
    """The spec of the same windows over an input with other padding, of zeros."""
    windows = (spec.kernel_size, spec.strides, padding, spec.channels_first, spec.dilation)
    return _spec_of_windows(spec.family, spec.rank, *windows, spec.groups, output, ZEROS)


def _checked_windows(
    family: str,
    rank: int,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    padding: PaddingLike,
    data_format: str | None,
    dilation_rate: IntOrInts,
    groups: int,
    output: Ints | None,
    padding_mode: str,
) -> Spec:
    """The spec of a family whose specs name the window."""
    if (
        not type(kernel_size) is type(strides) is type(dilation_rate) is int
    ):  # plain ints are left to the cached function
        kernel_size, strides = ints(kernel_size, rank, "kernel_size"), ints(strides, rank, "strides")
        dilation_rate = ints(dilation_rate, rank, "dilation_rate")
    return _spec_of_windows(
        family,
        rank,
        kernel_size,
        strides,
        padding_of(padding, rank, FAMILIES[family].paddings),
        is_channels_first(data_format),
        dilation_rate,
        groups_of(groups),
        output,
        # The usual one first, and nothing called for it.
        padding_mode if padding_mode is ZEROS else padding_mode_of(padding_mode),
    )


@lru_cache(maxsize=1024)
def _spec_of_windows(
    family: str,
    rank: int,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    padding: Padding,
    channels_first: bool,
    dilation: IntOrInts,
    groups: int,
    output: Ints | None,
    padding_mode: str = ZEROS,
) -> Spec:
    size, steps = ints(kernel_size, rank, "kernel_size"), ints(strides, rank, "strides")
    spacing = ints(dilation, rank, "dilation_rate")
    if padding == "inside" and max(steps) > 1:
        raise ValueError(
            f"strides must be 1 with padding='inside', which has an output for every pixel, got strides={steps}"
        )
    if padding == "inside" and padding_mode != ZEROS:
        raise ValueError(
            f"padding_mode must be {ZEROS!r} with padding='inside', which has no padding, got {padding_mode!r}"
        )
    return Spec(family, rank, size, steps, padding, spacing, groups, channels_first, output, padding_mode)


def conv_spec(
    rank: int, strides: IntOrInts, padding: PaddingLike, data_format: str | None, dilation_rate: IntOrInts, groups: int
) -> Spec:
    """The spec of a shared convolution; arguments as in `backend.conv2d`. TypeError or ValueError names one."""
    if not type(strides) is type(dilation_rate) is int:
        strides, dilation_rate = ints(strides, rank, "strides"), ints(dilation_rate, rank, "dilation_rate")
    return _conv_spec(
        rank, strides, padding_of(padding, rank), is_channels_first(data_format), dilation_rate, groups_of(groups)
    )


@lru_cache(maxsize=1024)
def _conv_spec(
    rank: int, strides: IntOrInts, padding: Padding, channels_first: bool, dilation: IntOrInts, groups: int
) -> Spec:
    steps, spacing = ints(strides, rank, "strides"), ints(dilation, rank, "dilation_rate")
    if max(steps) > 1 and max(spacing) > 1:
        raise ValueError(
            f"strides > 1 cannot be combined with dilation_rate > 1, got strides={steps}, dilation_rate={spacing}"
        )
    return Spec(CONV, rank, None, steps, padding, spacing, groups, channels_first, None)


def column_spec(
    rank: int,
    kernel_size: IntOrInts,
    strides: IntOrInts,
    padding: PaddingLike,
    data_format: str | None,
    dilation_rate: IntOrInts,
) -> Spec:
    """The spec of im2col and col2im: a shared convolution of any strides and dilation,
    whose window the caller names.
    """
    size, steps = ints(kernel_size, rank, "kernel_size"), ints(strides, rank, "strides")
    return _column_spec(
        rank,
        size,
        steps,
        padding_of(padding, rank),
        is_channels_first(data_format),
        ints(dilation_rate, rank, "dilation_rate"),
    )


@lru_cache(maxsize=1024)
def _column_spec(rank: int, size: Ints, steps: Ints, padding: Padding, channels_first: bool, dilation: Ints) -> Spec:
    return Spec(CONV, rank, size, steps, padding, dilation, 1, channels_first, None)
