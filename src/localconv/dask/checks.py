"""What comes in: dask arrays and kernels in files, checked at once as the functions for NumPy check theirs."""

from __future__ import annotations

import math
import os
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike

from ..core.arguments import Ints, brief
from ..core.arrays import as_float_array, element_type
from ..core.engine import check_bias, check_gradient, results_of
from ..core.geometry import Geometry, Mismatch, Names, geometry_of
from ..core.quantized import QuantizedKernel
from ..core.spec import Spec
from .files import KernelFile
from .graph import Kernel, cut_by_gradient, cut_by_kernel, forward_layer, grad_input_layer, grad_kernel_layer


def convolve(spec: Spec, inputs: Any, kernel: Any, bias: Any, names: Names) -> da.Array:
    """A locally connected convolution of dask arrays."""
    x, weights = dask_array(inputs, names.input), kernel_of(kernel, names.kernel)
    added = None if bias is None else _bias_of(bias)
    element = element_type(weights, x, added)  # type: ignore[arg-type]  # their dtypes are all that is asked for
    geometry = _geometry(spec, x.shape, weights.shape, names)
    if added is not None:
        check_bias(added.shape, results_of(spec, x.shape, geometry)[1])
        if added.ndim > 1 and spec.channels_first:
            # In two steps: dask merges axes, or splits one, but does not do both at once.
            added = added.reshape(-1).reshape(geometry.filters, *added.shape[:-1])
    return forward_layer(cut_by_kernel(spec, geometry, weights), x, weights, added, element)


def grad_input(spec: Spec, input_shape: Ints, kernel: Any, grad_output: Any, names: Names) -> da.Array:
    """The gradient for the input."""
    weights, gradient = kernel_of(kernel, names.kernel), dask_array(grad_output, names.gradient)
    element = element_type(weights, gradient)  # type: ignore[arg-type]
    geometry = _geometry(spec, input_shape, weights.shape, names)
    check_gradient(gradient.shape, results_of(spec, input_shape, geometry)[0], names)
    return grad_input_layer(cut_by_kernel(spec, geometry, weights), weights, gradient, element)


def grad_kernel(spec: Spec, inputs: Any, kernel_shape: Ints, grad_output: Any, names: Names) -> da.Array:
    """The gradient for the kernel."""
    x, gradient = dask_array(inputs, names.input), dask_array(grad_output, names.gradient)
    element = element_type(None, x, gradient)  # type: ignore[arg-type]
    geometry = _geometry(spec, x.shape, kernel_shape, names)
    check_gradient(gradient.shape, results_of(spec, x.shape, geometry)[0], names)
    cut = cut_by_gradient(spec, geometry, gradient, element.result.itemsize)
    return grad_kernel_layer(cut, x, gradient, element)


def dask_array(value: Any, name: str) -> da.Array:
    """`value`, a dask array of floats whose chunks are known. TypeError or ValueError names the argument."""
    if not isinstance(value, da.Array):
        hint = f": dask.array.from_array({name}) is one" if isinstance(value, np.ndarray) else ""
        raise TypeError(f"{name} must be a dask array, got {type(value).__name__}{hint}")
    as_float_array(value._meta, name)
    if any(math.isnan(size) for sizes in value.chunks for size in sizes):
        raise ValueError(
            f"{name} must have chunks of known sizes, got {brief(value.chunks)}: {name}.compute_chunk_sizes()"
        )
    return value


def kernel_of(value: Any, name: str) -> Kernel:
    """A kernel: a dask array, or a file."""
    if isinstance(value, (da.Array, KernelFile)):
        return value if isinstance(value, KernelFile) else dask_array(value, name)
    hint = ""
    if isinstance(value, np.ndarray):
        hint = f": dask.array.from_array({name}, chunks=...) is one, of whole rows of the output"
    elif isinstance(value, (str, bytes, os.PathLike)):
        hint = f": localconv.dask.KernelFile({name}) is one"
    elif isinstance(value, QuantizedKernel):
        hint = ": save its values and its scales, and KernelFile(values, scales=scales) is one"
    raise TypeError(f"{name} must be a dask array or a KernelFile, got {type(value).__name__}{hint}")


def _bias_of(value: ArrayLike | da.Array) -> da.Array:
    """A bias, which is small and may be an array of NumPy."""
    if isinstance(value, da.Array):
        return dask_array(value, "bias")
    return da.from_array(as_float_array(value, "bias"), chunks=-1)


def _geometry(spec: Spec, x_shape: Ints, kernel_shape: Ints, names: Names) -> Geometry:
    try:
        return geometry_of(spec, x_shape, kernel_shape)
    except Mismatch as error:
        raise error.named(names) from None
