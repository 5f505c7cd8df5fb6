"""Kernels of a few filters spread over many positions, as trees of JAX's arrays, and convolutions with them.

Where all positions sum all filters, a shared convolution makes the results of each, which are weighted and added. Where
positions have indices, windows and kernels of some positions at a time are gathered. Both are made of JAX's own
operations, so every transformation goes through them.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ..core import bank as core
from ..core.arguments import Ints
from ..core.windows import axes_of
from .arguments import array_of
from .window import Window, spec_of

# Elements of windows and kernels that are gathered at a time.
GATHERED = 2**20


@jax.tree_util.register_pytree_with_keys_class
class KernelBank:
    """A kernel whose filters at every position are a weighted sum of a few: `localconv.KernelBank` for JAX.

    Position p's kernel is ``sum_m weights[p, m] * filters[indices[p, m]]``. `local_conv1d`, `local_conv2d` and
    `local_conv3d` take a bank in place of a kernel. It is a pytree of its arrays: an argument and a result of functions
    under jit, grad and vmap.

    Parameters
    ----------
    filters : array, bfloat16, float16, float32 or float64
        Shape (K, rows, F): K kernels of one position, each as a position of a local convolution's kernel has it.
    weights : array of one of these dtypes, optional
        Shape (positions, M). Without `indices` M is K: a low-rank kernel. Default: ones, with an index for every
        position.
    indices : array_like of ints, optional
        Shape (positions, M), or (positions,) where M is 1: which filters a position sums, from 0 to K - 1. Of those
        that are traced nobody knows the values: what is out of range is the nearest that is in it.

    Attributes
    ----------
    filters, weights, indices : jax.Array, or None
    shape, dtype : tuple of int, dtype
        Those of the kernel which the bank stands for: (positions, rows, F), and what JAX promotes filters and weights
        to.

    Raises
    ------
    TypeError, ValueError
        For parts of other dtypes or shapes, and indices that no filter has; the message names the argument.

    See Also
    --------
    localconv.KernelBank : the same for NumPy, which the functions take too; ``KernelBank(**bank.parts())`` is it here.

    Notes
    -----
    Without `indices` a convolution to ``K * F`` filters makes the results of each, K times the memory of the output.
    Padding is zeros there, which a filter of inf or NaN makes NaN of. With `indices`, windows and kernels of some
    positions are gathered at a time, and again for derivatives.

    ``jax.grad`` takes the derivative for a bank without `indices`; for one with them, which are integers, write the
    function as one of filters and weights.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, localconv.jax
    >>> bank = localconv.jax.KernelBank(jnp.ones((2, 9, 1)), weights=jnp.ones((36, 2)))
    >>> x = jnp.ones((1, 8, 8, 1))
    >>> def total(bank):
    ...     return localconv.jax.local_conv2d(x, bank, 3, data_format='channels_last').sum()
    >>> jax.jit(jax.grad(total))(bank)
    KernelBank(shape=(36, 9, 1), filters=2)
    """

    __slots__ = ("filters", "indices", "weights")
    filters: Any
    weights: Any
    indices: Any

    def __init__(self, filters: Any, weights: Any = None, indices: Any = None) -> None:
        self.filters = array_of(filters, "filters")
        core.check_filters(self.filters)
        self.weights = None if weights is None else array_of(weights, "weights")
        self.indices = None if indices is None else _indices_of(indices, len(self.filters))
        core.check_weights(self.weights, None if indices is None else self.indices.shape, len(self.filters))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the kernel that this stands for."""
        by_position = self.weights if self.indices is None else self.indices
        return by_position.shape[0], self.filters.shape[1], self.filters.shape[2]

    @property
    def ndim(self) -> int:
        """That kernel's number of axes."""
        return 3

    @property
    def dtype(self) -> Any:
        """That kernel's dtype."""
        return jnp.result_type(*[part for part in (self.filters, self.weights) if part is not None])

    def expand(self) -> jax.Array:
        """Return the kernel that this stands for, (positions, rows, F)."""
        return _built(self.filters.astype(self.dtype), self.weights, self.indices)

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], None]:
        """For JAX: the arrays with their names, and nothing besides."""
        names = ("filters", "weights", "indices")
        return tuple((jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names), None

    @classmethod
    def tree_unflatten(cls, _: None, parts: Any) -> Self:
        """For JAX: a bank of these parts, which may be anything."""
        bank = object.__new__(cls)
        bank.filters, bank.weights, bank.indices = parts
        return bank

    def __repr__(self) -> str:
        if not all(hasattr(part, "shape") for part in jax.tree_util.tree_leaves(self)):
            return f"KernelBank(filters={self.filters!r}, weights={self.weights!r}, indices={self.indices!r})"
        return f"KernelBank(shape={self.shape}, filters={len(self.filters)})"


# What users write.
KernelBank.__module__ = "localconv.jax"


def bank_of(value: Any) -> KernelBank | None:
    """A bank, that of NumPy's included, as one of JAX's arrays; None for what is none."""
    if isinstance(value, core.KernelBank):
        return KernelBank(**value.parts())
    return value if isinstance(value, KernelBank) else None


def _indices_of(indices: Any, count: int) -> jax.Array:
    if isinstance(indices, jax.core.Tracer):
        return core.index_rows(indices).astype(np.int32)
    return jnp.asarray(core.checked_indices(indices, count))


def by_bank(x: jax.Array, bank: KernelBank, window: Window) -> jax.Array:
    """The convolution with a bank, in the dtype of x."""
    filters = bank.filters.astype(x.dtype)
    weights = None if bank.weights is None else bank.weights.astype(x.dtype)
    if bank.indices is None:
        return _folded(x, filters, weights, window)
    return _gathered(x, filters, weights, bank.indices, window)


def _folded(x: jax.Array, filters: jax.Array, weights: jax.Array, window: Window) -> jax.Array:
    """By a shared convolution to all filters, group by group."""
    (count, _, columns), groups = filters.shape, window.groups
    inner = window.channels(x.shape) // groups
    split = (count, *_rows(window, inner), groups, columns // groups)
    taps, first = tuple(range(1, window.rank + 1)), window.channels_first
    order = (*[axis + first for axis in taps], 1 if first else window.rank + 1, window.rank + 2, 0, window.rank + 3)
    kernel = filters.reshape(split).transpose(order).reshape(*window.size, inner, count * columns)
    letters = "HWD"[: window.rank]
    images = f"NC{letters}" if first else f"N{letters}C"
    maps = jax.lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=(images, f"{letters}IO", images),
        feature_group_count=groups,
    )
    output, by_filter = window.spatial(maps.shape), (groups, count, columns // groups)
    if first:
        sums = jnp.einsum("ngkfp,pk->ngfp", maps.reshape(x.shape[0], *by_filter, prod(output)), weights)
    else:
        sums = jnp.einsum("npgkf,pk->npgf", maps.reshape(x.shape[0], prod(output), *by_filter), weights)
    return sums.reshape(window.layout((x.shape[0],), output, columns))


def _gathered(
    x: jax.Array, filters: jax.Array, weights: jax.Array | None, indices: jax.Array, window: Window
) -> jax.Array:
    """By kernels and windows of some positions at a time."""
    channels, spatial, (positions, _) = window.channels(x.shape), window.spatial(x.shape), indices.shape
    images = x.shape[0] if isinstance(x.shape[0], int) else 1
    each = filters.shape[1] * (filters.shape[2] + images * window.groups)
    block = max(1, min(positions, GATHERED // each))
    blocks = -(-positions // block)
    last = jnp.moveaxis(x, 1, -1) if window.channels_first else x
    pixels = last.reshape(x.shape[0], prod(spatial), channels)
    # Positions behind the last are the last once more, and left out of the result.
    numbers = jnp.minimum(jnp.arange(blocks * block), positions - 1).reshape(blocks, block)

    def some(here: jax.Array) -> jax.Array:
        kernel = _built(filters, None if weights is None else weights[here], indices[here])
        return _at_positions(pixels, kernel, here, spatial, window)

    parts = jnp.moveaxis(jax.lax.map(jax.checkpoint(some), numbers), 0, 1)  # (batch, blocks, block, F)
    output = tuple(axis.outputs for axis in axes_of(spec_of(window), spatial))
    sums = parts.reshape(x.shape[0], blocks * block, -1)[:, :positions].reshape(x.shape[0], *output, -1)
    return jnp.moveaxis(sums, -1, 1) if window.channels_first else sums


def _at_positions(pixels: jax.Array, kernel: jax.Array, numbers: jax.Array, spatial: Ints, window: Window) -> jax.Array:
    """The results at some positions, (batch, positions, F), by their kernels. What is padding is not multiplied."""
    axes, groups = axes_of(spec_of(window), spatial), window.groups
    count, taps, inner = len(numbers), prod(window.size), pixels.shape[-1] // groups
    places = jnp.unravel_index(numbers, tuple(axis.outputs for axis in axes))
    met, inside = jnp.zeros((count, *window.size), np.int32), jnp.ones((count, *window.size), bool)
    for number, (axis, place) in enumerate(zip(axes, places, strict=True)):
        along = (slice(None), *[None if other != number else slice(None) for other in range(window.rank)])
        pixel = axis.pixel(place[:, None], jnp.arange(axis.taps))
        met = met * axis.n + pixel.clip(0, axis.n - 1)[along]
        inside &= ((pixel >= 0) & (pixel < axis.n))[along]
    met, inside = met.reshape(count, taps), inside.reshape(count, taps)
    images, columns = pixels.shape[0], kernel.shape[-1]
    seen = jnp.where(inside[..., None], pixels[:, met], 0).reshape(images, count, taps, groups, inner)
    by_row = (count, inner, taps) if window.channels_first else (count, taps, inner)
    by_tap = kernel.reshape(*by_row, groups, columns // groups)
    if window.channels_first:
        by_tap = by_tap.swapaxes(1, 2)
    by_tap = jnp.where(inside[..., None, None, None], by_tap, 0)
    return jnp.einsum("nptgc,ptcgf->npgf", seen, by_tap).reshape(images, count, columns)


def _built(filters: jax.Array, weights: jax.Array | None, indices: jax.Array | None) -> jax.Array:
    """The kernels of some positions, (positions, rows, F), of the filters' dtype."""
    if indices is None:
        assert weights is not None
        return jnp.einsum("pk,krf->prf", weights.astype(filters.dtype), filters)
    take = partial(jnp.take, filters, axis=0, mode="clip")
    if weights is None:
        return take(indices[:, 0])
    by_position = weights.astype(filters.dtype)
    terms = [by_position[:, m, None, None] * take(indices[:, m]) for m in range(indices.shape[1])]
    return sum(terms[1:], terms[0])


def _rows(window: Window, inner: int) -> Ints:
    """The axes of a kernel's rows."""
    return (inner, *window.size) if window.channels_first else (*window.size, inner)
