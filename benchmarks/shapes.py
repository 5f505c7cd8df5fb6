"""The shapes that are compared: float32, channels_last, valid padding.

Every entry is ``name: (batch, spatial, channels, kernel_size, strides, dilation, filters)``; locally connected shapes
leave the dilation out.
"""

from __future__ import annotations

import math
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

# What a call costs when there is next to nothing to compute; reported apart, and in no mean.
SMALLEST_CALL = {"local_conv1d b1 10x4 k3 f4": (1, (10,), 4, (3,), (1,), 4)}


# What is computed: the forward result alone, or with it both gradients, given one for the forward result.
FORWARD, STEP = "forward", "training step"


@dataclass(frozen=True)
class Case:
    """One shape of one family, 'unshared' (locally connected) or 'shared' (convolution), the work,
    and what follows from them.
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
    work: str = FORWARD

    @property
    def rank(self) -> int:
        return len(self.spatial)

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial sizes of the output."""
        axes = zip(self.spatial, self.kernel_size, self.strides, self.dilation, strict=True)
        return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes)

    @property
    def positions(self) -> int:
        return math.prod(self.out)

    @property
    def window(self) -> int:
        """Input values that one output value is summed from: D in the formulas."""
        return math.prod(self.kernel_size) * self.channels

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.spatial, self.channels)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        if self.family == "unshared":
            return (self.positions, self.window, self.filters)
        return (*self.kernel_size, self.channels, self.filters)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.out, self.filters)

    @property
    def passes(self) -> int:
        """Operations of the same size: the forward one, or that and two gradients."""
        return 3 if self.work == STEP else 1

    @property
    def flops(self) -> int:
        return self.passes * 2 * math.prod(self.output_shape) * self.window

    @property
    def nbytes(self) -> int:
        """Traffic that no algorithm avoids: in every pass each array once."""
        return (
            self.passes
            * 4
            * sum(math.prod(shape) for shape in (self.input_shape, self.kernel_shape, self.output_shape))
        )


def _local(name: str, entry: tuple) -> Case:
    *geometry, strides, filters = entry
    return Case("unshared", name, *geometry, strides, (1,) * len(strides), filters)


def smallest_call() -> Case:
    """Return the case that measures the cost of a call."""
    ((name, entry),) = SMALLEST_CALL.items()
    return _local(name, entry)


def cases(substring: str = "", work: tuple[str, ...] = (FORWARD, STEP)) -> list[Case]:
    """Return the cases of that work whose name or family contains `substring`: forward first, unshared first."""
    every = [_local(name, entry) for name, entry in LOCAL.items()]
    every += [Case("shared", name, *entry) for name, entry in SHARED.items()]
    return [replace(case, work=kind) for kind in work for case in every if substring in f"{case.family} {case.name}"]
