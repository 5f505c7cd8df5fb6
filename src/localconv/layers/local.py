"""Locally connected layers, with the three ways in which Keras stores their weights.

All three are one function, computed by the same kernels: what is stored is brought into the shape (positions, taps *
channels, filters) once after each change of the weights.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.arguments import Ints, shortened
from ..core.arrays import Array
from ..core.connections import IMPLEMENTATIONS, Connections
from ..core.families import LOCAL
from ..core.quantized import QuantizedKernel
from ..core.spec import Spec, local_spec
from ..core.windows import layout_of
from ..docstrings import docstring_from_2d
from .arguments import Shape, check_output, named_constructor, shape_tuple, shown
from .base import InputSpec
from .weighted import ConvolvingLayer, shared_arguments

__all__ = ["LocallyConnected1D", "LocallyConnected2D", "LocallyConnected3D", "convert_implementation"]


class UnsharedLayer(ConvolvingLayer):
    """A convolving layer whose filters differ from position to position: what follows from its window alone."""

    family = LOCAL

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return (batch, positions..., filters), or (batch, filters, positions...) with channels_first."""
        shape = shape_tuple(input_shape, "input_shape")
        InputSpec(ndim=self.spatial_axes + 2).check(shape, self.name)
        spatial, _ = self._split(shape)
        output = self._output_size(spatial, (1,) * self.spatial_axes)
        check_output(output, shape, self.name)
        return layout_of(shape[:1], output, self.filters, self._channels_first)

    def _split(self, shape: Shape) -> tuple[Shape, int | None]:
        """Spatial sizes and channels of an input's shape."""
        return (shape[2:], shape[1]) if self._channels_first else (shape[1:-1], shape[-1])

    def _known(self, shape: Shape) -> tuple[Ints, int]:
        """Spatial sizes and channels of an input's shape, none of them unknown."""
        spatial, channels = self._split(shape)
        if not channels:
            axis = 1 if self._channels_first else self.spatial_axes + 1
            raise ValueError(f"Axis {axis} of input should be fully-defined. Found shape: {shape}")
        known = tuple(n for n in spatial if n is not None)
        if len(known) < self.spatial_axes:
            raise ValueError(
                f"The spatial dimensions of the inputs to a {type(self).__name__} layer should be fully-defined, but "
                f"layer received the inputs shape {shape}"
            )
        return known, channels

    def _local_spec(self) -> Spec:
        """The spec of the layer's window."""
        return local_spec(self.spatial_axes, self.kernel_size, self.strides, self.padding, self.data_format, 1, 1)

    def _input_spec(self, spatial: Ints, channels: int) -> InputSpec:
        """What inputs must be once there are weights for these sizes."""
        first = 2 if self._channels_first else 1
        axes = {1 if self._channels_first else -1: channels} | dict(enumerate(spatial, first))
        return InputSpec(ndim=self.spatial_axes + 2, axes=axes)


class _LocallyConnected(UnsharedLayer):
    """What the layers of all ranks share."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
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
        implementation: int = 1,
        **base: Any,
    ) -> None:
        super().__init__(filters, kernel_size, strides, padding, data_format, shared_arguments(locals()), base)
        try:
            self.implementation = operator.index(
                implementation
            )  # whether it is one that there is, `build` says, as in Keras
        except TypeError:
            raise ValueError(f"Unrecognized implementation mode: {shortened(str(implementation))}.") from None
        if implementation == 1 and self.padding == "causal":
            raise ValueError(
                f'Invalid border mode for {type(self).__name__} (only "valid" and "same" are supported if '
                f"implementation is 1): {padding}"
            )
        if self._quantization_mode is not None and self.implementation != 1:
            raise ValueError(
                f"implementation must be 1 with a quantization_mode, got {shortened(str(self.implementation))}"
            )
        self.input_spec = InputSpec(ndim=self.spatial_axes + 2)
        self._connections: Connections | None = None
        self._rows: tuple[object, Array] | None = None

    @property
    def kernel_mask(self) -> Array:
        """Which weights of a kernel of implementation 2 connect an input and an output: 1, the others 0.

        To be multiplied with the kernel, as in Keras: channels and filters have the size 1. A new array each time.

        Raises
        ------
        AttributeError
            For other implementations, as in Keras, and before the layer is built.
        """
        if self.implementation != 2 or self._connections is None:
            raise AttributeError(f"kernel_mask is of built layers with implementation 2, and {self.name!r} is none")
        return self._connections.mask()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        config = super().get_config() | self._window_config() | self._shared_config()
        return config | {"implementation": self.implementation}

    def _build(self, shape: Shape) -> None:
        if self.padding == "causal":
            self._known(shape)
            raise NotImplementedError('Padding type causal not supported. Only "valid" and "same" are implemented.')
        connections = self._connections_for(shape)
        self._spec = connections.spec
        check_output(connections.output, shape, self.name)
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(f"Unrecognized implementation mode: {self.implementation}.")
        channels = connections.channels
        fans = connections.taps * channels, connections.taps * self.filters
        self._make_weights(connections.stored_shape(self.implementation), (*connections.output, self.filters), fans)
        self._connections, self._rows = connections, None
        self.input_spec = self._input_spec(connections.spatial, channels)

    def _connections_for(self, shape: Shape) -> Connections:
        """The connections for inputs of a shape. ValueError if a size is unknown."""
        spatial, channels = self._known(shape)
        return Connections(self._local_spec(), spatial, channels, self.filters)

    def _quantized_state(self, mode: str) -> dict[str, Any]:
        return super()._quantized_state(mode) | {"implementation": 1, "_rows": None}

    def _computed_kernel(self) -> Array | QuantizedKernel:
        if self.implementation == 1:
            return super()._computed_kernel()
        # The version is read before the value, so that it is never newer than what is computed; and what is returned is
        # not read back from where another thread may have put rows of an older one.
        rows, version = self._rows, self.kernel.version
        if rows is None or rows[0] is not version:
            assert self._connections is not None
            expected = self._connections.stored_shape(self.implementation)
            if self.kernel.shape != expected:  # a variable that was assigned as an attribute
                raise ValueError(f"kernel of layer {self.name} must have shape {expected}, got {self.kernel.shape}")
            rows = self._rows = version, self._connections.rows(self.kernel.value, self.implementation)
        return rows[1]

    def _kernel_gradient(self, x: Array, kernel: Array, gradient: Array) -> Array:
        assert self._connections is not None
        return self._connections.stored(super()._kernel_gradient(x, kernel, gradient), self.implementation)


@named_constructor
class LocallyConnected1D(_LocallyConnected):
    """1D convolution with weights of its own at every position.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 1 int
    strides : int or sequence of 1 int, optional
    padding : {'valid', 'same'}, optional
        'same' is Keras's window clipped to the input, which starts at ``position * strides - kernel_size // 2``: not
        TensorFlow's SAME for even windows, nor at strides above 1. Keras has it for implementations 2 and 3 only.
    data_format : {'channels_last', 'channels_first'}, optional
        Of the input, (batch, steps, channels) or (batch, channels, steps). Default: `localconv.image_data_format`.
    activation : str, dict or callable, optional
        None is linear.
    use_bias : bool, optional
        One bias for each position and filter, of shape (positions, filters). With channels_first Keras adds it
        *reshaped* to (filters, positions), not transposed; so does this.
    kernel_initializer, bias_initializer : str, dict or callable, optional
        `initializers` says why ``GlorotUniform(fans='position')`` is the better start for these layers.
    kernel_regularizer, bias_regularizer, activity_regularizer : str, dict or callable, optional
    kernel_constraint, bias_constraint : str, dict or callable, optional
    implementation : {1, 2, 3}, optional
        How the kernel is stored; the function is the same. Prefer 1: in training 2 goes through a number for every pair
        of input and output. 1: (positions, kernel_size * channels, filters). 2: (steps, channels, positions, filters),
        or (channels, steps, filters, positions) with channels_first; entries of pairs that are not connected are
        ignored. 3: one number for each connection, sorted by output, then input.
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`. quantization_mode: of configs of
        quantized layers, see `Layer.quantize`.

    Attributes
    ----------
    kernel, bias : Variable
        Once the layer is built; `bias` is None without `use_bias`. `Layer` has the others.

    Raises
    ------
    ValueError
        For arguments that do not fit, in Keras's words: at once, except implementation and unknown sizes, when the
        layer is built.
    NotImplementedError
        When built with padding 'causal' and implementation 2 or 3, as in Keras.

    See Also
    --------
    localconv.local_conv1d : the function, which also has dilation, groups and free padding.
    convert_implementation : weights of one implementation as those of another.

    Notes
    -----
    Follows tf.keras.layers.LocallyConnected1D of Keras 2.15.

    Examples
    --------
    >>> from localconv.layers import LocallyConnected1D, Sequential
    >>> model = Sequential()
    >>> model.add(LocallyConnected1D(64, 3, input_shape=(10, 32)))
    >>> model.output_shape
    (None, 8, 64)
    >>> model.add(LocallyConnected1D(32, 3))
    >>> model.output_shape
    (None, 6, 32)
    """

    rank = spatial_axes = 1


@named_constructor
class LocallyConnected2D(_LocallyConnected):
    """2D convolution with weights of its own at every position.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 2 ints
        (kh, kw), the taps of the window.
    strides : int or sequence of 2 ints, optional
    padding, data_format, activation, use_bias
        As in `LocallyConnected1D`; the input is (batch, rows, columns, channels) or (batch, channels, rows, columns),
        the bias output_size + (filters,).
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint,
    bias_constraint
        As in `LocallyConnected1D`.
    implementation : {1, 2, 3}, optional
        1: (positions, kh * kw * channels, filters). 2: input_size + (channels,) + output_size + (filters,), or with
        channels_first (channels,) + input_size + (filters,) + output_size. 3: one number for each connection, sorted by
        output, then input.
    **base
        name, trainable, dtype, input_shape, batch_input_shape, seed: as in `Layer`. quantization_mode: of configs of
        quantized layers, see `Layer.quantize`.

    Attributes
    ----------
    kernel, bias : Variable
        Once the layer is built; `bias` is None without `use_bias`. `Layer` has the others.

    Raises
    ------
    ValueError, NotImplementedError
        As `LocallyConnected1D`.

    Notes
    -----
    Follows tf.keras.layers.LocallyConnected2D of Keras 2.15.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import LocallyConnected2D
    >>> layer = LocallyConnected2D(16, (3, 3), strides=2, activation='relu', name='local')
    >>> layer(np.ones((1, 9, 9, 3), np.float32)).shape
    (1, 4, 4, 16)
    >>> [(v.name, v.shape) for v in layer.weights]
    [('local/kernel:0', (16, 27, 16)), ('local/bias:0', (4, 4, 16))]
    """

    rank = spatial_axes = 2


@named_constructor
@docstring_from_2d(
    LocallyConnected2D,
    """
    >>> import numpy as np
    >>> from localconv.layers import LocallyConnected3D
    >>> layer = LocallyConnected3D(16, (2, 3, 3), strides=2, activation='relu', name='local')
    >>> layer(np.ones((1, 6, 9, 9, 3), np.float32)).shape
    (1, 3, 4, 4, 16)
    >>> [(v.name, v.shape) for v in layer.weights]
    [('local/kernel:0', (48, 54, 16)), ('local/bias:0', (3, 4, 4, 16))]
    """,
)
class LocallyConnected3D(_LocallyConnected):
    rank = spatial_axes = 3


def convert_implementation(
    weights: Sequence[ArrayLike], config: Mapping[str, Any], to: int, input_shape: Sequence[int | None] | None = None
) -> list[Array]:
    """Weights of a locally connected layer as another implementation stores them.

    Parameters
    ----------
    weights : sequence of array_like
        Kernel, and bias if there is one: what `get_weights` returns, or Keras's does.
    config : mapping
        What the layer's `get_config` returns, its implementation being that of `weights`; or a whole entry of a model's
        config, with class_name, config and build_config.
    to : {1, 2, 3}
    input_shape : tuple of int or None, optional
        The layer's input shape with the batch axis; needed where `config` holds neither batch_input_shape nor
        build_config.

    Returns
    -------
    list of ndarray
        Kernel, and bias if there is one, as it was: all implementations store it alike. The layer's config needs
        nothing but ``implementation=to``.

    Raises
    ------
    ValueError
        If `to` or the implementation in `config` is none of 1, 2, 3, if the input's shape is not known, if the
        kernel's shape is not that of such a layer, or if the layer is quantized.
    TypeError
        If `config` lacks arguments of the layers.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import LocallyConnected1D, convert_implementation
    >>> layer = LocallyConnected1D(2, 3, implementation=3, input_shape=(6, 1))
    >>> layer.build((None, 6, 1))
    >>> [w.shape for w in convert_implementation(layer.get_weights(), layer.get_config(), 1)]
    [(4, 3, 2), (4, 2)]
    """
    if to not in IMPLEMENTATIONS or isinstance(to, bool):
        raise ValueError(f"to must be one of {IMPLEMENTATIONS}, got {shown(to)}")
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping, got {type(config).__name__}")
    if isinstance(config.get("config"), Mapping):
        input_shape = input_shape or config.get("build_config", {}).get("input_shape")
        config = config["config"]
    if config.get("quantization_mode") is not None:
        raise ValueError(
            "config must be that of a layer that is not quantized, which has implementation 1 for good, got "
            f"quantization_mode={shown(config['quantization_mode'])}"
        )
    input_shape = input_shape or config.get("batch_input_shape")
    if input_shape is None:
        raise ValueError("input_shape must be given where config holds neither batch_input_shape nor build_config")
    connections, source = _connections_of(config, shape_tuple(input_shape, "input_shape"))
    if len(weights) not in (1, 2):
        raise ValueError(f"weights must hold a kernel and perhaps a bias, got {len(weights)} arrays")
    kernel, *rest = (np.array(weight) for weight in weights)
    expected = connections.stored_shape(source)
    if kernel.shape != expected:
        raise ValueError(
            f"weights[0] must have shape {expected}, as implementation {source} stores it, got {kernel.shape}"
        )
    return [kernel if source == to else connections.stored(connections.rows(kernel, source), to), *rest]


def _connections_of(config: Mapping[str, Any], input_shape: Shape) -> tuple[Connections, int]:
    """The connections and the implementation of the layer with this config."""
    try:
        rank = len(int_or_ints) if isinstance(int_or_ints := config["kernel_size"], Sequence) else len(input_shape) - 2
        layer_class = {1: LocallyConnected1D, 2: LocallyConnected2D, 3: LocallyConnected3D}[rank]
    except KeyError:
        raise ValueError(f"config must be that of a locally connected layer, got {shown(dict(config))}") from None
    geometry = {
        key: config[key]
        for key in ("filters", "kernel_size", "strides", "padding", "data_format", "implementation")
        if key in config
    }
    layer = layer_class(name="converted", **geometry)
    if layer.implementation not in IMPLEMENTATIONS:
        raise ValueError(f"Unrecognized implementation mode: {layer.implementation}.")
    layer.input_spec.check(input_shape, layer.name)  # type: ignore[union-attr]
    return layer._connections_for(input_shape), layer.implementation
