"""Kernels in eight bits, which the functions take in place of an array."""

from __future__ import annotations

import weakref
from mmap import mmap
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .arguments import is_masked

__all__ = ["QuantizedKernel"]

# The largest that 127 times is in float32.
LARGEST_SCALE = np.nextafter(np.float32(np.finfo(np.float32).max / 127), np.float32(0))


# What an array is a view of, whatever a class of its own says.
_base_of = np.ndarray.base.__get__


class KernelStandIn:
    """What functions take in place of an array for a kernel, and for nothing else."""

    __slots__ = ()

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return the arrays in whose memory it lies."""
        raise NotImplementedError(f"{type(self).__name__} does not define arrays")


class QuantizedKernel(KernelStandIn):
    """A kernel of int8 values and float32 scales: ``values * scales`` is what it stands for.

    `quantize` makes one; the constructor takes its parts, as a file has them. The forward functions, the transposed
    ones and the gradients for the input take it wherever they take a kernel, and read the int8 values: there is never a
    float32 copy of an unshared kernel.

    Parameters
    ----------
    values : ndarray of int8
        The kernel's shape, (..., rows, filters). A memory map is read part by part. Neither part is copied where NumPy
        or a file owns its memory: new values show, and NumPy resizes an array no more while a kernel uses it.
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

    # Views that nobody else has, and weak references to the arrays whose memory they show: NumPy resizes no array that
    # has one, which would free that memory.
    __slots__ = ("_holds", "_scales", "_values")

    def __init__(self, values: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        (values, hold_values), (scales, hold_scales) = held(values, "values"), held(scales, "scales")
        self._check_and_keep(values, scales, (hold_values, hold_scales))

    def _check_and_keep(self, values: NDArray[Any], scales: NDArray[Any], holds: tuple[Any, Any]) -> None:
        values, scales = _checked(values, "values", np.int8), _checked(scales, "scales", np.float32)
        if values.ndim < 3:
            raise ValueError(f"values must have a kernel's shape, (..., rows, filters), got {values.shape}")
        expected = scales_shape(values.shape)
        if scales.shape != expected:
            raise ValueError(
                f"scales must have shape {expected} for values of shape {values.shape}, got {scales.shape}"
            )
        if not (np.abs(scales) <= LARGEST_SCALE).all():  # written so that a NaN fails
            raise ValueError(f"scales must be finite, and at most {LARGEST_SCALE:.4g} in size")
        self._holds = holds
        self._keep(np.ascontiguousarray(values), np.require(scales, np.float32, ("C", "A")))

    @classmethod
    def of_lent(cls, values: NDArray[np.int8], scales: NDArray[np.float32]) -> Self:
        """Make one of another library's memory, which the caller keeps as long as this is used: it is not copied."""
        made = cls.__new__(cls)
        made._check_and_keep(np.asarray(values), np.asarray(scales), (None, None))
        return made

    @classmethod
    def of_checked(cls, values: NDArray[np.int8], scales: NDArray[np.float32]) -> Self:
        """Make one of parts that are known to be what the constructor asks for, contiguous too."""
        made = cls.__new__(cls)
        made._holds = weakref.ref(values), weakref.ref(scales)
        made._keep(values, scales)
        return made

    def _keep(self, values: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        self._values, self._scales = values.view(), scales.view()
        self._values.flags.writeable = self._scales.flags.writeable = False

    @property
    def values(self) -> NDArray[np.int8]:
        """The int8 values, of the kernel's shape, as a read-only view."""
        return self._values.view()

    @property
    def scales(self) -> NDArray[np.float32]:
        """The scales, one for each filter of every position or tap, as a read-only view."""
        return self._scales.view()

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's shape."""
        return self._values.shape

    @property
    def ndim(self) -> int:
        """The kernel's number of axes."""
        return self._values.ndim

    @property
    def size(self) -> int:
        """The kernel's number of elements."""
        return self._values.size

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self._values.nbytes + self._scales.nbytes

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the values."""
        return self._values.dtype

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return the arrays in whose memory it lies."""
        return self.values, self.scales

    @np.errstate(all="ignore")  # -128, which files may hold, times the largest scale is -inf, as in the core
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


# What pickles name: the public path.
QuantizedKernel.__module__ = "localconv"


def held(part: Any, name: str) -> tuple[NDArray[Any], Any]:
    """A part as NumPy's own class, whatever another class says of it, over memory that nobody can free; and what keeps
    it so. Nothing is asked of the part itself: its answers may be Python code that resizes it.
    """
    if not issubclass(type(part), np.ndarray) or is_masked(part):
        raise TypeError(f"{name} must be an array without a mask, got {_described(part)}")
    owner, base, constant = part, _base_of(part), False
    while base is not None:
        if type(base) is memoryview:
            constant, base = base.readonly, base.obj
        if not issubclass(type(base), np.ndarray):
            break
        owner, base, constant = base, _base_of(base), False
    # First the reference, then the view: whatever happens in between, the view is of what the reference keeps.
    hold = weakref.ref(owner)
    view = np.ndarray.view(part, np.ndarray)
    if base is None or constant or issubclass(type(base), (bytes, bytearray, mmap)):
        return view, hold
    # Memory of somebody else, who may free it: another library's, or a trick with strides. Buffers that are exported
    # read-only stay, as those do that processes share.
    return np.array(view), None


def _checked(part: NDArray[Any], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """A part of that dtype, in any byte order."""
    if part.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{name} must be an array of {np.dtype(dtype)}, got {part.dtype}")
    return part


def scales_shape(kernel_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a quantized kernel's scales: that of the kernel without its rows."""
    return kernel_shape[:-2] + kernel_shape[-1:]


def is_quantized_pair(values: NDArray[Any], scales: NDArray[Any]) -> bool:
    """Whether two arrays have the dtypes and shapes of a quantized kernel's parts."""
    fits = values.ndim >= 3 and scales.shape == scales_shape(values.shape)
    return fits and values.dtype == np.int8 and scales.dtype == np.float32


def _described(value: Any) -> str:
    if is_masked(value):
        return "a masked array: .filled(0) makes a plain one"
    return str(value.dtype) if issubclass(type(value), np.ndarray) else type(value).__name__
