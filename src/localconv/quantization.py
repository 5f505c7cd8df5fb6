"""Kernels made small: `quantize`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .core.arrays import Array, as_float_array
from .core.quantized import LARGEST_SCALE, QuantizedKernel, scales_shape

__all__ = ["quantize"]

# The largest value: symmetric, so that a kernel and its negative have the same error.
LARGEST = 127
# Elements that are quantized at once: few enough for a cache.
BLOCK = 2**18


def quantize(kernel: ArrayLike, mode: str = "int8") -> QuantizedKernel:
    """A kernel in eight bits: every filter of every position scaled so that its largest value is 127.

    Parameters
    ----------
    kernel : array_like, float16, bfloat16, float32 or float64
        (positions, rows, filters) of an unshared convolution, or (..., channels, filters) of a shared one. Finite.
    mode : {'int8'}, optional
        For 16 bits take ``kernel.astype(np.float16)``, or ml_dtypes.bfloat16: the functions read these as they are.

    Returns
    -------
    QuantizedKernel
        A quarter of the bytes of float32, and one scale for each filter at each position (of a shared kernel: at each
        tap): the largest value of the rows by 127. A value differs from the kernel's by at most half a scale.

    Raises
    ------
    TypeError
        A kernel of other dtypes.
    ValueError
        Fewer than three axes, values that are not finite, another mode.

    Notes
    -----
    Symmetric quantization, values rounded to the nearest, ties to even, as Keras 3's `abs_max_quantize` with one scale
    for each output channel.

    Examples
    --------
    >>> import numpy as np, localconv
    >>> kernel = np.linspace(-1, 1, 8 * 12 * 2, dtype=np.float32).reshape(8, 12, 2)
    >>> small = localconv.quantize(kernel)
    >>> small.nbytes / kernel.nbytes, float(abs(small.dequantize() - kernel).max()) < 0.5 / 127
    (0.3333333333333333, True)
    """
    array = as_float_array(kernel, "kernel")
    if mode != "int8":
        raise ValueError(f"mode must be 'int8', got {mode!r}")
    if array.ndim < 3:
        raise ValueError(f"kernel must have at least 3 axes, (..., rows, filters), got {array.shape}")
    values = np.empty(array.shape, np.int8)
    scales = np.empty(scales_shape(array.shape), np.float32)
    # A few positions at a time: a kernel may be a file that is larger than the memory.
    step = max(1, BLOCK // max(1, array[:1].size))
    for first in range(0, len(array), step):
        part = slice(first, first + step)
        values[part], scales[part] = _quantized(array[part])
    return QuantizedKernel(values, scales)


@np.errstate(all="ignore")  # subnormal numbers lose digits here, and that is meant
def _quantized(kernel: Array) -> tuple[Array, Array]:
    """Values and scales of a part of a kernel."""
    wide = kernel.astype(np.float64 if kernel.dtype.itemsize == 8 else np.float32)
    largest = np.abs(wide).max(-2, initial=0)
    if not (largest <= np.finfo(np.float32).max).all():  # written so that a NaN fails
        raise ValueError("kernel must be finite to be quantized, and in float32, got inf, NaN or larger values")
    # At least the smallest normal number: what is less would lose its digits.
    scales = np.clip(largest / LARGEST, np.finfo(np.float32).tiny, LARGEST_SCALE).astype(np.float32)
    values = np.rint(wide / scales[..., None, :])
    return np.clip(values, -LARGEST, LARGEST).astype(np.int8), scales
