"""Derivatives and arrays in the words of each backend."""

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()
# NumPy has no derivatives.
TRAINS = BACKEND != "numpy"


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def value_and_gradients(function, arrays):
    """What a function of tensors returns, (a number, more), and the number's derivatives with respect to all."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total, more = function(*tensors)
        return (total, more), [array(g) for g in tape.gradient(total, tensors)]
    if BACKEND == "torch":
        import torch

        tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
        total, more = function(*tensors)
        return (total, more), [array(g) for g in torch.autograd.grad(total, tensors)]
    import jax

    # One program: JAX would compile each of its operations by itself.
    program = jax.jit(jax.value_and_grad(function, tuple(range(len(arrays))), has_aux=True))
    value, gradients = program(*arrays)
    return value, [array(g) for g in gradients]


def gradient(function, tensors):
    """The derivatives as tensors that can be differentiated again, of a function of tensors."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = function(*tensors)
        return tape.gradient(total, tensors)
    if BACKEND == "torch":
        import torch

        return torch.autograd.grad(function(*tensors), tensors, create_graph=True)
    import jax

    return jax.grad(function, tuple(range(len(tensors))))(*tensors)


def run_layer(layer, x, g):
    """What a built layer answers, its losses, and the derivatives of sum(y * g) + losses for x and its weights.

    They go through the layer's own variables, as training does.
    """
    if not TRAINS:
        return array(layer(x)), [array(loss) for loss in layer.losses], None, None
    variables = layer.trainable_variables
    # A layer's own stateless_call passes its activity regularizer by.
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype.name), layer])

    def total(x, *values):
        y, _, losses = model.stateless_call(values, [], x, return_losses=True)
        return ops.sum(ops.multiply(y, ops.convert_to_tensor(g))) + sum(losses), (y, losses)

    (_, (y, losses)), (dx, *dw) = value_and_gradients(total, [x, *[array(v) for v in variables]])
    return array(y), [array(loss) for loss in losses], dx, dw
