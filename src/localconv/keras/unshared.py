"""What layers share whose filters differ from position to position: arguments, sizes, config."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from ..core.arguments import Ints, ints
from ..core.spec import Spec, local_spec
from ..core.windows import layout_of, output_of
from .arguments import data_format_of, flag, keras_object, kind_of, lower, one_of
from .backends import cast

PADDINGS = ("valid", "same")

# The arguments that Keras has objects for.
OBJECTS = (
    "activation",
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)
# Those that the config holds as they are, of all layers.
VALUES = ("filters", "kernel_size", "strides", "padding", "data_format", "use_bias")


class UnsharedLayer(keras.layers.Layer):
    """A layer with a window whose filters differ from position to position: arguments, sizes and config.

    A subclass has the number of its `spatial_axes` and the names of its arguments: `object_names` of those that Keras
    has objects for, `value_names` of those that the config holds as they are.
    """

    spatial_axes: int
    object_names: tuple[str, ...]
    value_names: tuple[str, ...]
    dtype_policy: Any
    built: bool

    def __init__(self, given: Mapping[str, Any], base: dict[str, Any]) -> None:
        if "batch_input_shape" in base:
            base["input_shape"] = tuple(base.pop("batch_input_shape"))[1:]
        super().__init__(**base)
        for name in self.object_names:
            setattr(self, name, keras_object(name, given[name]))
        (self.filters,), self.use_bias = ints(given["filters"], 1, "filters"), flag(given["use_bias"], "use_bias")
        self.data_format = data_format_of(given["data_format"])
        self.padding = one_of(lower(given["padding"], "padding"), "padding", PADDINGS)
        window = (given["kernel_size"], given["strides"], self.padding, self.data_format)
        self._spec: Spec = local_spec(self.spatial_axes, *window, given.get("dilation_rate", 1), given.get("groups", 1))
        self.kernel_size, self.strides = self._spec.kernel_size, self._spec.strides
        self.input_spec = keras.layers.InputSpec(ndim=self.spatial_axes + 2)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return (batch, positions..., filters), or (batch, filters, positions...) with channels_first."""
        shape = tuple(input_shape)
        spatial, _ = self._split(shape)
        # A size that is not known yet stands for none in the output either.
        counts = output_of(self._spec, [0 if n is None else n for n in spatial])
        output = tuple(None if n is None else count for n, count in zip(spatial, counts, strict=True))
        if any(count is not None and count < 1 for count in output):
            sizes = f"kernel_size={self.kernel_size}, strides={self.strides}, dilation_rate={self._spec.dilation}"
            # The first words are Keras 2's.
            raise ValueError(
                f"One of the dimensions in the output is <= 0 due to downsampling in {self.name}: input_shape must be "
                f"large enough for {sizes} and padding={self.padding!r}, got {input_shape!r}, which gives an output of "
                f"size {output}"
            )
        return layout_of(shape[:1], output, self.filters, self._spec.channels_first)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them."""
        own = {name: getattr(self, name) for name in self.value_names}
        own |= {name: kind_of(name).serialize(getattr(self, name)) for name in self.object_names}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned, or from a config that Keras 2 wrote."""
        with warnings.catch_warnings():
            # Keras 2 wrote the input's shape into the first layer of a model; Keras 3 thinks it was a user.
            warnings.filterwarnings("ignore", message="Do not pass an `input_shape`", category=UserWarning)
            return cls(**cls._of_keras_3(config))

    @classmethod
    def _of_keras_3(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """A config with what Keras 2 wrote otherwise in today's words."""
        arguments = dict(config)
        policy = arguments.get("dtype")
        if isinstance(policy, Mapping) and policy.get("class_name") == "Policy":
            arguments["dtype"] = policy["config"]["name"]
        # Keras's reader of .h5 files calls the shape input_shape and leaves the batch in it.
        shape = arguments.pop("batch_input_shape", None) or arguments.pop("input_shape", None)
        if shape is not None:
            arguments["input_shape"] = tuple(shape)[-cls.spatial_axes - 1 :]
        return arguments

    def _set_input_spec(self, spatial: Ints, channels: int) -> None:
        """Say what inputs must be from now on."""
        first = 2 if self._spec.channels_first else 1
        axes = {1 if self._spec.channels_first else self.spatial_axes + 1: channels} | dict(enumerate(spatial, first))
        self.input_spec = keras.layers.InputSpec(ndim=self.spatial_axes + 2, axes=axes)

    def _bias_in(self, dtype: str) -> Any:
        return None if self.bias is None else cast(ops.convert_to_tensor(self.bias), dtype)

    def _weight(self, name: str, shape: Ints, kind: str | None = None, initializer: Any = None) -> Any:
        """A weight of a name; of a kind, its name unless given, the constructor has arguments."""
        kind = name if kind is None else kind
        # autocast would copy a float32 kernel at every call of a layer of mixed precision.
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=getattr(self, f"{kind}_initializer") if initializer is None else initializer,
            regularizer=getattr(self, f"{kind}_regularizer"),
            constraint=getattr(self, f"{kind}_constraint"),
            autocast=False,
        )

    def _split(self, shape: tuple[int | None, ...]) -> tuple[tuple[int | None, ...], int | None]:
        """Spatial sizes and channels of an input's shape. ValueError for another number of axes."""
        if len(shape) != self.spatial_axes + 2:
            raise ValueError(f"input_shape must have {self.spatial_axes + 2} axes, got {shape}")
        return (shape[2:], shape[1]) if self._spec.channels_first else (shape[1:-1], shape[-1])

    def _known(self, shape: tuple[int | None, ...]) -> tuple[Ints, int]:
        """Spatial sizes and channels of an input's shape, none of them unknown."""
        spatial, channels = self._split(shape)
        known = tuple(n for n in spatial if n is not None)
        if channels is None or len(known) < self.spatial_axes:
            raise ValueError(
                f"inputs of a {type(self).__name__} layer, which has a kernel for every position, must have sizes and "
                f"channels that are known; only the batch may be None, got input_shape={shape}"
            )
        return known, channels
