"""How the primitives run: by handlers in XLA, by a callback where it refuses them, by jnp on other platforms."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import mlir

from .. import _xla
from .._core import OPERATIONS, num_threads
from ..core import engine, formulation
from ..core.arguments import Ints
from ..core.arrays import ELEMENT_TYPES, Array, single_with
from ..core.families import FILTER, LOCAL, makes
from ..core.geometry import Mismatch, Names
from ..core.settings import numbered
from .bands import rows_by_jnp
from .primitives import PRIMITIVES, is_shared, lead_of, operand_axes, result_dtype, result_shape, shapes_of
from .window import Window, convolution_of, spec_of

# Names of the custom calls, in compiled and in exported programs.
TARGETS = {operation: f"localconv_{operation}" for operation in PRIMITIVES}

# By the numbers of frame.h.
ELEMENTS = (*ELEMENT_TYPES, single_with("float16"), single_with("bfloat16"))

# What errors call the arrays.
NAMES = {LOCAL: Names("inputs", "kernel", "grad_output"), FILTER: Names("inputs", "filters", "grad_output")}

# ------------------------------------------------------------------------------------------------- making a call's plan


def make_plan(
    operation: str, dtype: int, settings: int, threads: int, numbers: Ints, shapes: list[Ints]
) -> tuple[Any, int, tuple[int, int, int], int]:
    """The plan of a custom call for `_xla.use_maker`. ValueError where the shapes do not fit each other."""
    if threads < 0:
        threads = num_threads()  # says what is wrong with the environment
    window = Window.of_numbers(numbers, OPERATIONS[operation][0])
    names = NAMES[window.family]
    a, b, result = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    params: dict[str, Any] = {}
    if makes(operation) == "input":
        params = {"spatial": tuple(window.spatial(result.shape))}
    elif makes(operation) == "kernel" and window.kernel_by_image:
        params = {"one": is_shared(result, a, window)}
    x, kernel, gradient = shapes_of(operation, a, b, window, **params)
    try:
        context = engine.Context(numbered(settings), threads)
        prepared = engine.prepare(operation, spec_of(window), x, kernel, ELEMENTS[dtype], context)
    except Mismatch as error:
        raise error.named(names) from None
    if prepared.output != gradient:
        raise ValueError(f"{names.gradient} must have shape {prepared.output}, got {gradient}")
    if result_shape(operation, a, b, window, **params) != result.shape:
        raise ValueError(f"the result of {operation} cannot have shape {result.shape}")
    leads = [lead_of(array, axes) for array, axes in zip((a, b, result), operand_axes(operation, window), strict=True)]
    steps = tuple(prod(array.shape[1:]) if lead else 0 for array, lead in zip((a, b, result), leads, strict=True))
    if any(lead not in ((), leads[2]) for lead in leads):
        raise ValueError(f"operands must have as many examples as the result, {leads[2]}, got {leads[0]}, {leads[1]}")
    job = None if isinstance(prepared.job, engine.EmptyJob) else prepared.job
    examples = leads[2][0] if leads[2] else 1
    return job, examples, (steps[0], steps[1], steps[2]), prepared.nbytes


# --------------------------------------------------------------------------------------------------------- registration

REFUSED = (
    "XLA refuses localconv's compiled handlers ({error}): convolutions of this process run through jax.pure_callback, "
    "which is slower and cannot be exported; another version of localconv or of jaxlib may agree"
)

_registering = threading.Lock()
_process = os.getpid()


@atexit.register
def _close() -> None:
    """Wait for the programs whose results somebody has or sees, and let others end without the GIL, which a plan is
    made with.

    A client of XLA, in its end, holds the GIL and waits for its threads; and Python ends a thread that asks for the GIL
    then.
    """
    if os.getpid() != _process or _registered is None:  # a forked child has none of these threads
        return
    try:
        jax.effects_barrier()
        for array in jax.live_arrays("cpu"):
            with contextlib.suppress(RuntimeError):  # of the program: nobody asked for its result
                array.block_until_ready()
    finally:
        while not _xla.close():
            time.sleep(0.001)


_registered: bool | None = None


def register() -> bool:
    """Make the compiled handlers known to XLA, once in a process.

    Every function here does so when it is first traced. A process that runs an exported program without tracing
    anything calls it before.

    Returns
    -------
    bool
        Whether XLA takes them. If it does not, a RuntimeWarning says so once, and calls go through
        `jax.pure_callback`.

    Examples
    --------
    >>> import localconv.jax
    >>> localconv.jax.register()
    True
    """
    global _registered
    with _registering:
        if _registered is None:
            # A refusal while the backend starts would leave JAX without one: it has to be there before.
            jax.devices("cpu")
            _xla.use_maker(make_plan)
            try:
                for operation, handler in _xla.handlers().items():
                    jax.ffi.register_ffi_target(TARGETS[operation], handler, platform="cpu")
                _registered = True
            except (RuntimeError, ValueError) as error:  # XLA's own errors are RuntimeErrors
                _registered = False
                warnings.warn(REFUSED.format(error=str(error).splitlines()[0]), RuntimeWarning, stacklevel=2)
        return _registered


def _on_host(operation: str, ctx: Any, a: Any, b: Any, *, window: Window, **params: Any) -> Any:
    """The lowering for CPUs."""
    if register():
        lower = jax.ffi.ffi_lowering(TARGETS[operation])
        return lower(ctx, a, b, window=np.array(window.numbers(), np.int64))
    lower = mlir.lower_fun(partial(_called_back, operation), multiple_results=False)
    return lower(ctx, a, b, window=window, **params)


# -------------------------------------------------------------------------------------------------------- by a callback


def _called_back(operation: str, a: Any, b: Any, *, window: Window, **params: Any) -> jax.Array:
    shape = result_shape(operation, a, b, window, **params)
    result = jax.ShapeDtypeStruct(shape, result_dtype(a, b))
    return jax.pure_callback(partial(_computed, operation, window, shape), result, a, b)


def _computed(operation: str, window: Window, shape: Ints, a: Any, b: Any) -> Array:
    """One operation by NumPy, each example in its turn."""
    a, b = np.asarray(a), np.asarray(b)
    result = np.empty(shape, result_dtype(a, b))
    leads = [lead_of(array, axes) for array, axes in zip((a, b, result), operand_axes(operation, window), strict=True)]
    for example in np.ndindex(leads[2]):
        _compute(
            operation,
            window,
            *[array[example] if lead else array for array, lead in zip((a, b, result), leads, strict=True)],
        )
    return result


def _compute(operation: str, window: Window, a: Array, b: Array, out: Array) -> None:
    spec, made, names = spec_of(window), makes(operation), NAMES[window.family]
    if made == "output":
        engine.forward(spec, a, b, out=out, names=names)
    elif made == "input":
        engine.grad_input(spec, out.shape, a, b, out=out, names=names)
    else:
        engine.grad_kernel(spec, a, out.shape, b, out=out, names=names)


# --------------------------------------------------------------------------------------------------- on other platforms


def _by_jnp(operation: str, a: jax.Array, b: jax.Array, *, window: Window, **params: Any) -> jax.Array:
    """The formulation for platforms that have no handler."""
    leads = [lead_of(array, axes) for array, axes in zip((a, b), operand_axes(operation, window), strict=False)]
    single: Callable[..., jax.Array] = partial(_filters_by_jnp, operation, window=window, **params)
    if not window.kernel_by_image:
        single = partial(rows_by_jnp, operation, max(leads, default=()), window=window, **params)
    if any(leads):
        single = jax.vmap(single, in_axes=tuple(0 if lead else None for lead in leads))
    return single(a, b)


def _filters_by_jnp(operation: str, a: jax.Array, b: jax.Array, *, window: Window, **params: Any) -> jax.Array:
    x, _, gradient = shapes_of(operation, a, b, window, **params)
    by_tap, dtype = formulation.filters_by_tap(convolution_of(window, x, window.channels(gradient))), result_dtype(a, b)

    def load(part: jax.Array) -> jax.Array:
        return part.astype(dtype)

    if makes(operation) == "output":
        return formulation.filter_forward(jnp, by_tap, a, b, load)
    if makes(operation) == "input":
        return formulation.filter_grad_input(jnp, by_tap, a, b, load)
    return formulation.filter_grad_kernel(jnp, by_tap, a, b, params["one"], load)


for _operation, _primitive in PRIMITIVES.items():
    mlir.register_lowering(_primitive, mlir.lower_fun(partial(_by_jnp, _operation), multiple_results=False))
    mlir.register_lowering(_primitive, partial(_on_host, _operation), platform="cpu")
