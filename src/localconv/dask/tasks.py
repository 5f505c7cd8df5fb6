"""What runs in a task: the engine, on arrays of NumPy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .._core import num_threads
from ..core import engine
from ..core.arguments import Ints
from ..core.arrays import Array, half_storage
from ..core.engine import Context
from ..core.policy import Whole
from ..core.quantized import QuantizedKernel
from ..core.settings import current
from ..core.spec import Spec
from ..core.windows import Range
from .files import Rows


def forward(spec: Spec, whole: Whole, full: bool, x: Array, kernel: Any, bias: Array | None) -> Array:
    """A part of the output; full: the bias has a value for every position, in the output's order."""
    weights = _loaded(kernel)
    if bias is not None and full:
        # The engine takes it as Keras stores it, filters last in shape, whatever the data format.
        shape = bias.shape[1:] + bias.shape[:1] if spec.channels_first else bias.shape
        bias = np.ascontiguousarray(bias).reshape(shape)
    return engine.forward(spec, x, weights, bias, context=_context()._replace(part_of=whole))


def grad_input(spec: Spec, shape: Ints, kernel: Any, gradient: Array) -> Array:
    """What a part of the output's gradient adds to the rows of the input that its windows meet; never in 16 bits."""
    return engine.grad_input(spec, shape, _loaded(kernel), _wide(gradient), context=_context())


def grad_kernel(spec: Spec, shape: Ints, xs: list[Array], gradients: list[Array], before: Array | None) -> Array:
    """The gradient for a part of the kernel: what several chunks of images give, added to what others gave."""
    # A copy: a task that runs twice must find what it found before.
    total = None if before is None else before.copy()
    for x, gradient in zip(xs, gradients, strict=True):
        total = engine.grad_kernel(spec, x, shape, gradient, total, total is not None, context=_context())
    assert total is not None
    return total


def add(shape: Ints, dtype: np.dtype[Any], places: tuple[tuple[Range, ...], ...], parts: list[Array]) -> Array:
    """Parts, each at its place, added to zeros in the order that they have here, and rounded once."""
    total = np.zeros(shape, np.result_type(np.float32, *[part.dtype for part in parts]))
    with np.errstate(all="ignore"):  # what is too large for 16 bits is inf there
        for place, part in zip(places, parts, strict=True):
            total[tuple(slice(*axis) for axis in place)] += part
        return total.astype(dtype, copy=False)


def _loaded(kernel: Any) -> Array | QuantizedKernel:
    """A task's kernel: its chunk, or its rows of a file."""
    if isinstance(kernel, Rows):
        return kernel.file.rows(kernel.first, kernel.last)
    return kernel  # type: ignore[no-any-return]


def _wide(array: Array) -> Array:
    """An array of at least 32 bits: sums that go on elsewhere are rounded to 16 at their end."""
    return array.astype(np.float32) if half_storage(array.dtype) else array


def _context() -> Context:
    """The settings of this process, and a task's share of its threads: a worker of dask runs several tasks at once."""
    return Context(current(), max(1, num_threads() // _tasks_at_once()))


def _tasks_at_once() -> int:
    """Tasks that run in this process at once, as far as dask tells: a worker of dask.distributed does."""
    workers = sys.modules.get("distributed.worker")
    if workers is None:
        return 1
    try:
        return int(workers.get_worker().state.nthreads)
    except ValueError:  # not in a worker
        return 1
