"""The compiled convolution as a function of tensors of each of Keras's backends, with its derivatives.

Such a function is called as ``convolve(x, kernel, bias, convolution)``: x and the rows are float32 or float64, both the
same; bias, or None, is as Keras 2 stores it, ``convolution.bias_shape``. What it returns can be differentiated as the
backend's own operations can, and under numpy not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from .. import engine
from ..config import CHANNELS_FIRST, CHANNELS_LAST
from .convolution import Convolution

Function = Callable[[Any, Any, Any, Convolution], Any]


def _of_numpy() -> Function:
    def convolve(x: Any, kernel: Any, bias: Any, convolution: Convolution) -> Any:
        return engine.forward(convolution.spec, np.asarray(x), np.asarray(kernel), bias)

    return convolve


def _of_tensorflow() -> Function:
    from .tensorflow_functions import convolve

    return convolve


def _of_torch() -> Function:
    from .. import torch as bridge

    functions = {1: bridge.local_conv1d, 2: bridge.local_conv2d}

    def convolve(x: Any, kernel: Any, bias: Any, convolution: Convolution) -> Any:
        spec, (positions, depth, filters) = convolution.spec, convolution.kernel_shape
        if spec.channels_first:
            # PyTorch's bridge has rows in the order of channels_last alone: here they are sorted at every call.
            by_channel = kernel.reshape(positions, depth // convolution.taps, convolution.taps, filters)
            kernel = by_channel.transpose(1, 2).reshape(kernel.shape)
            bias = None if bias is None else bias.reshape(filters, *convolution.output)
        else:
            # Views: what is computed is channels_last behind PyTorch's face.
            x, bias = x.movedim(-1, 1), None if bias is None else bias.movedim(-1, 0)
        y = functions[spec.rank](
            x,
            kernel,
            convolution.kernel_size,
            bias,
            stride=spec.strides,
            padding=convolution.padding,
            dilation=spec.dilation,
            groups=spec.groups,
        )
        return y if spec.channels_first else y.movedim(1, -1)

    return convolve


def _of_jax() -> Function:
    from .. import jax as bridge

    functions: dict[int, Callable[..., Any]] = {
        1: bridge.local_conv1d,
        2: partial(bridge.local_conv2d, output_shape=None),
    }

    def convolve(x: Any, kernel: Any, bias: Any, convolution: Convolution) -> Any:
        spec = convolution.spec
        return functions[spec.rank](
            x,
            kernel,
            kernel_size=convolution.kernel_size,
            strides=spec.strides,
            data_format=CHANNELS_FIRST if spec.channels_first else CHANNELS_LAST,
            padding=convolution.padding,
            dilation_rate=spec.dilation,
            groups=spec.groups,
            bias=bias,
        )

    return convolve


def _has_other_devices() -> bool:
    """Whether TensorFlow has a device that its tensors would have to leave for the compiled kernels."""
    import tensorflow as tf

    return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())


# For each backend: what makes its function, and whether its compiler takes the function.
FUNCTIONS: dict[str, tuple[Callable[[], Function], bool]] = {
    "numpy": (_of_numpy, False),
    "tensorflow": (_of_tensorflow, False),
    "torch": (_of_torch, True),
    "jax": (_of_jax, True),
}


def function_for(wanted: str) -> Function | None:
    """The compiled function of Keras's backend; None: the layer of this engine takes keras.ops.

    ValueError where the backend has none and the engine is 'compiled'.
    """
    name = keras.backend.backend()
    if wanted == "ops":
        return None
    if name not in FUNCTIONS:
        if wanted == "compiled":
            raise ValueError(
                f"engine must be 'auto' or 'ops' on Keras's backend {name!r}, got 'compiled', which is for "
                f"{', '.join(FUNCTIONS)}"
            )
        return None
    if wanted == "auto" and name == "tensorflow" and _has_other_devices():
        return None
    return FUNCTIONS[name][0]()


def compiles() -> bool:
    """Whether the compiler of Keras's backend takes its compiled function."""
    return FUNCTIONS[keras.backend.backend()][1]
