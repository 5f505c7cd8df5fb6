"""Kernels and biases of locally connected layers as others store them: Keras 2, snippets for PyTorch, JAX, flax,
Chainer, Lasagne, MegEngine.

What differs is the order in which the same numbers lie: a kernel has a number for every output position, tap of the
window, channel of a group and filter. `LAYOUTS` says for each library how it orders these; `convert` and `convert_bias`
go from any layout to any other.

Sources of the layouts: Keras 2.15, ``layers/locally_connected`` and ``K.local_conv``; the module ``LocallyConnected2d``
that PyTorch's users pass on (unfold, multiply, sum), and ``Conv2dLocal`` of the comments on pytorch issue 499;
``jax.lax.conv_general_dilated_local``; ``flax.linen.ConvLocal``; ``links.LocalConvolution2D`` of Chainer 7;
``LocallyConnected2DLayer`` of Lasagne 0.2; ``module.LocalConv2d`` of MegEngine 1.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .core.arguments import Ints, PaddingLike, brief, ints
from .core.arrays import Array, as_array, remedy_for
from .core.connections import Connections
from .core.spec import Spec, local_spec
from .core.windows import output_of

__all__ = ["LAYOUTS", "Layout", "convert", "convert_bias"]


class Layout(NamedTuple):
    """How a library stores the parameters of a locally connected layer.

    Words stand for the axes of what is stored, and the letters of a word for what runs along that axis, the last letter
    fastest: p positions and k taps of the window, as one axis for each spatial axis; P positions and t taps, as one
    axis for all; c channels of a group, f filters, g groups, o filters of a group, 1 an axis of length 1.

    Parameters
    ----------
    kernel : str
        The kernel's axes; those of implementation 1 where `implementation` is another.
    bias : str or None
        The axes of a bias that has a value for each position and filter; None where the library has no bias.
    bias_order : str or None
        Where elements of the bias do not mean what its shape says: the axes by which its elements lie in memory.
    implementation : {1, 2, 3}
        How Keras stores the kernel.
    flipped : bool
        Whether the taps are in reverse order along every spatial axis: true of a library whose layers are convolutions
        in the mathematical sense, and not correlations.
    """

    kernel: str
    bias: str | None
    bias_order: str | None = None
    implementation: int = 1
    flipped: bool = False

    @property
    def channels_first(self) -> bool:
        """Whether a channel's taps are neighbours, as in rows for ``data_format='channels_first'``."""
        return "ct" in self.kernel


# Keras 2 adds a bias of shape (positions, filters) to channels_first data reshaped, not transposed.
_KERAS_LAST, _KERAS_FIRST = Layout("P tc f", "p f"), Layout("P ct f", "p f", "f p")

LAYOUTS: dict[str, Layout] = {
    # What localconv's functions take, for either data format.
    "rows": _KERAS_LAST,
    "rows_channels_first": _KERAS_FIRST,
    "keras_1": _KERAS_LAST,
    "keras_1_channels_first": _KERAS_FIRST,
    "keras_2": _KERAS_LAST._replace(implementation=2),
    "keras_2_channels_first": _KERAS_FIRST._replace(implementation=2),
    "keras_3": _KERAS_LAST._replace(implementation=3),
    "keras_3_channels_first": _KERAS_FIRST._replace(implementation=3),
    # The modules of localconv.torch.
    "torch": Layout("P tc f", "f p"),
    # torch.nn.Parameter(torch.randn(1, out_channels, in_channels, *output_size, prod(kernel_size))).
    "torch_snippet": Layout("1 f c p t", "1 f p"),
    # Conv2dLocal, which users made of Lua Torch's SpatialConvolutionLocal: its weight of six axes.
    "torch_conv2d_local": Layout("p f c k", "f p"),
    # jax.lax.conv_general_dilated_local with dimension_numbers=None, and with kernels "HWIO", "WIO".
    "jax": Layout("f ct p", None),
    "jax_channels_last": Layout("p ct f", None),
    # flax.linen.ConvLocal, and whatever takes its place in nnx.
    "flax": Layout("p ct f", "p f"),
    # chainer.links.LocalConvolution2D.
    "chainer": Layout("f p c k", "f p"),
    # lasagne.layers.LocallyConnected2DLayer; the second with flip_filters=False.
    "lasagne": Layout("f c k p", "f p", flipped=True),
    "lasagne_correlation": Layout("f c k p", "f p"),
    # megengine.module.LocalConv2d.
    "megengine": Layout("g p c k o", None),
}


class _Sizes(NamedTuple):
    """How many of everything there are; None or -1: not known."""

    output: Ints | None
    window: Ints
    channels: int = -1
    filters: int = -1
    groups: int = 1

    @property
    def taps(self) -> int:
        return prod(self.window)

    def of(self, word: str) -> Ints:
        """Lengths along the axes that a word stands for, fused ones apart."""
        assert self.output is not None
        lengths = {"P": (prod(self.output),), "p": self.output, "t": (self.taps,), "k": self.window, "1": (1,)}
        lengths |= {"c": (self.channels,), "f": (self.filters,)}
        lengths |= {"g": (self.groups,), "o": (self.filters // self.groups,)}
        return tuple(n for letter in word for n in lengths[letter])


def convert(
    kernel: ArrayLike,
    source: str,
    target: str,
    kernel_size: Sequence[int],
    *,
    output_size: Sequence[int] | None = None,
    input_size: Sequence[int] | None = None,
    channels: int | None = None,
    strides: int | Sequence[int] = 1,
    padding: PaddingLike = "valid",
    groups: int | None = None,
) -> Array:
    """A kernel in another layout.

    Parameters
    ----------
    kernel : array_like
        Of any real dtype.
    source, target : str
        Names in `LAYOUTS`.
    kernel_size : sequence of ints
        Taps of the window along every axis.
    output_size : sequence of ints, optional
        Positions along every axis; needed where `target` has an axis for each of them and `source` has not, if
        `input_size` is not given.
    input_size : sequence of ints, optional
        Pixels along every axis. Needed for Keras's implementations 2 and 3, which store which pixels a position meets.
    channels : int, optional
        Needed from implementation 3, whose shape does not tell.
    strides, padding
        As in `localconv.local_conv2d`; looked at with `input_size` alone.
    groups : int, optional
        Looked at by layouts that have an axis for the groups: that of the source has this length, or any; that of the
        target this one, or by default the source's, 1 if that has none.

    Returns
    -------
    ndarray
        A new array, or a view of `kernel` where nothing is moved. Weights that implementations 2 and 3 do not store,
        because they meet padding, are 0.

    Raises
    ------
    ValueError, TypeError
        For names that are not in the table, shapes that are not of the layout, and sizes that are missing.

    Notes
    -----
    The rows of a layer with `groups` run over the channels of one group, in every layout.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.convert import convert
    >>> snippet = np.zeros((1, 16, 3, 30, 30, 9), np.float32)  # 3 x 3 taps, 3 channels, 16 filters
    >>> convert(snippet, 'torch_snippet', 'rows', (3, 3)).shape
    (900, 27, 16)
    >>> theirs = np.zeros((16, 30, 30, 3, 3, 3), np.float32)  # LocalConvolution2D(3, 16, 32, 3).W.array
    >>> convert(theirs, 'chainer', 'rows', (3, 3)).shape
    (900, 27, 16)
    """
    before, after = _layout(source, "source"), _layout(target, "target")
    array = _plain(kernel, "kernel")
    size = ints(kernel_size, None, "kernel_size", scalar=False)
    if not size:
        raise ValueError(f"kernel_size must have at least one axis, got {kernel_size!r}")
    output = None if output_size is None else ints(output_size, len(size), "output_size", scalar=False)
    window = None
    if input_size is not None:
        window = _Window(size, ints(input_size, len(size), "input_size", scalar=False), strides, padding)
        if output not in (None, window.output):
            raise ValueError(f"output_size must be {window.output} for input_size={input_size!r}, got {output}")
        output = window.output
    if before.implementation > 1:
        array = _needed(window, "source", source).rows(array, before, channels)
    wanted = -1  # as the shape says
    if groups is not None and "g" in before.kernel + after.kernel:
        (wanted,) = ints(groups, 1, "groups")
    sizes = _sizes(array, before.kernel, source, _Sizes(output, size, groups=wanted), len(size))
    if sizes.output is None and "p" in after.kernel:
        raise ValueError(f"output_size or input_size must be given for the target {target!r}")
    if sizes.output is None:
        sizes = sizes._replace(output=(array.shape[0],))
    if sizes.filters % sizes.groups:
        raise ValueError(f"groups must divide the {sizes.filters} filters of the kernel, got {groups!r}")
    result = _reordered(array, before.kernel, after.kernel, sizes, before.flipped != after.flipped)
    if after.implementation > 1:
        result = _needed(window, "target", target).stored(result, after, sizes)
    return result


def convert_bias(bias: ArrayLike, source: str, target: str, output_size: Sequence[int] | None = None) -> Array:
    """A bias in another layout.

    Parameters
    ----------
    bias : array_like
        One for each position and filter, in the layout's shape; or one for each filter, (filters,), which all layouts
        have alike.
    source, target : str
        Names in `LAYOUTS`.
    output_size : sequence of ints, optional
        Positions along every axis, to be checked.

    Returns
    -------
    ndarray
        A new array, or a view of `bias` where nothing is moved.

    Raises
    ------
    ValueError, TypeError
        For names that are not in the table or have no bias there, and for shapes that are not of the layout.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.convert import convert_bias
    >>> convert_bias(np.zeros((30, 20, 16)), 'keras_1', 'torch').shape
    (16, 30, 20)
    """
    before, after = _layout(source, "source"), _layout(target, "target")
    array = _plain(bias, "bias")
    for layout, name, role in ((before, source, "source"), (after, target, "target")):
        if layout.bias is None:
            raise ValueError(f"{role} must have a bias, which {name!r} has not")
    assert before.bias is not None
    assert after.bias is not None
    if array.ndim == 1:
        return array
    rank = array.ndim - len(before.bias.split()) + 1
    if rank < 1:
        raise ValueError(f"bias must have the axes {before.bias!r} of {source!r}, or one axis, got shape {array.shape}")
    wanted = None if output_size is None else ints(output_size, rank, "output_size", scalar=False)
    sizes = _sizes(array, before.bias, source, _Sizes(wanted, (1,) * rank), rank, "bias")
    stored = before.bias_order or before.bias
    ordered = array.reshape([n for word in stored.split() for n in sizes.of(word)])
    result = _reordered(ordered, stored, after.bias_order or after.bias, sizes)
    return result.reshape([n for word in after.bias.split() for n in sizes.of(word)])


# --------------------------------------------------------------------------------------------------------------- parts


class _Window:
    """What Keras's implementations 2 and 3 depend on."""

    def __init__(self, size: Ints, spatial: Ints, strides: int | Sequence[int], padding: PaddingLike) -> None:
        self.size, self.spatial, self.strides, self.padding = size, spatial, strides, padding
        self.output = output_of(self._spec(False), spatial)
        if min(self.output) < 1:
            raise ValueError(f"input_size must be large enough for kernel_size={size}, got {spatial}")

    def _spec(self, channels_first: bool) -> Spec:
        # `padding_of` knows the paddings of one axis and of more.
        data_format = "channels_first" if channels_first else "channels_last"
        return local_spec(len(self.size), self.size, self.strides, self.padding, data_format, 1, 1)

    def rows(self, stored: Array, layout: Layout, channels: int | None) -> Array:
        """The rows of a kernel that implementation 2 or 3 stored."""
        rank, spec = len(self.size), self._spec(layout.channels_first)
        if layout.implementation == 2:
            if stored.ndim != 2 * rank + 2:
                raise ValueError(f"kernel must have {2 * rank + 2} axes, as implementation 2 has, got {stored.shape}")
            first = layout.channels_first
            channels, filters = stored.shape[0 if first else rank], stored.shape[rank + 1 if first else -1]
        elif channels is None:
            raise ValueError("channels must be given for a kernel of implementation 3, got None")
        else:
            (channels,) = ints(channels, 1, "channels")
            filters = stored.size // max(1, Connections(spec, self.spatial, channels, 1).stored_shape(3)[0])
        connections = Connections(spec, self.spatial, channels, filters)
        expected = connections.stored_shape(layout.implementation)
        if stored.shape != expected or filters < 1:
            raise ValueError(
                f"kernel must have shape {expected}, as implementation {layout.implementation} stores it, got "
                f"{stored.shape}"
            )
        return connections.rows(stored, layout.implementation)

    def stored(self, rows: Array, layout: Layout, sizes: _Sizes) -> Array:
        """Rows as implementation 2 or 3 stores them."""
        spec = self._spec(layout.channels_first)
        return Connections(spec, self.spatial, sizes.channels, sizes.filters).stored(rows, layout.implementation)


def _layout(name: str, role: str) -> Layout:
    if not isinstance(name, str):
        raise TypeError(f"{role} must be a string, got {brief(name)}")
    if name not in LAYOUTS:
        raise ValueError(f"{role} must be one of {', '.join(LAYOUTS)}, got {name!r}")
    return LAYOUTS[name]


def _plain(value: ArrayLike, name: str) -> Array:
    array = as_array(value, name, "numbers")
    if array.dtype.hasobject:
        raise TypeError(
            f"{name} must be a plain array of numbers, got {type(value).__name__} of {array.dtype}"
            f"{remedy_for(array, name)}"
        )
    return array


def _needed(window: _Window | None, role: str, name: str) -> _Window:
    if window is None:
        raise ValueError(f"input_size must be given for the {role} {name!r}")
    return window


def _sizes(array: Array, axes: str, name: str, known: _Sizes, rank: int, what: str = "kernel") -> _Sizes:
    """What the shape of an array with these axes says. ValueError if it is not of that layout."""
    sizes = _read(array.shape, axes, known, rank)
    if sizes is not None:
        return sizes
    expected = f" with output_size={known.output}" if known.output else ""
    expected += f" and groups={known.groups}" if known.groups > 0 else ""
    # A bias would fit nearly all.
    others = [
        other
        for other, layout in LAYOUTS.items()
        if what == "kernel" and layout.implementation == 1 and _read(array.shape, layout.kernel, known, rank)
    ]
    raise ValueError(
        f"{what} must have the axes {axes!r} of {name!r}, with {known.taps} taps{expected}, got shape {array.shape}"
        + (f", which fits {', '.join(map(repr, others))}" if others else "")
    )


def _read(shape: Ints, axes: str, known: _Sizes, rank: int) -> _Sizes | None:
    """What a shape says if it has these axes; None if it has not."""
    words = axes.split()
    per_word = [rank if word in "pk" else 1 for word in words]
    if len(shape) != sum(per_word):
        return None
    start, sizes = 0, known
    for word, count in zip(words, per_word, strict=True):
        lengths = shape[start : start + count]
        start += count
        sizes = _with(sizes, word, lengths)
    if "g" not in words:
        sizes = sizes._replace(groups=max(1, sizes.groups))
    elif sizes.groups == 0:
        return None
    whole = sizes if sizes.output else sizes._replace(output=(shape[words.index("P")],))
    return sizes if [n for word in words for n in _fused(whole, word)] == list(shape) else None


def _with(sizes: _Sizes, word: str, lengths: Ints) -> _Sizes:
    """The sizes with what the lengths along a word's axes add."""
    if word == "p" and sizes.output is None:
        return sizes._replace(output=lengths)
    if word == "g" and sizes.groups < 0:
        return sizes._replace(groups=lengths[0])
    if word in "fo":
        return sizes._replace(filters=lengths[0] * (sizes.groups if word == "o" else 1))
    if "c" in word:
        return sizes._replace(channels=lengths[0] // (sizes.taps if "t" in word else 1))
    return sizes


def _fused(sizes: _Sizes, word: str) -> Ints:
    """Lengths along the axes of a word as they are stored."""
    return sizes.of(word) if word in "pk" else (prod(sizes.of(word)),)


# What lies alike in memory, as one axis or as several.
_ALIKE = str.maketrans({" ": "", "1": "", "p": "P", "k": "t", "f": "go"})


def _reordered(array: Array, before: str, after: str, sizes: _Sizes, flip: bool = False) -> Array:
    """An array of the axes `before` as a contiguous one of the axes `after`; flip: with the taps in reverse order."""
    letters, wanted = before.translate(_ALIKE), after.translate(_ALIKE)
    apart = array.reshape(sizes.of(letters))
    if flip:  # of all axes at once, which is the reverse of all taps in one
        apart = np.flip(apart, letters.index("t"))
    moved = apart.transpose([letters.index(letter) for letter in wanted])
    return np.ascontiguousarray(moved).reshape([n for word in after.split() for n in _fused(sizes, word)])
