"""Kernels in eight bits, which the functions take in place of an array."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .arguments import is_masked

__all__ = ["QuantizedKernel"]

# The largest that 127 times is in float32.
LARGEST_SCALE = np.nextafter(np.float32(np.finfo(np.float32).max / 127), np.float32(0))


class QuantizedKernel:
    """A kernel of int8 values and float32 scales: ``values * scales`` is what it stands for.

    `quantize` makes one; the constructor takes its parts, as a file has them. The forward functions, the transposed
    ones and the gradients for the input take it wherever they take a kernel, and read the int8 values: there is never a
    float32 copy of an unshared kernel.

    Parameters
    ----------
    values : ndarray of int8
        The kernel's shape, (..., rows, filters). A memory map is read part by part.
    scales : ndarray of float32
        Shape ``values.shape[:-2] + values.shape[-1:]``: one for each filter at every position of an unshared kernel,
        or at every tap of a shared one. Finite.

    Attributes
    ----------
    values, scales : ndarray
    shape : tuple of int
        The kernel's.
    ndim, size, nbytes : int
        `nbytes` counts values and scales.
    dtype : dtype
        int8, that of the values.

    Raises
    ------
    TypeError, ValueError
        For parts of another dtype or shape.

    See Also
    --------
    quantize : makes one.

    Examples
    --------
    >>> import io, numpy as np, localconv
    >>> kernel = localconv.quantize(np.ones((8, 12, 2), np.float32))
    >>> file = io.BytesIO()
    >>> np.savez(file, values=kernel.values, scales=kernel.scales)
    >>> position = file.seek(0)
    >>> localconv.QuantizedKernel(**np.load(file))
    QuantizedKernel(shape=(8, 12, 2), nbytes=256)
    """

    # Read by the core without another look at their sizes: not to be assigned.
    __slots__ = ("_scales", "_values")

    def __init__(self, values: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        if not isinstance(values, np.ndarray) or values.dtype != np.int8 or is_masked(values):
            raise TypeError(f"values must be an array of int8, without a mask, got {_described(values)}")
        if not isinstance(scales, np.ndarray) or scales.dtype.newbyteorder("=") != np.float32 or is_masked(scales):
            raise TypeError(f"scales must be an array of float32, without a mask, got {_described(scales)}")
        if values.ndim < 3:
            raise ValueError(f"values must have a kernel's shape, (..., rows, filters), got {values.shape}")
        expected = values.shape[:-2] + values.shape[-1:]
        if scales.shape != expected:
            raise ValueError(
                f"scales must have shape {expected} for values of shape {values.shape}, got {scales.shape}"
            )
        if not (np.abs(scales) <= LARGEST_SCALE).all():  # written so that a NaN fails
            raise ValueError(f"scales must be finite, and at most {LARGEST_SCALE:.4g} in size")
        self._values: NDArray[np.int8] = np.ascontiguousarray(values)
        self._scales: NDArray[np.float32] = np.require(scales, np.float32, ("C", "A"))

    @classmethod
    def of_checked(cls, values: NDArray[np.int8], scales: NDArray[np.float32]) -> Self:
        """Make one of parts that are known to be what the constructor asks for, contiguous too."""
        made = cls.__new__(cls)
        made._values, made._scales = values, scales
        return made

    @property
    def values(self) -> NDArray[np.int8]:
        """The int8 values, of the kernel's shape."""
        return self._values

    @property
    def scales(self) -> NDArray[np.float32]:
        """The scales, one for each filter of every position or tap."""
        return self._scales

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's shape."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """The kernel's number of axes."""
        return self.values.ndim

    @property
    def size(self) -> int:
        """The kernel's number of elements."""
        return self.values.size

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + self.scales.nbytes

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the values."""
        return self.values.dtype

    def dequantize(self) -> NDArray[np.float32]:
        """Return the kernel that this stands for, ``values * scales``, as a new float32 array."""
        return np.multiply(self.values, self.scales[..., None, :], dtype=np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> None:  # for type checkers it is none either
        """Refuse NumPy, which would make an array of one object otherwise."""
        raise TypeError(
            "a QuantizedKernel is no array: kernel.dequantize() is one of float32, and in files kernel.values and "
            "kernel.scales stand for it"
        )

    def __repr__(self) -> str:
        return f"QuantizedKernel(shape={self.shape}, nbytes={self.nbytes})"

    def __reduce__(self) -> tuple[Any, ...]:
        return QuantizedKernel, (self.values, self.scales)


def _described(value: Any) -> str:
    return str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
