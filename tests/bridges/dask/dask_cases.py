"""Geometries and chunks that the dask bridge's tests go over."""

import dataclasses
import math
import random

import dask.array as da
import operations
from hypothesis import strategies as st
from oracle import Gradient

FUNCTIONS = ("local_conv1d", "local_conv2d", "local_conv3d")


def cut(rng, total, unit=1):
    """Sizes of random chunks, multiples of `unit`, that are `total` together."""
    sizes, left = [], total // unit
    while left:
        size = rng.randint(1, left)
        sizes.append(size * unit)
        left -= size
    return tuple(sizes) or (0,)


@dataclasses.dataclass(frozen=True)
class Chunked:
    """A case, and its arrays in chunks."""

    case: object
    x: da.Array
    kernel: da.Array
    gradient: da.Array

    def arrays(self):
        """Of NumPy: (input, kernel, bias or None, the output's gradient)."""
        return (*self.case.arrays(), Gradient(self.case, "input").arrays()[1])


def in_chunks(rng, case):
    """The arrays of a case in random chunks, the kernel in some that it may have."""
    (x, kernel, _), gradient = case.arrays(), Gradient(case, "input").arrays()[1]
    whole_groups = case.filters // case.groups if case.groups > 1 else 1
    kernel_chunks = (
        cut(rng, kernel.shape[0], math.prod(case.out[1:])),
        kernel.shape[1:2],
        cut(rng, kernel.shape[2], whole_groups),
    )
    return Chunked(
        case,
        da.from_array(x, chunks=tuple(cut(rng, n) for n in x.shape)),
        da.from_array(kernel, chunks=kernel_chunks),
        da.from_array(gradient, chunks=tuple(cut(rng, n) for n in gradient.shape)),
    )


@st.composite
def chunked(draw, **changes):
    """Cases of every rank, padding, format and number of groups in chunks of all kinds; `changes`: of every case."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    case = dataclasses.replace(operations.draw_case(rng, rng.choice(FUNCTIONS)), exact=False, **changes)
    return in_chunks(rng, case)
