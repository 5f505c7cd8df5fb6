"""What dense, convolutional and locally connected layers share: a kernel, a bias and an activation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import FLOAT64, Array
from . import activations, constraints, initializers, regularizers
from .arguments import flag
from .base import Fans, Layer
from .variables import Variable

# Arguments of the constructors that every such layer has, in Keras's order.
TERMS = ("activation", "use_bias", "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer",
         "activity_regularizer", "kernel_constraint", "bias_constraint")


# Terms of a sum in the data's own type.
SUMMED_AT_ONCE = 512


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
    A subclass defines `_product`, `_kernel_gradient`, `_input_gradient` and `_bias_gradient`, and may say in `_computed_kernel`
    what the product takes instead of the stored kernel.
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

    def _make_weights(self, kernel_shape: tuple[int, ...], bias_shape: tuple[int, ...], position_fans: Fans | None = None) -> None:
        """Make `kernel` and `bias` (None without one)."""
        # Keras's default for a weight without an initializer, a bias or not.
        kernel, bias = (given or initializers.GlorotUniform() for given in (self.kernel_initializer, self.bias_initializer))
        self.kernel = self.add_weight("kernel", kernel_shape, kernel, self.kernel_regularizer, self.kernel_constraint,
                                      position_fans=position_fans)
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


def sum_rows(matrix: Array) -> Array:
    """The sum of all rows: in blocks, and the blocks in float64, because one float32 sum of a million terms has few right digits.

    The order of summation does not depend on the number of threads.
    """
    rows, columns = matrix.shape
    whole = rows // SUMMED_AT_ONCE
    with np.errstate(all="ignore"):
        blocks = np.einsum("brc->bc", matrix[: whole * SUMMED_AT_ONCE].reshape(whole, SUMMED_AT_ONCE, columns))
        total = blocks.sum(0, dtype=FLOAT64) + np.einsum("rc->c", matrix[whole * SUMMED_AT_ONCE :])
    return np.asarray(total, matrix.dtype)


def _set_gradient(variable: Variable, gradient: Array) -> None:
    if variable.regularizer is not None:
        gradient = gradient + regularizers.gradient_of(variable.regularizer, variable.value)
    variable.grad = gradient
