"""Kernels of a few filters spread over many positions, which the functions take in place of an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import Ints, ints, is_masked
from .arrays import as_float_array, data_element_type, half_storage
from .quantized import KernelStandIn, held

__all__ = ["KernelBank"]

# How layers may normalize the weights of a position; and what is beside the sum of squares: weights of 0 have no
# direction, and stay 0.
NORMALIZATIONS, SMALL = (None, "softmax", "norm"), 1e-12
# Bytes of an expanded kernel that are made at a time.
EXPANDED_BYTES = 2**20


class KernelBank(KernelStandIn):
    """A kernel whose filters at every position are a weighted sum of a few: never expanded, however many positions.

    Position p's kernel is ``sum_m weights[p, m] * filters[indices[p, m]]``. The functions of local convolutions, the
    transposed ones and the gradients for the input take a bank wherever they take a kernel.

    Parameters
    ----------
    filters : array_like of floats
        Shape (K, rows, F): K kernels of one position, each as a position of a local convolution's kernel has it, rows
        in the order of the data format.
    weights : array_like of floats, optional
        Shape (positions, M). Without `indices` M is K, and position p's kernel is the sum of all filters with these
        weights: a low-rank kernel. Default: ones, with an index for every position.
    indices : array_like of ints, optional
        Shape (positions, M), or (positions,) where M is 1: which filters a position sums, from 0 to K - 1. Alone, with
        M = 1, they are labels: each position has one of the filters. Of a map of labels give ``labels.ravel()``.

    Attributes
    ----------
    filters, weights, indices : ndarray, or None
        Read-only views.
    shape : tuple of int
        That of the kernel which the bank stands for, (positions, rows, F).
    ndim, size, nbytes : int
        `size` counts the elements of that kernel, `nbytes` the bytes that the bank has.
    dtype : dtype
        Of that kernel: what NumPy promotes filters and weights to; float32 for two types of 16 bits.

    Raises
    ------
    TypeError, ValueError
        For parts of other dtypes or shapes, and indices that no filter has; the message names the argument.

    See Also
    --------
    localconv.grad.local_conv2d_bank : gradients for filters and weights.

    Notes
    -----
    Two ways to compute, whichever costs less. *Fold*: a shared convolution to the filters that a part of the picture
    uses; its results are weighted and added part by part, so that they stay in a cache. *Build*: the kernel of
    a position is made in a cache, where it is used; it pays with several images, and where neighbouring positions use
    many filters. Sums of the two
    have another order, so their last bits differ; for one geometry it is always the same way.

    Files: ``np.savez(file, **bank.parts())``, and ``localconv.KernelBank(**np.load(file))``.

    Examples
    --------
    Two filters by a map of labels:

    >>> import numpy as np, localconv
    >>> filters = np.zeros((2, 9, 1), np.float32)
    >>> filters[0, 4], filters[1] = 1, 1 / 9  # the pixel itself; the mean of nine
    >>> labels = np.arange(40 * 50).reshape(40, 50) % 50 > 25
    >>> bank = localconv.KernelBank(filters, indices=labels.ravel().astype(int))
    >>> x = np.ones((1, 40, 50, 1), np.float32)
    >>> localconv.local_conv2d(x, bank, 3, padding='same', data_format='channels_last').shape
    (1, 40, 50, 1)
    """

    # `_holds`: what keeps the memory of filters and weights (quantized.py says how).
    __slots__ = ("_boxes", "_filters", "_holds", "_indices", "_weights")

    def __init__(self, filters: ArrayLike, weights: ArrayLike | None = None, indices: ArrayLike | None = None) -> None:
        stored, hold_filters = held(_checked_filters(filters), "filters")
        self._filters = _shown(stored)
        count = len(self._filters)
        self._indices = None if indices is None else _shown(checked_indices(indices, count))
        hold_weights = None
        if weights is None:
            self._weights = None
        else:
            stored, hold_weights = held(as_float_array(weights, "weights"), "weights")
            self._weights = _shown(stored)
        self._holds = hold_filters, hold_weights
        check_weights(self._weights, None if self._indices is None else self._indices.shape, count)
        self._boxes: dict[Ints, Any] = {}

    @classmethod
    def on_grid(cls, filters: ArrayLike, nodes: Sequence[ArrayLike], output_shape: Sequence[int]) -> Self:
        """Make a bank of filters that are known at some nodes, and interpolated linearly between them.

        Parameters
        ----------
        filters : array_like of floats
            Shape (K, rows, F), one kernel for every node: those of the nodes' product, in C order.
        nodes : sequence of sequences of floats
            For every axis of the output the ascending positions of its nodes, in output pixels. Outside of them the
            nearest node counts.
        output_shape : sequence of ints
            The output's size along every axis.

        Returns
        -------
        KernelBank
            With two filters a position along every axis that has more than one node: linear, bilinear, trilinear
            interpolation.

        Raises
        ------
        TypeError, ValueError
            For nodes that do not ascend, or do not fit the filters or the output.

        Examples
        --------
        >>> import numpy as np, localconv
        >>> filters = np.random.default_rng(0).standard_normal((4, 25, 1), dtype=np.float32)
        >>> bank = localconv.KernelBank.on_grid(filters, [(0, 99), (0, 79)], (100, 80))  # four corners
        >>> bank
        KernelBank(shape=(8000, 25, 1), filters=4, nbytes=256400)
        """
        shape = ints(output_shape, None, "output_shape", scalar=False)
        array = _checked_filters(filters)
        axes = _checked_nodes(nodes, shape, len(array))
        indices, weights = np.zeros((*shape, 1), np.int32), np.ones((*shape, 1), _weights_dtype(array))
        for axis, positions in enumerate(axes):
            low, share = _between(positions, shape[axis])
            along = (slice(None), *(None,) * (len(shape) - axis - 1), None)
            pair = [(low, 1 - share), (low + 1, share)] if len(positions) > 1 else [(low, 1 - share)]
            nodes_of = [np.broadcast_to(node[along], indices.shape) for node, _ in pair]
            shares = [np.broadcast_to(part[along], weights.shape) for _, part in pair]
            indices = np.concatenate([indices * len(positions) + node for node in nodes_of], -1, dtype=np.int32)
            weights = np.concatenate([weights * part for part in shares], -1, dtype=weights.dtype)
        count = indices.shape[-1]
        return cls(array, weights.reshape(-1, count), indices.reshape(-1, count))

    @classmethod
    def of_one(cls, filters: NDArray[Any], positions: int) -> Self:
        """Make one of a single filter, (1, rows, F), that all positions have."""
        return cls(filters, indices=np.broadcast_to(np.int32(0), (positions, 1)))

    @property
    def filters(self) -> NDArray[Any]:
        """The filters, (K, rows, F)."""
        return self._filters.view()

    @property
    def weights(self) -> NDArray[Any] | None:
        """The weights, (positions, M), or None."""
        return None if self._weights is None else self._weights.view()

    @property
    def indices(self) -> NDArray[np.int32] | None:
        """The filters that every position sums, (positions, M), or None: all of them."""
        return None if self._indices is None else self._indices.view()

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the kernel that this stands for."""
        by_position = self._weights if self._indices is None else self._indices
        assert by_position is not None
        return len(by_position), self._filters.shape[1], self._filters.shape[2]

    @property
    def ndim(self) -> int:
        """That kernel's number of axes."""
        return 3

    @property
    def size(self) -> int:
        """That kernel's number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of filters, weights and indices."""
        return sum(part.nbytes for part in self.arrays())

    @property
    def dtype(self) -> np.dtype[Any]:
        """That kernel's dtype."""
        return data_element_type(self._filters, self._filters if self._weights is None else self._weights).result

    @property
    def boxes(self) -> dict[Ints, Any]:
        """What is known of the bank for an output's shape, by whoever computes with it."""
        return self._boxes

    def parts(self) -> dict[str, NDArray[Any]]:
        """Return the constructor's arguments by their names, as a file has them: those that are not None."""
        parts = {"filters": self.filters, "weights": self.weights, "indices": self.indices}
        return {name: part for name, part in parts.items() if part is not None}

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return the arrays in whose memory it lies."""
        return tuple(self.parts().values())

    @np.errstate(all="ignore")
    def expand(self) -> NDArray[Any]:
        """Return the kernel that this stands for, (positions, rows, F), as a new array of the bank's dtype."""
        kernel = np.empty(self.shape, self.dtype)
        wide = np.dtype(np.float64 if self.dtype.itemsize == 8 else np.float32)
        filters, step = self._filters.astype(wide), max(1, EXPANDED_BYTES // (prod(self.shape[1:]) * wide.itemsize))
        for first in range(0, len(kernel), step):
            some = slice(first, first + step)
            weights = None if self._weights is None else self._weights[some].astype(wide)
            if self._indices is None:
                kernel[some] = np.tensordot(weights, filters, 1)  # type: ignore[arg-type]  # there are weights
            else:
                indices = self._indices[some]
                kernel[some] = picked(filters, weights, indices, np.empty((len(indices), *self.shape[1:]), wide))
        return kernel

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> None:
        """Refuse NumPy, which would make an array of one object otherwise."""
        raise TypeError("a KernelBank is no array: bank.expand() is the kernel that it stands for")

    def __repr__(self) -> str:
        return f"KernelBank(shape={self.shape}, filters={len(self._filters)}, nbytes={self.nbytes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return KernelBank, (self.filters, self.weights, self.indices)


# What pickles name: the public path.
KernelBank.__module__ = "localconv"


def picked(
    filters: NDArray[Any], weights: NDArray[Any] | None, indices: NDArray[Any], out: NDArray[Any]
) -> NDArray[Any]:
    """The kernels of some positions that sum some of the filters, in `out`, which has the dtype of the filters."""
    if weights is None:
        return np.take(filters, indices[:, 0], 0, out=out, mode="clip")  # checked; "raise" would make a copy
    # Term by term: a product with 0 for a filter that a position does not have would be NaN for one of inf.
    out[...] = 0
    for m in range(indices.shape[1]):
        out += weights[:, m, None, None] * filters[indices[:, m]]
    return out


def spread(indices: NDArray[Any], weights: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """The filters that some positions use, and their weights, (positions, used): 0 for those that one has not."""
    used, place = np.unique(indices, return_inverse=True)
    place = place.reshape(indices.shape)
    matrix = np.zeros((len(indices), len(used)), np.float32 if weights is None else weights.dtype)
    rows = np.arange(len(indices))
    for m in range(indices.shape[1]):  # one after the other: a position may name a filter twice
        matrix[rows, place[:, m]] += 1 if weights is None else weights[:, m]
    return used, matrix


def _shown(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view."""
    view = array.view()
    view.flags.writeable = False
    return view


def _checked_filters(filters: ArrayLike) -> NDArray[Any]:
    array = as_float_array(filters, "filters")
    check_filters(array)
    return array


def check_filters(array: Any) -> None:
    """ValueError unless filters, of any library's arrays, have a shape that filters have."""
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            "filters must have shape (filters, taps of a window times channels, output channels), none of them 0, got "
            f"{array.shape}"
        )


def index_rows(array: Any) -> Any:
    """Indices, of any library's arrays, in the shape (positions, M). TypeError, ValueError if they have another."""
    if array.dtype.kind not in "iu":
        remedy = ": mask.astype(int) is one" if array.dtype.kind == "b" else ""
        raise TypeError(f"indices must be integers, got an array of {array.dtype}{remedy}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"indices must have shape (positions, M) or (positions,), none of them 0, got {array.shape}")
    return array


def checked_indices(indices: ArrayLike, count: int) -> NDArray[np.int32]:
    """Indices as int32 that nobody else can change, of shape (positions, M)."""
    if is_masked(indices):
        raise TypeError("indices must be an array without a mask, got a masked array: .filled(0) makes a plain one")
    array = index_rows(np.asarray(indices))
    if array.strides[0] != 0:
        low, high = array.min(), array.max()
    else:
        low, high = array[:1].min(), array[:1].max()
    if low < 0 or high >= count:
        raise ValueError(f"indices must be from 0 to {count - 1}, for {count} filters, got {low} to {high}")
    if array.strides[0] == 0:
        return np.broadcast_to(array[:1].astype(np.int32), array.shape)
    return np.asarray(array.astype(np.int32, order="C"))


def check_weights(weights: Any, indices: Ints | None, count: int) -> None:
    """TypeError, ValueError unless weights, of any library's arrays, fit indices of that shape and so many filters."""
    if weights is None and indices is None:
        raise TypeError("weights or indices must be given: they say which positions there are")
    if weights is None:
        if indices is not None and indices[1] != 1:
            raise ValueError(
                "weights must be given where a position has several filters, and indices of shape "
                f"{indices} name {indices[1]} for each position: a map of labels is given as labels.ravel()"
            )
        return
    if indices is None:
        if weights.ndim != 2 or len(weights) == 0 or weights.shape[1] != count:
            raise ValueError(
                f"weights must have shape (positions, filters) = (positions, {count}) without indices, got "
                f"{weights.shape}"
            )
    elif weights.shape != indices:
        raise ValueError(f"weights must have the shape of indices, {indices}, got {weights.shape}")


def _weights_dtype(filters: NDArray[Any]) -> np.dtype[Any]:
    """That of the filters, but not 16 bits, which would move the nodes."""
    return np.dtype(np.float32) if half_storage(filters.dtype) else filters.dtype.newbyteorder("=")


def _checked_nodes(nodes: Sequence[ArrayLike], shape: Ints, count: int) -> list[NDArray[np.float64]]:
    if isinstance(nodes, (str, bytes, Mapping)) or not hasattr(nodes, "__len__"):
        raise TypeError(f"nodes must be a sequence of positions for each axis, got {nodes!r}")
    if len(nodes) != len(shape):
        raise ValueError(f"nodes must have {len(shape)} sequences, one for each axis of output_shape, got {len(nodes)}")
    axes = [np.asarray(positions, np.float64) for positions in nodes]
    for axis, positions in enumerate(axes):
        if positions.ndim != 1 or not len(positions):
            raise ValueError(f"nodes[{axis}] must be a sequence of at least one position, got {nodes[axis]!r}")
        if not np.isfinite(positions).all() or (np.diff(positions) <= 0).any():
            raise ValueError(f"nodes[{axis}] must be finite and ascend, got {positions.tolist()}")
    if prod(map(len, axes)) != count:
        sizes = " * ".join(str(len(positions)) for positions in axes)
        raise ValueError(f"filters must have one kernel for each of the {sizes} nodes, got {count}")
    return axes


def _between(nodes: NDArray[np.float64], size: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """For every position of an axis the node below it, and the share of the next one."""
    if len(nodes) == 1:
        return np.zeros(size, np.int32), np.zeros(size)
    positions = np.arange(size)
    low = np.clip(np.searchsorted(nodes, positions, "right") - 1, 0, len(nodes) - 2)
    share = np.clip((positions - nodes[low]) / (nodes[low + 1] - nodes[low]), 0, 1)
    return low.astype(np.int32), share
