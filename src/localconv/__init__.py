"""Locally connected (unshared) and ordinary convolution for NumPy arrays, compiled, with the signatures of Keras."""

from .backend import col2im, conv1d, conv2d, im2col, local_conv1d, local_conv2d
from .config import (
    floatx,
    get_num_threads,
    image_data_format,
    set_floatx,
    set_image_data_format,
    set_num_threads,
    show_config,
)
from .version import __version__

__all__ = [
    "__version__",
    "col2im",
    "conv1d",
    "conv2d",
    "floatx",
    "get_num_threads",
    "im2col",
    "image_data_format",
    "local_conv1d",
    "local_conv2d",
    "set_floatx",
    "set_image_data_format",
    "set_num_threads",
    "show_config",
]
