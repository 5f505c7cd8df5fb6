"""The three operations as functions of TensorFlow's tensors, closed under differentiation.

TensorFlow has no interface for kernels that were not built against it. `tf.numpy_function` calls Python from a graph
and lends the tensors' memory: no kernel is copied on the way in, and what lies at a multiple of 64 bytes not on the way
out either. XLA cannot compile it, and a SavedModel cannot hold it.

Each operation is linear in both of its tensors, and its derivatives are the two others: so any order exists.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from ..core import engine
from ..core.arguments import Ints
from ..core.arrays import Array
from ..core.quantized import QuantizedKernel
from ..core.windows import Convolution
from . import by_ops

# Below this TensorFlow copies an array instead of taking it.
ALIGNMENT = 64


def convolve(convolution: Convolution, x: Any, kernel: Any, bias: Any) -> Any:
    """As `backends` says."""
    arrays = (x, kernel) if bias is None else (x, kernel, bias)
    return _forward(convolution, *map(tf.convert_to_tensor, arrays))


def _forward(convolution: Convolution, *arrays: Any) -> Any:
    """Of the input, the kernel and, if there is one, the bias."""

    @tf.custom_gradient
    def operation(x: Any, kernel: Any, *bias: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        def backward(gradient: Any) -> tuple[Any, ...]:
            gradients = _grad_input(kernel, gradient, convolution), _grad_kernel(x, gradient, convolution)
            return *gradients, *(tf.reshape(tf.reduce_sum(gradient, 0), convolution.bias_shape) for _ in bias)

        return _output(convolution, x, kernel, *bias), backward

    return operation(*arrays)


def _grad_input(kernel: Any, gradient: Any, convolution: Convolution) -> Any:
    @tf.custom_gradient
    def operation(kernel: Any, gradient: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        def compute(kernel: Array, gradient: Array) -> Array:
            shape = convolution.input_shape(len(gradient))
            return engine.grad_input(convolution.spec, shape, kernel, gradient, out=empty(shape, gradient.dtype))

        def backward(x: Any) -> tuple[Any, Any]:
            return _grad_kernel(x, gradient, convolution), _forward(convolution, x, kernel)

        static = convolution.input_shape(gradient.shape[0])
        return called(compute, (kernel, gradient), static), backward

    return operation(kernel, gradient)


def _grad_kernel(x: Any, gradient: Any, convolution: Convolution) -> Any:
    @tf.custom_gradient
    def operation(x: Any, gradient: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        shape = convolution.kernel_shape

        def compute(x: Array, gradient: Array) -> Array:
            return engine.grad_kernel(convolution.spec, x, shape, gradient, out=empty(shape, x.dtype))

        def backward(kernel: Any) -> tuple[Any, Any]:
            return _grad_input(kernel, gradient, convolution), _forward(convolution, x, kernel)

        return called(compute, (x, gradient), shape), backward

    return operation(x, gradient)


def convolve_int8(convolution: Convolution, x: Any, values: Any, scales: Any, bias: Any) -> Any:
    """As `backends` says; the kernel has no derivative."""
    x, values, scales = map(tf.convert_to_tensor, (x, values, scales))
    y = _forward_int8(x, values, scales, convolution)
    return y if bias is None else y + by_ops.broadcastable_bias(bias, convolution)


def _forward_int8(x: Any, values: Any, scales: Any, convolution: Convolution) -> Any:
    @tf.custom_gradient
    def operation(x: Any, values: Any, scales: Any) -> tuple[Any, Callable[[Any], tuple[Any, None, None]]]:
        def compute(x: Array, values: Array, scales: Array) -> Array:
            out = empty(convolution.output_shape(len(x)), x.dtype)
            return engine.forward(convolution.spec, x, QuantizedKernel.of_lent(values, scales), out=out)

        def backward(gradient: Any) -> tuple[Any, None, None]:
            return _grad_input_int8(gradient, values, scales, convolution), None, None

        return called(compute, (x, values, scales), convolution.output_shape(x.shape[0])), backward

    return operation(x, values, scales)


def _grad_input_int8(gradient: Any, values: Any, scales: Any, convolution: Convolution) -> Any:
    @tf.custom_gradient
    def operation(gradient: Any, values: Any, scales: Any) -> tuple[Any, Callable[[Any], tuple[Any, None, None]]]:
        def compute(gradient: Array, values: Array, scales: Array) -> Array:
            shape = convolution.input_shape(len(gradient))
            kernel, out = QuantizedKernel.of_lent(values, scales), empty(shape, gradient.dtype)
            return engine.grad_input(convolution.spec, shape, kernel, gradient, out=out)

        def backward(x: Any) -> tuple[Any, None, None]:
            return _forward_int8(x, values, scales, convolution), None, None

        return called(compute, (gradient, values, scales), convolution.input_shape(gradient.shape[0])), backward

    return operation(gradient, values, scales)


def _output(convolution: Convolution, *arrays: Any) -> Any:
    """The convolution of x with a kernel, plus a bias if there is one; no derivative."""

    def compute(x: Array, kernel: Array, bias: Array | None = None) -> Array:
        out = empty(convolution.output_shape(len(x)), x.dtype)
        return engine.forward(convolution.spec, x, kernel, bias, out=out)

    return called(compute, arrays, convolution.output_shape(arrays[0].shape[0]))


def called(compute: Callable[..., Array], tensors: tuple[Any, ...], shape: tuple[int | None, ...]) -> Any:
    """What a function of arrays makes of tensors: now, or when the graph runs."""
    if tf.executing_eagerly():
        # Not Tensor.numpy() and tf.convert_to_tensor: both copy.
        result = compute(*[np.asarray(tensor) for tensor in tensors])
        return tf.experimental.dlpack.from_dlpack(result.__dlpack__()) if result.size else tf.zeros(shape, result.dtype)
    result = tf.numpy_function(compute, tensors, tensors[0].dtype, stateful=False)
    result.set_shape(shape)
    return result


def empty(shape: Ints, dtype: np.dtype[Any]) -> Array:
    """A new array whose memory TensorFlow takes as it is."""
    nbytes = prod(shape) * dtype.itemsize
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)
