"""The layers around convolutions in a model: Dense, Flatten, Activation, Dropout, MaxPooling1D to 3D."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..core.arguments import Ints
from ..core.arrays import Array
from ..core.config import CHANNELS_FIRST
from ..core.engine import sum_of_rows
from ..core.families import CONV
from ..core.windows import axis_windows
from ..docstrings import docstring_from_2d
from .arguments import (
    Shape,
    check_output,
    data_format_name,
    int_tuple,
    named_constructor,
    padding_name,
    positive_int,
    shape_tuple,
    shown,
)
from .base import InputSpec, Layer
from .keras_objects import activations
from .weighted import WeightedLayer, shared_arguments

__all__ = ["Activation", "Dense", "Dropout", "Flatten", "InputLayer", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D"]


class InputLayer(Layer):
    """Tells a `Sequential` the shape of its input, by `input_shape` or `batch_input_shape`; it is not one of the
    model's layers.

    Parameters
    ----------
    input_shape : tuple of int or None
        Without the batch axis.
    **base
        batch_input_shape (with the batch axis), name, dtype: as in `Layer`.

    Raises
    ------
    ValueError
        Without a shape.
    """

    def __init__(self, input_shape: Sequence[int | None] | None = None, **base: Any) -> None:
        super().__init__(input_shape=input_shape, **base)
        if self._batch_input_shape is None:
            raise ValueError("input_shape or batch_input_shape of an InputLayer must be given")

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        return x, None

    def _backward(self, grad_output: Array, saved: Any) -> Array:
        return grad_output


class Dense(WeightedLayer):
    """``activation(x @ kernel + bias)``.

    Parameters
    ----------
    units : int
        The size of the output's last axis.
    activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
    activity_regularizer
        As in `LocallyConnected1D`; the kernel is (last axis of the input, units), the bias (units,).
    kernel_constraint, bias_constraint : str, dict or callable, optional
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`.

    Raises
    ------
    ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import Dense
    >>> Dense(10, activation='softmax')(np.ones((4, 64), np.float32)).shape
    (4, 10)
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(shared_arguments(locals()), base)
        self.units = positive_int(units, "units")
        self.input_spec = InputSpec(min_ndim=2)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return the input's shape with `units` along the last axis."""
        shape = shape_tuple(input_shape, "input_shape")
        InputSpec(min_ndim=2).check(shape, self.name)
        return (*shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        return super().get_config() | {"units": self.units} | self._shared_config()

    def _build(self, shape: Shape) -> None:
        if not shape[-1]:
            raise ValueError(
                "The last dimension of the inputs to a Dense layer should be defined. Found None. "
                f"Full input shape received: {shape}"
            )
        self._make_weights((shape[-1], self.units), (self.units,))
        self.input_spec = InputSpec(min_ndim=2, axes={-1: shape[-1]})

    @np.errstate(all="ignore")
    def _product(self, x: Array, kernel: Array, bias: Array | None, relu: bool) -> Array:
        z = np.matmul(x, kernel)
        if bias is not None:
            z += bias
        return np.asarray(np.maximum(z, 0, out=z) if relu else z)

    @np.errstate(all="ignore")
    def _kernel_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        out = self.kernel.gradient_array()
        return np.matmul(x.reshape(-1, x.shape[-1]).T, gradient.reshape(-1, self.units), out=out)

    def _bias_gradient(self, gradient: Array) -> Array:
        return sum_of_rows(gradient.reshape(-1, self.units))

    @np.errstate(all="ignore")
    def _input_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        return np.asarray(np.matmul(gradient, kernel.T))


class Flatten(Layer):
    """One axis for everything but the batch; with channels_first the channels are moved last before, as in Keras.

    Parameters
    ----------
    data_format : {'channels_last', 'channels_first'}, optional
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`.
    """

    def __init__(self, data_format: str | None = None, **base: Any) -> None:
        super().__init__(**base)
        self.data_format = data_format_name(data_format)
        self.input_spec = InputSpec(min_ndim=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return (batch, product of the other sizes)."""
        shape = shape_tuple(input_shape, "input_shape")
        known = [n for n in shape[1:] if n is not None]
        return (*shape[:1], prod(known) if len(known) == len(shape) - 1 else None)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        return super().get_config() | {"data_format": self.data_format}

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        moved = np.moveaxis(x, 1, -1) if self._moves(x.ndim) else x
        return moved.reshape(len(x), prod(x.shape[1:])), moved.shape

    def _backward(self, grad_output: Array, saved: Any) -> Array:
        gradient = grad_output.reshape(saved)
        return np.moveaxis(gradient, -1, 1) if self._moves(len(saved)) else gradient

    def _moves(self, ndim: int) -> bool:
        return self.data_format == CHANNELS_FIRST and ndim > 2


class Activation(Layer):
    """An activation as a layer.

    Parameters
    ----------
    activation : str, dict or callable
    **base
        name, trainable, dtype, input_shape, batch_input_shape, activity_regularizer, seed: as in `Layer`.
    """

    def __init__(self, activation: Any, **base: Any) -> None:
        super().__init__(**base)
        self.activation = activations.get(activation)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        return super().get_config() | {"activation": activations.serialize(self.activation)}

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        y = activations.value_of(self.activation, x)
        return y, (x, y)

    def _backward(self, grad_output: Array, saved: Any) -> Array:
        return activations.gradient_of(self.activation, grad_output, *saved)


class Dropout(Layer):
    """In training sets a random part of the input to 0 and scales the rest up; otherwise does nothing.

    Parameters
    ----------
    rate : float
        The part to drop, from 0 to 1.
    noise_shape : tuple of int or None, optional
        Shape of the mask, which is broadcast to the input's; None in it is the input's own size.
    seed : int, optional
        Makes the masks repeatable.
    **base
        name, trainable, dtype, input_shape, batch_input_shape: as in `Layer`.

    Raises
    ------
    ValueError
        For a rate outside [0, 1].
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **base: Any
    ) -> None:
        super().__init__(seed=seed, **base)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ValueError(f"Invalid value {shown(rate)} received for `rate`, expected a value between 0 and 1.")
        self.rate = rate
        self.noise_shape = None if noise_shape is None else shape_tuple(noise_shape, "noise_shape")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        return super().get_config() | {"rate": self.rate, "noise_shape": self.noise_shape, "seed": self.seed}

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        if not training:
            return x, None
        shape = self.noise_shape or x.shape
        if len(shape) != x.ndim:
            raise ValueError(f"noise_shape must have {x.ndim} axes for inputs of shape {x.shape}, got {shape}")
        kept = (
            self._rng.random([n if wanted is None else wanted for n, wanted in zip(x.shape, shape, strict=True)])
            >= self.rate
        )
        with np.errstate(all="ignore"):
            factor = kept * x.dtype.type(1 / (1 - self.rate) if self.rate < 1 else 0)
            return x * factor, factor

    @np.errstate(all="ignore")
    def _backward(self, grad_output: Array, saved: Any) -> Array:
        return np.asarray(grad_output * saved)


class _MaxPooling(Layer):
    """What the pooling layers of all ranks share."""

    rank: int

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.pool_size = int_tuple(pool_size, self.rank, "pool_size")
        self.strides = self.pool_size if strides is None else int_tuple(strides, self.rank, "strides")
        self.padding = padding_name(padding)
        if self.padding == "causal":
            raise ValueError(f'The `padding` argument must be one of "valid", "same". Received: {padding}')
        self.data_format = data_format_name(data_format)
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return the input's shape with the pooled sizes. ValueError if one would be 0 or less."""
        shape = shape_tuple(input_shape, "input_shape")
        InputSpec(ndim=self.rank + 2).check(shape, self.name)
        spatial = shape[self._axis : self._axis + self.rank]
        output = tuple(None if n is None else self._windows(n, axis)[1] for axis, n in enumerate(spatial))
        check_output(output, shape, self.name)
        return (*shape[: self._axis], *output, *shape[self._axis + self.rank :])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        return super().get_config() | {
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }

    @property
    def _axis(self) -> int:
        """The first spatial axis."""
        return 2 if self.data_format == CHANNELS_FIRST else 1

    def _build(self, shape: Shape) -> None:
        self.compute_output_shape(shape)

    def _windows(self, n: int, axis: int) -> tuple[int, int]:
        """Padding in front of a spatial axis of n elements, and its windows."""
        return axis_windows(CONV, n, self.pool_size[axis], self.strides[axis], 1, self.padding)

    def _pads(self, shape: Ints) -> list[tuple[int, int]]:
        """Padding of every axis; behind, as much as the last window needs."""
        pads = [(0, 0)] * len(shape)
        for axis, (k, s) in enumerate(zip(self.pool_size, self.strides, strict=True)):
            n = shape[self._axis + axis]
            before, windows = self._windows(n, axis)
            pads[self._axis + axis] = before, max(0, (windows - 1) * s + k - before - n)
        return pads

    def _taps(self, output: Ints) -> Iterator[tuple[slice, ...]]:
        """For each element of the window, where all windows have it in the padded input."""
        for tap in product(*map(range, self.pool_size)):
            places = [slice(None)] * len(output)
            for axis, (start, s) in enumerate(zip(tap, self.strides, strict=True), self._axis):
                places[axis] = slice(start, start + (output[axis] - 1) * s + 1, s)
            yield tuple(places)

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        output: Any = self.compute_output_shape(x.shape)
        padded = np.pad(x, self._pads(x.shape), constant_values=-np.inf)
        y = np.full(output, -np.inf, x.dtype)
        for places in self._taps(output):
            np.maximum(y, padded[places], out=y)
        return y, (x.shape, padded, y) if training else None

    @np.errstate(all="ignore")
    def _backward(self, grad_output: Array, saved: Any) -> Array:
        shape, padded, y = saved
        gradient = np.zeros_like(padded)
        # Windows whose gradient has not found its element yet: the first that is the maximum.
        left = np.ones(y.shape, bool)
        for places in self._taps(y.shape):
            here = left & (padded[places] == y)
            # Not times `here`: elsewhere an infinite gradient would become NaN.
            np.add(gradient[places], grad_output, out=gradient[places], where=here)
            left &= ~here
        inner = tuple(slice(lo, lo + n) for n, (lo, _) in zip(shape, self._pads(shape), strict=True))
        return np.asarray(gradient[inner])


class MaxPooling1D(_MaxPooling):
    """The maximum of each window along the steps.

    Parameters
    ----------
    pool_size : int or sequence of 1 int, optional
    strides : int or sequence of 1 int, optional
        Default: `pool_size`.
    padding : {'valid', 'same'}, optional
        'same' is TensorFlow's SAME.
    data_format : {'channels_last', 'channels_first'}, optional
        channels_last unless given, as in Keras.
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`.

    Raises
    ------
    ValueError
        For arguments that do not fit.
    """

    rank = 1

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = "channels_last",
        **base: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, **base)


@named_constructor
class MaxPooling2D(_MaxPooling):
    """The maximum of each window of rows and columns.

    Parameters
    ----------
    pool_size : int or sequence of 2 ints, optional
    strides : int or sequence of 2 ints, optional
        Default: `pool_size`.
    padding : {'valid', 'same'}, optional
        'same' is TensorFlow's SAME.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `localconv.image_data_format`.
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`.

    Raises
    ------
    ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import MaxPooling2D
    >>> MaxPooling2D(3, 2, 'same')(np.ones((1, 71, 71, 4), np.float32)).shape
    (1, 36, 36, 4)
    """

    rank = 2


@named_constructor
@docstring_from_2d(
    MaxPooling2D,
    """
    >>> import numpy as np
    >>> from localconv.layers import MaxPooling3D
    >>> MaxPooling3D((1, 2, 2))(np.ones((1, 9, 28, 28, 4), np.float32)).shape
    (1, 9, 14, 14, 4)
    """,
)
class MaxPooling3D(_MaxPooling):
    rank = 3
