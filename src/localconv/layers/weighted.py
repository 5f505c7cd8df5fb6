"""What dense, convolutional and locally connected layers share: a kernel, a bias and an activation.

And what the last two share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core import engine
from ..core.arguments import Ints
from ..core.arrays import FLOAT32, Array
from ..core.config import CHANNELS_FIRST
from ..core.quantized import QuantizedKernel, is_quantized_pair, scales_shape
from ..core.spec import Spec
from ..core.windows import axis_windows
from .arguments import Shape, data_format_name, flag, int_tuple, padding_name, positive_int
from .base import Fans, Layer
from .keras_objects import activations, constraints, initializers, regularizers
from .quantization import SCALED, checked_mode, kernel_dtype, small_kernel
from .variables import QuantizedVariable, Variable

# Arguments of the constructors that every such layer has, in Keras's order.
SHARED_ARGUMENTS = (
    "activation",
    "use_bias",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)

# Keras's for a weight without an initializer, a bias or not.
DEFAULT_INITIALIZER = initializers.GlorotUniform()


# Attributes that passes read as variables.
_VARIABLES = ("kernel", "bias", "kernel_scale", "position_weights", "row_weights", "column_weights")


def shared_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a constructor's arguments that `SHARED_ARGUMENTS` names."""
    return {name: arguments[name] for name in SHARED_ARGUMENTS}


class WeightedLayer(Layer):
    """A layer that computes ``activation(product(x, kernel) + bias)``.

    Parameters
    ----------
    shared : dict
        The arguments named in `SHARED_ARGUMENTS`, as they came to the subclass's constructor.
    base : dict
        Arguments of `Layer`.

    Notes
    -----
    A subclass defines `_product`, `_kernel_gradient`, `_input_gradient` and `_bias_gradient`, and may say in
    `_computed_kernel` what the product takes instead of the stored kernel.
    """

    kernel: Variable
    bias: Variable | None

    def __init__(self, shared: dict[str, Any], base: dict[str, Any]) -> None:
        super().__init__(activity_regularizer=shared["activity_regularizer"], **base)
        self.activation = activations.get(shared["activation"])
        self.use_bias = flag(shared["use_bias"], "use_bias")
        self.kernel_initializer = initializers.get(shared["kernel_initializer"])
        self.bias_initializer = initializers.get(shared["bias_initializer"])
        self.kernel_regularizer = regularizers.get(shared["kernel_regularizer"])
        self.bias_regularizer = regularizers.get(shared["bias_regularizer"])
        self.kernel_constraint = constraints.get(shared["kernel_constraint"])
        self.bias_constraint = constraints.get(shared["bias_constraint"])

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what is no variable where the passes read one."""
        if name in _VARIABLES and not isinstance(value, Variable) and (value is not None or name == "kernel"):
            raise TypeError(
                f"{name} of a layer must be a Variable, got {type(value).__name__}: layer.{name}.assign(values) or "
                "set_weights gives it other values"
            )
        super().__setattr__(name, value)

    def _shared_config(self) -> dict[str, Any]:
        """The config of what `SHARED_ARGUMENTS` names."""
        return {
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }

    def _make_weights(
        self, kernel_shape: tuple[int, ...], bias_shape: tuple[int, ...], position_fans: Fans | None = None
    ) -> None:
        """Make `kernel` and `bias` (None without one)."""
        self._make_kernel(kernel_shape, position_fans)
        self.bias = None
        if self.use_bias:
            initializer = self.bias_initializer or DEFAULT_INITIALIZER
            self.bias = self.add_weight("bias", bias_shape, initializer, self.bias_regularizer, self.bias_constraint)

    def _make_kernel(self, shape: tuple[int, ...], position_fans: Fans | None) -> None:
        initializer = self.kernel_initializer or DEFAULT_INITIALIZER
        self.kernel = self.add_weight(
            "kernel", shape, initializer, self.kernel_regularizer, self.kernel_constraint, position_fans=position_fans
        )

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        kernel, bias = self._computed_kernel(), None if self.bias is None else self.bias.value
        # The core can apply relu while it stores; its derivative needs no more than the result.
        fused = self.activation is activations.relu
        z = self._product(x, kernel, bias, fused)
        y = z if fused else activations.value_of(self.activation, z)
        return y, (x, kernel, z, y) if training else None

    def _backward(self, grad_output: Array, saved: Any) -> Array:
        x, kernel, z, y = saved
        gradient = grad_output
        if self.activation is not activations.linear:
            gradient = activations.gradient_of(self.activation, grad_output, z, y)
        trainable = self.trainable_weights
        self._set_kernel_gradients(x, kernel, gradient, trainable)
        if self.bias is not None and self.bias in trainable:
            set_gradient(self.bias, self._bias_gradient(gradient))
        return self._input_gradient(x, kernel, gradient)

    def _set_kernel_gradients(self, x: Array, kernel: Any, gradient: Array, trainable: list[Variable]) -> None:
        """Set the gradients of what the computed kernel is made of, as far as it trains."""
        if self.kernel in trainable:
            set_gradient(self.kernel, self._kernel_gradient(x, kernel, gradient))

    def _computed_kernel(self) -> Any:
        """The kernel as `_product` takes it."""
        return self.kernel.value

    def _product(self, x: Array, kernel: Array, bias: Array | None, relu: bool) -> Array:
        """Everything up to the activation, or with relu where that is asked for."""
        raise NotImplementedError

    def _kernel_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        """The gradient for the stored kernel: nobody else's array, as that for the bias."""
        raise NotImplementedError

    def _bias_gradient(self, gradient: Array) -> Array:
        """The gradient for the bias."""
        raise NotImplementedError

    def _input_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        """The gradient for the input."""
        raise NotImplementedError


class ConvolvingLayer(WeightedLayer):
    """A weighted layer whose product is a convolution of the engine.

    Parameters
    ----------
    filters, kernel_size, strides, padding, data_format
        As they came to the subclass's constructor.
    shared, base : dict
        As in `WeightedLayer`; `base` may have the quantization_mode of a config too.

    Notes
    -----
    A subclass has the number of its `spatial_axes` and a `family`, and sets `_spec` before it is first called.
    """

    spatial_axes: int
    family: str
    _spec: Spec
    kernel_scale: Variable | None = None

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        shared: dict[str, Any],
        base: dict[str, Any],
    ) -> None:
        mode = base.pop("quantization_mode", None)
        super().__init__(shared, base)
        self._quantization_mode = None if mode is None else checked_mode(mode, "quantization_mode")
        self.filters = positive_int(filters, "filters")
        self.kernel_size = int_tuple(kernel_size, self.spatial_axes, "kernel_size")
        self.strides = int_tuple(strides, self.spatial_axes, "strides")
        self.padding = padding_name(padding)
        self.data_format = data_format_name(data_format)

    @property
    def _channels_first(self) -> bool:
        return self.data_format == CHANNELS_FIRST

    def _window_config(self) -> dict[str, Any]:
        """The config of the constructor's arguments that all such layers have, and of how they are quantized."""
        quantized = {} if self._quantization_mode is None else {"quantization_mode": self._quantization_mode}
        return quantized | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
        }

    def _output_size(self, spatial: Shape, dilation: Ints) -> Shape:
        """Positions along each axis, None where the input's size is unknown; 0 or less where no window fits."""
        axes = zip(spatial, self.kernel_size, self.strides, dilation, strict=True)
        return tuple(
            None if n is None else axis_windows(self.family, n, k, s, d, self.padding)[1] for n, k, s, d in axes
        )

    def _make_kernel(self, shape: tuple[int, ...], position_fans: Fans | None) -> None:
        mode = self._quantization_mode
        if mode is None:
            super()._make_kernel(shape, position_fans)
            return
        self.kernel = self._add_quantized_weight("kernel", shape, kernel_dtype(mode))
        if mode in SCALED:
            self.kernel_scale = self._add_quantized_weight("kernel_scale", scales_shape(shape), FLOAT32)

    def _quantized_state(self, mode: str) -> dict[str, Any]:
        given = self._computed_kernel()
        assert not isinstance(given, QuantizedKernel)
        values, scales = small_kernel(given, mode, self.name)
        kernel = QuantizedVariable(values, self.kernel.name)
        scale = None if scales is None else QuantizedVariable(scales, f"{self.name}/kernel_scale:0")
        others = [variable for variable in self._variables if variable is not self.kernel]
        return {
            "kernel": kernel,
            "kernel_scale": scale,
            "_variables": [kernel, *([] if scale is None else [scale]), *others],
            "_quantization_mode": mode,
            # It holds the float32 kernel.
            "_saved": None,
        }

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        if training and self.trainable and self._quantization_mode is not None:
            raise ValueError(
                f"layer {self.name} was quantized by {self._quantization_mode!r} for inference and cannot be trained; "
                "with trainable=False it hands gradients through to its input"
            )
        return super()._forward(x, training)

    def _computed_kernel(self) -> Array | QuantizedKernel:
        if self.kernel_scale is None:
            return self.kernel.value
        # Values and scales are assigned together, perhaps by another thread meanwhile: what is read has one version.
        version = None
        while version is not self.kernel.version:
            version = self.kernel.version
            values, scales = self.kernel.value, self.kernel_scale.value
        if not is_quantized_pair(values, scales):
            raise ValueError(
                f"layer {self.name} was quantized by {self._quantization_mode!r}: its kernel must be int8, and its "
                f"kernel_scale float32 of shape {scales_shape(values.shape)}, got {values.dtype}, and "
                f"{scales.dtype} of shape {scales.shape}; set_weights assigns new values to both"
            )
        # Zeros that are still to be replaced lie in no memory of their own.
        return QuantizedKernel.of_checked(np.ascontiguousarray(values), np.ascontiguousarray(scales))

    def _product(self, x: Array, kernel: Array | QuantizedKernel, bias: Array | None, relu: bool) -> Array:
        return engine.forward(self._spec, x, kernel, bias, None, relu)

    def _kernel_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        # What is computed is not always what is stored.
        out = self.kernel.gradient_array() if kernel.shape == self.kernel.shape else None
        return engine.grad_kernel(self._spec, x, kernel.shape, gradient, out)

    def _input_gradient(self, x: Array, kernel: Array | QuantizedKernel, gradient: Array) -> Array:
        return engine.grad_input(self._spec, x.shape, kernel, gradient)

    def _bias_gradient(self, gradient: Array) -> Array:
        assert self.bias is not None
        return engine.grad_bias(self._spec, self.bias.shape, gradient, self.bias.gradient_array())


def set_gradient(variable: Variable, gradient: Array) -> None:
    """Give a variable its gradient, which is written to: with that of its regularizer."""
    if variable.regularizer is not None:
        slope = regularizers.gradient_of(variable.regularizer, variable.value)
        with np.errstate(all="ignore"):
            gradient += slope
    variable.grad = gradient
