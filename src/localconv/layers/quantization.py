"""Kernels of layers in fewer bytes: the modes of `Layer.quantize`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.arrays import Array
from ..quantization import quantize
from .arguments import shown
from .variables import converted

MODES = ("int8", "float16", "bfloat16")
# Those of them whose kernels have scales.
SCALED = ("int8",)


def checked_mode(mode: Any, name: str) -> str:
    """A mode whose kernels can be made here. ValueError, naming the argument, for anything else."""
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"{name} must be one of {MODES}, got {shown(mode)}")
    kernel_dtype(mode)
    return mode


def kernel_dtype(mode: str) -> np.dtype[Any]:
    """The dtype of a mode's kernels. ValueError where the package that has it is missing."""
    if mode != "bfloat16":
        return np.dtype(mode)
    try:
        import ml_dtypes
    except ImportError:
        raise ValueError("'bfloat16' needs the package ml_dtypes: pip install ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def small_kernel(kernel: Array, mode: str, layer_name: str) -> tuple[Array, Array | None]:
    """A mode's kernel, and the scales if it has any. ValueError, naming the layer, for what the mode cannot hold."""
    if mode in SCALED:
        try:
            quantized = quantize(kernel, mode)
        except ValueError as error:
            raise ValueError(f"layer {layer_name} cannot be quantized: {error}") from None
        return quantized.values, quantized.scales
    values = converted(kernel, kernel_dtype(mode))
    # The extremes: NaN is one where there is any, and no list of truth values is made.
    with np.errstate(all="ignore"):
        finite = np.isfinite((values.min(), values.max())).all()
    if not finite:
        raise ValueError(
            f"layer {layer_name} cannot be quantized: its kernel must be finite, and in {mode}, got inf, NaN or larger "
            "values"
        )
    return values, None
