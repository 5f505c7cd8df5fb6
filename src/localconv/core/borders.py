"""Padding that holds pixels of the input: how many, the padded array, and the adjoint of padding, for gradients.

A convolution with such a padding_mode goes in two steps: the input is padded, and the same windows go over it without
padding (`spec.without_padding`). Its gradient for the input is that of the padded one, folded.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from .arguments import Ints
from .arrays import Array
from .geometry import Mismatch
from .spec import Spec
from .windows import axes_of

Mode = Literal["reflect", "edge", "wrap"]

# What NumPy, and with it JAX, calls a padding_mode.
_MODES: dict[str, Mode] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class Borders(NamedTuple):
    """The padding of an array of images: NumPy's name of what it holds, and the pixels before and after every axis."""

    mode: Mode
    pairs: tuple[tuple[int, int], ...]

    def padded_shape(self, shape: Ints) -> Ints:
        """The shape with its padding."""
        return tuple(before + n + after for n, (before, after) in zip(shape, self.pairs, strict=True))


def borders_of(spec: Spec, x_shape: Ints) -> Borders:
    """The padding of an input of a spec whose padding_mode is not 'zeros'. Mismatch where it has too few pixels.

    Pixels that no window reaches are left out where `padding` is a name.
    """
    spatial = x_shape[-spec.rank :] if spec.channels_first else x_shape[-spec.rank - 1 : -1]
    pairs = spec.padding
    if isinstance(pairs, str):
        pairs = tuple((axis.before, axis.after) for axis in axes_of(spec, spatial))
    largest = tuple(max(pair) for pair in pairs)
    if any(pixels and not n for pixels, n in zip(largest, spatial, strict=True)):
        raise Mismatch(
            f"{{input}} must have pixels along every axis that is padded with padding_mode={spec.padding_mode!r}, got "
            f"size {spatial}"
        )
    wanted = wanted_padding(spec.padding_mode, pairs, spatial)
    if wanted is not None:
        raise Mismatch(
            f"padding must be {wanted} the size of {{input}} along every axis with padding_mode={spec.padding_mode!r}: "
            f"got {pairs} for size {spatial}"
        )
    none = (0, 0)
    whole = (none, none, *pairs) if spec.channels_first else (none, *pairs, none)
    return Borders(_MODES[spec.padding_mode], whole)


def wanted_padding(padding_mode: str, pairs: tuple[tuple[int, int], ...], spatial: Ints) -> str | None:
    """What padding must be, "less than" or "at most" the size along every axis; None: it is.

    As in PyTorch: a border holds each pixel at most once; reflection leaves out the outermost one.
    """
    words, fewer = {"reflect": ("less than", 1), "circular": ("at most", 0)}.get(padding_mode, ("", None))
    if fewer is None or all(max(pair) <= max(n - fewer, 0) for pair, n in zip(pairs, spatial, strict=True)):
        return None
    return words


def padded(x: Array, borders: Borders) -> Array:
    """The images with their padding; they themselves if they have none."""
    return np.pad(x, borders.pairs, mode=borders.mode) if np.any(borders.pairs) else x


def folded(gradient: Array, borders: Borders) -> Array:
    """The adjoint of `padded`: every pixel with the sum of what its copies in the padding have. A view of `gradient`,
    which is overwritten.
    """
    for axis, pair in enumerate(borders.pairs):
        gradient = _folded_along(gradient, axis, pair, borders.mode)
    return gradient


def _folded_along(gradient: Array, axis: int, pair: tuple[int, int], mode: Mode) -> Array:
    rows, (before, after) = np.moveaxis(gradient, axis, 0), pair
    end = len(rows) - after
    if pair != (0, 0):
        sources = np.pad(np.arange(before, end), pair, mode=mode)
        with np.errstate(all="ignore"):
            # One by one: several may be copies of one pixel.
            for place in (*range(before), *range(end, len(rows))):
                rows[sources[place]] += rows[place]
    return np.moveaxis(rows[before:end], 0, axis)
