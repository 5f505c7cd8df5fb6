"""The weights of layers: arrays with a name that only `assign` replaces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..core.arrays import FLOAT32, FLOAT64, Array, as_array, remedy_for
from ..core.config import floatx
from .arguments import shown
from .memory import ReusedMemory

FLOATS: dict[str, np.dtype[Any]] = {"float32": FLOAT32, "float64": FLOAT64}


def float_dtype(dtype: DTypeLike | None, name: str = "dtype") -> np.dtype[Any]:
    """`dtype` as a NumPy dtype, `floatx` for None.

    A str is one of the two names: NumPy has a language of them, and a few KB of that, from a file, may describe a
    dtype of GBs. TypeError or ValueError, naming the argument, unless float32 or float64.
    """
    if dtype is None:
        return FLOATS[floatx()]
    word = dtype if isinstance(dtype, str) else _plain_name(dtype)
    if word is None:
        raise TypeError(f"{name} must be float32 or float64, got {shown(dtype)}")
    if word not in FLOATS:
        raise ValueError(f"{name} must be float32 or float64, got {shown(word)}")
    return FLOATS[word]


def _plain_name(dtype: Any) -> str | None:
    """The name of a NumPy dtype, or of the one that a type such as `np.float32` or `float` stands for."""
    if isinstance(dtype, type):
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            return None
    return dtype.name if isinstance(dtype, np.dtype) else None


class Variable:
    """A named array that a layer owns.

    Parameters
    ----------
    value : array_like
        The first value; it is copied.
    name : str
        As in ``locally_connected1d/kernel:0``.
    dtype : {'float32', 'float64'}, optional
        Default: that of `value` if it is one of these, else `floatx`.
    trainable : bool, optional
    regularizer, constraint : callable, optional
        What a layer adds to its losses, and what `apply_constraints` replaces the value with.

    Raises
    ------
    TypeError, ValueError
        If `value` is not an array of real numbers, or for another dtype.

    Attributes
    ----------
    grad : ndarray or None
        The gradient from the layer's last `backward`; replaced by every one, not added up. May be set, to clip it for
        instance. An array taken from it keeps what it holds. Where none has been kept, the next gradient is on the
        memory of the last: training makes no large array anew. None gives that memory back.

    Notes
    -----
    `value` is read-only: a layer keeps things computed from its weights (a kernel laid out for the fast algorithms,
    what `backward` needs), and only `assign` tells it of a change. An array taken from `value` earlier keeps what it
    held.

    Examples
    --------
    >>> from localconv.layers import Variable
    >>> v = Variable([1.0, 2.0], 'w:0')
    >>> v.assign(v.value * 2)
    >>> v.numpy()
    array([2., 4.])
    """

    def __init__(
        self,
        value: ArrayLike,
        name: str,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        regularizer: Callable[[Any], Any] | None = None,
        constraint: Callable[[Any], Any] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, got {shown(name)}")
        array = as_array(value, f"value of {name}", "real numbers")
        self.name = name
        self.trainable = self._made_trainable = bool(trainable)
        self.regularizer = regularizer
        self.constraint = constraint
        self._grad: Array | None = None
        self._gradients = ReusedMemory()
        _check_real(array, f"value of {name}")
        element = float_dtype(array.dtype if dtype is None and array.dtype.name in FLOATS else dtype)
        # Array and version are one object, so that one assignment replaces both: see `assign_all`.
        self._held = _frozen(array, element), object()

    @classmethod
    def _without_value(
        cls, shape: tuple[int, ...], name: str, dtype: np.dtype[Any], trainable: bool, regularizer: Any, constraint: Any
    ) -> Self:
        """A variable whose value is still to be assigned: until then zeros that take no memory."""
        variable = cls(0.0, name, dtype, trainable, regularizer, constraint)
        variable._held = np.broadcast_to(variable._array, shape), object()
        return variable

    @property
    def _array(self) -> Array:
        return self._held[0]

    @property
    def version(self) -> object:
        """An object that each assignment brings with it and no other has, so that what was computed from the value can
        tell whether it still holds.

        Not a number: assignments that overlap would count to the same one, and so would those of another process to one
        in a pickle.
        """
        return self._held[1]

    def version_of(self, value: Array) -> object | None:
        """Return the version that an array taken from `value` has; None if the variable has another value by now."""
        array, version = self._held
        # Both arrays live, and no two values lie in one memory: the same address is the same value.
        return version if value.__array_interface__ == array.__array_interface__ else None

    @property
    def value(self) -> Array:
        """The array, read-only."""
        return self._array.view()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, which never changes."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, of what `Layer.quantize` made also int8, float16 and bfloat16; never changes."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def grad(self) -> Array | None:
        """The gradient of the last `backward`, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: ArrayLike | None) -> None:
        if value is None:
            self._grad = None
            self._gradients.clear()
            return
        self._grad = converted(self._checked(value, "grad"), self.dtype)

    def gradient_array(self) -> Array:
        """Return an array of any values that is to be filled, and to become `grad`; until then that is None.

        It is made on the memory of an earlier one, if nobody has that any more.
        """
        self._grad = None
        return self._gradients.array(self.shape, self.dtype)

    def numpy(self) -> Array:
        """Return a copy of the value that may be written to."""
        return self._array.copy()

    def assign(self, value: ArrayLike) -> None:
        """Replace the value.

        Parameters
        ----------
        value : array_like of real numbers
            The same shape; converted to the variable's dtype, and copied. What is too large for that becomes infinite,
            and `numpy.errstate` changes nothing of it, as in all that layers and functions compute.

        Raises
        ------
        TypeError
            If `value` is not an array of real numbers.
        ValueError
            If it has another shape. The variable then keeps its value.
        """
        self._held = self.accepted(value), object()

    def assign_add(self, delta: ArrayLike) -> None:
        """Add to the value.

        Parameters
        ----------
        delta : array_like of real numbers
            The variable's shape; converted to its dtype before it is added.

        Raises
        ------
        TypeError, ValueError
            As `assign`. The variable then keeps its value.

        Notes
        -----
        An update that another thread makes meanwhile is lost, as with ``assign(value + delta)``.
        """
        self._add(np.add, delta)

    def assign_sub(self, delta: ArrayLike) -> None:
        """Subtract from the value: as `assign_add`.

        Examples
        --------
        >>> from localconv.layers import Variable
        >>> v = Variable([1.0, 2.0], 'w:0')
        >>> v.grad = [10.0, 20.0]
        >>> v.assign_sub(0.05 * v.grad)
        >>> v.numpy()
        array([0.5, 1. ])
        """
        self._add(np.subtract, delta)

    def _add(self, operation: Callable[..., Array], delta: ArrayLike) -> None:
        array = converted(self._checked(delta, "delta"), self.dtype)
        result = np.empty(self.shape, self.dtype)
        with np.errstate(all="ignore"):
            operation(self._array, array, out=result)
        result.setflags(write=False)
        self._held = result, object()

    def accepted(self, value: ArrayLike) -> Array:
        """Return `value` as `assign` would hold it: checked, converted, copied and read-only; the same errors."""
        return _frozen(self._checked(value, "value"), self.dtype)

    def _checked(self, value: ArrayLike, what: str) -> Array:
        """An array of real numbers of the variable's shape."""
        array = as_array(value, f"{what} of {self.name}", f"shape {self.shape}")
        self._check_dtype(array, f"{what} of {self.name}")
        if array.shape != self.shape:
            raise ValueError(f"{what} of {self.name} must have shape {self.shape}, got {array.shape}")
        return array

    def _check_dtype(self, array: Array, what: str) -> None:
        """TypeError unless the variable can take numbers of this dtype."""
        _check_real(array, what)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies and pickles of arrays may be written to; this one must not, nor what a pickle's buffers lie in.
        self.__dict__.update(state)
        array, version = self._held
        if array.base is not None:
            array = array.copy()
            self._held = array, version
        array.setflags(write=False)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if dtype is not None and np.dtype(dtype) != self.dtype:
            if copy is False:
                raise ValueError(f"{self.name} cannot be seen as {np.dtype(dtype)} without a copy")
            return converted(self._array, np.dtype(dtype))
        return self._array.copy() if copy else self.value

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]

    def __repr__(self) -> str:
        return f"<Variable {self.name!r} shape={self.shape} dtype={self.dtype} trainable={self.trainable}>"


class QuantizedVariable(Variable):
    """A weight that `Layer.quantize` made: it takes values of its own dtype only, and is never trained.

    int8, float16 and bfloat16 are of kernels, float32 of scales: these must be finite.

    Parameters
    ----------
    value : ndarray
        C-contiguous. Not copied: it is nobody else's, and becomes read-only.
    name : str
    """

    def __init__(self, value: Array, name: str) -> None:
        super().__init__(0.0, name, FLOAT32, trainable=False)
        value.setflags(write=False)
        self._held = value, object()

    @classmethod
    def of_zeros(cls, shape: tuple[int, ...], name: str, dtype: np.dtype[Any]) -> Self:
        """A variable whose value is still to be assigned: until then zeros that take no memory."""
        return cls(np.broadcast_to(np.zeros((), dtype), shape), name)

    def _add(self, operation: Callable[..., Array], delta: ArrayLike) -> None:
        raise TypeError(f"{self.name} is of a quantized layer: it can be assigned, and nothing can be added to it")

    def _checked(self, value: ArrayLike, what: str) -> Array:
        array = super()._checked(value, what)
        if self.dtype == FLOAT32 and not np.isfinite(array).all():
            raise ValueError(f"{what} of {self.name} must be finite, as scales are")
        return array

    def _check_dtype(self, array: Array, what: str) -> None:
        if array.dtype.newbyteorder("=") != self.dtype:
            raise TypeError(f"{what} must have dtype {self.dtype}, as the layer was quantized, got {array.dtype}")


def assign_all(pairs: Iterable[tuple[Variable, ArrayLike]]) -> None:
    """Assign (variable, value) pairs: all of them, or none if a value does not fit or anything else goes wrong.

    Every value is converted before the first is assigned. All assignments are then one call into C that allocates
    nothing: neither an error nor a signal handler can come between two of them.
    """
    variables, held = [], []
    for variable, value in pairs:
        variables.append(variable)
        held.append((variable.accepted(value), object()))
    deque(map(setattr, variables, repeat("_held"), held), maxlen=0)


def _check_real(array: Array, what: str) -> None:
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{what} must be an array of real numbers, got dtype {array.dtype}{remedy_for(array, what.split()[0])}"
        )


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array in this dtype, itself if it is; what is too large becomes infinite, whatever `numpy.errstate` says."""
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def _frozen(array: Array, dtype: np.dtype[Any]) -> Array:
    """A contiguous read-only copy."""
    with np.errstate(all="ignore"):
        copy = np.array(array, dtype, order="C", copy=True, subok=False)
    copy.setflags(write=False)
    return copy
