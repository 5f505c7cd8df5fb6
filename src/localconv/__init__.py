"""Locally connected (unshared) and ordinary convolution for NumPy arrays, compiled, with the signatures of Keras.

A locally connected layer is a convolution whose filters differ from one output position to the next.

Functions of arrays: `local_conv1d`, `local_conv2d` and `local_conv3d`; with one kernel for all positions `conv1d`,
`conv2d` and `conv3d`; the transposed ones, `conv2d_transpose` and its kin; `im2col` and `col2im`. With filters that
come with the data, one for every image and position: `local_filter2d`, `local_correlation2d` and their kin. Gradients
are in `localconv.grad`. Kernels of 16 bits are read as they are, those of `quantize` in 8; a `KernelBank` stands for
one of a few filters spread over many positions.

Models: `localconv.layers` has the layers of Keras 2.15, `layers.LocallyConnected2D` among them, with training and
Keras's files. `localconv.convert` brings weights into the layouts of other libraries and back.

Other libraries: `localconv.torch`, `localconv.jax`, `localconv.keras` (Keras 3) and `localconv.dask` compute with their
arrays. Each is imported when it is first used.

Settings: `set_image_data_format`, `set_floatx`, `set_num_threads`, `set_winograd`; `show_config` prints what is there.

>>> import numpy as np, localconv
>>> x = np.ones((1, 5, 6, 3), np.float32)
>>> kernel = np.ones((3 * 4, 3 * 3 * 3, 2), np.float32)  # positions, rows of a window, filters
>>> localconv.local_conv2d(x, kernel, 3, data_format='channels_last').shape
(1, 3, 4, 2)

Modules that are not named here are internal, and may change.
"""

from typing import TYPE_CHECKING, Any

from . import grad
from .backend import (
    col2im,
    conv1d,
    conv1d_transpose,
    conv2d,
    conv2d_transpose,
    conv3d,
    conv3d_transpose,
    im2col,
    local_conv1d,
    local_conv1d_transpose,
    local_conv2d,
    local_conv2d_transpose,
    local_conv3d,
    local_conv3d_transpose,
)
from .core.arrays import BRIDGES as _BRIDGES
from .core.bank import KernelBank
from .core.config import floatx, image_data_format, set_floatx, set_image_data_format, set_winograd, winograd
from .core.machine import get_num_threads, set_num_threads, show_config
from .core.quantized import QuantizedKernel
from .filters import (
    local_correlation1d,
    local_correlation2d,
    local_correlation3d,
    local_filter1d,
    local_filter2d,
    local_filter3d,
)
from .hints import MissingName
from .quantization import quantize
from .version import __version__

if TYPE_CHECKING:
    from . import layers

__all__ = [
    "KernelBank",
    "QuantizedKernel",
    "__version__",
    "col2im",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "floatx",
    "get_num_threads",
    "grad",
    "im2col",
    "image_data_format",
    "layers",
    "local_conv1d",
    "local_conv1d_transpose",
    "local_conv2d",
    "local_conv2d_transpose",
    "local_conv3d",
    "local_conv3d_transpose",
    "local_correlation1d",
    "local_correlation2d",
    "local_correlation3d",
    "local_filter1d",
    "local_filter2d",
    "local_filter3d",
    "quantize",
    "set_floatx",
    "set_image_data_format",
    "set_num_threads",
    "set_winograd",
    "show_config",
    "winograd",
]


# The bridges are not in __all__: `from localconv import *` must not import what they need.
_LATER = ("convert", "layers")


def __getattr__(name: str) -> Any:
    """Import the layers, and layouts, when they are first asked for: the functions alone must not wait for them.

    A bridge waits for the first use of what is in it.
    """
    if name in _LATER:
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    if name in _BRIDGES:
        from .bridges import Bridge

        return Bridge(f"{__name__}.{name}")
    raise MissingName(__name__, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, *_BRIDGES})
