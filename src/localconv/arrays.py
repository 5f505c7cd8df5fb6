"""Arrays at the door: what any array-like becomes before the core sees it, and what an output must be."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._core import DTYPES

Array = NDArray[Any]


class ElementType:
    """An element type of the core: its number there, its NumPy dtype. There is one object for each."""

    __slots__ = ("dtype", "number")

    def __init__(self, number: int, name: str) -> None:
        self.number, self.dtype = number, np.dtype(name)

    def __repr__(self) -> str:
        return self.dtype.name


ELEMENT_TYPES = tuple([ElementType(number, name) for number, name in enumerate(DTYPES)])
SINGLE, DOUBLE = ELEMENT_TYPES
FLOAT32, FLOAT64 = SINGLE.dtype, DOUBLE.dtype
ACCEPTED = " and ".join(DTYPES)


def is_masked(value: object) -> bool:
    """Whether this is a masked array. Naming `np.ma` would import it, and the first call would wait for that."""
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(value, masked.MaskedArray)


def as_float_array(value: ArrayLike, name: str) -> Array:
    """`value` as an ndarray of float32 or float64 in any layout and byte order.

    TypeError, ValueError name the argument `name`.
    """
    if type(value) is not np.ndarray:
        if is_masked(value):
            raise TypeError(
                f"{name} must be a plain array of {ACCEPTED}: a mask has no meaning in a convolution, got a masked "
                "array"
            )
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} must be an array-like of {ACCEPTED}: {error}") from None
    dtype = value.dtype
    if dtype is FLOAT32 or dtype is FLOAT64:
        return value
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise TypeError(f"{name} must have one of the dtypes {ACCEPTED}, got {dtype}")
    return value


def element_type(first: Array, second: Array | None = None, third: Array | None = None) -> ElementType:
    """float32 if all are, else float64, as NumPy promotes."""
    # By the dtype object first, which is what nearly all arrays share: this is a part of what a small call costs.
    if (
        first.dtype is FLOAT32
        and (second is None or second.dtype is FLOAT32)
        and (third is None or third.dtype is FLOAT32)
    ):
        return SINGLE
    return (
        DOUBLE if any(array is not None and array.dtype.itemsize == 8 for array in (first, second, third)) else SINGLE
    )


def flat(array: Array, dtype: np.dtype[Any]) -> Array:
    """The elements in C order in one dimension: native, aligned, of that dtype.

    A view where the array is so already.
    """
    flags = array.flags
    if array.dtype is not dtype or not flags.c_contiguous or not flags.aligned:
        array = np.require(array, dtype, ("C", "A"))
    return array.reshape(-1)


def output_for(
    out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: tuple[Array | None, ...]
) -> tuple[Array, bool]:
    """A C-contiguous array to compute into: a new one or, if that can be, `out`; and whether it is to be copied to
    `out`.

    TypeError or ValueError if `out` cannot take the result.
    """
    if out is None:
        return np.empty(shape, dtype), False
    out = _plain(out)
    if out.dtype != dtype:
        raise TypeError(f"out must have the dtype of the result, {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape of the result, {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    for array in inputs:
        if array is not None and _overlap(out, array):
            raise ValueError("out must not share memory with an input")
    if out.flags.c_contiguous and out.flags.aligned:
        return out, False
    return np.empty(shape, dtype), True


def _plain(out: Any) -> Array:
    """An `out` as NumPy's own class: another class may say anything of its shape and its memory."""
    if type(out) is np.ndarray:
        return out
    if issubclass(type(out), np.ndarray) and not is_masked(out):  # isinstance asks what it says of itself
        return np.ndarray.view(out, np.ndarray)
    raise TypeError(f"out must be a numpy array without a mask, got {type(out).__name__}")


def deliver(result: Array, out: Array | None, staged: bool) -> Array:
    """What the caller gets: `out` if given, filled."""
    if out is None:
        return result
    if staged:
        out[...] = result
    return out


def check_accumulate(accumulate: bool, out: Array | None) -> None:
    """TypeError or ValueError unless `accumulate` is a bool, and there is an `out` to add to if it is True."""
    if not isinstance(accumulate, (bool, np.bool)):
        raise TypeError(f"accumulate must be True or False, got {accumulate!r}")
    if accumulate and out is None:
        raise ValueError("accumulate=True adds to out, which must be given, got out=None")


def deliver_sum(result: Array, out: Array | None, staged: bool, accumulate: bool) -> Array:
    """`deliver`, or with `accumulate` what could not be added in place."""
    if accumulate and out is not None and staged:
        out += result
        return out
    return deliver(result, out, staged)


def _overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share an element; exact for all but contrived strides, for which it says yes."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]  # any integer is allowed
    except np.exceptions.TooHardError:
        return True
