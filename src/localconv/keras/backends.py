"""The compiled convolution for tensors of each of Keras's backends, with its derivatives.

For a backend there are two makers: given a `Convolution`, once, when a layer is built, the one returns the function
``compute(x, kernel, bias)``. x and kernel, which has rows, are float32 or float64, both the same; bias, or None, is as
Keras 2 stores it. What `compute` returns can be differentiated as the backend's own operations can, under numpy not at
all. The other returns ``compute(x, values, scales, bias)``, for a kernel of int8 values and float32 scales, a scale for
each position and filter: x and bias are float32, and have derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from ..core import engine
from ..core.config import CHANNELS_FIRST, CHANNELS_LAST
from ..core.families import FILTER
from ..core.quantized import QuantizedKernel
from ..core.spec import Spec
from ..core.windows import Convolution, axes_of
from ..filters import CORRELATION_NAMES, FILTER_NAMES
from . import by_ops
from .exporting import is_exporting

Compute = Callable[..., Any]
Maker = Callable[[Convolution], Compute]


class Makers(NamedTuple):
    """What computes with kernels of floats and of int8, and whether the backend's compiler takes it."""

    floats: Maker
    int8: Maker
    supports_jit: bool


def _of_numpy(convolution: Convolution) -> Compute:
    def compute(x: Any, kernel: Any, bias: Any) -> Any:
        return engine.forward(convolution.spec, np.asarray(x), np.asarray(kernel), bias)

    return compute


def _of_numpy_int8(convolution: Convolution) -> Compute:
    def compute(x: Any, values: Any, scales: Any, bias: Any) -> Any:
        kernel = QuantizedKernel.of_lent(np.asarray(values), np.asarray(scales))
        return engine.forward(convolution.spec, np.asarray(x), kernel, bias)

    return compute


def _of_tensorflow(convolution: Convolution) -> Compute:
    from .tensorflow_functions import convolve

    return partial(convolve, convolution)


def _of_tensorflow_int8(convolution: Convolution) -> Compute:
    from .tensorflow_functions import convolve_int8

    return partial(convolve_int8, convolution)


def _of_torch(convolution: Convolution) -> Compute:
    from ..torch.functional import convolve

    return _in_order_of_torch(convolution, convolve)


def _of_torch_int8(convolution: Convolution) -> Compute:
    from ..torch.functional import convolve_int8

    return _in_order_of_torch(convolution, convolve_int8)


def _in_order_of_torch(convolution: Convolution, convolve: Callable[..., Any]) -> Compute:
    """A function of `torch.functional`, called with x, the kernel, which may have scales too, and the bias."""
    from ..torch.functional import window_for

    spec, (positions, depth, filters) = convolution.spec, convolution.kernel_shape
    window = window_for(
        spec.rank, convolution.kernel_size, spec.strides, convolution.padding, spec.dilation, spec.groups
    )
    name = f"LocallyConnected{spec.rank}D"

    def channels_last(x: Any, *kernel_and_bias: Any) -> Any:
        # Views: what is computed is channels_last behind PyTorch's face.
        *kernel, bias = kernel_and_bias
        bias = None if bias is None else bias.movedim(-1, 0)
        return convolve(name, x.movedim(-1, 1), *kernel, bias, window).movedim(1, -1)

    def channels_first(x: Any, *kernel_and_bias: Any) -> Any:
        # PyTorch's bridge has rows in the order of channels_last alone: here they are sorted at every call.
        kernel, *scales, bias = kernel_and_bias
        by_channel = kernel.reshape(positions, depth // convolution.taps, convolution.taps, filters)
        kernel = by_channel.transpose(1, 2).reshape(convolution.kernel_shape)
        bias = None if bias is None else by_ops.broadcastable_bias(bias, convolution)
        return convolve(name, x, kernel, *scales, bias, window)

    return channels_first if spec.channels_first else channels_last


def _of_jax(convolution: Convolution) -> Compute:
    from .. import jax as bridge

    spec = convolution.spec
    function: Callable[..., Any] = partial(
        (bridge.local_conv1d, bridge.local_conv2d, bridge.local_conv3d)[spec.rank - 1],
        kernel_size=convolution.kernel_size,
        strides=spec.strides,
        data_format=CHANNELS_FIRST if spec.channels_first else CHANNELS_LAST,
        padding=convolution.padding,
        dilation_rate=spec.dilation,
        groups=spec.groups,
    )
    return lambda x, kernel, bias: function(x, kernel, bias=bias)


def _of_jax_int8(convolution: Convolution) -> Compute:
    # XLA's handlers read no int8. In bfloat16, which they read, these values are exact.
    compute = _of_jax(convolution)

    def with_values(x: Any, values: Any) -> Any:
        return compute(x, values.astype("bfloat16"), None)

    return partial(by_ops.scaled, convolution, with_values)


class Filtering(NamedTuple):
    """What computes `local_filter` and `local_correlation` of a Spec and two tensors, and whether compilers
    take it. x is of float32 or float64, and the other of the same dtype; filters may have 16 bits with float32.
    """

    filter: Callable[[Spec, Any, Any], Any]
    correlate: Callable[[Spec, Any, Any], Any]
    supports_jit: bool


def _filter_of_numpy(spec: Spec, x: Any, filters: Any) -> Any:
    return engine.forward(spec, np.asarray(x), np.asarray(filters), names=FILTER_NAMES)


def _correlate_of_numpy(spec: Spec, x: Any, queries: Any) -> Any:
    return engine.correlation(spec, np.asarray(x), np.asarray(queries), names=CORRELATION_NAMES)


def _filter_of_tensorflow(spec: Spec, x: Any, filters: Any) -> Any:
    from .tensorflow_filters import filtered

    return filtered(spec, x, filters)


def _correlate_of_tensorflow(spec: Spec, x: Any, queries: Any) -> Any:
    from .tensorflow_filters import correlated

    return correlated(spec, x, queries)


def _filter_of_torch(spec: Spec, x: Any, filters: Any) -> Any:
    from ..torch.autograd import filtered

    return _behind_face_of_torch(spec, x, filters, filtered)


def _correlate_of_torch(spec: Spec, x: Any, queries: Any) -> Any:
    from ..torch.autograd import correlated

    def correlate(x: Any, queries: Any, window: Any) -> Any:
        return correlated(x, window.filters_size(x.shape), queries, window)

    return _behind_face_of_torch(spec, x, queries, correlate)


def _behind_face_of_torch(spec: Spec, x: Any, other: Any, compute: Callable[..., Any]) -> Any:
    """A function of tensors (N, C, ...) and a window, of tensors in a Spec's order: their memory stays where it is."""
    from ..torch.functional import window_for

    spatial = x.shape[2:] if spec.channels_first else x.shape[1:-1]
    pads = spec.padding if spec.padding == "inside" else tuple((a.before, a.after) for a in axes_of(spec, spatial))
    assert spec.kernel_size is not None
    window = window_for(spec.rank, spec.kernel_size, spec.strides, pads, spec.dilation, spec.groups, FILTER)
    if spec.channels_first:
        return compute(x, other, window)
    return compute(x.movedim(-1, 1), other.movedim(-1, 1), window).movedim(1, -1)


def _filter_of_jax(spec: Spec, x: Any, filters: Any) -> Any:
    from .. import jax as bridge

    function = (bridge.local_filter1d, bridge.local_filter2d, bridge.local_filter3d)[spec.rank - 1]
    return function(x, filters, **_window_of(spec))


def _correlate_of_jax(spec: Spec, x: Any, queries: Any) -> Any:
    from .. import jax as bridge

    function = (bridge.local_correlation1d, bridge.local_correlation2d, bridge.local_correlation3d)[spec.rank - 1]
    return function(x, queries, **_window_of(spec))


def _window_of(spec: Spec) -> dict[str, Any]:
    """The arguments that a Spec is made of, but for the rank."""
    return {
        "kernel_size": spec.kernel_size,
        "strides": spec.strides,
        "data_format": CHANNELS_FIRST if spec.channels_first else CHANNELS_LAST,
        "padding": spec.padding,
        "dilation_rate": spec.dilation,
        "groups": spec.groups,
    }


def _of_ops(convolution: Convolution) -> Compute:
    return by_ops.convolver(convolution)


def _of_ops_int8(convolution: Convolution) -> Compute:
    convolve = by_ops.convolver(convolution)
    return partial(by_ops.scaled, convolution, lambda x, values: convolve(x, values, None))


def _quiet(maker: Maker) -> Maker:
    """A maker whose functions compute the same whatever `numpy.errstate` says, where Keras's ops are NumPy's."""
    return lambda convolution: np.errstate(all="ignore")(maker(convolution))


def _has_other_devices() -> bool:
    """Whether TensorFlow has a device that its tensors would have to leave for the compiled kernels."""
    import tensorflow as tf

    return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())


MAKERS = {
    "numpy": Makers(_of_numpy, _of_numpy_int8, False),
    # XLA compiles no call into Python.
    "tensorflow": Makers(_of_tensorflow, _of_tensorflow_int8, False),
    "torch": Makers(_of_torch, _of_torch_int8, True),
    "jax": Makers(_of_jax, _of_jax_int8, True),
}
OF_OPS = Makers(_of_ops, _of_ops_int8, True)
OF_OPS_BY_NUMPY = Makers(_quiet(_of_ops), _quiet(_of_ops_int8), True)


FILTERING = {
    "numpy": Filtering(_filter_of_numpy, _correlate_of_numpy, False),
    "tensorflow": Filtering(_filter_of_tensorflow, _correlate_of_tensorflow, False),
    "torch": Filtering(_filter_of_torch, _correlate_of_torch, True),
    "jax": Filtering(_filter_of_jax, _correlate_of_jax, True),
}
FILTERING_OF_OPS = Filtering(by_ops.filter_by_taps, by_ops.correlate_by_taps, True)
FILTERING_OF_OPS_BY_NUMPY = Filtering(
    np.errstate(all="ignore")(by_ops.filter_by_taps), np.errstate(all="ignore")(by_ops.correlate_by_taps), True
)


def makers_for(wanted: str) -> Makers:
    """The makers that the engine of this name, 'auto', 'compiled' or 'ops', has for Keras's backend.

    What is being exported has compiled kernels never: there 'auto' is 'ops', and 'compiled' a ValueError. Which is one
    here too where the backend has none.
    """
    name = keras.backend.backend()
    if not is_compiled(wanted):
        return OF_OPS_BY_NUMPY if name == "numpy" else OF_OPS
    compiled, by_ops = MAKERS[name], OF_OPS
    return Makers(
        lambda convolution: _portable(wanted, compiled.floats(convolution), by_ops.floats(convolution)),
        lambda convolution: _portable(wanted, compiled.int8(convolution), by_ops.int8(convolution)),
        compiled.supports_jit,
    )


def filtering_for(wanted: str) -> Filtering:
    """`makers_for` of filters that come with the data."""
    name = keras.backend.backend()
    if not is_compiled(wanted):
        return FILTERING_OF_OPS_BY_NUMPY if name == "numpy" else FILTERING_OF_OPS
    compiled, by_ops = FILTERING[name], FILTERING_OF_OPS
    return Filtering(
        _portable(wanted, compiled.filter, by_ops.filter, 1),
        _portable(wanted, compiled.correlate, by_ops.correlate, 1),
        compiled.supports_jit,
    )


def _portable(wanted: str, compiled: Compute, by_ops: Compute, first: int = 0) -> Compute:
    """A function for which another stands in while a model is exported. first: the first argument that is a tensor."""

    def compute(*arguments: Any) -> Any:
        if not is_exporting(arguments[first]):
            return compiled(*arguments)
        if wanted == "compiled":
            raise ValueError(
                "engine must be 'auto' or 'ops' in a model that is exported, got 'compiled', whose kernels no file can "
                "hold: localconv.keras.set_engine(model, 'ops') makes it one that can be exported"
            )
        return by_ops(*arguments)

    return compute


def is_compiled(wanted: str) -> bool:
    """Whether compiled kernels compute where an engine of this name is wanted. ValueError where there are none."""
    name = keras.backend.backend()
    if wanted == "compiled" and name not in MAKERS:
        raise ValueError(
            f"engine must be 'auto' or 'ops' on Keras's backend {name!r}, got 'compiled', which is for "
            f"{', '.join(MAKERS)}"
        )
    elsewhere = wanted == "auto" and name == "tensorflow" and _has_other_devices()
    return wanted != "ops" and name in MAKERS and not elsewhere


def cast(tensor: Any, dtype: str) -> Any:
    """A tensor in a dtype; itself if it has that one, as Keras's cast under numpy is a copy all the same."""
    return tensor if keras.backend.standardize_dtype(tensor.dtype) == dtype else keras.ops.cast(tensor, dtype)
