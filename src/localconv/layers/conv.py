"""Ordinary convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core import engine
from ..core.arrays import Array
from ..core.families import CONV
from ..core.packing import KeptPacking
from ..core.quantized import QuantizedKernel
from ..core.spec import conv_spec
from ..core.windows import layout_of
from ..docstrings import docstring_from_2d
from .arguments import Shape, check_output, int_tuple, named_constructor, positive_int, shape_tuple
from .base import InputSpec
from .weighted import ConvolvingLayer, shared_arguments

__all__ = ["Conv1D", "Conv2D", "Conv3D", "Convolution1D", "Convolution2D", "Convolution3D"]


class _Conv(ConvolvingLayer):
    """What the convolutions of all ranks share."""

    family = CONV

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(filters, kernel_size, strides, padding, data_format, shared_arguments(locals()), base)
        self.groups = positive_int(groups, "groups")
        self.dilation_rate = int_tuple(dilation_rate, self.spatial_axes, "dilation_rate")
        if self.filters % self.groups:
            raise ValueError(
                "The number of filters must be evenly divisible by the number of groups. "
                f"Received: groups={self.groups}, filters={self.filters}"
            )
        if self.padding == "causal" and self.spatial_axes != 1:
            raise ValueError("Causal padding is only supported for `Conv1D`.")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "`strides > 1` not supported in conjunction with `dilation_rate > 1`. "
                f"Received: strides={self.strides} and dilation_rate={self.dilation_rate}"
            )
        self.input_spec = InputSpec(min_ndim=self.spatial_axes + 2)
        self._packing = KeptPacking()
        self._spec = conv_spec(
            self.spatial_axes, self.strides, self.padding, self.data_format, self.dilation_rate, self.groups
        )

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return (batch..., positions..., filters), or (batch..., filters, positions...) with channels_first.

        Raises
        ------
        ValueError
            If a size of the output would be 0 or less.
        """
        shape = shape_tuple(input_shape, "input_shape")
        InputSpec(min_ndim=self.spatial_axes + 2).check(shape, self.name)
        batch = shape[: -self.spatial_axes - 1]
        spatial = shape[-self.spatial_axes :] if self._channels_first else shape[-self.spatial_axes - 1 : -1]
        output = self._output_size(spatial, self.dilation_rate)
        check_output(output, shape, self.name)
        return layout_of(batch, output, self.filters, self._channels_first)

    def convolution_op(self, inputs: ArrayLike, kernel: ArrayLike) -> Array:
        """Return the convolution of an input with any kernel, in this layer's geometry: no bias, no activation.

        Parameters
        ----------
        inputs : array_like of float32 or float64
            As the layer takes it.
        kernel : array_like of float32 or float64
            Shape kernel_size + (channels / groups, filters).

        Returns
        -------
        ndarray

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit.

        Examples
        --------
        Weight standardization:

        >>> import numpy as np
        >>> from localconv.layers import Conv1D
        >>> layer = Conv1D(2, 3)
        >>> x = np.ones((1, 5, 4), np.float32)
        >>> y = layer(x)
        >>> kernel = layer.kernel.value
        >>> layer.convolution_op(x, (kernel - kernel.mean()) / kernel.std()).shape
        (1, 3, 2)
        """
        return engine.forward(self._spec, inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        config = {"dilation_rate": self.dilation_rate, "groups": self.groups}
        return super().get_config() | self._window_config() | config | self._shared_config()

    def _quantized_state(self, mode: str) -> dict[str, Any]:
        return super()._quantized_state(mode) | {"_packing": KeptPacking()}

    def _product(self, x: Array, kernel: Array | QuantizedKernel, bias: Array | None, relu: bool) -> Array:
        # A quantized kernel is there to be small, and is packed anew in every call; so is one that is not x's dtype.
        version = self.kernel.version_of(kernel) if type(kernel) is np.ndarray and kernel.dtype == x.dtype else None
        if version is None:
            return super()._product(x, kernel, bias, relu)
        packing = partial(self._packing.find, version)
        return engine.forward(self._spec, x, kernel, bias, None, relu, packing=packing)

    def _build(self, shape: Shape) -> None:
        axis = -1 - self.spatial_axes if self._channels_first else -1
        channels = shape[axis]
        if not channels:
            raise ValueError(
                f"The channel dimension of the inputs should be defined. The input_shape received is {shape}, where "
                f"axis {axis} (0-based) is the channel dimension, which found to be `{channels}`."
            )
        if channels % self.groups:
            raise ValueError(
                "The number of input channels must be evenly divisible by the number of groups. Received "
                f"groups={self.groups}, but the input has {channels} channels (full input shape is {shape})."
            )
        self.compute_output_shape(shape)
        self._make_weights((*self.kernel_size, channels // self.groups, self.filters), (self.filters,))
        self.input_spec = InputSpec(min_ndim=self.spatial_axes + 2, axes={axis: channels})


class Conv1D(_Conv):
    """1D convolution.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 1 int
    strides : int or sequence of 1 int, optional
    padding : {'valid', 'same', 'causal'}, optional
        'same' is TensorFlow's SAME; 'causal' pads ``(kernel_size - 1) * dilation_rate`` steps in front.
    data_format : {'channels_last', 'channels_first'}, optional
        Of the input: (..., steps, channels) or (..., channels, steps), with one batch axis or more. channels_last
        unless given, as in Keras; None: `localconv.image_data_format`.
    dilation_rate : int or sequence of 1 int, optional
        Strides and dilation_rate cannot both be above 1.
    groups : int, optional
        Divides channels and filters.
    activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
    activity_regularizer
        As in `LocallyConnected1D`; the bias is (filters,).
    kernel_constraint, bias_constraint : str, dict or callable, optional
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`. quantization_mode: of configs of
        quantized layers, see `Layer.quantize`.

    Raises
    ------
    ValueError
        For arguments that do not fit, in Keras's words.

    Notes
    -----
    Follows tf.keras.layers.Conv1D of Keras 2.15. The kernel is (kernel_size, channels / groups, filters).

    From the second call on with the same weights, a layer of few output positions (below 2048 in all images of a call)
    keeps its kernel as it is packed for the fast algorithms too: as much memory again, more where each group has few
    filters. The next call after an assignment, and quantizing the layer, give that back.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import Conv1D
    >>> Conv1D(32, 3, activation='relu')(np.ones((4, 10, 128))).shape
    (4, 8, 32)
    >>> Conv1D(32, 3, activation='relu')(np.ones((4, 7, 10, 128))).shape
    (4, 7, 8, 32)
    """

    rank = spatial_axes = 1

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = "channels_last",
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **base: Any,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            groups,
            **shared_arguments(locals()),
            **base,
        )


@named_constructor
class Conv2D(_Conv):
    """2D convolution.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 2 ints
    strides : int or sequence of 2 ints, optional
    padding : {'valid', 'same'}, optional
    data_format : {'channels_last', 'channels_first'}, optional
        Of the input: (..., rows, columns, channels) or (..., channels, rows, columns). Default:
        `localconv.image_data_format`.
    dilation_rate : int or sequence of 2 ints, optional
    groups, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
    activity_regularizer
        As in `Conv1D`.
    kernel_constraint, bias_constraint : str, dict or callable, optional
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`. quantization_mode: of configs of
        quantized layers, see `Layer.quantize`.

    Raises
    ------
    ValueError
        For arguments that do not fit, in Keras's words.

    Notes
    -----
    Follows tf.keras.layers.Conv2D of Keras 2.15. The kernel is (rows, columns, channels / groups, filters).

    From the second call on with the same weights, a layer of few output positions (below 2048 in all images of a call)
    keeps its kernel as it is packed, as `Conv1D` says.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import Conv2D
    >>> Conv2D(2, 3, activation='relu', padding='same')(np.ones((4, 28, 28, 3))).shape
    (4, 28, 28, 2)
    """

    rank = spatial_axes = 2


@named_constructor
@docstring_from_2d(
    Conv2D,
    """
    >>> import numpy as np
    >>> from localconv.layers import Conv3D
    >>> Conv3D(2, 3, activation='relu')(np.ones((4, 10, 28, 28, 3))).shape
    (4, 8, 26, 26, 2)
    """,
)
class Conv3D(_Conv):
    rank = spatial_axes = 3


Convolution1D = Conv1D
Convolution2D = Conv2D
Convolution3D = Conv3D
