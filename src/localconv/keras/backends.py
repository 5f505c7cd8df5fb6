"""The compiled convolution as a function of tensors of each of Keras's backends, with its derivatives.

Such a function is called as ``convolve(x, kernel, bias, convolution)``: x and the rows are float32 or float64, both the
same; bias, or None, is as Keras 2 stores it, ``convolution.bias_shape``. What it returns can be differentiated as the
backend's own operations can, and under numpy not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .. import engine
from .convolution import Convolution

Function = Callable[[Any, Any, Any, Convolution], Any]


def _of_numpy() -> Function:
    def convolve(x: Any, kernel: Any, bias: Any, convolution: Convolution) -> Any:
        return engine.forward(convolution.spec, np.asarray(x), np.asarray(kernel), bias)

    return convolve


def _of_tensorflow() -> Function:
    from .tensorflow_functions import convolve

    return convolve


def _has_other_devices() -> bool:
    """Whether TensorFlow has a device that its tensors would have to leave for the compiled kernels."""
    import tensorflow as tf

    return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())


# For each backend: what makes its function, and whether its compiler takes the function.
FUNCTIONS: dict[str, tuple[Callable[[], Function], bool]] = {
    "numpy": (_of_numpy, False),
    "tensorflow": (_of_tensorflow, False),
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
                f"engine must be 'auto' or 'ops' on Keras's backend {name!r}, got 'compiled', which {', '.join(FUNCTIONS)} "
                "have"
            )
        return None
    if wanted == "auto" and name == "tensorflow" and _has_other_devices():
        return None
    return FUNCTIONS[name][0]()


def compiles() -> bool:
    """Whether the compiler of Keras's backend takes its compiled function."""
    return FUNCTIONS[keras.backend.backend()][1]
