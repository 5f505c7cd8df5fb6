"""The layers: Keras 2's locally connected layers as layers of Keras 3.

Nothing but `spatial_axes` depends on their number. What a layer stores is Keras 2's; what it computes is a
`Convolution`, by the engine of its choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..core.arguments import Ints
from ..core.connections import IMPLEMENTATIONS, Connections
from ..core.geometry import convolution_of
from ..docstrings import docstring_from_2d
from ..quantization import quantize as quantize_array
from . import backends
from .arguments import AUTO, ENGINES, one_of
from .backends import cast
from .unshared import OBJECTS, VALUES, UnsharedLayer

__all__ = ["LocallyConnected1D", "LocallyConnected2D", "LocallyConnected3D"]


class LocallyConnected(UnsharedLayer):
    """What the layers of all ranks share; arguments as in `LocallyConnected2D`."""

    object_names = OBJECTS
    value_names = (*VALUES, "implementation", "dilation_rate", "groups", "engine")

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
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
        implementation: int = 1,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        engine: str = AUTO,
        **base: Any,
    ) -> None:
        super().__init__(locals(), base)
        self.dilation_rate, self.groups = self._spec.dilation, self._spec.groups
        self.implementation = int(one_of(implementation, "implementation", IMPLEMENTATIONS))
        self.engine = one_of(engine, "engine", ENGINES)
        if self.implementation != 1 and (self.groups > 1 or max(self.dilation_rate) > 1):
            raise ValueError(
                f"implementation must be 1 for dilation_rate={dilation_rate!r} and groups={groups!r}, which Keras's "
                f"other ways to store a kernel do not have, got {implementation!r}"
            )
        self._take_engine(self.engine)

    def _take_engine(self, engine: str) -> None:
        """Compute by the engine of this name from now on."""
        self._makers = backends.makers_for(engine)
        self.engine, self.supports_jit = engine, self._makers.supports_jit
        if self.built:
            maker = self._makers.floats if self.quantization_mode is None else self._makers.int8
            self._compute = maker(self._convolution)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs of this shape. ValueError if one of its sizes but the batch is unknown."""
        spatial, channels = self._known(tuple(input_shape))
        self.compute_output_shape(input_shape)  # which says what is wrong with a size
        self._convolution = convolution = convolution_of(self._spec, spatial, channels, self.filters)
        shape: Ints = convolution.kernel_shape
        self._rows_in_kernel: np.ndarray | None = None
        if self.implementation != 1:
            self._connections = connections = Connections(self._spec, spatial, channels, self.filters)
            shape = connections.stored_shape(self.implementation)
            self._rows_in_kernel = _places(connections, self.implementation)
        if self.quantization_mode is None:
            self._compute = self._makers.floats(convolution)
            self.kernel = self._weight("kernel", shape)
        else:
            self.quantized_build(convolution.kernel_shape, self.quantization_mode)
        self.bias = self._weight("bias", convolution.bias_shape) if self.use_bias else None
        self._set_input_spec(spatial, channels)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The convolution, plus bias, through the activation."""
        if self.quantization_mode is not None:
            # Wrappers, TimeDistributed among them, call this and pass by what Keras chooses in a layer's __call__.
            return self.quantized_call(inputs)
        kernel = ops.convert_to_tensor(self.kernel)
        # Half precisions are computed in float32 and rounded once: so do the sums keep their digits, and a kernel
        # that is float32, as under mixed policies, is never copied.
        computed = "float64" if self.variable_dtype == "float64" else "float32"
        y = self._compute(cast(inputs, computed), self._rows(cast(kernel, computed)), self._bias_in(computed))
        return self.activation(cast(y, self.compute_dtype))

    @property
    def kernel_mask(self) -> np.ndarray:
        """Which weights of a kernel of implementation 2 connect an input and an output: 1, the others 0.

        To be multiplied with the kernel, as in Keras 2: channels and filters have the size 1. A new array each time.

        Raises
        ------
        AttributeError
            For other implementations, as in Keras 2, before the layer is built, and where the kernel is int8.
        """
        if self.implementation != 2 or not self.built or self.quantization_mode is not None:
            raise AttributeError(f"kernel_mask is of built layers with implementation 2, and {self.name!r} is none")
        return self._connections.mask()

    # ------------------------------------------------------------------------------- Keras's protocol for quantization

    def quantize(self, mode: str | None = None, type_check: bool = True, config: Any = None) -> None:
        """Keep the kernel in int8 from now on; Keras's `Layer.quantize`, which ``model.quantize('int8')`` calls.

        As `localconv.quantize` does it, one scale for each filter at each position, and the inputs stay as they are:
        results are nearer than those of Keras's own layers, which round their inputs to int8 too. Whatever the layer's
        implementation, the int8 kernel has the rows of implementation 1.

        Parameters
        ----------
        mode : {'int8'}
        type_check : bool, optional
            Refuse subclasses, whose `call` would be passed by.
        config : keras.quantizers.QuantizationConfig, optional
            Without a weight_quantizer; its activation_quantizer has nothing to do.

        Raises
        ------
        NotImplementedError
            Another of Keras's modes, a weight_quantizer, a subclass. ``model.quantize`` warns of it, and leaves the
            layer as it is.
        ValueError
            What is none of Keras's modes, a layer that is not built, a kernel that is not finite; and a layer that is
            int8 already: Keras lets none be quantized twice, and ``model.quantize`` ends at the first such layer.

        Notes
        -----
        ``model.quantize('int8')`` quantizes every layer that can be. A model that has predicted already keeps what it
        compiled unless it is asked itself. Under jax, whose programs read no int8 here, a bfloat16 copy of the values,
        in which they are exact, is made for the time of a call.
        """
        if type_check and type(self) not in (LocallyConnected1D, LocallyConnected2D, LocallyConnected3D):
            raise NotImplementedError(f"Layer {type(self).__name__} must implement `quantize` itself: it is a subclass")
        _check_mode(self, mode)
        if getattr(config, "weight_quantizer", None) is not None:
            raise NotImplementedError(
                f"Layer {type(self).__name__} has its own quantizer of weights, got {config.weight_quantizer!r}"
            )
        rows = ops.convert_to_numpy(self._rows(ops.convert_to_tensor(self.kernel)))
        made = quantize_array(rows)
        del self.kernel, rows
        self.quantized_build(made.shape, mode, config)
        self.kernel.assign(made.values)
        self.kernel_scale.assign(made.scales)
        if self.dtype_policy.quantization_mode is None:
            self.dtype_policy = keras.dtype_policies.get(f"{mode}_from_{self.dtype_policy.name}")

    def quantized_build(self, kernel_shape: Ints, mode: str | None, config: Any = None) -> None:
        """Make the int8 kernel and its scales."""
        _check_mode(self, mode)
        options: dict[str, Any] = {"trainable": False, "autocast": False}
        self.kernel = self.add_weight(name="kernel", shape=kernel_shape, initializer="zeros", dtype="int8", **options)
        shape = (kernel_shape[0], kernel_shape[2])
        self.kernel_scale = self.add_weight(
            name="kernel_scale", shape=shape, initializer="ones", dtype="float32", **options
        )
        self._compute = self._makers.int8(self._convolution)
        self._rows_in_kernel = None
        self._is_quantized = True

    def _int8_call(self, inputs: Any) -> Any:
        """`call` with an int8 kernel: in float32, whatever the dtype of the variables was."""
        parts = ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.kernel_scale)
        y = self._compute(cast(inputs, "float32"), *parts, self._bias_in("float32"))
        return self.activation(cast(y, self.compute_dtype))

    @property
    def variable_serialization_spec(self) -> dict[str | None, list[str]]:
        """The variables in the order of files, by quantization mode."""
        return {None: ["kernel", "bias"], "int8": ["kernel", "bias", "kernel_scale"]}

    def save_own_variables(self, store: Any) -> None:
        """Put the variables into a file's group."""
        for number, variable in enumerate(self._saved_variables()):
            store[str(number)] = variable

    def load_own_variables(self, store: Any) -> None:
        """Take the variables from a file's group.

        ValueError unless the kernel is int8 either in both or in neither.
        """
        variables = self._saved_variables()
        if len(store.keys()) == len(variables) > 0:
            stored = keras.backend.standardize_dtype(store["0"].dtype)
            if (stored == "int8") != (self.quantization_mode == "int8"):
                raise ValueError(
                    f"Layer {self.name!r} has a kernel of {self.kernel.dtype}, and the file one of {stored}: int8 is "
                    "loaded into a layer that was quantized, and only into one"
                )
            for number, variable in enumerate(variables):
                variable.assign(store[str(number)])
        else:
            super().load_own_variables(store)  # which says what is wrong

    def _saved_variables(self) -> list[Any]:
        if not self.built:
            return []
        named = [getattr(self, name) for name in self.variable_serialization_spec[self.quantization_mode]]
        return [variable for variable in named if variable is not None]

    def _rows(self, kernel: Any) -> Any:
        """A stored kernel as implementation 1 has it."""
        if self._rows_in_kernel is None:
            return kernel
        # A table of one column: looking up its rows is what PyTorch's exporters to ONNX know.
        values = ops.concatenate([ops.zeros((1, 1), dtype=kernel.dtype), ops.reshape(kernel, (-1, 1))])
        return ops.reshape(ops.take(values, self._rows_in_kernel, axis=0), self._rows_in_kernel.shape)


@keras.saving.register_keras_serializable(package="localconv")
class LocallyConnected1D(LocallyConnected):
    """1D convolution with weights of its own at every position.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 1 int
    strides, dilation_rate : int or sequence of 1 int, optional
    padding, data_format, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
    bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, groups, engine
        As in `LocallyConnected2D`; inputs are (batch, steps, channels) or (batch, channels, steps), the bias is
        (positions, filters).
    implementation : {1, 2, 3}, optional
        How the kernel is stored. 1: (positions, kernel_size * channels / groups, filters). 2: (steps, channels,
        positions, filters), or (channels, steps, filters, positions) with channels_first. 3: one number for each
        connection, sorted by output, then input.
    **base
        name, trainable, dtype, ...: as in `keras.layers.Layer`.

    Raises
    ------
    TypeError, ValueError
        As `LocallyConnected2D`.

    Notes
    -----
    Follows tf.keras.layers.LocallyConnected1D of Keras 2.15.

    Examples
    --------
    >>> import keras
    >>> from localconv.keras import LocallyConnected1D
    >>> layers = [keras.Input((10, 32)), LocallyConnected1D(64, 3), LocallyConnected1D(32, 3)]
    >>> model = keras.Sequential(layers)
    >>> model.output_shape
    (None, 6, 32)
    """

    rank = spatial_axes = 1


@keras.saving.register_keras_serializable(package="localconv")
class LocallyConnected2D(LocallyConnected):
    """2D convolution with weights of its own at every position.

    Parameters
    ----------
    filters : int
    kernel_size : int or sequence of 2 ints
        Rows and columns of the window.
    strides, dilation_rate : int or sequence of 2 ints, optional
    padding : {'valid', 'same'}, optional
        In any case of letters. 'same' is Keras 2's window clipped to the input, which starts at ``position * strides -
        kernel_size // 2``: not TensorFlow's SAME for even windows, nor at strides above 1. Here implementation 1 has
        it too.
    data_format : {'channels_last', 'channels_first'}, optional
        Of the inputs, (batch, rows, columns, channels) or (batch, channels, rows, columns). Default:
        `keras.config.image_data_format`.
    activation : str, dict or callable, optional
        None is linear.
    use_bias : bool, optional
        One bias for each position and filter, (output rows, output columns, filters). With channels_first it is added
        as Keras 2 does: *reshaped* to (filters, output rows, output columns), not transposed.
    kernel_initializer, bias_initializer : str, dict or callable, optional
    kernel_regularizer, bias_regularizer, activity_regularizer : str, dict or callable, optional
    kernel_constraint, bias_constraint : str, dict or callable, optional
        Of what is stored, as in Keras 2.
    implementation : {1, 2, 3}, optional
        How the kernel is stored; the function is the same. 1, which is the fastest: (output rows * output columns,
        kernel rows * kernel columns * channels / groups, filters). 2: (rows, columns, channels,
        output rows, output columns, filters), or with channels_first (channels, rows, columns, filters,
        output rows, output columns); entries of pairs that are not connected are ignored. 3: one number for each
        connection, sorted by output, then input.
    groups : int, optional
        Filters in so many groups, each of which sees so many groups of channels: with implementation 1.
    engine : {'auto', 'compiled', 'ops'}, optional
        What computes: 'compiled' localconv's kernels, on the processor; 'ops' a sum over taps in `keras.ops`, which
        runs on any device and under any compiler, XLA's among them. 'auto' takes the compiled kernels where they run:
        under TensorFlow unless it has another device, under torch and jax always (on other devices their bridges
        compute in torch's and jax's own operations), under numpy always.
    **base
        name, trainable, dtype, ...: as in `keras.layers.Layer`. Under mixed precision, and with float16 and bfloat16,
        sums run in float32 and are rounded once.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit; the message names one. At the call, as Keras's own layers, for inputs of another
        shape than the layer was built for.

    Notes
    -----
    Follows tf.keras.layers.LocallyConnected2D of Keras 2.15. `dilation_rate`, `groups` and `engine` are localconv's.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.keras import LocallyConnected2D
    >>> layer = LocallyConnected2D(16, (3, 3), strides=2, activation='relu')
    >>> layer(np.ones((1, 9, 9, 3), np.float32)).shape == (1, 4, 4, 16)
    True
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(16, 27, 16), (4, 4, 16)]
    """

    rank = spatial_axes = 2


@keras.saving.register_keras_serializable(package="localconv")
@docstring_from_2d(
    LocallyConnected2D,
    """
    >>> import numpy as np
    >>> from localconv.keras import LocallyConnected3D
    >>> layer = LocallyConnected3D(16, (3, 3, 3), strides=2, activation='relu')
    >>> layer(np.ones((1, 5, 9, 9, 3), np.float32)).shape == (1, 2, 4, 4, 16)
    True
    >>> [tuple(weight.shape) for weight in layer.weights]
    [(32, 81, 16), (2, 4, 4, 16)]
    """,
)
class LocallyConnected3D(LocallyConnected):
    rank = spatial_axes = 3


def _check_mode(layer: LocallyConnected, mode: str | None) -> None:
    if mode != "int8":
        raise NotImplementedError(f"Layer {type(layer).__name__} can be quantized to 'int8', got mode={mode!r}")


def _places(connections: Connections, implementation: int) -> np.ndarray:
    """For each element of the rows where it is in a stored kernel, counted from 1; 0: nowhere, it meets padding."""
    shape = connections.stored_shape(implementation)
    count = int(np.prod(shape, dtype=np.int64))
    numbers = np.arange(1, count + 1, dtype=np.int32 if count < 2**31 else np.int64).reshape(shape)
    return np.asarray(connections.rows(numbers, implementation))
