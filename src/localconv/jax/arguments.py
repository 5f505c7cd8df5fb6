"""What JAX's users may give: arrays and their dtypes, shapes that may have a symbolic batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import engine
from ..core.arguments import ZEROS, Ints, ints, is_masked
from ..core.borders import Borders, borders_of
from ..core.families import FAMILIES
from ..core.geometry import Geometry, Mismatch, Names, geometry_of
from ..core.quantized import QuantizedKernel
from ..core.spec import Spec, without_padding
from .window import Window, window_of

# Element types by what they are computed in: half precisions have sums of float32, which are rounded once.
COMPUTED = {"bfloat16": np.float32, "float16": np.float32, "float32": np.float32, "float64": np.float64}


def stored(kernel: jax.Array, computed: Any) -> jax.Array:
    """A kernel as the primitives read it: of 16 bits as it is where float32 is computed."""
    return kernel if computed == jnp.float32 and kernel.dtype.itemsize == 2 else kernel.astype(computed)


def array_of(value: Any, name: str) -> jax.Array:
    """`value` as a JAX array of an element type that is known here. TypeError names the argument."""
    if isinstance(value, QuantizedKernel):
        raise TypeError(
            f"{name} must be an array of {', '.join(COMPUTED)}, got QuantizedKernel, which JAX cannot read: "
            f"{name}.dequantize() is an array of float32"
        )
    if type(value).__module__ in ("localconv", "localconv.jax"):  # they have a shape and a dtype
        raise TypeError(f"{name} must be an array of {', '.join(COMPUTED)}, got a {type(value).__name__}")
    if is_masked(value) or not (hasattr(value, "dtype") and hasattr(value, "shape")):
        raise TypeError(f"{name} must be an array of {', '.join(COMPUTED)}, got {type(value).__name__}")
    array = value if isinstance(value, jax.Array) else jnp.asarray(value)
    if array.dtype.name not in COMPUTED:
        raise TypeError(f"{name} must have one of the dtypes {', '.join(COMPUTED)}, got {array.dtype}")
    return array


def geometry_for(spec: Spec, x_shape: Ints, kernel_shape: Ints, names: Names) -> Geometry:
    """The geometry of arrays of these shapes; a symbolic batch counts as one image."""
    by_image = FAMILIES[spec.family].kernel_by_image
    _check_symbols(names.input, x_shape[1:])
    _check_symbols(names.kernel, kernel_shape[by_image:])
    if by_image and kernel_shape[:1] == x_shape[:1]:
        kernel_shape = one_image(kernel_shape)
    try:
        return geometry_of(spec, one_image(x_shape), kernel_shape)
    except Mismatch as error:
        raise error.named(names) from None


def window_and_borders(spec: Spec, x_shape: Ints, names: Names) -> tuple[Window, Borders | None]:
    """The window of a spec on an input of this shape, and the padding that this has before the window goes over it, if
    it holds pixels.
    """
    if spec.padding_mode == ZEROS:
        return window_of(spec, _spatial(spec, x_shape)), None
    try:
        borders = borders_of(spec, x_shape)
    except Mismatch as error:
        raise error.named(names) from None
    return window_of(without_padding(spec), _spatial(spec, borders.padded_shape(x_shape))), borders


def _spatial(spec: Spec, shape: Ints) -> Ints:
    return shape[2:] if spec.channels_first else shape[1:-1]


def one_image(shape: Ints) -> Ints:
    """The shape of an array of images; of one image if their number is a symbol."""
    return shape if not shape or isinstance(shape[0], int) else (1, *shape[1:])


def _check_symbols(name: str, shape: Ints) -> None:
    """ValueError unless all sizes but the batch are numbers."""
    if not all(isinstance(n, int) for n in shape):
        raise ValueError(f"{name} may have a symbolic batch, but no other symbolic axis, got {shape}")


def check_queries(spec: Spec, x_shape: Ints, shape: Ints, names: Names) -> None:
    """ValueError unless images of that shape can be correlated with queries of this one."""
    _check_symbols(names.input, x_shape[1:])
    expected, _ = engine.shapes_of_correlation(spec, one_image(x_shape), names)
    engine.check_gradient(shape, (x_shape[0], *expected[1:]), names)


def full_shape(shape: Sequence[int | None], x: jax.Array, rank: int) -> Ints:
    """The output_shape of a transposed convolution, the first of it from `x` if that is None or symbolic."""
    whole: Any = shape  # a None elsewhere is refused by `ints`
    if not isinstance(shape, (list, tuple)) or not len(shape) == rank + 2 == x.ndim:
        return ints(whole, None, "output_shape", minimum=0)
    batch = x.shape[0]
    if shape[0] is not None and isinstance(batch, int):
        return ints(whole, None, "output_shape", minimum=0)
    if shape[0] is not None and shape[0] != batch:
        raise ValueError(f"output_shape must have the batch of inputs, {batch}, got {tuple(shape)}")
    return (batch, *ints(whole[1:], rank + 1, "output_shape", minimum=0, scalar=False))
