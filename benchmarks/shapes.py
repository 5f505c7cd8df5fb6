"""The shapes that are compared.

Three sets. The usual one is what real networks and the literature have, float32, channels_last, valid padding. The wide
one looks for shapes at which something gives way: it varies batches, filters, channels, kernels, groups, and for a
third of the shapes each the data format, the padding and the dtype. Filters have those of filters that come with the
data, padding 'same'.

An entry of a table is ``name: (batch, spatial, channels, kernel_size, strides, dilation, filters)``; locally connected
shapes leave the dilation out. Of FILTERS it is ``name: (batch, spatial, channels, kernel_size, groups)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

LOCAL = {
    "seed-1d b32 10x32 k3 f64": (32, (10,), 32, (3,), (1,), 64),
    "1d b1 1000x64 k5 f64": (1, (1000,), 64, (5,), (1,), 64),
    "1d b16 1000x64 k5 f64": (16, (1000,), 64, (5,), (1,), 64),
    "1d b128 1000x64 k5 f64": (128, (1000,), 64, (5,), (1,), 64),
    "genomics b32 20000x1 k10s10 f8": (32, (20000,), 1, (10,), (10,), 8),
    "deepface-L4 b1 63x63x16 k9 f16": (1, (63, 63), 16, (9, 9), (1, 1), 16),
    "deepface-L4 b32": (32, (63, 63), 16, (9, 9), (1, 1), 16),
    "deepface-L5 b32 55x55x16 k7s2": (32, (55, 55), 16, (7, 7), (2, 2), 16),
    "cifar b64 32x32x3 k5 f32": (64, (32, 32), 3, (5, 5), (1, 1), 32),
    "2d b8 28x28x64 k3 f64": (8, (28, 28), 64, (3, 3), (1, 1), 64),
    "3d b1 16x16x16x8 k3 f8": (1, (16, 16, 16), 8, (3, 3, 3), (1, 1, 1), 8),
    "3d b8 16x16x16x8 k3 f8": (8, (16, 16, 16), 8, (3, 3, 3), (1, 1, 1), 8),
    "3d b1 24x24x24x4 k5 f4": (1, (24, 24, 24), 4, (5, 5, 5), (1, 1, 1), 4),
}

SHARED = {
    "seed conv1d b4 10x128 k3 f32": (4, (10,), 128, (3,), (1,), (1,), 32),
    "conv1d b32 1000x64 k5 f64": (32, (1000,), 64, (5,), (1,), (1,), 64),
    "conv1d b1 16000x1 k80s4 f128": (1, (16000,), 1, (80,), (4,), (1,), 128),
    "wavenet b8 4096x64 k2 d64 f128": (8, (4096,), 64, (2,), (1,), (64,), 128),
    "conv1d b64 128x256 k3 f256": (64, (128,), 256, (3,), (1,), (1,), 256),
    "conv2d b1 56x56x64 k3 f64": (1, (56, 56), 64, (3, 3), (1, 1), (1, 1), 64),
    "conv2d b8 56x56x64 k3 f64": (8, (56, 56), 64, (3, 3), (1, 1), (1, 1), 64),
    "conv2d b8 14x14x256 k3 f256": (8, (14, 14), 256, (3, 3), (1, 1), (1, 1), 256),
    "conv2d b8 112x112x3 k7s2 f64": (8, (112, 112), 3, (7, 7), (2, 2), (1, 1), 64),
    "conv2d b8 28x28x256 k1 f128": (8, (28, 28), 256, (1, 1), (1, 1), (1, 1), 128),
    "conv3d b2 16x28x28x32 k3 f32": (2, (16, 28, 28), 32, (3, 3, 3), (1, 1, 1), (1, 1, 1), 32),
}

# Of the wide set, beside the batches of LOCAL: what is left out of an entry's name stands in it.
FEW_OR_ODD_LOCAL = {
    **{f"1d b16 1000x64 k5 f{n}": (16, (1000,), 64, (5,), (1,), n) for n in (1, 3, 10, 17, 100)},
    **{f"2d b16 32x32x16 k3 f{n}": (16, (32, 32), 16, (3, 3), (1, 1), n) for n in (1, 3, 10, 17, 100)},
    **{f"2d b16 48x48x{n} k5 f16": (16, (48, 48), n, (5, 5), (1, 1), 16) for n in (1, 3)},
    "2d b16 32x32x32 k1 f32": (16, (32, 32), 32, (1, 1), (1, 1), 32),
    "2d b4 64x64x8 k7 f8": (4, (64, 64), 8, (7, 7), (1, 1), 8),
    "2d b4 99x99x3 k11s4 f32": (4, (99, 99), 3, (11, 11), (4, 4), 32),
}
DEPTHWISE_LOCAL = {
    "depthwise 2d b1 56x56x32 k3": (1, (56, 56), 32, (3, 3), (1, 1), 32),
    "depthwise 2d b16 56x56x32 k3": (16, (56, 56), 32, (3, 3), (1, 1), 32),
    "depthwise 1d b16 1000x64 k5": (16, (1000,), 64, (5,), (1,), 64),
    "depthwise 2d b8 28x28x3 k5": (8, (28, 28), 3, (5, 5), (1, 1), 3),
}
FEW_OR_ODD_SHARED = {
    **{f"conv1d b16 1000x64 k5 f{n}": (16, (1000,), 64, (5,), (1,), (1,), n) for n in (1, 3, 10, 17, 100)},
    **{f"conv2d b4 56x56x32 k3 f{n}": (4, (56, 56), 32, (3, 3), (1, 1), (1, 1), n) for n in (1, 3, 10, 17, 100)},
    "conv2d b4 160x160x3 k3s2 f32": (4, (160, 160), 3, (3, 3), (2, 2), (1, 1), 32),
    "conv2d b4 160x160x1 k3 f16": (4, (160, 160), 1, (3, 3), (1, 1), (1, 1), 16),
    "conv2d b2 50x50x200 k1 f100": (2, (50, 50), 200, (1, 1), (1, 1), (1, 1), 100),
    "conv2d b4 64x64x32 k7 f32": (4, (64, 64), 32, (7, 7), (1, 1), (1, 1), 32),
    "conv2d b2 227x227x3 k11s4 f96": (2, (227, 227), 3, (11, 11), (4, 4), (1, 1), 96),
    "conv3d b1 32x32x32x16 k3 f16": (1, (32, 32, 32), 16, (3, 3, 3), (1, 1, 1), (1, 1, 1), 16),
    "conv2d b3 28x28x128 k3s2 f128": (3, (28, 28), 128, (3, 3), (2, 2), (1, 1), 128),
    "conv2d b5 28x28x64 k3d2 f64": (5, (28, 28), 64, (3, 3), (1, 1), (2, 2), 64),
}
DEPTHWISE_SHARED = {
    "depthwise conv2d b8 56x56x64 k3": (8, (56, 56), 64, (3, 3), (1, 1), (1, 1), 64),
    "depthwise conv2d b8 112x112x32 k3s2": (8, (112, 112), 32, (3, 3), (2, 2), (1, 1), 32),
    "depthwise conv1d b16 4000x64 k7": (16, (4000,), 64, (7,), (1,), (1,), 64),
}

# Filters that come with the data. What 'b' and a number stand for, and the data format, `_filters` varies.
FILTERS = {
    "2d b1 64x64x64 k7 g1": (1, (64, 64), 64, (7, 7), 1),
    "2d b1 64x64x64 k7 g4": (1, (64, 64), 64, (7, 7), 4),
    "2d b2 56x56x128 k7 g16": (2, (56, 56), 128, (7, 7), 16),
    "2d b1 256x256x3 k5 g1": (1, (256, 256), 3, (5, 5), 1),
    "2d b1 128x128x16 k11 g1": (1, (128, 128), 16, (11, 11), 1),
    "2d b1 32x32x256 k3 g16": (1, (32, 32), 256, (3, 3), 16),
    "2d b1 512x512x1 k15 g1": (1, (512, 512), 1, (15, 15), 1),
    "1d b4 8192x32 k9 g1": (4, (8192,), 32, (9,), 1),
    "3d b1 16x32x32x8 k3 g1": (1, (16, 32, 32), 8, (3, 3, 3), 1),
}
CORRELATIONS = {"2d b1 96x128x64 k9 g1": (1, (96, 128), 64, (9, 9), 1)}
ATTENTIONS = {"2d b1 48x48x64 k7 g4 inside": (1, (48, 48), 64, (7, 7), 4)}
TOO_MUCH_IN_EIGHT = 1 << 29  # bytes: shapes whose eight images have more are measured in their own batch alone

# What a call costs when there is next to nothing to compute; reported apart, and in no mean.
SMALLEST_CALL = {"local_conv1d b1 10x4 k3 f4": (1, (10,), 4, (3,), (1,), 4)}


# What is computed: the forward result alone, or with it both gradients, given one for the forward result. Of filters
# from the data also the correlation, and the attention that is made of both.
FORWARD, STEP, CORRELATION, ATTENTION = "forward", "training step", "correlation", "attention"
WORKS = (FORWARD, CORRELATION, ATTENTION, STEP)


@dataclass(frozen=True)
class Case:
    """One shape of one family, the work, and what follows from them.

    Families are 'unshared' (locally connected), 'shared' (convolution) and 'filter' (filters that come with the data).

    Shapes are those of channels_last; `channels_first` is how localconv is given them.
    """

    family: str
    name: str
    batch: int
    spatial: tuple[int, ...]
    channels: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    filters: int
    groups: int = 1
    padding: str = "valid"
    channels_first: bool = False
    dtype: str = "float32"
    work: str = FORWARD
    works: tuple[str, ...] = (FORWARD, STEP)  # what the shape is measured with

    @property
    def rank(self) -> int:
        return len(self.spatial)

    @property
    def itemsize(self) -> int:
        return {"float32": 4, "float64": 8}[self.dtype]

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Zeros in front of and behind every axis; with 'inside' what gives the output its size."""
        if self.padding == "valid":
            return ((0, 0),) * self.rank
        if self.padding == "inside":  # as many outputs as inputs
            reaches = [(k - 1) * d for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            return tuple((reach // 2, reach - reach // 2) for reach in reaches)
        return tuple(
            self._pads_of_same(*axis)
            for axis in zip(self.spatial, self.kernel_size, self.strides, self.dilation, strict=True)
        )

    def _pads_of_same(self, n: int, k: int, stride: int, dilation: int) -> tuple[int, int]:
        """Keras 2's, with the window's middle at position * stride, or TensorFlow's."""
        reach = (k - 1) * dilation + 1
        total = max((-(-n // stride) - 1) * stride + reach - n, 0)
        before = reach // 2 if self.family == "unshared" else total // 2
        return before, max(total - before, 0)

    @property
    def padded(self) -> tuple[int, ...]:
        """Spatial sizes of the input with its zeros."""
        return tuple(n + sum(pad) for n, pad in zip(self.spatial, self.pads, strict=True))

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial sizes of the output."""
        axes = zip(self.padded, self.kernel_size, self.strides, self.dilation, strict=True)
        return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes)

    @property
    def positions(self) -> int:
        return math.prod(self.out)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel_size)

    @property
    def window(self) -> int:
        """Input values that one output value is summed from: D in the formulas."""
        if self.family == "filter":
            return self.taps
        return self.taps * self.channels // self.groups

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.spatial, self.channels)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        if self.family == "unshared":
            return (self.positions, self.window, self.filters)
        if self.family == "filter":
            return (self.batch, *self.out, self.groups * self.taps)
        return (*self.kernel_size, self.channels // self.groups, self.filters)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.out, self.filters)

    @property
    def passes(self) -> int:
        """Operations of the same size: the forward one, or that and two gradients, or both of an attention."""
        return {STEP: 3, ATTENTION: 2}.get(self.work, 1)

    @property
    def flops(self) -> int:
        return self.passes * 2 * math.prod(self.output_shape) * self.window

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of input, kernel and output."""
        shapes = (self.input_shape, self.kernel_shape, self.output_shape)
        x, kernel, y = (self.itemsize * math.prod(shape) for shape in shapes)
        return x, kernel, y

    @property
    def resident(self) -> int:
        """Bytes of all arrays of the work: what a cache must hold to hold everything."""
        return (2 if self.work == STEP else 1) * sum(self.sizes)

    @property
    def nbytes(self) -> int:
        """Traffic that no algorithm avoids: in every pass each array once; and the lines of a kernel gradient,
        which a processor reads before they are written. Filters from
        the data count once in every pass, which is what their goals are measured by.
        """
        if self.work == ATTENTION:  # the weights need never be in memory
            return 4 * self.sizes[0]
        again = self.work == STEP and self.family != "filter"
        return self.passes * sum(self.sizes) + (self.sizes[1] if again else 0)


def _local(name: str, entry: tuple, **more: object) -> Case:
    *geometry, strides, filters = entry
    return Case("unshared", name, *geometry, strides, (1,) * len(strides), filters, **more)


def _shared(name: str, entry: tuple, **more: object) -> Case:
    return Case("shared", name, *entry, **more)


def smallest_call() -> Case:
    """Return the case that measures the cost of a call."""
    ((name, entry),) = SMALLEST_CALL.items()
    return _local(name, entry)


def _usual() -> list[Case]:
    return [_local(*item) for item in LOCAL.items()] + [_shared(*item) for item in SHARED.items()]


def _varied(number: int, case: Case) -> Case:
    """Every third shape in channels_first, the next one with padding 'same' where strides are 1;
    every third row of three in float64.
    """
    more: dict[str, object] = {}
    if number % 3 == 1:
        more["channels_first"] = True
    if number % 3 == 2 and set(case.strides) == {1}:
        more["padding"] = "same"
    if number // 3 % 3 == 1:
        more["dtype"] = "float64"
    words = [{"channels_first": "first", "padding": "same", "dtype": "float64"}[name] for name in more]
    return replace(case, name=" ".join([case.name, *words]), **more)


def _in_batches(name: str, entry: tuple) -> list[Case]:
    """A shape of LOCAL in four small batches."""
    words = [word for word in name.split() if not (word[0] == "b" and word[1:].isdigit())]
    return [_local(" ".join([words[0], f"b{batch}", *words[1:]]), (batch, *entry[1:])) for batch in (2, 3, 5, 8)]


def _wide() -> list[Case]:
    by_sizes = {(entry[1:]): (name, entry) for name, entry in LOCAL.items()}  # one batch of each
    local = [case for name, entry in by_sizes.values() for case in _in_batches(name, entry)]
    local += [_local(*item) for item in FEW_OR_ODD_LOCAL.items()]
    shared = [_shared(*item) for item in FEW_OR_ODD_SHARED.items()]
    depthwise = [_local(*item, groups=item[1][2]) for item in DEPTHWISE_LOCAL.items()]
    depthwise += [_shared(*item, groups=item[1][2]) for item in DEPTHWISE_SHARED.items()]
    every = [_varied(number, case) for family in (local, shared) for number, case in enumerate(family)] + depthwise
    return sorted(every, key=lambda case: case.family, reverse=True)


def _filter(name: str, entry: tuple, works: tuple[str, ...], padding: str = "same") -> Case:
    batch, spatial, channels, kernel_size, groups = entry
    ones = (1,) * len(spatial)
    geometry = (batch, spatial, channels, kernel_size, ones, ones, channels)
    return Case("filter", name, *geometry, groups=groups, padding=padding, works=works)


def _in_formats(case: Case) -> list[Case]:
    """The case in both data formats, and with eight images channels_last, forward only."""
    first = replace(case, name=f"{case.name} first", channels_first=True)
    name = re.sub(r"\bb\d+", "b8", case.name)
    eight = replace(case, name=name, batch=8, works=tuple(work for work in case.works if work != STEP))
    return [case, first] + ([eight] if eight.resident < TOO_MUCH_IN_EIGHT else [])


def _filters() -> list[Case]:
    every = [_filter(*item, works=(FORWARD, CORRELATION, STEP)) for item in FILTERS.items()]
    every += [_filter(*item, works=(CORRELATION,)) for item in CORRELATIONS.items()]
    attentions = [_filter(*item, works=(ATTENTION,), padding="inside") for item in ATTENTIONS.items()]
    return [each for case in every for each in _in_formats(case)] + attentions


SETS: dict[str, Callable[[], list[Case]]] = {"usual": _usual, "wide": _wide, "filters": _filters}


def cases(substring: str = "", work: tuple[str, ...] = WORKS, which: str = "usual") -> list[Case]:
    """Return the cases of that work whose name or family contains `substring`: forward first, unshared first."""
    found = [case for case in SETS[which]() if substring in f"{case.family} {case.name}"]
    return [replace(case, work=kind) for kind in work for case in found if kind in case.works]
