"""What weights are projected to after an update: max_norm, non_neg, unit_norm and min_max_norm.

A constraint is any callable that takes the weight's array and returns the array to replace it with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...core.arrays import Array, as_float_array
from ..arguments import MOST_AXES, finite_number, shown
from .registry import Configurable, Registry

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]

Axis = int | Sequence[int]

# keras.backend.epsilon(): keeps a norm of 0 from dividing by 0.
EPSILON = 1e-7


class Constraint(Configurable):
    """Base class of constraints: subclasses define ``__call__(w)``.

    ``get_config()`` returns the constructor's arguments as JSON can hold them, and ``from_config``
    makes an equal object of them.
    """

    def __call__(self, w: ArrayLike) -> Array:
        """Return the array to replace `w` with."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class MaxNorm(Constraint):
    """Scales down what has a norm above `max_value`.

    Parameters
    ----------
    max_value : float, optional
    axis : int or sequence of ints, optional
        Axes over which a norm is taken: 0 for one of a Dense kernel's columns; ``(0, 1, 2)`` for a filter of Conv2D; 1
        for one filter at one position of a locally connected kernel of shape (positions, taps * channels, filters).

    Raises
    ------
    ValueError
        For a number that is not finite or negative.
    TypeError
        For an axis that is not an int or ints.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import constraints
    >>> constraints.MaxNorm(2)(np.array([[3.0], [4.0]])).round(3).ravel()
    array([1.2, 1.6])
    """

    _config_names = ("max_value", "axis")

    def __init__(self, max_value: float = 2, axis: Axis = 0) -> None:
        self.max_value, self.axis = finite_number(max_value, "max_value", least=0), _axis(axis)

    def __call__(self, w: ArrayLike) -> Array:
        """Return `w` scaled."""
        return _scaled(as_float_array(w, "w"), self.axis, 0.0, self.max_value, 1.0)


class NonNeg(Constraint):
    """Replaces negative weights by 0."""

    def __call__(self, w: ArrayLike) -> Array:
        """Return `w` without its negative part."""
        array = as_float_array(w, "w")
        return np.asarray(np.maximum(array, 0))


class UnitNorm(Constraint):
    """Scales to norm 1; `axis` as in `MaxNorm`."""

    _config_names = ("axis",)

    def __init__(self, axis: Axis = 0) -> None:
        self.axis = _axis(axis)

    @np.errstate(all="ignore")
    def __call__(self, w: ArrayLike) -> Array:
        """Return `w` scaled."""
        array = as_float_array(w, "w")
        return np.asarray(array / (array.dtype.type(EPSILON) + _norms(array, self.axis)))


class MinMaxNorm(Constraint):
    """Scales norms into [min_value, max_value], by the part `rate` of the way.

    Parameters
    ----------
    min_value, max_value, rate : float, optional
        The norm becomes ``rate * clip(norm, min_value, max_value) + (1 - rate) * norm``.
    axis : int or sequence of ints, optional
        As in `MaxNorm`.

    Raises
    ------
    ValueError, TypeError
        As `MaxNorm`; also if min_value is above max_value.
    """

    _config_names = ("min_value", "max_value", "rate", "axis")

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Axis = 0) -> None:
        self.min_value = finite_number(min_value, "min_value", least=0)
        self.max_value = finite_number(max_value, "max_value", least=0)
        if min_value > max_value:
            raise ValueError(f"min_value must not be above max_value, got min_value={min_value}, max_value={max_value}")
        self.rate, self.axis = finite_number(rate, "rate", least=0), _axis(axis)

    def __call__(self, w: ArrayLike) -> Array:
        """Return `w` scaled."""
        return _scaled(as_float_array(w, "w"), self.axis, self.min_value, self.max_value, self.rate)


max_norm = maxnorm = MaxNorm
non_neg = nonneg = NonNeg
unit_norm = unitnorm = UnitNorm
min_max_norm = MinMaxNorm

REGISTRY = Registry(
    "constraint",
    "keras.constraints",
    {
        MaxNorm: ("max_norm", "maxnorm"),
        NonNeg: ("non_neg", "nonneg"),
        UnitNorm: ("unit_norm", "unitnorm"),
        MinMaxNorm: ("min_max_norm",),
    },
)
get = REGISTRY.get


def serialize(constraint: Any) -> Any:
    """Return the config dict of a constraint, None for None."""
    return REGISTRY.serialize(constraint)


def _norms(w: Array, axis: int | tuple[int, ...]) -> Array:
    return np.asarray(np.sqrt(np.square(w).sum(axis=axis, keepdims=True)))


@np.errstate(all="ignore")
def _scaled(w: Array, axis: int | tuple[int, ...], low: float, high: float, rate: float) -> Array:
    norms = _norms(w, axis)
    desired = rate * np.clip(norms, low, high) + (1 - rate) * norms
    return np.asarray(w * (desired / (w.dtype.type(EPSILON) + norms)), w.dtype)


def _axis(axis: Axis) -> int | tuple[int, ...]:
    parts = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
    if all(isinstance(part, int) and not isinstance(part, bool) for part in parts):
        if not all(-MOST_AXES <= part < MOST_AXES for part in parts):
            raise ValueError(f"axis must name axes of an array, which has at most {MOST_AXES}, got {shown(axis)}")
        return axis if isinstance(axis, int) else parts
    raise TypeError(f"axis must be an int or a sequence of ints, got {shown(axis)}")
