"""What a primitive knows of a convolution beside its arrays' shapes: a record that is equal where the geometry is.

JAX compiles a function once for every value of its static parameters. A `Spec` goes by identity, and two of them may
say the same ('same' and the pairs that it stands for here): hence a record of its own, in which padding is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ..core.arguments import Ints, Padding
from ..core.config import CHANNELS_FIRST, CHANNELS_LAST
from ..core.families import FAMILIES, LOCAL
from ..core.spec import Spec, filter_spec, local_spec
from ..core.windows import Convolution, axes_of, layout_of

# What the last number of a row says, one bit each.
CHANNELS_FIRST_BIT, MOVED_BIT = 1, 2


class Window(NamedTuple):
    """The window of a convolution and how it goes over the input; padding: (before, after).

    `moved`: windows at the border are moved until they lie inside, and padding is 0; `family`: a locally connected
    convolution, or filters that come with the data.
    """

    size: Ints
    strides: Ints
    dilation: Ints
    padding: tuple[tuple[int, int], ...]
    groups: int
    channels_first: bool
    moved: bool = False
    family: str = LOCAL

    @property
    def kernel_by_image(self) -> bool:
        """Whether the kernel comes with the data: filters."""
        return FAMILIES[self.family].kernel_by_image

    @property
    def rank(self) -> int:
        return len(self.size)

    def spatial(self, shape: Ints) -> Ints:
        """The spatial sizes of an array of images, which may have an axis of examples in front."""
        return shape[-self.rank :] if self.channels_first else shape[-self.rank - 1 : -1]

    def channels(self, shape: Ints) -> int:
        """The channels of an array of images."""
        return shape[-self.rank - 1] if self.channels_first else shape[-1]

    def layout(self, lead: Ints, spatial: Ints, channels: int) -> Ints:
        """The shape of an array of images."""
        return layout_of(lead, spatial, channels, self.channels_first)

    def numbers(self) -> Ints:
        """All of it but the family as a row of ints, `of_numbers` the way back: the one attribute of a custom call."""
        pairs = [pixels for pair in self.padding for pixels in pair]
        sizes = (*self.size, *self.strides, *self.dilation, *pairs)
        layout = self.channels_first * CHANNELS_FIRST_BIT + self.moved * MOVED_BIT
        return (self.rank, *sizes, self.groups, layout)

    @classmethod
    def of_numbers(cls, numbers: Sequence[int], family: str) -> Window:
        """The window of such a row. ValueError if it is none."""
        rank = numbers[0] if numbers else 0
        if rank < 1 or len(numbers) != 5 * rank + 3:
            raise ValueError(f"the attribute must be the numbers of a window, got {tuple(numbers)}")
        size, strides, dilation = (tuple(numbers[1 + i * rank : 1 + (i + 1) * rank]) for i in range(3))
        *pairs, groups, layout = numbers[1 + 3 * rank :]
        padding = tuple(zip(pairs[::2], pairs[1::2], strict=True))
        first, moved = bool(layout & CHANNELS_FIRST_BIT), bool(layout & MOVED_BIT)
        return cls(size, strides, dilation, padding, groups, first, moved, family)


def window_of(spec: Spec, spatial: Ints) -> Window:
    """The window of a spec on an input of these spatial sizes; padding that no window reaches is left out."""
    assert spec.kernel_size is not None
    axes = axes_of(spec, spatial)
    padding = tuple((axis.before, axis.after) for axis in axes)
    sizes = (spec.kernel_size, spec.strides, spec.dilation, padding)
    return Window(*sizes, spec.groups, spec.channels_first, axes[0].moved, spec.family)


@lru_cache(maxsize=1024)
def spec_of(window: Window) -> Spec:
    """The spec of a window."""
    data_format = CHANNELS_FIRST if window.channels_first else CHANNELS_LAST
    padding: Padding = "inside" if window.moved else window.padding
    made = filter_spec if window.kernel_by_image else local_spec
    return made(window.rank, window.size, window.strides, padding, data_format, window.dilation, window.groups)


def convolution_of(window: Window, x_shape: Ints, filters: int) -> Convolution:
    """The convolution of an input of that shape; an axis of examples may be in front."""
    return Convolution(spec_of(window), window.spatial(x_shape), window.channels(x_shape), filters)
