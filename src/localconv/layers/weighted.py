"""What dense, convolutional and locally connected layers share: a kernel, a bias and an activation.

And what the last two share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import engine
from ..arguments import Ints
from ..arrays import Array
from ..config import CHANNELS_FIRST
from ..geometry import axis_windows
from ..spec import Spec
from . import activations, constraints, initializers, regularizers
from .arguments import Shape, data_format_name, flag, int_tuple, padding_name, positive_int
from .base import Fans, Layer
from .variables import Variable

# Arguments of the constructors that every such layer has, in Keras's order.
TERMS = (
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


def terms_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a constructor's arguments that `TERMS` names."""
    return {name: arguments[name] for name in TERMS}


class WeightedLayer(Layer):
    """A layer that computes ``activation(product(x, kernel) + bias)``.

    Parameters
    ----------
    terms : dict
        The arguments named in `TERMS`, as they came to the subclass's constructor.
    base : dict
        Arguments of `Layer`.

    Notes
    -----
    A subclass defines `_product`, `_kernel_gradient`, `_input_gradient` and `_bias_gradient`, and may say in
    `_computed_kernel` what the product takes instead of the stored kernel.
    """

    kernel: Variable
    bias: Variable | None

    def __init__(self, terms: dict[str, Any], base: dict[str, Any]) -> None:
        super().__init__(activity_regularizer=terms["activity_regularizer"], **base)
        self.activation = activations.get(terms["activation"])
        self.use_bias = flag(terms["use_bias"], "use_bias")
        self.kernel_initializer = initializers.get(terms["kernel_initializer"])
        self.bias_initializer = initializers.get(terms["bias_initializer"])
        self.kernel_regularizer = regularizers.get(terms["kernel_regularizer"])
        self.bias_regularizer = regularizers.get(terms["bias_regularizer"])
        self.kernel_constraint = constraints.get(terms["kernel_constraint"])
        self.bias_constraint = constraints.get(terms["bias_constraint"])

    def _terms_config(self) -> dict[str, Any]:
        """The config of what `TERMS` names."""
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
        # Keras's default for a weight without an initializer, a bias or not.
        kernel, bias = (
            given or initializers.GlorotUniform() for given in (self.kernel_initializer, self.bias_initializer)
        )
        self.kernel = self.add_weight(
            "kernel", kernel_shape, kernel, self.kernel_regularizer, self.kernel_constraint, position_fans=position_fans
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight("bias", bias_shape, bias, self.bias_regularizer, self.bias_constraint)

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
        if self.kernel in trainable:
            _set_gradient(self.kernel, self._kernel_gradient(x, kernel, gradient))
        if self.bias is not None and self.bias in trainable:
            _set_gradient(self.bias, self._bias_gradient(gradient))
        return self._input_gradient(x, kernel, gradient)

    def _computed_kernel(self) -> Array:
        """The kernel as `_product` takes it."""
        return self.kernel.value

    def _product(self, x: Array, kernel: Array, bias: Array | None, relu: bool) -> Array:
        """Everything up to the activation, or with relu where that is asked for."""
        raise NotImplementedError

    def _kernel_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        """The gradient for the stored kernel."""
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
    terms, base : dict
        As in `WeightedLayer`.

    Notes
    -----
    A subclass has a `rank` and a `family`, and sets `_spec` before it is first called.
    """

    rank: int
    family: str
    _spec: Spec

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        terms: dict[str, Any],
        base: dict[str, Any],
    ) -> None:
        super().__init__(terms, base)
        self.filters = positive_int(filters, "filters")
        self.kernel_size = int_tuple(kernel_size, self.rank, "kernel_size")
        self.strides = int_tuple(strides, self.rank, "strides")
        self.padding = padding_name(padding)
        self.data_format = data_format_name(data_format)

    @property
    def _channels_first(self) -> bool:
        return self.data_format == CHANNELS_FIRST

    def _window_config(self) -> dict[str, Any]:
        """The config of the constructor's arguments that all such layers have."""
        return {
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

    def _product(self, x: Array, kernel: Array, bias: Array | None, relu: bool) -> Array:
        return engine.forward(self._spec, x, kernel, bias, None, relu)

    def _kernel_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        return engine.grad_kernel(self._spec, x, kernel.shape, gradient)

    def _input_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        return engine.grad_input(self._spec, x.shape, kernel, gradient)

    def _bias_gradient(self, gradient: Array) -> Array:
        assert self.bias is not None
        return engine.grad_bias(self._spec, self.bias.shape, gradient)


def _set_gradient(variable: Variable, gradient: Array) -> None:
    if variable.regularizer is not None:
        gradient = gradient + regularizers.gradient_of(variable.regularizer, variable.value)
    variable.grad = gradient
