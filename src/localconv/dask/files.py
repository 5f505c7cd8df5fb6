"""Kernels in files: every task opens the file itself and takes its own rows."""

from __future__ import annotations

import os
import stat
import uuid
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import DTypeLike

from ..core.arguments import Ints, brief, ints, shortened
from ..core.arrays import ACCEPTED, Array, as_float_array, half_storage
from ..core.quantized import QuantizedKernel

__all__ = ["KernelFile"]

# Bytes of a kernel, or of its gradient, in one task: enough for the scheduler's millisecond a task not to show, and
# few enough for several of them in any worker's memory.
PART_BYTES = 64 * 2**20
# Bytes of a chunk in a Zarr array that `create` makes: what is read is whole chunks.
ZARR_CHUNK_BYTES = 16 * 2**20

# Of what NumPy says is wrong with a file, which may have the header in it.
LONGEST_REASON = 1000

# How a .npz begins, as every zip archive.
ARCHIVE = b"PK"


class KernelFile:
    """A locally connected kernel in a ``.npy`` file or a Zarr array, of which every task reads its own rows.

    Only the path travels to the workers, all of which must see the file under it. A ``.npy`` file is mapped, and read
    in place, in any type; of a Zarr array the chunks are read that a task needs.

    Parameters
    ----------
    path : path-like
        A ``.npy`` file in C order, or the folder of a Zarr array (which needs zarr: ``pip install zarr``), of shape
        (positions, rows, filters) and dtype float16, float32, float64, bfloat16 or, with `scales`, int8.
    scales : path-like, optional
        The ``.npy`` file, or Zarr array, of the scales of an int8 kernel: float32, (positions, filters); as in
        `localconv.QuantizedKernel`.
    dtype : dtype, optional
        That of the elements where the file does not know it: ``ml_dtypes.bfloat16`` in two bytes each.
    part_bytes : int, optional
        Bytes of the kernel that one task reads at most, if that is one row of the output or more.

    Attributes
    ----------
    path : str
        Absolute.
    scales : str or None
    shape : tuple of 3 ints
    dtype : dtype
    ndim, nbytes, part_bytes : int

    Raises
    ------
    FileNotFoundError
        No such file.
    ImportError
        A Zarr array without zarr.
    TypeError, ValueError
        A file that holds no such kernel: of another dtype or number of axes, in Fortran order, or cut short.

    See Also
    --------
    KernelFile.create : makes a file to store into.
    KernelFile.array : the kernel as a dask array.

    Notes
    -----
    `array` is the kernel as a dask array, for anything else that is to be done with it, and
    ``dask.array.store(gradient, file, lock=False)`` writes a gradient, or new weights, part by part. No lock is needed:
    no two parts meet. What is stored must be floats, and have the shape of the slices that it is stored into; int8 is
    not stored into.

    A task that finds another shape, another dtype or fewer bytes than were there when the object was made raises
    ValueError. Values that change while tasks run are not noticed: a task that is run again, because a worker was lost,
    reads what is there then. Store new weights into another file than the one that they are computed from. A file that
    is cut short while a task has it mapped ends the worker's process, as with every memory map.

    Examples
    --------
    >>> import tempfile, numpy as np, localconv.dask
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/kernel.npy", np.ones((26 * 26, 3 * 3 * 4, 8), np.float16))
    ...     kernel = localconv.dask.KernelFile(f"{folder}/kernel.npy")
    >>> kernel.shape, kernel.dtype
    ((676, 36, 8), dtype('float16'))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        scales: str | os.PathLike[str] | None = None,
        dtype: DTypeLike | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        (self.part_bytes,) = ints(part_bytes, 1, "part_bytes")
        self.path, self._stored = _opened(path, "path")
        self.dtype = self._stored.dtype if dtype is None else _known(_dtype_of(dtype), self._stored.dtype)
        self.scales: str | None = None
        self._scales: Stored | None = None
        if scales is not None:
            self.scales, self._scales = _opened(scales, "scales")
        self.shape, self.ndim = self._stored.shape, len(self._stored.shape)
        self._check()

    def _check(self) -> None:
        if self.ndim != 3:
            raise ValueError(
                f"path must hold a kernel of 3 axes (positions, rows, filters), got shape {self.shape} in {self.path}"
            )
        if self.dtype == np.int8:
            self._check_scales()
        elif self._scales is not None:
            raise TypeError(f"scales belong to a kernel of int8, got one of {self.dtype}")
        else:
            _check_float(self.dtype, "path", f", in {self.path}")

    def _check_scales(self) -> None:
        expected = Stored((self.shape[0], self.shape[2]), np.dtype(np.float32))
        if self._scales is None:
            raise TypeError(f"{self.path}: a kernel of int8 needs its scales, got scales=None")
        if self._scales.dtype.newbyteorder("=") != expected.dtype:
            raise TypeError(f"scales must be of float32, got {self._scales.dtype} in {self.scales}")
        if self._scales.shape != expected.shape:
            raise ValueError(
                f"scales must hold {expected} for a kernel of {self._stored}, got {self._scales} in {self.scales}"
            )

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        shape: Ints,
        dtype: DTypeLike = np.float32,
        *,
        positions: int | None = None,
        part_bytes: int = PART_BYTES,
    ) -> KernelFile:
        """Make a file of zeros to store a gradient, or weights, into.

        Parameters
        ----------
        path : path-like
            Ending in ``.npy``, or in ``.zarr`` for a Zarr array. Nothing may be there.
        shape : sequence of 3 ints
            (positions, rows, filters).
        dtype : dtype, optional
            float16, float32, float64, or bfloat16. What is stored is rounded to it.
        positions : int, optional
            Of a Zarr array: how many of them a chunk has. Only whole chunks can be stored, since two tasks must never
            write to one: ``gradient.chunks[0][0]`` fits a gradient.
        part_bytes : int, optional
            As in the constructor.

        Returns
        -------
        KernelFile

        Raises
        ------
        FileExistsError
            If something is there.
        OSError
            No room: of a ``.npy`` file all of it is reserved, where the system can do that.
        TypeError, ValueError
            For another ending, shape or dtype.

        Examples
        --------
        >>> import tempfile, localconv.dask
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = localconv.dask.KernelFile.create(f"{folder}/gradient.npy", (676, 36, 8))
        >>> file
        KernelFile(shape=(676, 36, 8), dtype=float32)
        """
        whole, kind, name = ints(shape, 3, "shape", scalar=False), _dtype_of(dtype), _absolute(path, "path")
        ints(part_bytes, 1, "part_bytes")
        if kind == np.int8:
            raise TypeError("dtype must be one of floats to be stored into: localconv.quantize makes kernels of int8")
        _check_float(kind, "dtype")
        if os.path.lexists(name):
            raise FileExistsError(f"path must name nothing that exists, got {name}")
        if name.endswith(".zarr"):
            row = max(1, prod(whole[1:]) * kind.itemsize)
            count = max(1, ZARR_CHUNK_BYTES // row) if positions is None else ints(positions, 1, "positions")[0]
            _create_zarr(name, whole, (min(count, whole[0]), *whole[1:]), kind)
        elif not name.endswith(".npy"):
            raise ValueError(f"path must end in .npy or .zarr, got {name}")
        elif positions is not None:
            raise ValueError(f"positions are of the chunks of a Zarr array, got {positions!r} for a .npy file")
        else:
            _create_npy(name, whole, kind)
        return cls(name, dtype=kind, part_bytes=part_bytes)

    def array(self, chunks: Any = "auto") -> da.Array:
        """Return the kernel as a dask array whose tasks read the file.

        Parameters
        ----------
        chunks : optional
            As ``dask.array.from_array`` takes them: those of a gradient, ``gradient.chunks``, for new weights.

        Returns
        -------
        dask.array.Array
            Of int8 without its scales.

        Notes
        -----
        Every task has the path in itself (``inline_array``). With an object that all of them share, a scheduler moves
        gradients to the worker that has it.

        Examples
        --------
        >>> import tempfile, localconv.dask
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = localconv.dask.KernelFile.create(f"{folder}/kernel.npy", (676, 36, 8))
        ...     print(file.array((100, -1, -1)).sum().compute())
        0.0
        """
        return da.from_array(self, chunks=chunks, inline_array=True)

    @property
    def nbytes(self) -> int:
        """Bytes of the kernel; of int8 with its scales."""
        scales = 0 if self._scales is None else prod(self._scales.shape) * self._scales.dtype.itemsize
        return prod(self.shape) * self.dtype.itemsize + scales

    def rows(self, first: int, last: int) -> Array | QuantizedKernel:
        """The kernel of the positions from `first` to the one in front of `last`, as the engine takes it.

        ValueError unless there are these positions.
        """
        if not 0 <= first < last <= self.shape[0]:
            raise ValueError(f"positions must be among the {self.shape[0]} of the kernel, got {first} to {last}")
        values = self[first:last]
        if self.scales is None or self._scales is None:
            return values
        return QuantizedKernel(values, np.asarray(_open(self.scales, "r", self._scales)[first:last]))

    def __getitem__(self, index: Any) -> Array:
        # A map stays a map: its elements are read where they are needed.
        values = np.asarray(_open(self.path, "r", self._stored)[index])
        return values if values.dtype == self.dtype else values.view(self.dtype)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.dtype == np.int8:
            raise TypeError(f"{self.path} holds a kernel of int8, whose scales would not be its values' any more")
        values, slices = as_float_array(value, "what is stored"), self._slices(index)
        expected = tuple(part.stop - part.start for part in slices)
        if values.shape != expected:
            raise ValueError(f"what is stored there in {self.path} must have shape {expected}, got {values.shape}")
        target = _open(self.path, "r+", self._stored)
        if not isinstance(target, np.ndarray):
            _check_whole_chunks(target, slices, self.path)
        with np.errstate(all="ignore"):  # what is too large for 16 bits is inf there
            rounded = values.astype(self.dtype, copy=False)
        target[slices] = rounded.view(self._stored.dtype) if self.dtype != self._stored.dtype else rounded

    def _slices(self, index: Any) -> tuple[slice, ...]:
        """An index as slices, one for each axis, with their ends in numbers. ValueError unless it is one of those."""
        parts = list(index) if isinstance(index, tuple) else [index]
        if len(parts) == 1 and parts[0] is Ellipsis:
            parts = []
        parts += [slice(None)] * (self.ndim - len(parts))
        if len(parts) != self.ndim or not all(map(_is_within, parts, self.shape)):
            raise ValueError(f"{self.path}, of shape {self.shape}, is stored into by slices, got {brief(index)}")
        ends = [part.indices(size)[:2] for part, size in zip(parts, self.shape, strict=True)]
        return tuple(slice(start, max(start, stop)) for start, stop in ends)

    def __array__(self, *arguments: Any, **options: Any) -> Array:
        raise TypeError(
            "a KernelFile is no array: localconv.dask takes it, .rows(first, last) reads positions and .array() is a "
            "dask array"
        )

    def __dask_tokenize__(self) -> str:
        # A name of its own every time: what was computed of this file may not stand for what is in it now.
        return uuid.uuid4().hex

    def __repr__(self) -> str:
        return f"KernelFile(shape={self.shape}, dtype={self.dtype})"


class Stored(NamedTuple):
    """What a file said that it holds."""

    shape: Ints
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


class Rows(NamedTuple):
    """The kernel of some positions in a file, before it is read."""

    file: KernelFile
    first: int
    last: int


def _check_float(dtype: np.dtype[Any], name: str, where: str = "") -> None:
    """TypeError unless these are floats of a kernel."""
    if not (dtype.kind == "f" and dtype.itemsize in (4, 8)) and not half_storage(dtype):
        unknown = dtype.kind == "V" and dtype.itemsize == 2
        hint = ": with dtype=ml_dtypes.bfloat16 it may be one" if unknown else ""
        raise TypeError(f"{name} must be of a kernel of {ACCEPTED} or int8, got {dtype}{hint}{where}")


def _is_within(part: Any, size: int) -> bool:
    """Whether a part of an index is a slice of neighbours, none of them behind the end of its axis."""
    return isinstance(part, slice) and part.step in (None, 1) and (part.stop or 0) <= size


def _dtype_of(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        return np.dtype(dtype)
    except TypeError:
        hint = ": import ml_dtypes first, or give ml_dtypes.bfloat16" if dtype == "bfloat16" else ""
        raise TypeError(f"dtype must be one of NumPy's, or of ml_dtypes, got {dtype!r}{hint}") from None


def _known(dtype: np.dtype[Any], stored: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that the user names for a file's elements."""
    if dtype == stored or (dtype.name == "bfloat16" and stored.itemsize == 2 and stored.kind in "Vu"):
        return dtype
    raise TypeError(f"dtype must be that of the file, {stored}, or ml_dtypes.bfloat16 where it has none, got {dtype}")


def _opened(path: str | os.PathLike[str], name: str) -> tuple[str, Stored]:
    """The absolute path, and what is there."""
    absolute = _absolute(path, name)
    array = _read(absolute, "r")
    return absolute, Stored(tuple(array.shape), np.dtype(array.dtype))


def _absolute(path: str | os.PathLike[str], name: str) -> str:
    try:
        decoded = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name} must be a path, got {type(path).__name__}") from None
    if not decoded:
        raise ValueError(f"{name} must be a path, got an empty one")
    return os.path.abspath(decoded)


def _open(path: str, mode: str, expected: Stored) -> Any:
    """The array in a file, which must be what it was. ValueError if it is something else."""
    array = _read(path, mode)
    stored = Stored(tuple(array.shape), array.dtype)
    if stored != expected:
        raise ValueError(f"{path} has changed: it held {expected}, now {stored}")
    return array


def _read(path: str, mode: Any) -> Any:
    """The array in a file, mapped, or a Zarr array."""
    if Path(path).is_dir():
        return _read_zarr(path, mode)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} must be a file, or the folder of a Zarr array, got something else")
    with open(path, "rb") as file:
        if file.read(len(ARCHIVE)) == ARCHIVE:
            raise ValueError(f"{path} must be a .npy file, or a Zarr array, got an archive")
    array = _load(path, "r")
    if mode != "r":
        # Only a file that was found whole: NumPy makes one longer where it maps it to be written to.
        array = _load(path, mode)
    if not array.flags.c_contiguous:
        raise ValueError(f"{path} must be in C order, got Fortran order: np.save(path, np.ascontiguousarray(...))")
    return array


def _load(path: str, mode: Any) -> Any:
    """What NumPy makes of a file. ValueError whatever its parsers raise of a damaged header."""
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:
        # NumPy advises an option that there is not here.
        reason = "what it holds is none" if "allow_pickle" in str(error) else shortened(str(error), LONGEST_REASON)
        raise ValueError(f"{path} must be a whole .npy file of numbers: {reason}") from None


def _read_zarr(path: str, mode: Any) -> Any:
    library = _zarr()
    try:
        return library.open_array(path, mode=mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is a folder without a Zarr array") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must be a Zarr array: {type(error).__name__}: {error}") from None


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"a kernel in a folder is a Zarr array, which needs zarr: pip install zarr ({error})"
        ) from None
    return zarr


def _create_npy(path: str, shape: Ints, dtype: np.dtype[Any]) -> None:
    """A file of zeros with room for all of it: a map of one without would end the process when the disk is full."""
    try:
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        size = array.offset + array.nbytes
        del array
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except BaseException as error:
        Path(path).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"no {dtype} of shape {shape} can be made: {error.strerror}", path) from None
        raise


def _create_zarr(path: str, shape: Ints, chunks: Ints, dtype: np.dtype[Any]) -> None:
    stored = np.dtype(np.uint16) if dtype.name == "bfloat16" else dtype  # which Zarr has no name for
    _zarr().open_array(path, mode="w-", shape=shape, chunks=chunks, dtype=stored, fill_value=0)


def _check_whole_chunks(target: Any, slices: tuple[slice, ...], path: str) -> None:
    """ValueError unless slices are of whole chunks, or shards: of two tasks that write to one, the last would win."""
    chunks = getattr(target, "shards", None) or target.chunks
    for part, size, chunk in zip(slices, target.shape, chunks, strict=True):
        if part.start % chunk or (part.stop % chunk and part.stop != size):
            raise ValueError(
                f"{path} has chunks of {chunks}, of which only whole ones can be stored, got {slices}: "
                f"rechunk what is stored to {chunks}"
            )
