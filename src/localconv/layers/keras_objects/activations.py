"""Activation functions and their derivatives.

An activation is any callable of one array that returns one of the same shape. For training it has an attribute
``gradient(grad_output, x, y)`` that returns the gradient with respect to `x`, given the one with respect to ``y =
f(x)``; the built-in ones have it. All of them take and return float32 or float64, and overflow to inf or 0 without a
warning.

Built in: elu, exponential, gelu, hard_sigmoid, leaky_relu, linear, mish, relu, relu6, selu, sigmoid, silu (swish),
softmax, softplus, softsign and tanh. Definitions are those of tf.keras.activations in Keras 2.15 (relu6 and leaky_relu:
of tf.nn).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...core.arrays import Array, as_float_array
from ..arguments import shown
from ..variables import converted
from .registry import Registry

__all__ = [
    "ActivationFunction",
    "elu",
    "exponential",
    "gelu",
    "get",
    "hard_sigmoid",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

# Klambauer et al. (2017), "Self-normalizing neural networks", equation 14.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

GELU_CUBE = 0.044715
ROOT_2_OVER_PI = math.sqrt(2 / math.pi)


class ActivationFunction:
    """A function of an array together with its derivative, perhaps with parameters that differ from the defaults.

    Parameters
    ----------
    function : callable
        ``function(x, **parameters)``.
    derivative : callable
        ``derivative(grad_output, x, y, **parameters)``: the gradient with respect to `x`.
    parameters : mapping, optional

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import ActivationFunction, Conv1D
    >>> cube = ActivationFunction(lambda x: x ** 3, lambda grad_output, x, y: grad_output * 3 * x ** 2)
    >>> cube(np.array([2.0])), cube.gradient(np.array([1.0]), np.array([2.0]), np.array([8.0]))
    (array([8.]), array([12.]))
    >>> layer = Conv1D(4, 3, activation=cube)
    """

    def __init__(
        self,
        function: Callable[..., Array],
        derivative: Callable[..., Array],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function, self.derivative, self.parameters = function, derivative, dict(parameters or {})

    def __call__(self, x: ArrayLike, *args: Any, **parameters: Any) -> Array:
        """Return the function's value."""
        with np.errstate(all="ignore"):
            return self.function(as_float_array(x, "x"), *args, **self.parameters, **parameters)

    def gradient(self, grad_output: Array, x: Array, y: Array) -> Array:
        """Return the gradient with respect to `x`, given the one with respect to ``y = f(x)``."""
        with np.errstate(all="ignore"):
            return self.derivative(grad_output, x, y, **self.parameters)

    def with_parameters(self, **parameters: Any) -> ActivationFunction:
        """Return this activation with other parameters."""
        return ActivationFunction(self.function, self.derivative, {**self.parameters, **parameters})

    def __reduce__(self) -> tuple[Any, ...]:
        # The name of a built-in function is that of its ActivationFunction, so pickle would not find the function by
        # it.
        if self.function in _BUILTIN:
            return get, (serialize(self),)
        return ActivationFunction, (self.function, self.derivative, self.parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActivationFunction) and (self.function, self.parameters) == (
            other.function,
            other.parameters,
        )

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return f"<activation {function_label(self)}{self.parameters or ''}>"


def function_label(value: Any) -> str:
    """What error messages call a function."""
    return str(getattr(value, "__name__", None) or repr(value))


REGISTRY = Registry("activation", "keras.activations", unknown="Unknown activation function {} cannot be deserialized")


def _activation(
    derivative: Callable[..., Array], *aliases: str
) -> Callable[[Callable[..., Array]], ActivationFunction]:
    """Makes an `ActivationFunction` of a function and registers it under its name."""

    def make(function: Callable[..., Array]) -> ActivationFunction:
        activation = ActivationFunction(function, derivative)
        REGISTRY.add(activation, function.__name__, *aliases)
        return activation

    return make


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))  # at most 1: no overflow, and full relative precision on both sides
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def _normal_cdf(x: Array) -> Array:
    """The standard normal distribution function, by the tail that does not cancel."""
    flat = (x.astype(np.float64) * -math.sqrt(0.5)).reshape(-1)
    return 0.5 * np.fromiter(map(math.erfc, flat.tolist()), np.float64, flat.size).reshape(x.shape)


@_activation(lambda g, x, y: g)
def linear(x: Array) -> Array:
    """Return `x` itself."""
    return x


def _relu_gradient(
    g: Array, x: Array, y: Array, alpha: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Array:
    inside = x > threshold
    if max_value is not None:
        inside &= x <= max_value
    if not alpha:
        return np.asarray(g * inside)
    return np.asarray(g * np.where(inside, 1, np.where(x < threshold, alpha, 0)).astype(x.dtype))


@_activation(_relu_gradient)
def relu(x: Array, alpha: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Array:
    """Rectified linear unit: `max_value` from there on, `x` above `threshold`, ``alpha * (x - threshold)`` below."""
    y = np.maximum(x, 0) if threshold == 0 else np.where((x > threshold) | np.isnan(x), x, 0)
    if max_value is not None:
        y = np.clip(y, 0, max_value)
    if alpha:
        y = y - alpha * np.maximum(threshold - x, 0)
    return np.asarray(y, x.dtype)


@_activation(lambda g, x, y: g * ((x > 0) & (x < 6)))
def relu6(x: Array) -> Array:
    """``min(max(x, 0), 6)``."""
    return np.clip(x, 0, 6)


@_activation(lambda g, x, y, alpha=0.2: np.where(x > 0, g, alpha * g))
def leaky_relu(x: Array, alpha: float = 0.2) -> Array:
    """`x` above 0, ``alpha * x`` below; alpha is 0.2 as in tf.nn.leaky_relu."""
    return np.where(x > 0, x, alpha * x)


@_activation(lambda g, x, y, alpha=1.0: np.where(x > 0, g, g * alpha * np.exp(np.minimum(x, 0))))
def elu(x: Array, alpha: float = 1.0) -> Array:
    """Exponential linear unit: `x` above 0, ``alpha * (exp(x) - 1)`` below."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@_activation(
    lambda g, x, y: g * np.where(x > 0, SELU_SCALE, SELU_SCALE * SELU_ALPHA * np.exp(np.minimum(x, 0))).astype(x.dtype)
)
def selu(x: Array) -> Array:
    """Scaled exponential linear unit, ``1.0507 * elu(x, 1.6733)``."""
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))


def _gelu_gradient(g: Array, x: Array, y: Array, approximate: bool = False) -> Array:
    if approximate:
        t = np.tanh(ROOT_2_OVER_PI * (x + GELU_CUBE * x**3))
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT_2_OVER_PI * (1 + 3 * GELU_CUBE * x * x)
    else:
        density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        slope = _normal_cdf(x) + x * density
    return np.asarray(g * slope, x.dtype)


@_activation(_gelu_gradient)
def gelu(x: Array, approximate: bool = False) -> Array:
    """Gaussian error linear unit: `x` times the standard normal distribution function of `x`.

    With ``approximate=True`` by tanh, which is several times faster. Hendrycks and Gimpel (2016), arXiv:1606.08415.
    """
    if approximate:
        return np.asarray(0.5 * x * (1 + np.tanh(ROOT_2_OVER_PI * (x + GELU_CUBE * x**3))))
    return np.asarray(x * _normal_cdf(x), x.dtype)


@_activation(lambda g, x, y: g * y * (1 - y))
def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    return _sigmoid(x)


@_activation(lambda g, x, y: np.asarray(g * np.where(np.abs(x) <= 2.5, 0.2, 0).astype(x.dtype)))
def hard_sigmoid(x: Array) -> Array:
    """``0.2 * x + 0.5`` clipped to [0, 1]."""
    return np.clip(0.2 * x + 0.5, 0, 1)


@_activation(lambda g, x, y: g * (1 - y * y))
def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x)


@_activation(lambda g, x, y, axis=-1: y * (g - (g * y).sum(axis=axis, keepdims=True)))
def softmax(x: Array, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along `axis`. ValueError if `x` has fewer than 2 axes."""
    if x.ndim < 2:
        raise ValueError(f"Cannot apply softmax to a tensor that is 1D. Received input with shape {x.shape}")
    exps = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    return np.asarray(exps / exps.sum(axis=axis, keepdims=True))


@_activation(lambda g, x, y: g * _sigmoid(x))
def softplus(x: Array) -> Array:
    """``log(exp(x) + 1)``."""
    return np.logaddexp(x, 0)


@_activation(lambda g, x, y: g / np.square(1 + np.abs(x)))
def softsign(x: Array) -> Array:
    """``x / (1 + abs(x))``."""
    return np.asarray(x / (1 + np.abs(x)))


def _swish_gradient(g: Array, x: Array, y: Array) -> Array:
    s = _sigmoid(x)
    return np.asarray(g * s * (1 + x * (1 - s)))


@_activation(_swish_gradient, "silu")
def swish(x: Array) -> Array:
    """``x * sigmoid(x)``, also called silu."""
    return x * _sigmoid(x)


silu = swish


@_activation(lambda g, x, y: g * y)
def exponential(x: Array) -> Array:
    """``exp(x)``."""
    return np.exp(x)


def _mish_gradient(g: Array, x: Array, y: Array) -> Array:
    t = np.tanh(np.logaddexp(x, 0))
    return np.asarray(g * (t + x * (1 - t * t) * _sigmoid(x)))


@_activation(_mish_gradient)
def mish(x: Array) -> Array:
    """``x * tanh(softplus(x))``. Misra (2019), arXiv:1908.08681."""
    return x * np.tanh(np.logaddexp(x, 0))


# Keras writes an activation layer that is used as an activation by its class name.
REGISTRY.add(relu, "ReLU")
REGISTRY.add(leaky_relu.with_parameters(alpha=0.3), "LeakyReLU")
REGISTRY.add(elu, "ELU")
REGISTRY.add(softmax, "Softmax")

# Arguments of those layers that only describe them as layers.
_LAYER_ARGUMENTS = ("name", "trainable", "dtype", "batch_input_shape")
# The names that those layers give to the functions' parameters.
_LAYER_PARAMETERS = {"negative_slope": "alpha"}


def get(identifier: Any) -> Any:
    """Return the activation for a name, a config dict or any callable; `linear` for None.

    A config dict has a built-in activation as its class_name and parameters as its config, as in
    ``{'class_name': 'leaky_relu', 'config': {'alpha': 0.1}}``.

    Parameters
    ----------
    identifier : str, mapping, callable or None

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For anything else.

    Examples
    --------
    >>> from localconv.layers import activations
    >>> activations.get('relu') is activations.relu
    True
    """
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        return REGISTRY.find(identifier, {})
    if isinstance(identifier, Mapping):
        name, config = identifier.get("class_name"), identifier.get("config", {})
        if name == "function" and isinstance(config, str):
            return REGISTRY.find(config, identifier)
        if not isinstance(name, str) or not isinstance(config, Mapping):
            raise ValueError(f"activation: class_name must be a string and config a dict, got {shown(identifier)}")
        return _configured(name, REGISTRY.find(name, identifier), config)
    if callable(identifier):
        return identifier
    raise TypeError(f"Could not interpret activation function identifier: {shown(identifier)}")


def serialize(activation: Any) -> Any:
    """Return the name of a built-in activation, a config dict of any other; None for None."""
    if activation is None:
        return None
    if isinstance(activation, ActivationFunction) and activation.function in _BUILTIN:
        if not activation.parameters:
            return activation.function.__name__
        return {
            "module": REGISTRY.module,
            "class_name": activation.function.__name__,
            "config": dict(activation.parameters),
            "registered_name": None,
        }
    if hasattr(activation, "get_config"):
        return REGISTRY.serialize(activation)
    return REGISTRY.serialize_function(activation)


def gradient_of(activation: Any, grad_output: Array, x: Array, y: Array) -> Array:
    """The gradient through any activation; NotImplementedError for a user's callable without one."""
    if not hasattr(activation, "gradient"):
        raise NotImplementedError(
            f"the activation {function_label(activation)} has no attribute gradient(grad_output, x, y), so backward "
            "cannot go through it; layers.ActivationFunction makes an activation of a function and its derivative"
        )
    gradient = converted(np.asarray(activation.gradient(grad_output, x, y)), x.dtype)
    if gradient.shape != x.shape:
        raise ValueError(
            f"the gradient of the activation {function_label(activation)} must have the shape of x, {x.shape}, "
            f"got {gradient.shape}"
        )
    return gradient


def value_of(activation: Any, x: Array) -> Array:
    """The value of any activation.

    TypeError or ValueError if a user's callable returns anything but floats of the same shape.
    """
    if activation is linear:
        return x
    y = as_float_array(activation(x), f"the result of the activation {function_label(activation)}")
    if y.shape != x.shape:
        raise ValueError(
            f"the activation {function_label(activation)} must keep the shape {x.shape}, it returned {y.shape}"
        )
    return converted(y, x.dtype)


def _configured(name: str, activation: Any, config: Mapping[str, Any]) -> Any:
    """An activation with the parameters of a config dict."""
    parameters = {
        _LAYER_PARAMETERS.get(key, key): value for key, value in config.items() if key not in _LAYER_ARGUMENTS
    }
    if not isinstance(activation, ActivationFunction):
        return activation.from_config(config) if hasattr(activation, "from_config") else activation
    known = activation.function.__code__.co_varnames[1 : activation.function.__code__.co_argcount]
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(
                f"the activation {name} has no parameter {shown(parameter)}, its parameters are {list(known)}"
            )
    return activation.with_parameters(**parameters) if parameters else activation


_BUILTIN = frozenset(activation.function for activation in REGISTRY.values())
