"""What a built layer computes, as every engine takes it: a spec with the sizes that belong to it."""

from __future__ import annotations

from math import prod

from ..arguments import Ints
from ..geometry import Mismatch, Names, geometry_of, layout_of, padding_reached, windows_of
from ..spec import Spec

NAMES = Names("inputs", "kernel")


class Convolution:
    """A locally connected convolution of inputs of known sizes but for the batch.

    Parameters
    ----------
    spec : Spec
    spatial : tuple of ints
        The input's sizes.
    channels, filters : int

    Attributes
    ----------
    kernel_size : tuple of ints
        And `taps`, how many it has.
    output : tuple of ints
        Positions along every axis.
    padding : tuple of pairs of ints
        Pixels before and after every axis, those that no window reaches left out.
    kernel_shape : tuple of ints
        Of rows: (positions, taps * channels / groups, filters).
    bias_shape : tuple of ints

    Raises
    ------
    ValueError
        For sizes that do not go together.
    """

    __slots__ = (
        "bias_shape",
        "channels",
        "filters",
        "kernel_shape",
        "kernel_size",
        "output",
        "padding",
        "spatial",
        "spec",
        "taps",
    )

    def __init__(self, spec: Spec, spatial: Ints, channels: int, filters: int) -> None:
        assert spec.kernel_size is not None
        self.spec, self.spatial, self.channels, self.filters = spec, spatial, channels, filters
        self.kernel_size, self.taps = spec.kernel_size, prod(spec.kernel_size)
        self.output = windows_of(spec, spatial, spec.kernel_size)[1]
        self.kernel_shape = (prod(self.output), self.taps * channels // spec.groups, filters)
        self.bias_shape = (*self.output, filters)
        try:
            geometry_of(spec, layout_of((1,), spatial, channels, spec.channels_first), self.kernel_shape)
        except Mismatch as error:
            raise error.named(NAMES) from None
        self.padding = padding_reached(spec, spatial)
