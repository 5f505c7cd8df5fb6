"""Locally connected (unshared) and ordinary convolution for NumPy arrays, compiled, with the signatures of Keras."""

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
from .config import floatx, image_data_format, set_floatx, set_image_data_format, set_winograd, winograd
from .machine import get_num_threads, set_num_threads, show_config
from .quantization import quantize
from .quantized import QuantizedKernel
from .version import __version__

if TYPE_CHECKING:
    from . import layers

__all__ = [
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
    "quantize",
    "set_floatx",
    "set_image_data_format",
    "set_num_threads",
    "set_winograd",
    "show_config",
    "winograd",
]


_LATER = ("convert", "layers")
# Not in __all__: `from localconv import *` must not import what they need.
_BRIDGES = ("dask", "jax", "keras", "torch")


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
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, *_BRIDGES})
