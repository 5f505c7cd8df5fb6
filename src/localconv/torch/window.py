"""How a locally connected convolution of tensors goes, in PyTorch's words: kernel_size, stride, padding, dilation,
groups.

Tensors are (N, C, ...) for their users. A locally connected convolution is channels_last behind that face: who has
memory in that order pays for no copy, and the output's memory is in it. Filters that come with the data are computed in
the order that memory has, so a window has a `Spec` for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from ..core.arguments import Ints, ints, padding_of
from ..core.families import FAMILIES, FILTER, LOCAL
from ..core.spec import Spec, filter_spec, local_spec
from ..core.windows import Convolution, effective_size, output_of

IntOrInts = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]

# No size of a tensor is larger.
LARGEST_SIZE = 2**63 - 1

# What the operators take for a window: kernel_size, stride, padding (before and after each axis; of filters that come
# with the data none where windows are moved inside), dilation, groups.
Arguments = tuple[Ints, Ints, Ints, Ints, int]


class Window:
    """One way to convolve, made by `window_of`: equal arguments give the same object.

    `specs`: with channels_last and with channels_first; `spec`: the first of them.
    """

    __slots__ = (
        "arguments",
        "dilation",
        "family",
        "groups",
        "kernel_size",
        "padding",
        "rank",
        "spec",
        "specs",
        "stride",
        "taps",
    )

    def __init__(self, arguments: Arguments, family: str) -> None:
        self.arguments, self.family = arguments, family
        self.kernel_size, self.stride, self.padding, self.dilation, self.groups = arguments
        self.rank, self.taps = len(self.kernel_size), prod(self.kernel_size)
        _check_lengths(self)
        make = filter_spec if family == FILTER else local_spec
        self.specs: tuple[Spec, ...] = tuple(
            make(
                self.rank, self.kernel_size, self.stride, self.padding_argument, data_format, self.dilation, self.groups
            )
            for data_format in ("channels_last", "channels_first")
        )
        self.spec = self.specs[0]

    def __reduce__(self) -> Any:
        """Copies and pickles are the one object that there is: plans go by it."""
        return window_of, (self.arguments, self.family)

    @property
    def inside(self) -> bool:
        """Whether windows are moved inside the input."""
        return not self.padding

    @property
    def padding_argument(self) -> Any:
        """The padding as functions take it."""
        return "inside" if self.inside else tuple(zip(self.padding[::2], self.padding[1::2], strict=True))

    @property
    def ends(self) -> list[int]:
        """The padding as torch.nn.functional.pad takes it: before and after each axis, the last axis first."""
        return [n for axis in reversed(range(self.rank)) for n in self.padding[2 * axis : 2 * axis + 2]]

    def output_size(self, spatial: Sequence[Any]) -> tuple[Any, ...]:
        """Positions along every axis, of sizes that may be symbolic."""
        return output_of(self.spec, spatial)

    def convolution(self, size: Sequence[Any], out_channels: Any, channels_first: bool = False) -> Convolution:
        """The convolution of an input (N, C, ...), whose sizes may be symbolic."""
        return Convolution(self.specs[channels_first], tuple(size[2:]), size[1], out_channels)

    def filters_size(self, size: Sequence[Any]) -> tuple[Any, ...]:
        """That of filters for every image of an input (N, C, ...), whose sizes may be symbolic."""
        return (size[0], self.groups * self.taps, *self.output_size(size[2:]))

    def transposed_size(self, spatial: Sequence[Any], output_padding: Ints) -> tuple[Any, ...]:
        """Pixels along every axis of what the transposed convolution makes of so many positions."""
        return tuple(
            (n - 1) * stride + effective_size(taps, dilation) - before - after + more
            for n, taps, stride, dilation, before, after, more in zip(
                spatial,
                self.kernel_size,
                self.stride,
                self.dilation,
                self.padding[::2],
                self.padding[1::2],
                output_padding,
                strict=True,
            )
        )

    def with_groups(self, groups: int) -> Window:
        """The window with another number of groups."""
        return window_of((*self.arguments[:4], groups), self.family)


def _check_lengths(window: Window) -> None:
    """ValueError, in the operators' words, unless all arguments have one number of axes."""
    rank = window.rank
    if rank not in (1, 2, 3):
        raise ValueError(f"kernel_size must be 1, 2 or 3 ints, got {window.kernel_size}")
    ints(window.stride, rank, "stride")
    ints(window.dilation, rank, "dilation")
    if window.inside and "inside" in FAMILIES[window.family].paddings:
        if max(window.stride) > 1:
            raise ValueError(
                f"stride must be 1 with padding='inside', which has an output for every pixel, got {window.stride}"
            )
    elif len(window.padding) != 2 * rank:
        raise ValueError(
            f"padding must be {2 * rank} ints, before and after each axis of kernel_size={window.kernel_size}, got "
            f"{window.padding}"
        )


@lru_cache(maxsize=1024)
def window_of(arguments: Arguments, family: str = LOCAL) -> Window:
    """The window of the operators' arguments."""
    return Window(arguments, family)


def window_from(
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    family: str = LOCAL,
) -> Window:
    """The window of the lists that the dispatcher passes."""
    return window_of((tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), groups), family)


def arguments_of(
    rank: int,
    kernel_size: IntOrInts,
    stride: IntOrInts,
    padding: Padding,
    dilation: IntOrInts,
    groups: int,
    family: str = LOCAL,
) -> Arguments:
    """The operators' arguments. TypeError or ValueError names one that cannot be.

    Padding 'same' is PyTorch's: the output is as large as the input, and where the padding is odd the pixel more is at
    the end. Beside PyTorch's forms it may be a pair (before, after) for every axis.
    """
    size, steps = ints(kernel_size, rank, "kernel_size"), ints(stride, rank, "stride")
    spacing, (parts,) = ints(dilation, rank, "dilation"), ints(groups, 1, "groups")
    if isinstance(padding, str):
        names = ("valid", "same", *FAMILIES[family].paddings)
        if padding not in names:
            known = ", ".join(map(repr, names))
            raise ValueError(f"padding must be {known}, an int or {rank} ints, got {padding!r}")
        if padding == "inside":
            return size, steps, (), spacing, parts
        if padding == "same" and max(steps) > 1:
            raise ValueError(f"padding='same' is not supported for strided convolutions, got stride={stride!r}")
        totals = [d * (k - 1) if padding == "same" else 0 for k, d in zip(size, spacing, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    elif isinstance(padding, Sequence) and padding and all(isinstance(part, Sequence) for part in padding):
        pairs = [(before, after) for before, after in padding_of(padding, rank)]  # type: ignore
    else:
        pairs = [(n, n) for n in ints(padding, rank, "padding", minimum=0)]  # type: ignore[arg-type]
    return size, steps, tuple(n for pair in pairs for n in pair), spacing, parts
