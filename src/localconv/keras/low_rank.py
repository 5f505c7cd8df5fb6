"""Low-rank locally connected layers, in keras.ops alone: so on any backend, device and compiler.

A shared convolution to the filters of all banks, whose results are weighted and added at every position. Some functions
of keras.ops, einsum among them, compute float64 in float32 on some backends: arithmetic is in operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ..core.arguments import Ints, ints
from ..core.bank import NORMALIZATIONS, SMALL
from ..core.geometry import convolution_of
from . import layers
from .arguments import flag, one_of
from .backends import cast
from .by_ops import broadcastable_bias
from .unshared import OBJECTS, VALUES, UnsharedLayer

__all__ = ["LowRankLocallyConnected1D", "LowRankLocallyConnected2D"]

OWN_OBJECTS = ("weights_initializer", "weights_regularizer", "weights_constraint")


class LowRankLocallyConnected(UnsharedLayer):
    """What the layers of all ranks share; `given` and `base`: the arguments as in `LowRankLocallyConnected2D`."""

    object_names = (*OBJECTS, *OWN_OBJECTS)
    value_names: tuple[str, ...] = (*VALUES, "rank", "normalize_weights")
    separable = False

    def __init__(self, given: dict[str, Any], base: dict[str, Any]) -> None:
        super().__init__(given, base)
        (self.rank,) = ints(given["rank"], 1, "rank")
        self.normalize_weights = one_of(given["normalize_weights"], "normalize_weights", NORMALIZATIONS)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs of this shape. ValueError if one of its sizes but the batch is unknown."""
        spatial, channels = self._known(tuple(input_shape))
        self.compute_output_shape(input_shape)  # which says what is wrong with a size
        self._convolution = made = convolution_of(self._spec, spatial, channels, self.filters)
        self.kernel = self._weight("kernel", (self.rank, made.depth, self.filters), initializer=self._first_filters)
        if self.separable:
            self.row_weights, self.column_weights = (
                self._position_weights(name, (size, self.rank), 1 / (2 * math.sqrt(self.rank)))
                for name, size in zip(("row_weights", "column_weights"), made.output, strict=True)
            )
        else:
            self.position_weights = self._position_weights(
                "position_weights", (*made.output, self.rank), 1 / math.sqrt(self.rank)
            )
        self.bias = self._weight("bias", made.bias_shape) if self.use_bias else None
        self._set_input_spec(spatial, channels)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The weighted sums of what the banks make of the inputs, plus bias, through the activation."""
        # As the locally connected layers compute half precisions: in float32, and rounded once.
        computed = "float64" if self.variable_dtype == "float64" else "float32"
        made, x = self._convolution, cast(inputs, computed)
        if made.channels_first:
            x = ops.moveaxis(x, 1, -1)
        if any(map(any, made.padding)):
            x = ops.pad(x, ((0, 0), *made.padding, (0, 0)))
        maps = ops.conv(x, self._shared_kernel(computed), self.strides, "valid", "channels_last")
        maps = ops.reshape(maps, (-1, made.positions, self.rank, self.filters))
        y = ops.sum(maps * ops.expand_dims(self._combined(computed), -1), axis=2)
        y = ops.reshape(y, (-1, *made.output, self.filters))
        if made.channels_first:
            y = ops.moveaxis(y, -1, 1)
        if self.bias is not None:
            y = y + broadcastable_bias(self._bias_in(computed), made)
        return self.activation(cast(y, self.compute_dtype))

    def to_local(self) -> Any:
        """Return the locally connected layer that computes the same, with the expanded kernel.

        Returns
        -------
        LocallyConnected1D or LocallyConnected2D
            Built, of this layer's name, activation and dtype, with implementation 1; its bias is that of this layer.
            What held or penalised the kernel of this layer does not hold for the expanded one.

        Raises
        ------
        ValueError
            If the layer is not built.
        """
        if not self.built:
            raise ValueError(f"layer {self.name} must be built before it is expanded: call it, or `build`")
        own = (*OWN_OBJECTS, "rank", "separable", "normalize_weights")
        config = {name: value for name, value in self.get_config().items() if name not in own}
        config |= {"kernel_initializer": "zeros", "kernel_regularizer": None, "kernel_constraint": None}
        kinds: dict[int, Any] = {1: layers.LocallyConnected1D, 2: layers.LocallyConnected2D}
        made = kinds[self.spatial_axes].from_config(config)
        made.build(self._convolution.input_shape(None))
        computed = "float64" if self.variable_dtype == "float64" else "float32"
        kernel = cast(ops.convert_to_tensor(self.kernel), computed)
        weights = self._combined(computed)
        made.kernel.assign(sum(weights[:, k, None, None] * kernel[k] for k in range(self.rank)))
        if self.bias is not None:
            made.bias.assign(self.bias)
        return made

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Keras's `Layer.quantize`: a NotImplementedError, of which ``model.quantize`` warns."""
        raise NotImplementedError(
            f"Layer {type(self).__name__} keeps its filter banks as they are: layer.to_local() is a locally connected "
            "layer, which can be quantized"
        )

    def _position_weights(self, name: str, shape: Ints, constant: float) -> Any:
        initializer = self.weights_initializer or keras.initializers.Constant(constant)
        return self._weight(name, shape, "weights", initializer)

    def _first_filters(self, shape: Any, dtype: Any = None) -> Any:
        """The first values of the kernel: those of a shared convolution to the filters of all banks."""
        made, initializer = self._convolution, keras.initializers.get(self.kernel_initializer or "glorot_uniform")
        values = initializer((*made.kernel_size, made.channels, self.rank * self.filters), dtype=dtype)
        by_tap = ops.reshape(values, (made.taps, made.channels, self.rank, self.filters))
        order = (2, 1, 0, 3) if made.channels_first else (2, 0, 1, 3)
        return ops.reshape(ops.transpose(by_tap, order), shape)

    def _shared_kernel(self, dtype: str) -> Any:
        """The kernel of that convolution, kernel_size + (channels, rank * filters)."""
        made, kernel = self._convolution, cast(ops.convert_to_tensor(self.kernel), dtype)
        rows = (made.channels, made.taps) if made.channels_first else (made.taps, made.channels)
        by_bank = ops.reshape(kernel, (self.rank, *rows, self.filters))
        order = (2, 1, 0, 3) if made.channels_first else (1, 2, 0, 3)
        return ops.reshape(ops.transpose(by_bank, order), (*made.kernel_size, made.channels, self.rank * self.filters))

    def _combined(self, dtype: str) -> Any:
        """The weights of all positions, (positions, rank), normalised."""
        if self.separable:
            rows, columns = (
                cast(ops.convert_to_tensor(variable), dtype) for variable in (self.row_weights, self.column_weights)
            )
            sums = ops.expand_dims(rows, 1) + columns
        else:
            sums = cast(ops.convert_to_tensor(self.position_weights), dtype)
        sums = ops.reshape(sums, (-1, self.rank))
        if self.normalize_weights == "softmax":
            return ops.softmax(sums, axis=-1)
        if self.normalize_weights == "norm":
            return sums / (ops.sum(sums * sums, axis=-1, keepdims=True) + SMALL) ** 0.5
        return sums


@keras.saving.register_keras_serializable(package="localconv")
class LowRankLocallyConnected1D(LowRankLocallyConnected):
    """1D convolution whose filters at every position are a weighted sum of `rank` filter banks.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 1 int
    rank, strides, padding, data_format, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
    bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, normalize_weights, weights_initializer,
    weights_regularizer, weights_constraint
        As in `LowRankLocallyConnected2D`; inputs are (batch, steps, channels) or (batch, channels, steps), the kernel
        is (rank, kernel_size * channels, filters), position_weights (positions, rank), the bias (positions, filters).
    **base
        name, trainable, dtype, ...: as in `keras.layers.Layer`.

    Raises
    ------
    TypeError, ValueError
        As `LowRankLocallyConnected2D`.

    Examples
    --------
    >>> import keras
    >>> from localconv.keras import LowRankLocallyConnected1D
    >>> model = keras.Sequential([keras.Input((100, 8)), LowRankLocallyConnected1D(16, 3, rank=4)])
    >>> model.output_shape, model.count_params() == 4 * 24 * 16 + 98 * 4 + 98 * 16
    ((None, 98, 16), True)
    """

    spatial_axes = 1

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        rank: int,
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        normalize_weights: str | None = None,
        weights_initializer: Any = None,
        weights_regularizer: Any = None,
        weights_constraint: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(locals(), base)


@keras.saving.register_keras_serializable(package="localconv")
class LowRankLocallyConnected2D(LowRankLocallyConnected):
    """2D convolution whose filters at every position are a weighted sum of `rank` filter banks.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 2 ints
        Rows and columns of the window.
    rank : int
        The number of filter banks K. With 1 the layer is a convolution that is scaled at every position; with as many
        as positions it can be any locally connected layer.
    strides : int or sequence of 2 ints, optional
    padding, data_format, activation, use_bias
        As in `LocallyConnected2D`, with a bias for every position and filter.
    kernel_initializer : str, dict or callable, optional
        For all banks at once: it is asked for the kernel of a convolution to ``rank * filters`` filters, of shape
        kernel_size + (channels, rank * filters), as in the paper.
    bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        As in `LocallyConnected2D`.
    separable : bool, optional
        Whether the weights of a position are the sum of those of its row and those of its column, as in the paper:
        ``(rows + columns) * rank`` parameters in place of ``rows * columns * rank``.
    normalize_weights : {None, 'softmax', 'norm'}, optional
        What becomes of the K weights of a position (of their sum if they are separable) before they are used: nothing,
        positive numbers of sum 1, or a vector of length 1.
    weights_initializer : str, dict or callable, optional
        None: the constant ``1 / sqrt(rank)``, half of that for rows and for columns, with which the layer begins as a
        convolution.
    weights_regularizer, weights_constraint : str, dict or callable, optional
        Of the weights as they are stored.
    **base
        name, trainable, dtype, ...: as in `keras.layers.Layer`. Under mixed precision, and with float16 and bfloat16,
        sums run in float32 and are rounded once.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; the message names one. At the call, as Keras's own layers, for inputs of another
        shape than the layer was built for.

    See Also
    --------
    localconv.layers.LowRankLocallyConnected2D : the same for NumPy, with the same weights.

    Notes
    -----
    G. F. Elsayed, P. Ramachandran, J. Shlens, S. Kornblith: Revisiting Spatial Invariance with Low-Rank Local
    Connectivity, ICML 2020.

    Made of `keras.ops`: a convolution to ``rank * filters`` results, and their weighted sums. The kernel of a position,
    ``sum_k weights[p, k] * kernel[k]``, is not made; `to_local` makes it.

    Padding is zeros, which a filter of inf or NaN makes NaN of. Under numpy Keras's convolution is JAX's, which must be
    installed; there and under jax float64 needs ``JAX_ENABLE_X64=1``.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.keras import LowRankLocallyConnected2D
    >>> layer = LowRankLocallyConnected2D(16, 3, rank=4, separable=True, normalize_weights='softmax')
    >>> tuple(layer(np.ones((1, 30, 32, 3), np.float32)).shape)
    (1, 28, 30, 16)
    >>> [(weight.name, tuple(weight.shape)) for weight in layer.weights[:3]]
    [('kernel', (4, 27, 16)), ('row_weights', (28, 4)), ('column_weights', (30, 4))]
    """

    spatial_axes = 2
    value_names = (*LowRankLocallyConnected.value_names, "separable")

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        rank: int,
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        separable: bool = False,
        normalize_weights: str | None = None,
        weights_initializer: Any = None,
        weights_regularizer: Any = None,
        weights_constraint: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(locals(), base)
        self.separable = flag(separable, "separable")
