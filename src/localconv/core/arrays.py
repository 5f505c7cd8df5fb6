"""Validation of arrays: what any array-like becomes before the core sees it, and what an output must be."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy import empty, ndarray  # looked up in every call
from numpy.typing import ArrayLike, NDArray

from .._core import DTYPES, STORAGES
from .arguments import flag, is_masked
from .quantized import KernelStandIn, QuantizedKernel

if TYPE_CHECKING:
    from .bank import KernelBank

Array = NDArray[Any]
KernelLike: TypeAlias = "ArrayLike | QuantizedKernel | KernelBank"


class ElementType:
    """What a call computes in, how its kernel is stored, and what its result becomes. There is one object for each.

    `number`, `dtype`: of the sums and all that is computed; `storage`: number in `_core.STORAGES` of a kernel in fewer
    bytes, 0: it has `dtype` too; `result`: the dtype that results are rounded to, once; `bank`: filters, terms,
    indexed and weighted of a kernel that is a bank, as job.h has them.
    """

    __slots__ = ("bank", "dtype", "number", "result", "storage")

    def __init__(
        self, number: int, storage: int, result: np.dtype[Any], bank: tuple[int, int, bool, bool] | None = None
    ) -> None:
        self.number, self.dtype, self.storage, self.result = number, np.dtype(DTYPES[number]), storage, result
        self.bank = bank

    def __repr__(self) -> str:
        return f"{self.dtype.name}, kernel {STORAGES[self.storage] or self.dtype.name}, result {self.result.name}"


_WIDE = [np.dtype(name) for name in DTYPES]
ELEMENT_TYPES = tuple([ElementType(number, 0, dtype) for number, dtype in enumerate(_WIDE)])
SINGLE, DOUBLE = ELEMENT_TYPES
# The dtypes of what is computed: of ELEMENT_TYPES the very same objects, because calls compare them by identity.
FLOAT32, FLOAT64 = SINGLE.dtype, DOUBLE.dtype
INT8 = STORAGES.index("int8")
ACCEPTED = "float16, bfloat16, float32 and float64"

# The packages for other libraries, each called as its library is: and where the classes are from (the first part of
# their module) whose values NumPy cannot always read, as tensors that require gradients, values that are being traced
# and symbolic ones.
BRIDGES = {"dask": (), "jax": ("jax", "jaxlib"), "keras": ("keras", "tensorflow", "tf_keras"), "torch": ("torch",)}
_BRIDGE_OF = {library: f"localconv.{bridge}" for bridge, libraries in BRIDGES.items() for library in libraries}


@lru_cache(maxsize=64)
def _single(store: int, result: np.dtype[Any]) -> ElementType:
    """The element type that computes in float32, for a kernel stored so and such results."""
    return SINGLE if store == 0 and result == FLOAT32 else ElementType(SINGLE.number, store, result)


@lru_cache(maxsize=256)
def of_bank(dtype: np.dtype[Any], filters: int, terms: int, indexed: bool, weighted: bool) -> ElementType:
    """The element type that computes in float32 or float64, as `dtype` says, with a kernel that is a bank of that."""
    number = _WIDE.index(dtype)
    return ElementType(number, 0, _WIDE[number], (filters, terms, indexed, weighted))


def single_with(name: str) -> ElementType:
    """The element type that computes in float32 with a kernel of that stored type, and leaves results so."""
    return _single(STORAGES.index(name), FLOAT32)


def half_storage(dtype: np.dtype[Any]) -> int:
    """The number in STORAGES of a dtype of 16 bits; 0: it is none of these. `ml_dtypes.bfloat16` is known by its name:
    nothing is imported for it.
    """
    return STORAGES.index(dtype.name) if dtype.itemsize == 2 and dtype.name in STORAGES else 0


def bridge_for(value: object) -> str | None:
    """The package for values of another library, by the module of their class: nothing is imported for it."""
    for kind in type(value).__mro__:
        bridge = _BRIDGE_OF.get(str(kind.__module__).partition(".")[0])
        if bridge is not None:
            return bridge
    return None


def as_array(value: ArrayLike, name: str, expected: str) -> Array:
    """`value` as an ndarray of whatever dtype.

    ValueError if it is no array-like; TypeError if it is of a library that does not let NumPy read it, which names the
    package for that, or has a mask, which would be lost.
    """
    if is_masked(value):
        raise TypeError(
            f"{name} must be a plain array of {expected}, got a masked array: a mask has no meaning here, and "
            ".filled(0) makes a plain array, with zeros where values are masked"
        )
    try:
        return np.asarray(value)
    except Exception as error:
        bridge = bridge_for(value)
        if bridge is not None and not isinstance(error, MemoryError):
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise TypeError(
                f"{name} must be an array that NumPy can read, got {type(value).__name__} ({reason}); {bridge} "
                "computes with these"
            ) from error
        if isinstance(error, ValueError):
            raise ValueError(f"{name} must be an array-like of {expected}: {error}") from None
        raise


def remedy_for(array: Array, name: str) -> str:
    """How numbers of a dtype that is refused become floats, for the end of an error message."""
    numbers = array.dtype.kind in "biuf" or half_storage(array.dtype) > 0
    # What NumPy's conversion of objects asks of each; None would become NaN.
    numbers = numbers or (array.dtype.kind == "O" and all(hasattr(part, "__float__") for part in array.flat))
    return f": {name}.astype(np.float32) is one" if numbers else ""


def as_float_array(value: ArrayLike, name: str) -> Array:
    """`value` as an ndarray of float16, bfloat16, float32 or float64 in any layout and byte order.

    TypeError, ValueError name the argument `name`.
    """
    if type(value) is not ndarray:
        if isinstance(value, KernelStandIn):
            raise TypeError(f"{name} must be an array of {ACCEPTED}: only a kernel may be a {type(value).__name__}")
        value = as_array(value, name, ACCEPTED)
    dtype = value.dtype
    if dtype is FLOAT32 or dtype is FLOAT64:
        return value
    if (dtype.kind == "f" and dtype.itemsize in (4, 8)) or half_storage(dtype):
        return value
    raise TypeError(f"{name} must have one of the dtypes {ACCEPTED}, got {dtype}{remedy_for(value, name)}")


def element_type(kernel: Array | QuantizedKernel | None, first: Array, second: Array | None = None) -> ElementType:
    """float32 if all arrays are, else float64, as NumPy promotes; two equal types of 16 bits keep theirs.

    What has no float64 is computed in float32, whatever it is stored in. kernel None: there is none, which is a weight
    whose gradient is computed; it has float32 where all arrays have 16 bits.
    """
    # By the dtype object first, which is what nearly all arrays share: this is a part of what a small call costs.
    if (
        first.dtype is FLOAT32
        and (kernel is None or kernel.dtype is FLOAT32)
        and (second is None or second.dtype is FLOAT32)
    ):
        return SINGLE
    return _promoted(None if kernel is None else kernel.dtype, first.dtype, None if second is None else second.dtype)


@lru_cache(maxsize=256)
def _promoted(kernel: np.dtype[Any] | None, first: np.dtype[Any], second: np.dtype[Any] | None) -> ElementType:
    """`element_type` by the arrays' dtypes, int8 being that of a quantized kernel."""
    given = [dtype for dtype in (kernel, first, second) if dtype is not None]
    if any(dtype.itemsize == 8 for dtype in given):
        return DOUBLE
    types = {dtype.newbyteorder("=") for dtype in given}
    only = types.pop()
    result = only if kernel is not None and not types and half_storage(only) else FLOAT32
    store = 0 if kernel is None else INT8 if kernel.itemsize == 1 else half_storage(kernel)
    return _single(store, result)


def data_element_type(first: Array, second: Array) -> ElementType:
    """The element type of products of two arrays of data, neither of which stays in its 16 bits: two equal types of
    these are the result's.
    """
    element = element_type(first, second)
    return _single(0, element.result) if element.storage else element


def rounded_into(element: ElementType, out: Any) -> ElementType:
    """The element type whose results are rounded to the dtype of `out` if that has 16 bits."""
    if issubclass(type(out), ndarray) and half_storage(out.dtype) and element.dtype is FLOAT32:
        return _single(element.storage, out.dtype)
    return element


def copy_element_type(array: Array) -> ElementType:
    """The element type in which elements are copied, or summed, and come back as they are."""
    return _single(0, array.dtype.newbyteorder("=")) if half_storage(array.dtype) else element_type(None, array)


def stored_elements(kernel: Array | QuantizedKernel) -> Array | tuple[Array, Array]:
    """A kernel of fewer bytes as the core reads it: its bytes in C order; of int8 with the scales."""
    if isinstance(kernel, QuantizedKernel):
        return kernel.values.reshape(-1).view(np.uint8), kernel.scales.reshape(-1)
    if not kernel.dtype.isnative or not kernel.flags.c_contiguous or not kernel.flags.aligned:
        kernel = np.require(kernel, kernel.dtype.newbyteorder("="), ("C", "A"))
    return kernel.reshape(-1).view(np.uint8)


def widened(kernel: Array | QuantizedKernel, dtype: np.dtype[Any]) -> Array:
    """A kernel as a contiguous array of that dtype."""
    if isinstance(kernel, QuantizedKernel):
        kernel = kernel.dequantize()
    return contiguous(kernel, dtype)


def contiguous(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array in C order, native, aligned and of that dtype: itself where it is so already."""
    flags = array.flags
    if array.dtype is not dtype or not flags.c_contiguous or not flags.aligned:
        with np.errstate(all="ignore"):  # a signaling NaN becomes a quiet one
            return np.require(array, dtype, ("C", "A"))
    return array


def output_for(
    out: Array | None, shape: tuple[int, ...], element: ElementType, inputs: tuple[Any, ...]
) -> tuple[Array, bool]:
    """A C-contiguous array to compute into: a new one or, if that can be, `out`; and whether it is not yet the result:
    it is to be rounded, or copied to `out`.

    TypeError or ValueError if `out` cannot take the result.
    """
    dtype = element.dtype
    if out is None:
        return empty(shape, dtype), element.result is not dtype
    out = _plain(out)
    if out.dtype != element.result:
        raise TypeError(f"out must have the dtype of the result, {element.result}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape of the result, {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    check_apart(out, inputs)
    if element.result is dtype and out.flags.c_contiguous and out.flags.aligned:
        return out, False
    return np.empty(shape, dtype), True


def check_apart(out: Array, inputs: tuple[Any, ...]) -> None:
    """ValueError if `out` shares memory with one of the inputs, of which some may be None."""
    out = _plain(out)
    for array in inputs:
        if array is None:
            continue
        for part in array.arrays() if issubclass(type(array), KernelStandIn) else (array,):
            if _overlap(out, part):
                raise ValueError("out must not share memory with an input")


def _plain(out: Any) -> Array:
    """An `out` as NumPy's own class: another class may say anything of its shape and its memory."""
    if type(out) is np.ndarray:
        return out
    if issubclass(type(out), np.ndarray) and not is_masked(out):  # isinstance asks what it says of itself
        return np.ndarray.view(out, np.ndarray)
    raise TypeError(f"out must be a numpy array without a mask, got {type(out).__name__}")


def write_result(result: Array, out: Array | None, staged: bool, element: ElementType) -> Array:
    """What the caller gets: `out` if given, filled; of the result's dtype."""
    if staged:
        with np.errstate(all="ignore"):  # what is too large for 16 bits is inf there
            if out is None:
                return result.astype(element.result)
            out[...] = result
    return result if out is None else out


def check_accumulate(accumulate: bool, out: Array | None) -> None:
    """TypeError or ValueError unless `accumulate` is a bool, and there is an `out` to add to if it is True."""
    if flag(accumulate, "accumulate") and out is None:
        raise ValueError("accumulate=True adds to out, which must be given, got out=None")


def accumulate_result(result: Array, out: Array | None, staged: bool, element: ElementType, accumulate: bool) -> Array:
    """`write_result`, or with `accumulate` what could not be added in place, rounded once too."""
    if accumulate and out is not None and staged:
        with np.errstate(all="ignore"):
            result += out
    return write_result(result, out, staged, element)


def _overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share an element; exact for all but contrived strides, for which it says yes."""
    if a is not b and a.flags.owndata and b.flags.owndata:  # sooner known than what follows
        return False
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]  # any integer is allowed
    except np.exceptions.TooHardError:
        return True
