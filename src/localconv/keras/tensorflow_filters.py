"""Filters that come with the data as functions of TensorFlow's tensors, closed under differentiation.

As in `tensorflow_functions`: each of the three sums is linear in both of its tensors, and its derivatives are the two
others. Sizes of the input may be unknown until a graph runs: the shapes of results go into the calls as tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..core import engine
from ..core.arguments import Ints
from ..core.arrays import Array
from ..core.spec import Spec
from ..core.windows import filters_shape
from ..filters import CORRELATION_NAMES, FILTER_NAMES
from .checks import Sizes, known_output, result_shape
from .tensorflow_functions import called, empty

Pair = tuple[Any, Any]


def filtered(spec: Spec, x: Any, filters: Any) -> Any:
    """`local_filter`; filters of 16 bits are read as they are."""
    return _forward(spec, tf.convert_to_tensor(x), tf.convert_to_tensor(filters))


def correlated(spec: Spec, x: Any, queries: Any) -> Any:
    """`local_correlation`."""
    x, queries = tf.convert_to_tensor(x), tf.convert_to_tensor(queries)
    static = filters_shape(spec, x.shape[0], known_output(spec, tuple(x.shape)))

    def compute(x: Array, queries: Array) -> Array:
        _, shape = engine.shapes_of_correlation(spec, x.shape, CORRELATION_NAMES)
        return engine.correlation(spec, x, queries, empty(shape, x.dtype), CORRELATION_NAMES)

    return _grad_kernel_by(spec, compute, (x, queries), static)


def _forward(spec: Spec, x: Any, kernel: Any) -> Any:
    @tf.custom_gradient
    def operation(x: Any, kernel: Any) -> tuple[Any, Callable[[Any], Pair]]:
        def compute(x: Array, kernel: Array) -> Array:
            shape = result_shape(spec, x.shape)
            return engine.forward(spec, x, kernel, out=empty(shape, x.dtype), names=FILTER_NAMES)  # type: ignore[arg-type]

        def backward(gradient: Any) -> Pair:
            for_kernel = _grad_kernel(spec, x, gradient, kernel)
            return _grad_input(spec, kernel, gradient, x), tf.cast(for_kernel, kernel.dtype)

        return called(compute, (x, kernel), result_shape(spec, tuple(x.shape))), backward

    return operation(x, kernel)


def _grad_input(spec: Spec, kernel: Any, gradient: Any, x: Any) -> Any:
    """The gradient for x, of which only the shape matters."""
    shape_of_x, static = tf.shape(x), tuple(x.shape)

    @tf.custom_gradient
    def operation(gradient: Any, kernel: Any) -> tuple[Any, Callable[[Any], Pair]]:
        def compute(gradient: Array, kernel: Array, shape: Array) -> Array:
            sizes: Ints = tuple(shape.tolist())
            return engine.grad_input(spec, sizes, kernel, gradient, empty(sizes, gradient.dtype), FILTER_NAMES)

        def backward(x: Any) -> Pair:
            return _forward(spec, x, kernel), tf.cast(_grad_kernel(spec, x, gradient, kernel), kernel.dtype)

        return called(compute, (gradient, kernel, shape_of_x), static), backward

    return operation(gradient, kernel)


def _grad_kernel(spec: Spec, x: Any, gradient: Any, kernel: Any) -> Any:
    """The gradient for filters, of which only the shape matters."""
    shape_of_kernel = tf.shape(kernel)

    def compute(x: Array, gradient: Array, shape: Array) -> Array:
        sizes: Ints = tuple(shape.tolist())
        return engine.grad_kernel(spec, x, sizes, gradient, empty(sizes, x.dtype), names=FILTER_NAMES)

    return _grad_kernel_by(spec, compute, (x, gradient), tuple(kernel.shape), shape_of_kernel)


def _grad_kernel_by(spec: Spec, compute: Callable[..., Array], pair: Pair, static: Sizes, *shape: Any) -> Any:
    """What a function makes of x and the output's gradient: filters."""

    @tf.custom_gradient
    def operation(x: Any, gradient: Any) -> tuple[Any, Callable[[Any], Pair]]:
        def backward(kernel: Any) -> Pair:
            return _grad_input(spec, kernel, gradient, x), _forward(spec, x, kernel)

        return called(compute, (x, gradient, *shape), static), backward

    return operation(*pair)
