"""The compiled convolution for tensors of each of Keras's backends, with its derivatives.

For a backend there is a maker: given a `Convolution`, once, when a layer is built, it returns the function
``compute(x, kernel, bias)``. x and kernel, which has rows, are float32 or float64, both the same; bias, or None, is as
Keras 2 stores it. What `compute` returns can be differentiated as the backend's own operations can, under numpy not at
all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from .. import engine
from ..config import CHANNELS_FIRST, CHANNELS_LAST
from . import ops
from .convolution import Convolution

Compute = Callable[[Any, Any, Any], Any]
Maker = Callable[[Convolution], Compute]


def _of_numpy(convolution: Convolution) -> Compute:
    def compute(x: Any, kernel: Any, bias: Any) -> Any:
        return engine.forward(convolution.spec, np.asarray(x), np.asarray(kernel), bias)

    return compute


def _of_tensorflow(convolution: Convolution) -> Compute:
    from .tensorflow_functions import convolve

    return partial(convolve, convolution)


def _of_torch(convolution: Convolution) -> Compute:
    from ..torch.functional import convolve, window_for

    spec, (positions, depth, filters) = convolution.spec, convolution.kernel_shape
    window = window_for(
        spec.rank, convolution.kernel_size, spec.strides, convolution.padding, spec.dilation, spec.groups
    )
    name = f"LocallyConnected{spec.rank}D"

    def channels_last(x: Any, kernel: Any, bias: Any) -> Any:
        # Views: what is computed is channels_last behind PyTorch's face.
        bias = None if bias is None else bias.movedim(-1, 0)
        return convolve(name, x.movedim(-1, 1), kernel, bias, window).movedim(1, -1)

    def channels_first(x: Any, kernel: Any, bias: Any) -> Any:
        # PyTorch's bridge has rows in the order of channels_last alone: here they are sorted at every call.
        by_channel = kernel.reshape(positions, depth // convolution.taps, convolution.taps, filters)
        kernel = by_channel.transpose(1, 2).reshape(convolution.kernel_shape)
        bias = None if bias is None else ops.shown_bias(bias, convolution)
        return convolve(name, x, kernel, bias, window)

    return channels_first if spec.channels_first else channels_last


def _of_jax(convolution: Convolution) -> Compute:
    from .. import jax as bridge

    spec = convolution.spec
    function: Callable[..., Any] = partial(
        (bridge.local_conv1d, bridge.local_conv2d, bridge.local_conv3d)[spec.rank - 1],
        kernel_size=convolution.kernel_size,
        strides=spec.strides,
        data_format=CHANNELS_FIRST if spec.channels_first else CHANNELS_LAST,
        padding=convolution.padding,
        dilation_rate=spec.dilation,
        groups=spec.groups,
    )
    return lambda x, kernel, bias: function(x, kernel, bias=bias)


def _of_ops(convolution: Convolution) -> Compute:
    return partial(ops.convolve, convolution)


def _has_other_devices() -> bool:
    """Whether TensorFlow has a device that its tensors would have to leave for the compiled kernels."""
    import tensorflow as tf

    return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())


# For each backend its maker, and whether the backend's compiler takes what that makes.
MAKERS: dict[str, tuple[Maker, bool]] = {
    "numpy": (_of_numpy, False),
    # XLA compiles no call into Python.
    "tensorflow": (_of_tensorflow, False),
    "torch": (_of_torch, True),
    "jax": (_of_jax, True),
}


def maker_for(wanted: str) -> tuple[Maker, bool]:
    """The maker that the engine of this name, 'auto', 'compiled' or 'ops', has for Keras's backend, and whether the
    backend's compiler takes what it makes.

    ValueError for 'compiled' where the backend has no compiled kernels.
    """
    name = keras.backend.backend()
    if wanted == "compiled" and name not in MAKERS:
        raise ValueError(
            f"engine must be 'auto' or 'ops' on Keras's backend {name!r}, got 'compiled', which is for "
            f"{', '.join(MAKERS)}"
        )
    if wanted == "ops" or name not in MAKERS or (wanted == "auto" and name == "tensorflow" and _has_other_devices()):
        return _of_ops, True
    return MAKERS[name]
