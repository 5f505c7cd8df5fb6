"""Involution: a layer whose filters come with the data, made of every pixel itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from ..core.arguments import ints
from ..core.spec import filter_spec
from ..filters import FILTER_NAMES
from . import backends, ops
from .arguments import AUTO, ENGINES, data_format_of, flag, keras_object, kind_of, lower, one_of
from .checks import check_filters, result_shape, split

__all__ = ["Involution2D"]

BATCH = "batch"
PADDINGS = ("same", "inside")
# The arguments that Keras has objects for.
OBJECTS = (
    "activation",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
)
# Those that the config holds as they are.
VALUES = (
    "kernel_size",
    "groups",
    "reduction_ratio",
    "strides",
    "padding",
    "data_format",
    "dilation_rate",
    "use_bias",
    "engine",
)


@keras.saving.register_keras_serializable(package="localconv")
class Involution2D(layers.Layer):
    """Involution: every pixel makes the filters of its own window, which the channels of a group share.

    Where a convolution has one kernel for all positions and another for each channel, this has a filter for every
    position, made by a bottleneck of two 1 x 1 convolutions with normalization and activation between them.

    Parameters
    ----------
    kernel_size : int or sequence of 2 ints, optional
        Rows and columns of the window.
    groups : int, optional
        Divides the channels; each group has filters of its own.
    reduction_ratio : int, optional
        The bottleneck has so many times fewer channels than the input.
    strides : int or sequence of 2 ints, optional
        Above 1 the filters are made of averages of so many pixels.
    padding : {'same', 'inside'}, optional
        'same' is TensorFlow's SAME, whose windows are cut off at the border; 'inside' moves those windows inside, with
        strides of 1. See `localconv.local_filter2d`.
    data_format : {'channels_last', 'channels_first'}, optional
        Of the inputs, (batch, rows, columns, channels) or (batch, channels, rows, columns). Default:
        `keras.config.image_data_format`.
    dilation_rate : int or sequence of 2 ints, optional
        Pixels from one tap to the next.
    normalization : {'batch', None} or keras.layers.Layer, optional
        Behind the first convolution: batch normalization, as in the paper, none, or a layer, which becomes this one's.
    activation : str, dict or callable, optional
        Behind the normalization. None is linear.
    use_bias : bool, optional
        Whether the second convolution has a bias; the first has one where no normalization follows.
    kernel_initializer, bias_initializer : str, dict or callable, optional
        Of both convolutions.
    kernel_regularizer, bias_regularizer, activity_regularizer : str, dict or callable, optional
        Of both convolutions; the last one of this layer's result.
    engine : {'auto', 'compiled', 'ops'}, optional
        What computes, as in `LocallyConnected2D`.
    **base
        name, trainable, dtype, ...: as in `keras.layers.Layer`.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; the message names one.

    See Also
    --------
    localconv.keras.ops.local_filter2d : what applies the filters.

    Notes
    -----
    D. Li, J. Hu, C. Wang, X. Li, Q. She, L. Zhu, T. Zhang, Q. Chen: Involution: Inverting the Inherence of Convolution
    for Visual Recognition, CVPR 2021. The filters are group by group, the taps of each in C order, as the authors' code
    has them.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.keras import Involution2D
    >>> layer = Involution2D(7, groups=4, reduction_ratio=4)
    >>> tuple(layer(np.ones((2, 16, 16, 32), np.float32)).shape)
    (2, 16, 16, 32)
    >>> [tuple(weight.shape) for weight in layer.trainable_weights]
    [(1, 1, 32, 8), (8,), (8,), (1, 1, 8, 196), (196,)]
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int] = 7,
        groups: int = 1,
        reduction_ratio: int = 4,
        strides: int | Sequence[int] = 1,
        padding: str = "same",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        normalization: Any = BATCH,
        activation: Any = "relu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        engine: str = AUTO,
        **base: Any,
    ) -> None:
        given = locals()
        super().__init__(**base)
        for name in OBJECTS:
            setattr(self, name, keras_object(name, given[name]))
        (self.reduction_ratio,) = ints(reduction_ratio, 1, "reduction_ratio")
        self.use_bias, self.engine = flag(use_bias, "use_bias"), one_of(engine, "engine", ENGINES)
        self.data_format = data_format_of(data_format)
        self.padding = one_of(lower(padding, "padding"), "padding", PADDINGS)
        self._spec = filter_spec(2, kernel_size, strides, self.padding, self.data_format, dilation_rate, groups)
        assert self._spec.kernel_size is not None
        self.kernel_size, self.strides = self._spec.kernel_size, self._spec.strides
        self.dilation_rate, self.groups = self._spec.dilation, self._spec.groups
        self.normalization = _normalization(normalization)
        self.input_spec = layers.InputSpec(ndim=4)
        self._take_engine(self.engine)

    def _take_engine(self, engine: str) -> None:
        """Compute by the engine of this name from now on."""
        self._filtering = backends.filtering_for(engine)
        self.engine, self.supports_jit = engine, self._filtering.supports_jit

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs of this shape. ValueError if its channels are unknown, or do not fit."""
        _, channels = split(self._spec, tuple(input_shape))
        if channels is None:
            raise ValueError(f"inputs of an Involution2D layer must have channels that are known, got {input_shape}")
        if channels % self.groups or channels < self.reduction_ratio:
            raise ValueError(
                f"groups and reduction_ratio must fit the {channels} channels of inputs: groups divide them, and "
                f"reduction_ratio is at most their number, got groups={self.groups}, "
                f"reduction_ratio={self.reduction_ratio}"
            )
        self.compute_output_shape(input_shape)  # which says what is wrong with a size
        shape: Any = tuple(input_shape)
        self._stages: list[Any] = []
        if max(self.strides) > 1:
            pool = {"padding": "same", "data_format": self.data_format, "dtype": self.dtype_policy}
            self._stages.append(layers.AveragePooling2D(self.strides, self.strides, name="pool", **pool))
        reduced = channels // self.reduction_ratio
        self._stages.append(self._convolution(reduced, "reduce", self.use_bias and self.normalization is None))
        if self.normalization == BATCH:
            axis = 1 if self._spec.channels_first else -1
            self._stages.append(layers.BatchNormalization(axis, name="normalize", dtype=self.dtype_policy))
        elif self.normalization is not None:
            self._stages.append(self.normalization)
        taps = self.groups * self.kernel_size[0] * self.kernel_size[1]
        self._stages += [
            layers.Activation(self.activation, name="activate", dtype=self.dtype_policy),
            self._convolution(taps, "span", self.use_bias),
        ]
        for stage in self._stages:
            if not stage.built:  # a layer that was given, or read from a file, may be
                stage.build(shape)
            shape = stage.compute_output_shape(shape)
        self.input_spec = layers.InputSpec(ndim=4, axes={1 if self._spec.channels_first else 3: channels})
        self.built = True

    def _convolution(self, filters: int, name: str, use_bias: bool) -> Any:
        names = ("kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer")
        own = {key: getattr(self, key) for key in names}
        # One that draws numbers would draw the same ones for both.
        own |= {key: value.clone() for key, value in own.items() if isinstance(value, keras.initializers.Initializer)}
        return layers.Conv2D(
            filters, 1, data_format=self.data_format, use_bias=use_bias, name=name, dtype=self.dtype_policy, **own
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # the stages find it by themselves
        """The sums of the windows, by filters that their pixels make."""
        filters = inputs
        for stage in self._stages:
            filters = stage(filters)
        check_filters(self._spec, tuple(inputs.shape), tuple(filters.shape), FILTER_NAMES)
        return ops.filtered(self._filtering, self._spec, inputs, filters)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return (batch, output rows, output columns, channels), or (batch, channels, ...) with channels_first."""
        shape = tuple(input_shape)
        if len(shape) != 4:
            raise ValueError(f"input_shape must have 4 axes, got {input_shape!r}")
        spatial, _ = split(self._spec, shape)
        reaches = [size * dilation for size, dilation in zip(self.kernel_size, self.dilation_rate, strict=True)]
        if self.padding == "inside" and any(
            n is not None and n < reach for n, reach in zip(spatial, reaches, strict=True)
        ):
            raise ValueError(
                f"kernel_size * dilation_rate must be at most the size of inputs along every axis with "
                f"padding='inside', got {tuple(reaches)} for input_shape={input_shape!r}"
            )
        return result_shape(self._spec, shape)

    def get_config(self) -> dict[str, Any]:
        """All arguments, as JSON has them."""
        config = {name: getattr(self, name) for name in VALUES}
        kept = self.normalization
        config["normalization"] = kept if kept in (BATCH, None) else keras.saving.serialize_keras_object(kept)
        return super().get_config() | config | {name: kind_of(name).serialize(getattr(self, name)) for name in OBJECTS}


def _normalization(given: Any) -> Any:
    """The argument `normalization`, of which a config holds a dict."""
    if isinstance(given, dict):
        given = keras.saving.deserialize_keras_object(given)
    if given is None or isinstance(given, layers.Layer):
        return given
    if given != BATCH:
        raise ValueError(f"normalization must be {BATCH!r}, None or a layer of Keras, got {given!r}")
    return BATCH
