"""The operations on arrays: what the functions, the layers and every bridge call. Nothing here knows of Keras's
signatures.

A call goes down once: arrays and a `Spec` come in; the job for their shapes, element type and the settings of the
moment is found or made (geometry.py checks, policy.py plans); it runs; the result comes back. The operations are the
nine of the three families, forward and both gradients, the gradient for the bias, and im2col and col2im.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray  # looked up in every call
from numpy.typing import ArrayLike

from .._core import KEPT_BYTES, KEPT_PARTS, Job, num_threads
from .arguments import ZEROS, Ints, flag
from .arrays import (
    ACCEPTED,
    FLOAT64,
    Array,
    ElementType,
    KernelLike,
    accumulate_result,
    as_float_array,
    check_accumulate,
    check_apart,
    contiguous,
    copy_element_type,
    data_element_type,
    element_type,
    output_for,
    rounded_into,
    stored_elements,
    widened,
    write_result,
)
from .bank import KernelBank
from .borders import Borders, borders_of, folded, padded
from .families import FAMILIES, makes
from .geometry import Geometry, Mismatch, Names, column_geometry, filters_geometry, geometry_of
from .policy import Whole, plan
from .quantized import QuantizedKernel
from .settings import Settings, current
from .spec import Spec, without_padding
from .windows import filters_shape, layout_of

# The operations of every family, by its name: looked up in every call.
FORWARD, GRAD_INPUT, GRAD_KERNEL = (
    {name: family.operations[made] for name, family in FAMILIES.items()} for made in ("output", "input", "kernel")
)

# What errors call the arrays if the caller does not say.
NAMES = Names()

# Bytes of what a plan weighs beside its job.
OVERHEAD = 2048

# Terms of a sum for the bias in the data's own type.
BIAS_BLOCK_ROWS = 64


class Prepared(NamedTuple):
    """What is known of a call before its arrays' values: the job, the output's shape,
    those of an acceptable bias, and its own bytes.
    """

    job: Any
    output: Ints
    bias_shapes: tuple[Ints, ...]
    nbytes: int


class Context(NamedTuple):
    """What a caller has of its own in place of the process's: the settings, and how many threads a call may use.

    part_of: what the call computes is a part of that, and gets the bits that it has there.
    """

    settings: Settings
    threads: int
    part_of: Whole | None = None


class EmptyJob:
    """The job of an operation that has nothing to sum: no images, or no pixels to compute a gradient for."""

    nbytes = 0

    def run(self, result: Array, *arrays: Array | None, accumulate: bool = False, **options: Any) -> None:
        """Set the result to 0, unless it is to be added to."""
        if not accumulate:
            result[...] = 0


class Plans:
    """Plans by what they were made for: the newest ones, as many as their bytes allow."""

    def __init__(self, limit: int) -> None:
        self.limit, self.nbytes = limit, 0
        self.kept: dict[tuple[Any, ...], Prepared] = {}
        self.get = self.kept.get
        self._adding = threading.Lock()

    def keep(self, key: tuple[Any, ...], plan: Prepared) -> Prepared:
        """Keep a plan unless it is too large, and return it."""
        # Another thread may be adding; and where the process was forked while one did, none will ever end. Then this
        # plan is not kept.
        if plan.nbytes <= self.limit // KEPT_PARTS and self._adding.acquire(blocking=False):
            try:
                if key not in self.kept:
                    while self.nbytes + plan.nbytes > self.limit:
                        self.nbytes -= self.kept.pop(next(iter(self.kept))).nbytes
                    self.kept[key] = plan
                    self.nbytes += plan.nbytes
            finally:
                self._adding.release()
        return plan

    def clear(self) -> None:
        """Forget all plans."""
        with self._adding:
            self.kept.clear()
            self.nbytes = 0


plans = Plans(KEPT_BYTES)
# Looked up once: these are a part of what a small call costs.
_find = plans.get


def prepare(
    operation: str, spec: Spec, x_shape: Ints, kernel_shape: Ints, element: ElementType, context: Context | None = None
) -> Prepared:
    """The plan of an operation on arrays of these shapes and this element type.

    Mismatch where they do not fit the spec or each other.
    """
    now, threads, whole = (current(), num_threads(), None) if context is None else context
    key = (operation, spec, x_shape, kernel_shape, element, now, threads, whole)
    return _find(key) or plans.keep(key, _plan(*key))


def _plan(
    operation: str,
    spec: Spec,
    x_shape: Ints,
    kernel_shape: Ints,
    element: ElementType,
    now: Settings,
    threads: int,
    whole: Whole | None,
) -> Prepared:
    assert spec.padding_mode == ZEROS, "the kernels know no other padding"
    geometry = geometry_of(spec, x_shape, kernel_shape)
    shape, biases = results_of(spec, x_shape, geometry)
    nothing = geometry.batch == 0 or (makes(operation) == "input" and 0 in geometry.input)
    job = EmptyJob() if nothing else plan(operation, geometry, element, now, threads, whole)
    return Prepared(job, shape, biases, job.nbytes + OVERHEAD)


def results_of(spec: Spec, x_shape: Ints, geometry: Geometry) -> tuple[Ints, tuple[Ints, ...]]:
    """The shape of the forward result, and those that a bias may have."""
    output = geometry.output[3 - spec.rank :]
    shape = layout_of(x_shape[: -spec.rank - 1], output, geometry.filters, geometry.channels_first)
    family = FAMILIES[spec.family]
    if family.kernel_by_image:
        return shape, ()
    # What layers of several dimensions store for an unshared kernel; a shared one has a bias for each filter alone.
    biases: tuple[Ints, ...] = ((geometry.filters,),)
    if family.kernel_by_position:
        biases = (*biases, (*output, geometry.filters))
    return shape, biases


# ------------------------------------------------------------------------------------------------------- the operations


def forward(
    spec: Spec,
    x: ArrayLike,
    kernel: KernelLike,
    bias: ArrayLike | None = None,
    out: Array | None = None,
    relu: bool = False,
    names: Names = NAMES,
    context: Context | None = None,
    packing: Callable[[Any, int, Array], Array | None] | None = None,
) -> Array:
    """The convolution of x with kernel, plus bias; relu: in the same pass. Errors call the arguments by `names`.

    packing: `KeptPacking.find`, but for the version, which is of a kernel in the data's own dtype.
    """
    if spec.padding_mode != ZEROS:
        shape = _checked_kernel(spec, kernel, names).shape
        spec, x = _padded(spec, as_float_array(x, names.input), shape, out, names)
    if type(kernel) is KernelBank:
        return _banked(spec, names).forward(spec, x, kernel, bias, out, relu, names, context)  # type: ignore[no-any-return]
    x = as_float_array(x, names.input)
    if type(kernel) is not QuantizedKernel:
        kernel = as_float_array(kernel, names.kernel)  # type: ignore[arg-type]
    else:
        check_quantized(spec, names)
    b = None if bias is None else as_float_array(bias, "bias")
    element = element_type(kernel, x, b)
    try:
        prepared = prepare(FORWARD[spec.family], spec, x.shape, kernel.shape, element, context)
    except Mismatch as error:
        raise error.named(names) from None
    if b is not None:
        check_bias(b.shape, prepared.bias_shapes)
    if type(kernel) is ndarray and kernel.strides[0] == 0 and is_spread(spec, kernel):
        return forward(spec, x, KernelBank.of_one(kernel[:1], len(kernel)), b, out, relu, names, context)
    dtype = element.dtype
    result, staged = output_for(out, prepared.output, element, (x, kernel, b))
    if b is not None:
        b = contiguous(b, dtype)
    elements = contiguous(kernel, dtype) if kernel.dtype is dtype else stored(kernel, element, prepared.job)  # type: ignore[arg-type]
    packed = None if packing is None else packing(prepared.job, result.size // kernel.shape[-1], elements)
    if packed is None:
        prepared.job.run(result, contiguous(x, dtype), elements, None, b, relu)
    else:
        prepared.job.run(result, contiguous(x, dtype), elements, None, b, relu, packed=packed)
    return result if out is None and not staged else write_result(result, out, staged, element)


def grad_input(
    spec: Spec,
    input_shape: Ints,
    kernel: KernelLike,
    gradient: ArrayLike,
    out: Array | None = None,
    names: Names = NAMES,
    context: Context | None = None,
) -> Array:
    """The gradient for the input; `gradient`: for the output."""
    if spec.padding_mode != ZEROS:
        return _folded_grad_input(spec, input_shape, kernel, gradient, out, names, context)
    if type(kernel) is KernelBank:
        return _banked(spec, names).grad_input(  # type: ignore[no-any-return]
            spec, input_shape, kernel, gradient, out, names, context
        )
    if type(kernel) is not QuantizedKernel:
        kernel = as_float_array(kernel, names.kernel)  # type: ignore[arg-type]
    else:
        check_quantized(spec, names)
    gradient = as_float_array(gradient, names.gradient)
    element = element_type(kernel, gradient)
    try:
        prepared = prepare(GRAD_INPUT[spec.family], spec, input_shape, kernel.shape, element, context)
    except Mismatch as error:
        raise error.named(names) from None
    check_gradient(gradient.shape, prepared.output, names)
    if type(kernel) is ndarray and kernel.strides[0] == 0 and is_spread(spec, kernel):
        return grad_input(spec, input_shape, KernelBank.of_one(kernel[:1], len(kernel)), gradient, out, names, context)
    dtype = element.dtype
    result, staged = output_for(out, input_shape, element, (kernel, gradient))
    elements = contiguous(kernel, dtype) if kernel.dtype is dtype else stored(kernel, element, prepared.job)  # type: ignore[arg-type]
    prepared.job.run(result, None, elements, contiguous(gradient, dtype))
    return write_result(result, out, staged, element)


def grad_kernel(
    spec: Spec,
    x: ArrayLike,
    kernel_shape: Ints,
    gradient: ArrayLike,
    out: Array | None = None,
    accumulate: bool = False,
    names: Names = NAMES,
    context: Context | None = None,
    element: ElementType | None = None,
) -> Array:
    """The gradient for the kernel; accumulate: added to what out holds. An `out` of 16 bits is rounded into, unless
    `element` says what the result is.
    """
    check_accumulate(accumulate, out)
    x, gradient = as_float_array(x, names.input), as_float_array(gradient, names.gradient)
    if spec.padding_mode != ZEROS:
        spec, x = _padded(spec, x, kernel_shape, out, names)
    if element is None:
        element = rounded_into(element_type(None, x, gradient), out)
    try:
        prepared = prepare(GRAD_KERNEL[spec.family], spec, x.shape, kernel_shape, element, context)
    except Mismatch as error:
        raise error.named(names) from None
    check_gradient(gradient.shape, prepared.output, names)
    dtype = element.dtype
    result, staged = output_for(out, kernel_shape, element, (x, gradient))
    add = accumulate and not staged
    prepared.job.run(result, contiguous(x, dtype), None, contiguous(gradient, dtype), accumulate=add)
    return accumulate_result(result, out, staged, element, accumulate)


def grad_bank(
    spec: Spec,
    x: ArrayLike,
    bank: KernelBank,
    gradient: ArrayLike,
    names: Names = NAMES,
    context: Context | None = None,
) -> tuple[Array, Array | None]:
    """The gradients for a bank's filters and for its weights, of which there may be none."""
    if type(bank) is not KernelBank:
        raise TypeError(f"{names.kernel} must be a KernelBank, got {type(bank).__name__}")
    if spec.padding_mode != ZEROS:
        spec, x = _padded(spec, as_float_array(x, names.input), bank.shape, None, names)
    return _banked(spec, names).grad_bank(spec, x, bank, gradient, names, context)  # type: ignore[no-any-return]


def forward_or_normalized(
    spec: Spec,
    x: ArrayLike,
    kernel: KernelLike,
    bias: ArrayLike | None,
    normalize: bool,
    out: Array | None,
    names: Names = NAMES,
) -> Array:
    """`forward`; normalize: divided by the sum of the taps that meet the input."""
    if normalize is False or not flag(normalize, "normalize"):
        return forward(spec, x, kernel, bias, out, False, names)
    if bias is not None:
        raise ValueError("bias must be None with normalize=True: it would be divided too; add it to the result")
    return normalized(spec, x, kernel, out, names)


def normalized(spec: Spec, x: ArrayLike, kernel: KernelLike, out: Array | None = None, names: Names = NAMES) -> Array:
    """The convolution divided by what it is for one image of ones, or one for each image's own filters."""
    x, weights = as_float_array(x, names.input), _checked_kernel(spec, kernel, names)
    element = element_type(weights, x)
    try:
        geometry = geometry_of(spec, x.shape, weights.shape)
    except Mismatch as error:
        raise error.named(names) from None
    shape, _ = results_of(spec, x.shape, geometry)
    by_image = FAMILIES[spec.family].kernel_by_image
    result, staged = output_for(out, shape, element, (x, weights))
    # Not in 16 bits: sums and quotient are rounded once.
    forward(spec, x.astype(element.dtype) if x.dtype.itemsize == 2 else x, weights, None, result, False, names)
    images, channels = (len(weights), spec.groups) if by_image else (1, geometry.channels)
    ones = np.ones(layout_of((images,), geometry.input[3 - spec.rank :], channels, spec.channels_first), element.dtype)
    sums = forward(spec, ones, weights, None, None, False, names)
    quotient = result
    if by_image:  # the channels of a group have the same sum
        axis = 1 if spec.channels_first else len(shape) - 1
        quotient = result.reshape(*shape[:axis], spec.groups, shape[axis] // spec.groups, *shape[axis + 1 :])
        sums = np.expand_dims(sums, axis + 1)
    with np.errstate(all="ignore"):
        np.divide(quotient, sums, out=quotient)
    return write_result(result, out, staged, element)


def correlation(
    spec: Spec,
    x: ArrayLike,
    queries: ArrayLike,
    out: Array | None = None,
    names: Names = NAMES,
    context: Context | None = None,
) -> Array:
    """The gradient for filters of every image: as data of its own, of the dtype that NumPy promotes the arrays to."""
    x, queries = as_float_array(x, names.input), as_float_array(queries, names.gradient)
    _, shape = shapes_of_correlation(spec, x.shape, names)
    return grad_kernel(spec, x, shape, queries, out, False, names, context, data_element_type(x, queries))


def shapes_of_correlation(spec: Spec, x_shape: Ints, names: Names = NAMES) -> tuple[Ints, Ints]:
    """The shapes of what images are correlated with, and of that correlation: of the output, and of filters for every
    image.
    """
    try:
        return _shapes_of_correlation(spec, x_shape)
    except Mismatch as error:
        raise error.named(names) from None


@lru_cache(maxsize=256)
def _shapes_of_correlation(spec: Spec, x_shape: Ints) -> tuple[Ints, Ints]:
    geometry = filters_geometry(spec, x_shape)
    output, _ = results_of(spec, x_shape, geometry)
    return output, filters_shape(spec, geometry.batch, geometry.output[3 - spec.rank :])


def grad_bias(
    spec: Spec, bias_shape: Ints, gradient: ArrayLike, out: Array | None = None, names: Names = NAMES
) -> Array:
    """The gradient for the bias: the output's gradient summed over the images and, for a bias of shape (filters,), the
    positions.

    Sums run in blocks, and the blocks in float64, because one float32 sum of a million terms has few right digits.
    Their order does not depend on the number of threads.
    """
    gradient = as_float_array(gradient, names.gradient)
    element = rounded_into(element_type(None, gradient), out)
    result, staged = output_for(out, bias_shape, element, (gradient,))
    gradient = contiguous(gradient, element.dtype)
    filters = bias_shape[-1]
    if len(bias_shape) > 1:
        # With channels_first the bias is reshaped, not transposed, to (filters, positions): so is its gradient back.
        rows = gradient.reshape(len(gradient), result.size)
    elif spec.channels_first:
        # NumPy sums along contiguous axes pairwise: precise already.
        with np.errstate(all="ignore"):
            rows = gradient.reshape(-1, filters, prod(gradient.shape[-spec.rank :])).sum(2)
    else:
        rows = gradient.reshape(-1, filters)
    result[...] = sum_of_rows(rows).reshape(bias_shape)
    return write_result(result, out, staged, element)


def im2col(spec: Spec, x: ArrayLike, out: Array | None = None, names: Names = NAMES) -> Array:
    """Every window of x as a row; `spec`: a `column_spec`."""
    x = as_float_array(x, names.input)
    element = copy_element_type(x)
    job, geometry = _prepare_columns("im2col", spec, x.shape, element, names)
    result, staged = output_for(out, (geometry.batch, geometry.positions, geometry.window), element, (x,))
    job.run(result, contiguous(x, element.dtype), None, None, count=geometry.batch * geometry.positions)
    return write_result(result, out, staged, element)


def col2im(spec: Spec, columns: ArrayLike, x_shape: Ints, out: Array | None = None, names: Names = NAMES) -> Array:
    """Rows of windows added back into an input of that shape.

    `spec`: a `column_spec`; names.kernel is that of the columns.
    """
    columns = as_float_array(columns, names.kernel)
    element = copy_element_type(columns)
    job, geometry = _prepare_columns("col2im", spec, x_shape, element, names)
    expected = (geometry.batch, geometry.positions, geometry.window)
    if columns.shape != expected:
        raise ValueError(
            f"{names.kernel} must have shape (batch, positions, prod(kernel_size) * channels) = {expected}, got "
            f"{columns.shape}"
        )
    result, staged = output_for(out, x_shape, element, (columns,))
    result[...] = 0
    windows = geometry.batch * geometry.positions
    job.run(result, None, None, contiguous(columns, element.dtype), count=windows, accumulate=True)
    return write_result(result, out, staged, element)


def _prepare_columns(
    operation: str, spec: Spec, x_shape: Ints, element: ElementType, names: Names
) -> tuple[Any, Geometry]:
    """The job and the geometry of im2col or col2im; they are made anew each time, which is little beside the copy."""
    try:
        geometry = column_geometry(spec, x_shape)
    except Mismatch as error:
        raise error.named(names) from None
    if 0 in (geometry.batch, *geometry.input):
        return EmptyJob(), geometry
    return plan(operation, geometry, element, current(), num_threads()), geometry


def stored(kernel: Array | QuantizedKernel, element: ElementType, job: Any) -> Any:
    """A kernel of another dtype as a job takes it: its bytes if the core widens them, else an array of its dtype."""
    if element.storage and type(job) is Job:
        return stored_elements(kernel)
    return widened(kernel, element.dtype)


def check_quantized(spec: Spec, names: Names) -> None:
    """TypeError unless a family's kernel may be a QuantizedKernel: one that comes with the data may not."""
    if FAMILIES[spec.family].kernel_by_image:
        raise TypeError(
            f"{names.kernel} must be an array of {ACCEPTED}, got a QuantizedKernel, which is for kernels that stay the "
            f"same: {names.kernel}.dequantize() is an array"
        )


def is_spread(spec: Spec, kernel: Array) -> bool:
    """Whether an array for all positions is one position's, broadcast: then it is a bank, and not copied."""
    return FAMILIES[spec.family].kernel_by_position and len(kernel) > 1


def _banked(spec: Spec, names: Names) -> Any:
    """The module for kernels that are banks, which is made of the operations here. TypeError if the family has none."""
    if not FAMILIES[spec.family].kernel_by_position:
        raise TypeError(
            f"{names.kernel} must be an array of {ACCEPTED}, got a KernelBank, which stands for kernels of their "
            f"own at every position: local_conv{spec.rank}d takes it"
        )
    from . import banked

    return banked


def _checked_kernel(spec: Spec, kernel: KernelLike, names: Names) -> Any:
    """A kernel of one of the kinds that a family takes: an array has its dtype checked."""
    if type(kernel) is KernelBank:
        _banked(spec, names)
    elif type(kernel) is QuantizedKernel:
        check_quantized(spec, names)
    else:
        return as_float_array(kernel, names.kernel)  # type: ignore[arg-type]
    return kernel


def _bordered(spec: Spec, x_shape: Ints, kernel_shape: Ints, names: Names) -> tuple[Spec, Borders]:
    """The two steps of a spec that pads with pixels of the input: the windows over what is padded, and the padding.
    Errors speak of the arrays as they came.
    """
    try:
        geometry_of(spec, x_shape, kernel_shape)
        borders, windows = borders_of(spec, x_shape), without_padding(spec)
        geometry_of(windows, borders.padded_shape(x_shape), kernel_shape)  # before so much memory is asked for
    except Mismatch as error:
        raise error.named(names) from None
    return windows, borders


def _padded(spec: Spec, x: Array, kernel_shape: Ints, out: Array | None, names: Names) -> tuple[Spec, Array]:
    """The windows of such a spec, and the input with its padding; of a copy nobody could tell whether `out` is x."""
    windows, borders = _bordered(spec, x.shape, kernel_shape, names)
    if out is not None:
        check_apart(out, (x,))
    return windows, padded(x, borders)


def _folded_grad_input(
    spec: Spec,
    input_shape: Ints,
    kernel: KernelLike,
    gradient: ArrayLike,
    out: Array | None,
    names: Names,
    context: Context | None,
) -> Array:
    """`grad_input` of such a spec: what the copies of a pixel have is added to the pixel, and then rounded."""
    weights, gradient = _checked_kernel(spec, kernel, names), as_float_array(gradient, names.gradient)
    windows, borders = _bordered(spec, input_shape, weights.shape, names)
    element = element_type(weights, gradient)
    result, staged = output_for(out, input_shape, element, (gradient, weights))
    # A gradient of more than 16 bits makes one that is not rounded to 16 bits.
    wide = gradient.astype(element.dtype) if gradient.dtype.itemsize == 2 else gradient
    shape = borders.padded_shape(input_shape)
    result[...] = folded(grad_input(windows, shape, weights, wide, None, names, context), borders)
    return write_result(result, out, staged, element)


def check_bias(shape: Ints, expected: tuple[Ints, ...]) -> None:
    """ValueError unless a bias has one of the shapes that it may have."""
    if shape not in expected:
        raise ValueError(f"bias must have shape {' or '.join(map(str, expected))}, got {shape}")


def check_gradient(shape: Ints, expected: Ints, names: Names) -> None:
    """ValueError unless a gradient has the shape of the forward result."""
    if shape != expected:
        raise ValueError(f"{names.gradient} must have the shape of {names.result}, {expected}, got {shape}")


def sum_of_rows(matrix: Array) -> Array:
    """The sum of all rows, as `grad_bias` says."""
    rows, columns = matrix.shape
    whole = rows // BIAS_BLOCK_ROWS
    with np.errstate(all="ignore"):
        blocks = np.einsum("brc->bc", matrix[: whole * BIAS_BLOCK_ROWS].reshape(whole, BIAS_BLOCK_ROWS, columns))
        total = blocks.sum(0, dtype=FLOAT64) + np.einsum("rc->c", matrix[whole * BIAS_BLOCK_ROWS :])
        return np.asarray(total, matrix.dtype)
