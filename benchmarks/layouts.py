"""Where the taps of a window lie, and how arrays are laid out for a formulation and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from shapes import Case


def padded(case: Case, x: np.ndarray) -> np.ndarray:
    """The input with its zeros; itself where there are none."""
    return np.pad(x, ((0, 0), *case.pads, (0, 0))) if case.padded != case.spatial else x


def inner(case: Case) -> tuple[slice, ...]:
    """Where the input lies in the padded one."""
    return (slice(None), *(slice(before, before + n) for (before, _), n in zip(case.pads, case.spatial, strict=True)))


def tap_slices(case: Case, tap: tuple[int, ...]) -> list[slice]:
    """Return the spatial slices of the input values that meet one tap, one for every output position."""
    axes = zip(tap, case.dilation, case.strides, case.out, strict=True)
    return [slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, s, n in axes]


def _channels_first_patches(case: Case, kernel: np.ndarray) -> np.ndarray:
    """Reorder the rows of an unshared kernel from (tap, channel) to (channel, tap)."""
    taps = kernel.reshape(case.positions, -1, case.channels, case.filters)
    return np.ascontiguousarray(taps.transpose(0, 2, 1, 3)).reshape(kernel.shape)


def _channels_last_patches(case: Case, kernel: np.ndarray) -> np.ndarray:
    """Reorder the rows of an unshared kernel from (channel, tap) to (tap, channel)."""
    channels = kernel.reshape(case.positions, case.channels, -1, case.filters)
    return np.ascontiguousarray(channels.transpose(0, 2, 1, 3)).reshape(case.kernel_shape)


class Layout(NamedTuple):
    """How an array of ours is laid out for a formulation, before the clock starts, and how one like it comes back."""

    lay: Callable[[Case, np.ndarray], np.ndarray]
    back: Callable[[Case, np.ndarray], np.ndarray]


def _first(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 1)


def _last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 1, -1)


def _filters_first(case: Case, kernel: np.ndarray) -> np.ndarray:
    """(*kernel_size, C, O) to (O, C, *kernel_size), a view."""
    return kernel.transpose(-1, -2, *range(case.rank))


def _filters_last(case: Case, kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(*range(2, case.rank + 2), 1, 0)


def _one_row(case: Case, array: np.ndarray) -> np.ndarray:
    """A line of pixels, behind two other axes, as a picture of one row:
    torch has a channels_last layout for those only.
    """
    return array[:, :, None] if case.rank == 1 else array


def _no_row(case: Case, array: np.ndarray) -> np.ndarray:
    return array[:, :, 0] if case.rank == 1 else array


def positions_flat(case: Case, array: np.ndarray) -> np.ndarray:
    return array.reshape(case.batch, case.positions, case.filters)


def _last_in_memory(case: Case, kernel: np.ndarray) -> np.ndarray:
    """(O, C, *kernel_size) whose memory has C innermost."""
    kernel = _one_row(case, _filters_first(case, kernel))
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(kernel, 1, -1)), -1, 1)


PLAIN = Layout(lambda case, a: a, lambda case, a: a)
FLAT_PIXELS = Layout(positions_flat, lambda case, a: a)
POSITIONS_FIRST = Layout(
    lambda case, a: np.ascontiguousarray(positions_flat(case, a).transpose(1, 0, 2)),
    lambda case, a: a.transpose(1, 0, 2),
)
IMAGES_LAST = Layout(
    lambda case, a: np.ascontiguousarray(positions_flat(case, a).transpose(1, 2, 0)),
    lambda case, a: a.transpose(2, 0, 1),
)
CHANNELS_FIRST = Layout(lambda case, a: np.ascontiguousarray(_first(a)), lambda case, a: _last(a))
FIRST_PATCHES = Layout(_channels_first_patches, _channels_last_patches)
OIHW = Layout(lambda case, a: np.ascontiguousarray(_filters_first(case, a)), _filters_last)
ROW_PIXELS = Layout(lambda case, a: _one_row(case, _first(a)), lambda case, a: _last(_no_row(case, a)))
ROW_KERNEL = Layout(_last_in_memory, lambda case, a: _filters_last(case, _no_row(case, a)))


@dataclass(frozen=True)
class Formulation:
    """A forward computation: the layouts of input, kernel and output, and the function of a case,
    an input and a kernel.
    """

    x: Layout
    w: Layout
    y: Layout
    function: Callable[[Case, Any, Any], Any]
