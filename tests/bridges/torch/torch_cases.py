"""Geometries for the tests of `localconv.torch`, and what they must come to by torch's unfold and bmm, in float64."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from oracle import tolerance

from localconv.torch.window import arguments_of, window_of


@dataclass(frozen=True)
class Case:
    """A convolution, channels per group first."""

    spatial: tuple
    kernel_size: tuple
    batch: int = 2
    channels: int = 2
    filters: int = 3
    stride: tuple | int = 1
    padding: object = 0
    dilation: tuple | int = 1
    groups: int = 1
    bias: str = "full"

    @property
    def rank(self):
        return len(self.spatial)

    @property
    def window(self):
        return window_of(
            arguments_of(self.rank, self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        )

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def output(self):
        return self.window.output_size(self.spatial)

    @property
    def depth(self):
        return math.prod(self.kernel_size) * self.channels

    def tensors(self, dtype=torch.float32, seed=0, requires_grad=False):
        """Input, weight and bias."""
        made = torch.Generator().manual_seed(seed)
        shapes = [
            (self.batch, self.channels * self.groups, *self.spatial),
            (math.prod(self.output), self.depth, self.filters * self.groups),
            {"full": (self.filters * self.groups, *self.output), "shared": (self.filters * self.groups,)}.get(
                self.bias
            ),
        ]
        return [
            None
            if shape is None
            else torch.randn(shape, generator=made, dtype=torch.float64).to(dtype).requires_grad_(requires_grad)
            for shape in shapes
        ]

    def transposed_options(self):
        """Of the transposed convolution from this one's output to its input; None if there is none in PyTorch's words,
        which have as much padding on both sides, and no name for it.
        """
        pads = self.window.padding
        reach = self.window.transposed_size(self.output, (0,) * self.rank)
        if pads[::2] != pads[1::2] or min(reach) < 1:
            return None
        left = tuple(n - r for n, r in zip(self.spatial, reach, strict=True))
        return dict(self.options, padding=pads[::2], output_padding=left)

    def input_bias(self, dtype=torch.float32, seed=2):
        """A bias of the transposed convolution, whose output is this one's input; None if the case has none."""
        made = torch.Generator().manual_seed(seed)
        channels = self.channels * self.groups
        shape = {"full": (channels, *self.spatial), "shared": (channels,)}.get(self.bias)
        return None if shape is None else torch.randn(shape, generator=made, dtype=torch.float64).to(dtype)

    def gradient(self, dtype=torch.float32, seed=1):
        """A gradient for the output."""
        made = torch.Generator().manual_seed(seed)
        shape = (self.batch, self.filters * self.groups, *self.output)
        return torch.randn(shape, generator=made, dtype=torch.float64).to(dtype)


def reference(case, x, weight, bias):
    """Unfold and bmm, tap by tap of the definition, group by group; differentiable."""
    pads = case.window.padding
    x = torch.nn.functional.pad(x, [n for i in reversed(range(case.rank)) for n in pads[2 * i : 2 * i + 2]])
    taps = []
    for tap in itertools.product(*map(range, case.kernel_size)):
        place = [
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, s, n in zip(tap, case.window.dilation, case.window.stride, case.output, strict=True)
        ]
        taps.append(x[(slice(None), slice(None), *place)].flatten(2))
    parts = []
    for group in range(case.groups):
        channels = slice(group * case.channels, (group + 1) * case.channels)
        rows = torch.stack([tap[:, channels] for tap in taps], 1).flatten(1, 2)  # (N, taps * channels, positions)
        filters = slice(group * case.filters, (group + 1) * case.filters)
        parts.append(torch.bmm(rows.permute(2, 0, 1), weight[:, :, filters]))
    y = torch.cat(parts, 2).permute(1, 2, 0).unflatten(2, case.output)
    if bias is not None:
        y = y + (bias.reshape(-1, *[1] * case.rank) if bias.dim() == 1 else bias)
    return y


def assert_near(result, expected, bound, terms):
    """Within the rounding of a sum of so many terms, the sum of whose sizes is `bound`."""
    assert result.shape == expected.shape
    limit = tolerance(bound.detach().double().numpy(), terms, np.dtype(str(result.dtype).removeprefix("torch.")))
    difference = (result.detach().double() - expected.detach().double()).abs().numpy()
    assert (difference <= limit).all(), f"off by up to {(difference / np.maximum(limit, 1e-300)).max()} of what may be"


def sizes_of_sums(case, x, weight, bias, gradient):
    """The sums of the sizes of the terms: of the output, and of every gradient."""
    wide = [None if t is None else t.detach().double().abs().requires_grad_() for t in (x, weight, bias)]
    y = reference(case, *wide)
    return y, torch.autograd.grad(y, [t for t in wide if t is not None], gradient.double().abs())


def random_cases(count, seed=0):
    """Geometries of one to three dimensions, no two alike but by chance."""
    rng = np.random.default_rng(seed)
    cases = []
    while len(cases) < count:
        rank = int(rng.integers(1, 4))
        largest = {1: 12, 2: 12, 3: 7}[rank]
        draw = lambda low, high: tuple(int(n) for n in rng.integers(low, high, rank))  # noqa: E731, B023
        stride = draw(1, 4)
        padding = [
            0,
            1,
            draw(0, 3),
            "valid",
            "same",
            tuple((a, b) for a, b in zip(draw(0, 3), draw(0, 3), strict=True)),
        ]
        case = Case(
            spatial=draw(1, largest),
            kernel_size=draw(1, 5 if rank < 3 else 4),
            batch=int(rng.integers(1, 20)),
            channels=int(rng.integers(1, 5)),
            filters=int(rng.integers(1, 7)),
            stride=stride,
            padding=padding[int(rng.integers(len(padding)))],
            dilation=draw(1, 3),
            groups=int(rng.integers(1, 4)),
            bias=str(rng.choice(["full", "shared", "none"])),
        )
        if case.padding == "same" and max(stride) > 1:
            continue
        if min(case.output) >= 1:
            cases.append(case)
    return cases


class Lying(torch.Tensor):
    """One number, whose attributes say that it has other sizes."""

    said = ()

    @property
    def shape(self):
        return torch.Size(self.said)

    def dim(self):
        return len(self.said)

    def _itself(self, *_):
        return self

    contiguous = resolve_neg = movedim = _itself


def lying(size, dtype):
    """One number that says it has that size."""
    made = torch.ones((), dtype=dtype).as_subclass(Lying)
    made.said = tuple(size)
    return made
