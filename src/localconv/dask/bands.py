"""A convolution cut into bands of output rows: what every band needs of the input and the kernel, and how it goes.

A row is one step along the first spatial axis. Nothing here knows of dask.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

from ..core.arguments import Ints
from ..core.config import CHANNELS_FIRST, CHANNELS_LAST
from ..core.spec import Spec, local_spec
from ..core.windows import Range, axes_of


class Band(NamedTuple):
    """Some rows of the output, from the first to the one behind the last, and what they are computed of.

    `positions`: theirs, which are the kernel's along its first axis; `reach`: the input rows that their windows meet,
    none where all of them lie in padding; `spec`: the convolution of just these input rows, its padding in numbers.
    """

    rows: Range
    positions: Range
    reach: Range
    spec: Spec


def bands_of(spec: Spec, spatial: Ints, heights: Sequence[int], groups: int) -> list[Band]:
    """The bands of so many rows each, which are all rows of the output, for so many groups of the spec's."""
    assert spec.kernel_size is not None
    rows, *others = axes_of(spec, spatial)
    width, paddings = prod(axis.outputs for axis in others), [(axis.before, axis.after) for axis in others]
    data_format = CHANNELS_FIRST if spec.channels_first else CHANNELS_LAST
    bands = []
    for first, last in ranges(heights):
        reach, padding = rows.met((first, last))
        cut = local_spec(
            spec.rank, spec.kernel_size, spec.strides, (padding, *paddings), data_format, spec.dilation, groups
        )
        bands.append(Band((first, last), (first * width, last * width), reach, cut))
    return bands


def ranges(sizes: Sequence[int]) -> list[Range]:
    """Where each of these sizes begins and ends, one behind the other."""
    return list(pairwise(accumulate(sizes, initial=0)))


def even(total: int, most: int) -> Ints:
    """`total` in parts of `most`, the last one of what is left: what dask and Zarr call regular chunks."""
    whole, rest = divmod(total, most)
    return (most,) * whole + (rest,) * (rest > 0)
