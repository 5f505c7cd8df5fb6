"""Filters that come with the data, as functions of Keras's tensors on each of its backends, in the manner of keras.ops.

They take arrays, the backend's tensors, eager or traced, and the symbolic ones of functional models. What they return
can be differentiated as the backend's own operations can, under numpy not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ..core.arguments import IntOrInts, PaddingLike
from ..core.spec import Spec, filter_spec
from ..core.windows import filters_shape
from ..docstrings import docstring_from_2d
from ..filters import CORRELATION_NAMES, FILTER_NAMES
from . import backends
from .arguments import AUTO
from .backends import cast
from .checks import check_filters, check_queries, known_output, result_shape

__all__ = [
    "local_correlation1d",
    "local_correlation2d",
    "local_correlation3d",
    "local_filter1d",
    "local_filter2d",
    "local_filter3d",
]

# Element types by what they are computed in: half precisions have sums of float32, which are rounded once.
COMPUTED = {"bfloat16": "float32", "float16": "float32", "float32": "float32", "float64": "float64"}


def local_filter1d(
    inputs: Any,
    filters: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> Any:
    """1D filtering, a filter of its own for every image and position: `localconv.local_filter1d` for Keras.

    Parameters
    ----------
    inputs : tensor or array of floats
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    filters : tensor or array of floats
        Shape (batch, positions, groups * kernel_size), or (batch, groups * kernel_size, positions) with channels_first:
        each group's taps. Of batch 1: the filters of one image, for all.
    kernel_size, strides
        As in `localconv.local_filter1d`.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `keras.config.image_data_format`.
    padding, dilation_rate, groups
        As in `localconv.local_filter1d`.

    Returns
    -------
    tensor
        Shape (batch, positions, channels), or (batch, channels, positions) with channels_first. The dtype is what Keras
        promotes those of the arrays to; sums of bfloat16 and float16 run in float32 and are rounded once.

    Raises
    ------
    TypeError
        An argument of another type or dtype than those above.
    ValueError
        A shape, size, format or padding that does not fit; the message names the argument.

    See Also
    --------
    local_correlation1d : the gradient for the filters, as a function of its own.

    Notes
    -----
    localconv's kernels compute where its layers' engine 'auto' takes them: under TensorFlow unless it has another
    device, and there not in programs of XLA's; elsewhere a loop over the taps in `keras.ops` does.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.keras import ops
    >>> x, filters = np.arange(5, dtype=np.float32).reshape(1, 5, 1), np.ones((1, 5, 3), np.float32)
    >>> np.asarray(ops.local_filter1d(x, filters, 3, 1, 'channels_last', padding='inside')).ravel()
    array([3., 3., 6., 9., 9.], dtype=float32)
    """
    return _filter(1, inputs, filters, kernel_size, strides, padding, data_format, dilation_rate, groups)


def local_filter2d(
    inputs: Any,
    filters: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> Any:
    """2D filtering, a filter of its own for every image and position: `localconv.local_filter2d` for Keras.

    Parameters
    ----------
    inputs : tensor or array of floats
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``.
    filters : tensor or array of floats
        Shape (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns): each group's taps in C order.
        Of batch 1: the filters of one image, for all.
    kernel_size, strides
        As in `localconv.local_filter2d`.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `keras.config.image_data_format`.
    padding, dilation_rate, groups
        As in `localconv.local_filter2d`.

    Returns
    -------
    tensor
        Shape (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns); dtype as in `local_filter1d`.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_correlation2d : the gradient for the filters, as a function of its own.

    Examples
    --------
    A model that predicts a filter of 3 x 3 taps for every pixel of its input, and applies it:

    >>> import keras
    >>> from localconv.keras import ops
    >>> image = keras.Input((16, 16, 3))
    >>> taps = keras.layers.Conv2D(9, 5, padding='same', activation='softmax')(image)
    >>> model = keras.Model(image, ops.local_filter2d(image, taps, 3, padding='same'))
    >>> model.output_shape
    (None, 16, 16, 3)
    """
    return _filter(2, inputs, filters, kernel_size, strides, padding, data_format, dilation_rate, groups)


@docstring_from_2d(
    local_filter2d,
    """
    >>> import numpy as np
    >>> from localconv.keras import ops
    >>> x, filters = np.ones((1, 4, 5, 6, 2), np.float32), np.ones((1, 4, 5, 6, 27), np.float32)
    >>> np.asarray(ops.local_filter3d(x, filters, 3, padding='same'))[0, 0, 0, :, 0]
    array([ 8., 12., 12., 12., 12.,  8.], dtype=float32)
    """,
)
def local_filter3d(
    inputs: Any,
    filters: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> Any:
    return _filter(3, inputs, filters, kernel_size, strides, padding, data_format, dilation_rate, groups)


def local_correlation1d(
    inputs: Any,
    queries: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> Any:
    """1D correlation of every position's window with a query: `localconv.local_correlation1d` for Keras.

    Parameters
    ----------
    inputs : tensor or array of floats
        Shape (batch, steps, channels), or (batch, channels, steps) with ``data_format='channels_first'``.
    queries : tensor or array of floats
        Shape (batch, positions, channels), or (batch, channels, positions): that of a result of `local_filter1d`.
    kernel_size, strides
        As in `localconv.local_filter1d`.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `keras.config.image_data_format`.
    padding, dilation_rate, groups
        As in `localconv.local_filter1d`.

    Returns
    -------
    tensor
        Shape (batch, positions, groups * kernel_size), or (batch, groups * kernel_size, positions) with channels_first;
        dtype as in `local_filter1d`. Taps that meet padding have 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_filter1d : the sum of windows with such results as weights.

    Notes
    -----
    As in `local_filter1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.keras import ops
    >>> x, queries = np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1), np.ones((1, 4, 1), np.float32)
    >>> np.asarray(ops.local_correlation1d(x, queries, 3, 1, 'channels_last', padding='same'))[0]
    array([[0., 1., 2.],
           [1., 2., 3.],
           [2., 3., 4.],
           [3., 4., 0.]], dtype=float32)
    """
    return _correlate(1, inputs, queries, kernel_size, strides, padding, data_format, dilation_rate, groups)


def local_correlation2d(
    inputs: Any,
    queries: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> Any:
    """2D correlation of every position's window with a query: `localconv.local_correlation2d` for Keras.

    Parameters
    ----------
    inputs : tensor or array of floats
        Shape (batch, rows, columns, channels), or (batch, channels, rows, columns) with
        ``data_format='channels_first'``.
    queries : tensor or array of floats
        Shape (batch, output rows, output columns, channels), or with channels_first
        (batch, channels, output rows, output columns): that of a result of `local_filter2d`.
    kernel_size, strides
        As in `localconv.local_filter2d`.
    data_format : {'channels_last', 'channels_first'}, optional
        Default: `keras.config.image_data_format`.
    padding, dilation_rate, groups
        As in `localconv.local_filter2d`.

    Returns
    -------
    tensor
        Shape (batch, output rows, output columns, groups * kh * kw), or with channels_first
        (batch, groups * kh * kw, output rows, output columns); dtype as in `local_filter1d`.
        Taps that meet padding have 0.

    Raises
    ------
    TypeError, ValueError
        As `local_filter1d`.

    See Also
    --------
    local_filter2d : the sum of windows with such results as weights.

    Examples
    --------
    The attention of every pixel to the 3 x 3 around it, with 2 heads:

    >>> import keras
    >>> from localconv.keras import ops
    >>> keys, queries, values = keras.random.normal((3, 1, 5, 6, 8), seed=0)
    >>> windows = {'kernel_size': 3, 'padding': 'inside', 'groups': 2}
    >>> scores = keras.ops.reshape(ops.local_correlation2d(keys, queries / 2, **windows), (1, 5, 6, 2, 9))
    >>> weights = keras.ops.reshape(keras.ops.softmax(scores), (1, 5, 6, 18))
    >>> tuple(ops.local_filter2d(values, weights, **windows).shape)
    (1, 5, 6, 8)
    """
    return _correlate(2, inputs, queries, kernel_size, strides, padding, data_format, dilation_rate, groups)


@docstring_from_2d(
    local_correlation2d,
    """
    >>> import numpy as np
    >>> from localconv.keras import ops
    >>> x, queries = np.ones((1, 4, 5, 6, 8), np.float32), np.ones((1, 2, 3, 4, 8), np.float32)
    >>> tuple(ops.local_correlation3d(x, queries, 3).shape)
    (1, 2, 3, 4, 27)
    """,
)
def local_correlation3d(
    inputs: Any,
    queries: Any,
    kernel_size: IntOrInts,
    strides: IntOrInts = 1,
    data_format: str | None = None,
    *,
    padding: PaddingLike = "valid",
    dilation_rate: IntOrInts = 1,
    groups: int = 1,
) -> Any:
    return _correlate(3, inputs, queries, kernel_size, strides, padding, data_format, dilation_rate, groups)


# ----------------------------------------------------------------------------------------------------- public functions


def _filter(rank: int, inputs: Any, filters: Any, *window: Any) -> Any:
    return _called(LocalFilter, FILTER_NAMES.input, FILTER_NAMES.kernel, rank, inputs, filters, window)


def _correlate(rank: int, inputs: Any, queries: Any, *window: Any) -> Any:
    names = CORRELATION_NAMES
    return _called(LocalCorrelation, names.input, names.gradient, rank, inputs, queries, window)


def _called(kind: Any, first: str, second: str, rank: int, a: Any, b: Any, window: tuple[Any, ...]) -> Any:
    kernel_size, strides, padding, data_format, *rest = window
    if data_format is None:
        data_format = keras.config.image_data_format()
    spec = filter_spec(rank, kernel_size, strides, padding, data_format, *rest)
    a, b = _tensor(a, first), _tensor(b, second)
    kind.check(spec, tuple(a.shape), tuple(b.shape))
    if isinstance(a, keras.KerasTensor) or isinstance(b, keras.KerasTensor):
        return kind.of_spec(spec, data_format)(a, b)
    return kind.computed(backends.filtering_for(AUTO), spec, a, b)


def _tensor(value: Any, name: str) -> Any:
    """`value` as a tensor of floats. TypeError names the argument."""
    if isinstance(value, keras.KerasTensor):
        tensor = value
    elif keras.backend.backend() == "numpy" and isinstance(value, np.ndarray):
        tensor = value  # Keras would copy it, and make float32 of float64
    else:
        tensor = keras.ops.convert_to_tensor(value)
    if keras.backend.standardize_dtype(tensor.dtype) not in COMPUTED:
        raise TypeError(f"{name} must have one of the dtypes {', '.join(COMPUTED)}, got {tensor.dtype}")
    return tensor


def filtered(filtering: backends.Filtering, spec: Spec, x: Any, filters: Any) -> Any:
    """`local_filter` of tensors that fit each other. Filters of 16 bits are read as they are in sums of float32."""
    dtype = _promoted(x, filters)
    is_small = COMPUTED[dtype] == "float32" and keras.backend.standardize_dtype(filters.dtype) != "float32"
    weights = filters if is_small else cast(filters, COMPUTED[dtype])
    return cast(filtering.filter(spec, cast(x, COMPUTED[dtype]), weights), dtype)


def correlated(filtering: backends.Filtering, spec: Spec, x: Any, queries: Any) -> Any:
    """`local_correlation` of tensors that fit each other."""
    dtype = _promoted(x, queries)
    return cast(filtering.correlate(spec, cast(x, COMPUTED[dtype]), cast(queries, COMPUTED[dtype])), dtype)


def _promoted(x: Any, other: Any) -> str:
    first, second = (keras.backend.standardize_dtype(tensor.dtype) for tensor in (x, other))
    # Under numpy Keras would make float32 of two of float64.
    return first if first == second else str(keras.backend.result_type(first, second))


# ------------------------------------------------------------------------------------------- nodes of functional models


class _Node(keras.layers.Layer):
    """What a function is in a functional model. A layer, and not an operation as Keras's own functions are, because a
    model asks its layers whether XLA may compile them.
    """

    def __init__(
        self,
        rank: int,
        kernel_size: IntOrInts,
        strides: IntOrInts,
        padding: PaddingLike,
        data_format: str,
        dilation_rate: IntOrInts,
        groups: int,
        engine: str = AUTO,
        **base: Any,
    ) -> None:
        super().__init__(**(base | {"autocast": False}))
        self._spec = filter_spec(rank, kernel_size, strides, padding, data_format, dilation_rate, groups)
        self._window = {
            "rank": rank,
            "kernel_size": self._spec.kernel_size,
            "strides": self._spec.strides,
            "padding": self._spec.padding,
            "data_format": data_format,
            "dilation_rate": self._spec.dilation,
            "groups": self._spec.groups,
        }
        self._take_engine(engine)
        self.built = True

    def _take_engine(self, engine: str) -> None:
        """Compute by the engine of this name from now on."""
        self._filtering = backends.filtering_for(engine)
        self.engine, self.supports_jit = engine, self._filtering.supports_jit

    @classmethod
    def of_spec(cls, spec: Spec, data_format: str) -> Any:
        """The node for a window."""
        assert spec.kernel_size is not None
        return cls(spec.rank, spec.kernel_size, spec.strides, spec.padding, data_format, spec.dilation, spec.groups)

    def call(self, inputs: Any, other: Any) -> Any:
        """Compute it."""
        self.check(self._spec, tuple(inputs.shape), tuple(other.shape))
        return self.computed(self._filtering, self._spec, inputs, other)

    def compute_output_spec(self, inputs: Any, other: Any) -> Any:
        """Shape and dtype of the result."""
        shape = self.result_shape(self._spec, tuple(inputs.shape))
        return keras.KerasTensor(shape, dtype=_promoted(inputs, other))

    def get_config(self) -> dict[str, Any]:
        """All arguments, as JSON has them."""
        return super().get_config() | self._window | {"engine": self.engine}

    # What the functions differ in.
    check: Callable[..., None]
    computed: Callable[..., Any]
    result_shape: Callable[..., Any]


@keras.saving.register_keras_serializable(package="localconv")
class LocalFilter(_Node):
    """`local_filter1d`, `local_filter2d` or `local_filter3d` in a functional model."""

    computed = staticmethod(filtered)

    @staticmethod
    def check(spec: Spec, x_shape: Any, shape: Any) -> None:
        check_filters(spec, x_shape, shape, FILTER_NAMES)

    @staticmethod
    def result_shape(spec: Spec, x_shape: Any) -> Any:
        return result_shape(spec, x_shape)


@keras.saving.register_keras_serializable(package="localconv")
class LocalCorrelation(_Node):
    """`local_correlation1d`, `local_correlation2d` or `local_correlation3d` in a functional model."""

    computed = staticmethod(correlated)

    @staticmethod
    def check(spec: Spec, x_shape: Any, shape: Any) -> None:
        check_queries(spec, x_shape, shape, CORRELATION_NAMES)

    @staticmethod
    def result_shape(spec: Spec, x_shape: Any) -> Any:
        return filters_shape(spec, x_shape[0], known_output(spec, x_shape))
