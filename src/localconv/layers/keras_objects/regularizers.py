"""Penalties on weights and outputs: l1, l2, l1_l2 and orthogonal, with their gradients.

A regularizer is any callable of one array that returns a number. For training it has a method ``gradient(x)``, the
derivative of that number with respect to `x`; the built-in ones have it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...core.arrays import Array, as_float_array
from ..arguments import finite_number, shown
from ..variables import converted
from .registry import Configurable, Registry

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "orthogonal_regularizer",
    "serialize",
]

# Sums of squares below this count as this, as in TensorFlow's l2_normalize.
_TINY = 1e-12


class Regularizer(Configurable):
    """Base class of regularizers: subclasses define ``__call__(x)`` and ``gradient(x)``.

    ``get_config()`` returns the constructor's arguments as JSON can hold them, and ``from_config``
    makes an equal object of them.
    """

    def __call__(self, x: ArrayLike) -> Any:
        """Return the penalty, a number of the dtype of `x`."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def gradient(self, x: ArrayLike) -> Array:
        """Return the derivative of the penalty with respect to `x`."""
        raise NotImplementedError(f"{type(self).__name__} does not define gradient")


class _OfPowers(Regularizer):
    """``l1 * sum(abs(x)) + l2 * sum(x ** 2)``, with factors that a subclass sets."""

    l1 = l2 = 0.0

    @np.errstate(all="ignore")
    def __call__(self, x: ArrayLike) -> Any:
        """Return the penalty."""
        array, total = as_float_array(x, "x"), 0.0
        if self.l1:
            total += self.l1 * float(np.abs(array).sum(dtype=np.float64))
        if self.l2:
            total += self.l2 * float(np.square(array, dtype=np.float64).sum())
        return array.dtype.type(total)

    @np.errstate(all="ignore")
    def gradient(self, x: ArrayLike) -> Array:
        """Return ``l1 * sign(x) + 2 * l2 * x``."""
        array = as_float_array(x, "x")
        slope = np.sign(array) * array.dtype.type(self.l1) if self.l1 else np.zeros_like(array)
        if self.l2:
            slope += array * array.dtype.type(2 * self.l2)
        return slope


class L1L2(_OfPowers):
    """Penalty ``l1 * sum(abs(x)) + l2 * sum(x ** 2)``.

    Parameters
    ----------
    l1, l2 : float, optional
        Factors; None counts as 0. By name ('l1_l2') both are 0.01, as in Keras.

    Raises
    ------
    ValueError
        If a factor is not a finite number.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import regularizers
    >>> float(regularizers.L1L2(l1=1, l2=10)(np.array([1.0, -2.0])))
    53.0
    """

    _config_names = ("l1", "l2")

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1, self.l2 = _factor(l1, 0.0, "l1"), _factor(l2, 0.0, "l2")


class L1(_OfPowers):
    """Penalty ``l1 * sum(abs(x))``; `l1` is 0.01 unless given."""

    _config_names = ("l1",)

    def __init__(self, l1: float | None = 0.01) -> None:
        self.l1 = _factor(l1, 0.01, "l1")


class L2(_OfPowers):
    """Penalty ``l2 * sum(x ** 2)``; `l2` is 0.01 unless given."""

    _config_names = ("l2",)

    def __init__(self, l2: float | None = 0.01) -> None:
        self.l2 = _factor(l2, 0.01, "l2")


class OrthogonalRegularizer(Regularizer):
    """Penalty that grows with the cosines between the rows, or columns, of a matrix.

    `factor` times the mean over all pairs of the absolute cosine; 0 for a matrix of one row.

    Parameters
    ----------
    factor : float, optional
    mode : {'rows', 'columns'}, optional

    Raises
    ------
    ValueError
        For another mode, a factor that is not a finite number, and when called with anything but a matrix.
    """

    _config_names = ("factor", "mode")

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        if mode not in ("rows", "columns"):
            raise ValueError(
                'Invalid value for argument `mode`. Expected one of {"rows", "columns"}. Received: '
                f"mode={shown(mode)}"
            )
        self.factor, self.mode = _factor(factor, 0.01, "factor"), mode

    @np.errstate(all="ignore")
    def __call__(self, x: ArrayLike) -> Any:
        """Return the penalty."""
        rows = self._rows(x)
        if len(rows) < 2:
            return rows.dtype.type(0)
        unit, _ = _normalized(rows)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, 0)
        return rows.dtype.type(self.factor / (len(rows) * (len(rows) - 1)) * np.abs(cosines).sum())

    @np.errstate(all="ignore")
    def gradient(self, x: ArrayLike) -> Array:
        """Return the derivative of the penalty."""
        rows = self._rows(x)
        if len(rows) < 2:
            return np.zeros(np.shape(x), rows.dtype)
        unit, squares = _normalized(rows)
        signs = np.sign(unit @ unit.T)
        np.fill_diagonal(signs, 0)
        slope = 2 * self.factor / (len(rows) * (len(rows) - 1)) * (signs @ unit)
        # Through the normalisation; where the norm is clipped, it is a constant.
        along = np.where(squares > _TINY, (slope * unit).sum(1, keepdims=True), 0)
        gradient = ((slope - along * unit) / np.sqrt(np.maximum(squares, _TINY))).astype(rows.dtype)
        return gradient if self.mode == "rows" else np.ascontiguousarray(gradient.T)

    def _rows(self, x: ArrayLike) -> Array:
        matrix = as_float_array(x, "x")
        if matrix.ndim != 2:
            raise ValueError(
                f"Inputs to OrthogonalRegularizer must have rank 2. Received: inputs.shape == {matrix.shape}"
            )
        return matrix if self.mode == "rows" else matrix.T


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """Return `L1L2` with both factors 0.01 unless given."""
    return L1L2(l1, l2)


l1 = L1
l2 = L2
orthogonal_regularizer = OrthogonalRegularizer

REGISTRY = Registry(
    "regularizer",
    "keras.regularizers",
    {L1: ("l1",), L2: ("l2",), L1L2: (), l1_l2: (), OrthogonalRegularizer: ("orthogonal_regularizer", "orthogonal")},
)
get = REGISTRY.get


def serialize(regularizer: Any) -> Any:
    """Return the config dict of a regularizer, None for None."""
    return REGISTRY.serialize(regularizer)


def gradient_of(regularizer: Any, x: Array) -> Array:
    """The derivative of any regularizer; NotImplementedError for a user's callable without one."""
    if not hasattr(regularizer, "gradient"):
        raise NotImplementedError(
            f"the regularizer {regularizer!r} has no method gradient(x), so backward cannot differentiate it"
        )
    gradient = converted(np.asarray(regularizer.gradient(x)), x.dtype)
    if gradient.shape != x.shape:
        raise ValueError(
            f"gradient(x) of the regularizer {regularizer!r} must have the shape of x, {x.shape}, got {gradient.shape}"
        )
    return gradient


def _factor(value: float | None, default: float, name: str) -> float:
    if value is None:
        return default
    return float(finite_number(value, name))


def _normalized(rows: Array) -> tuple[Array, Array]:
    """Rows of unit length, and the sums of squares that they had."""
    squares = np.square(rows).sum(1, keepdims=True)
    return rows / np.sqrt(np.maximum(squares, _TINY)), squares
