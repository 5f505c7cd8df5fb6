"""The base layer: weights, names, input checks, losses, and the order of a forward and a backward pass."""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..core.arguments import shortened
from ..core.arrays import Array, as_array, remedy_for
from .arguments import Shape, flag, shape_tuple, shown
from .keras_objects import initializers, regularizers
from .naming import automatic_name
from .quantization import checked_mode
from .variables import QuantizedVariable, Variable, assign_all, converted, float_dtype

Fans = tuple[float, float]


@dataclass(frozen=True)
class InputSpec:
    """What a layer asks of its input's shape.

    Parameters
    ----------
    ndim, min_ndim : int, optional
        The number of axes, exactly or at least.
    axes : mapping of int to int, optional
        Sizes along some axes.
    """

    ndim: int | None = None
    min_ndim: int | None = None
    axes: Mapping[int, int] | None = None

    def check(self, shape: Shape, layer_name: str) -> None:
        """Raise ValueError, in Keras's words, if a shape does not fit; None in it fits everything."""
        start = f'Input 0 of layer "{shortened(layer_name)}" is incompatible with the layer: '
        for wanted, name, wrong in (
            (self.ndim, "ndim", self.ndim != len(shape)),
            (self.min_ndim, "min_ndim", len(shape) < (self.min_ndim or 0)),
        ):
            if wanted is not None and wrong:
                one = (
                    f". A batch of one has shape {(1, *shape)}"
                    if len(shape) == wanted - 1 and None not in shape
                    else ""
                )
                raise ValueError(
                    f"{start}expected {name}={wanted}, found ndim={len(shape)}. Full shape received: {shape}{one}"
                )
        for axis, size in (self.axes or {}).items():
            if shape[axis] not in (size, None):
                raise ValueError(
                    f"{start}expected axis {axis} of input shape to have value {size}, but received input with shape "
                    f"{shape}"
                )


@dataclass
class _FileToLoad:
    """How many elements of a file no weight has been made for yet."""

    left: int

    def take(self, name: str, shape: tuple[int, ...]) -> None:
        """Count a weight. ValueError if the file cannot hold its values."""
        if prod(shape) > self.left:
            raise ValueError(
                f"weight {shortened(name)} of shape {shape} has more elements than the file has left for it, "
                f"{self.left}"
            )
        self.left -= prod(shape)


_file_to_load: ContextVar[_FileToLoad | None] = ContextVar("localconv file to load", default=None)


@contextlib.contextmanager
def weights_from_file(elements: int) -> Iterator[None]:
    """Within this context, layers make weights for values that a file holds.

    They run no initializer and take no memory before the values are assigned, and all together have at most so many
    elements: what a config declares and the file does not hold is a ValueError before there is anything of it.
    """
    token = _file_to_load.set(_FileToLoad(elements))
    try:
        yield
    finally:
        _file_to_load.reset(token)


def _unknown_keyword(layer: type, wrong: str) -> str:
    """What is said of a keyword that no constructor of a layer has."""
    makers = [vars(cls)["__init__"] for cls in layer.__mro__ if "__init__" in vars(cls) and cls is not object]
    named = (parameter for maker in makers for parameter in inspect.signature(maker).parameters.values())
    known = {parameter.name for parameter in named if parameter.kind is not inspect.Parameter.VAR_KEYWORD} - {"self"}
    near = difflib.get_close_matches(wrong[:50], sorted(known), 1, cutoff=0.75)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"{layer.__name__}.__init__() got an unexpected keyword argument {shown(wrong)}{meant}"


class Layer:
    """What all layers share.

    Parameters
    ----------
    name : str, optional
        Default: the class name in snake case, numbered: conv1d, conv1d_1, ...
    trainable : bool, optional
        Whether the weights are among `trainable_weights` and get gradients.
    dtype : {'float32', 'float64'}, optional
        Of the weights and the result; floating inputs are converted to it. Default: `floatx`.
    input_shape : tuple of ints, optional
        The input's shape without the batch axis: `Sequential` then knows all shapes without seeing data.
    batch_input_shape : tuple of ints, optional
        The same with the batch axis, usually None.
    activity_regularizer : str, dict or callable, optional
        Penalty on the output, divided by the batch size.
    seed : int, optional
        Makes what is random in this layer repeatable: initializers without a seed of their own, dropout.

    Raises
    ------
    TypeError, ValueError
        For arguments that are none of those; the message names the argument.

    Notes
    -----
    A subclass defines ``_build(shape)``, which calls `add_weight`; ``_forward(x, training)``, which returns the output
    and what its backward pass needs; ``_backward(grad_output, saved)``, which sets gradients of weights and returns
    that of the input; `compute_output_shape` and `get_config`.
    """

    input_spec: InputSpec | None = None
    _quantization_mode: str | None = None

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: DTypeLike | None = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
        activity_regularizer: Any = None,
        seed: int | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:  # Python would say that it was this constructor's, and not the layer's
            raise TypeError(_unknown_keyword(type(self), next(iter(unknown))))
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string, got {shown(name)}")
        self._name = automatic_name(type(self).__name__) if name is None else name
        self._trainable = flag(trainable, "trainable")
        self._dtype = float_dtype(dtype)
        if input_shape is not None and batch_input_shape is None:
            batch_input_shape = (None, *shape_tuple(input_shape, "input_shape"))
        self._batch_input_shape = (
            None if batch_input_shape is None else shape_tuple(batch_input_shape, "batch_input_shape")
        )
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.seed = initializers.checked_seed(seed)
        self._rng = np.random.default_rng(self.seed)
        self.built = False
        self._build_shape: Shape | None = None
        self._spec_before_build: InputSpec | None = None
        self._variables: list[Variable] = []
        self._activity_loss: Any = None
        self._saved: tuple[Array, Any] | None = None

    # ---------------------------------------------------------------------------------------------------- names, shapes

    @property
    def name(self) -> str:
        """The layer's name; it never changes."""
        return self._name

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self._dtype

    @property
    def input_shape(self) -> Shape:
        """The shape that the layer was built for. AttributeError before that."""
        if self._build_shape is None:
            raise AttributeError(f'The layer "{self.name}" has never been called and thus has no defined input shape.')
        return self._build_shape

    @property
    def output_shape(self) -> Shape:
        """The shape that follows from `input_shape`. AttributeError before the layer is built."""
        if self._build_shape is None:
            raise AttributeError(f'The layer "{self.name}" has never been called and thus has no defined output shape.')
        return self.compute_output_shape(self._build_shape)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return the output's shape for an input's shape.

        Parameters
        ----------
        input_shape : tuple of int or None
            With the batch axis; None where a size is unknown.

        Returns
        -------
        tuple of int or None

        Raises
        ------
        ValueError
            If the input is too small or of another number of axes.
        """
        return shape_tuple(input_shape, "input_shape")

    # ---------------------------------------------------------------------------------------------------------- weights

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs of this shape; nothing if the layer has them already and the shape fits.

        Parameters
        ----------
        input_shape : tuple of int or None
            With the batch axis.

        Raises
        ------
        ValueError
            If the layer cannot take such inputs; it then has no weights, as before.
        """
        shape = shape_tuple(input_shape, "input_shape")
        self._check_shape(shape)
        if self.built:
            return
        self._spec_before_build = self.input_spec
        try:
            self._build(shape)
        except BaseException:
            self._unbuild()
            raise
        self._build_shape = shape
        self.built = True

    def _check_shape(self, shape: Shape) -> None:
        """ValueError unless inputs may have this shape, as far as that is known before `build`."""
        if self.input_spec is not None:
            self.input_spec.check(shape, self.name)

    def _unbuild(self) -> None:
        """Be as before `build`, so that another shape can be tried."""
        self._variables.clear()
        self._rng = np.random.default_rng(self.seed)
        self.input_spec = self._spec_before_build
        self._build_shape = self._saved = self._activity_loss = None
        self.built = False

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        constraint: Callable[[Any], Any] | None = None,
        trainable: bool = True,
        position_fans: Fans | None = None,
    ) -> Variable:
        """Make a weight of this layer, ``LAYER/NAME:0``.

        Parameters
        ----------
        name : str
        shape : sequence of ints
        initializer : str, dict or callable, optional
        regularizer, constraint : callable, optional
        trainable : bool, optional
        position_fans : (float, float), optional
            What ``fans='position'`` of an initializer stands for; by default the fans of the shape.

        Returns
        -------
        Variable
            While `load_model` makes a model no initializer runs, and the value is 0 until it is read.
        """
        sizes, label = tuple(shape), f"{self.name}/{name}:0"
        file = _file_to_load.get()
        if file is None:
            fans = initializers.compute_fans(sizes) if position_fans is None else position_fans
            value = initializers.initial(initializers.get(initializer), sizes, self.dtype, self._rng, fans)
            variable = Variable(value, label, self.dtype, trainable, regularizer, constraint)
        else:
            file.take(label, sizes)
            variable = Variable._without_value(sizes, label, self.dtype, trainable, regularizer, constraint)
        self._variables.append(variable)
        return variable

    def _add_quantized_weight(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> QuantizedVariable:
        """Make a weight of a layer whose config says that it is quantized: 0 until it is set or read."""
        label, file = f"{self.name}/{name}:0", _file_to_load.get()
        if file is not None:
            file.take(label, shape)
        variable = QuantizedVariable.of_zeros(shape, label, dtype)
        self._variables.append(variable)
        return variable

    @property
    def quantization_mode(self) -> str | None:
        """What the layer was quantized by, 'int8', 'float16' or 'bfloat16'; None if it was not."""
        return self._quantization_mode

    def quantize(self, mode: str) -> None:
        """Replace the kernel by one of fewer bytes, for inference.

        Parameters
        ----------
        mode : {'int8', 'float16', 'bfloat16'}
            int8: what `localconv.quantize` makes, `kernel` and `kernel_scale` as in Keras 3. 'bfloat16' needs the
            package ml_dtypes.

        Raises
        ------
        NotImplementedError
            If the layer does not convolve: locally connected layers and convolutions can be quantized.
        ValueError
            For another mode, if the layer is not built, if it is quantized already (as in Keras), if ml_dtypes is
            missing, and if the kernel has values that are not finite or are too large for the mode. The layer is then
            as before.

        Notes
        -----
        The layer computes what the functions compute with such a kernel, and keeps no other: the memory of the old one
        is free, unless somebody else holds it. Bias and dtype stay as they are. A layer of float64 widens the kernel in
        every call, all of it. Implementations 2 and 3 of locally connected layers become implementation 1, whose rows
        are what is quantized; `get_config` says so.

        A quantized layer has no trainable weights, and a call with ``training=True`` is a ValueError. With
        ``trainable`` set to False it hands gradients through to its input, so that what is below it can be trained. The
        kernel's regularizer and constraint hold no longer.

        `get_config` has ``quantization_mode``. The weights of a layer that is made of that config are 0 until they are
        set or loaded; files hold them as they are, bfloat16 as the uint16 of its bits.

        Follows keras.Layer.quantize of Keras 3, which quantizes other layers, inputs too, and has one scale for a
        filter of all positions. Not to be called while another thread runs the layer.

        Examples
        --------
        >>> import numpy as np
        >>> from localconv.layers import LocallyConnected1D
        >>> layer = LocallyConnected1D(2, 3, name='local')
        >>> x = np.ones((1, 10, 4), np.float32)
        >>> y = layer(x)
        >>> layer.quantize('int8')
        >>> [(v.name, v.dtype.name, v.shape) for v in layer.weights[:2]]
        [('local/kernel:0', 'int8', (8, 12, 2)), ('local/kernel_scale:0', 'float32', (8, 2))]
        >>> bool(abs(layer(x) - y).max() < 0.05)
        True
        """
        self._check_quantize(mode)
        # One call into C: a signal handler that raises finds the layer as it was, or quantized.
        vars(self).update(self._quantized_state(mode))

    def _check_quantize(self, mode: str) -> None:
        """ValueError, as in Keras, unless `quantize` may begin."""
        checked_mode(mode, "mode")
        if not self.built:
            raise ValueError(f"layer {self.name} must be built before it is quantized: call it, or `build`")
        if self._quantization_mode is not None:
            raise ValueError(
                f"layer {self.name} is already quantized by {self._quantization_mode!r}, got mode={mode!r}"
            )

    def _quantized_state(self, mode: str) -> dict[str, Any]:
        """The attributes of this layer that are others when it is quantized."""
        raise NotImplementedError(
            f"layer {shortened(self.name)} ({type(self).__name__}) keeps its weights as they are: only locally "
            "connected layers and convolutions can be quantized"
        )

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = flag(value, "trainable")

    @property
    def trainable_weights(self) -> list[Variable]:
        """Weights that training changes; none if the layer is not trainable, or quantized."""
        return [variable for variable in self._variables if self._trains(variable)]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """Weights that training leaves alone."""
        return [variable for variable in self._variables if not self._trains(variable)]

    def _trains(self, variable: Variable) -> bool:
        return variable.trainable and self.trainable and self._quantization_mode is None

    @property
    def weights(self) -> list[Variable]:
        """All weights, the trainable ones first."""
        return self.trainable_weights + self.non_trainable_weights

    @property
    def trainable_variables(self) -> list[Variable]:
        """`trainable_weights` by Keras's other name."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """`non_trainable_weights` by Keras's other name."""
        return self.non_trainable_weights

    @property
    def variables(self) -> list[Variable]:
        """`weights` by Keras's other name."""
        return self.weights

    def get_weights(self) -> list[Array]:
        """Return copies of all weights' values, in the order of `weights`."""
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Assign all weights, or none of them.

        Parameters
        ----------
        weights : sequence of array_like
            In the order and shapes of `get_weights`.

        Raises
        ------
        ValueError
            If there are more or fewer than the layer has, or one has another shape.
        TypeError
            If one is not an array of real numbers, or one of a quantized layer of another dtype.
        """
        if isinstance(weights, memoryview):
            raise TypeError("weights must be a sequence of arrays, got a memoryview")
        variables, values = self.weights, list(weights)
        if len(values) != len(variables):
            raise ValueError(
                f'You called `set_weights(weights)` on layer "{self.name}" with a weight list of length {len(values)}, '
                f"but the layer was expecting {len(variables)} weights."
            )
        for variable, value in zip(variables, values, strict=True):
            if np.shape(value) != variable.shape:
                raise ValueError(
                    f"Layer {self.name} weight shape {variable.shape} is not compatible with provided weight shape "
                    f"{np.shape(value)}."
                )
        assign_all(zip(variables, values, strict=True))

    def count_params(self) -> int:
        """Return how many numbers the weights hold. ValueError if the layer is not built."""
        if not self.built:
            raise ValueError(
                f"You tried to call `count_params` on layer {self.name}, but the layer isn't built. You can build it "
                f"manually via: `{self.name}.build(batch_input_shape)`."
            )
        return sum(variable.size for variable in self.weights)

    @property
    def losses(self) -> list[Any]:
        """The penalties: on the output of the last call (divided by its batch size),
        then on each weight that has a regularizer.
        """
        losses = [] if self._activity_loss is None else [self._activity_loss]
        return losses + [
            variable.regularizer(variable.value) for variable in self._variables if variable.regularizer is not None
        ]

    def apply_constraints(self) -> None:
        """Replace every trainable weight that has a constraint by what the constraint makes of it, or none if one of
        them raises.

        To be called after an update.
        """
        assign_all((v, v.constraint(v.value)) for v in self.trainable_weights if v.constraint is not None)

    # ----------------------------------------------------------------------------------------------------------- passes

    def __call__(self, inputs: ArrayLike, training: bool = False) -> Array:
        """Run the layer; the first call builds it.

        Parameters
        ----------
        inputs : array_like of floats
        training : bool, optional
            Keep what `backward` needs (the input among it, which must not be changed before) and drop out what is to be
            dropped.

        Returns
        -------
        ndarray
            Of the layer's dtype; the caller's own.

        Raises
        ------
        TypeError
            If `inputs` is not an array of floats.
        ValueError
            If its shape does not fit.
        """
        training = flag(training, "training")
        x = self._as_input(inputs, "inputs")
        y = self._run(x, training)
        # What backward needs is not the caller's to write to, nor is the input that some layers hand through.
        return y.copy() if training or np.may_share_memory(x, y) else y

    def backward(self, grad_output: ArrayLike) -> Array:
        """Go back through the last call with ``training=True``.

        Parameters
        ----------
        grad_output : array_like of floats
            Derivative of a number with respect to the output of that call; its shape.

        Returns
        -------
        ndarray
            Derivative with respect to its input. Those with respect to the trainable weights are in `Variable.grad`: of
            that number plus all `losses`.

        Raises
        ------
        RuntimeError
            If there was no such call.
        NotImplementedError
            If an activation or a regularizer is a user's callable without ``gradient``.
        ValueError, TypeError
            If `grad_output` is of another shape, or not of floats.
        """
        return self._run_backward(self._as_input(grad_output, "grad_output"))

    def _as_input(self, value: ArrayLike, name: str) -> Array:
        """Any array-like of floats in the layer's dtype."""
        whose = f"{name} of layer {self.name}"
        array = as_array(value, whose, "floats")
        if array.dtype.kind != "f":
            raise TypeError(f"{whose} must be an array of floats, got dtype {array.dtype}{remedy_for(array, name)}")
        return converted(array, self.dtype)

    def _run(self, x: Array, training: bool) -> Array:
        self._check_shape(x.shape)
        if not self.built:
            self.build((None, *x.shape[1:]) if x.ndim else ())
        y, saved = self._forward(x, training)
        if training:
            self._saved = y, saved
        if self.activity_regularizer is not None:
            penalty = self.activity_regularizer(y)
            with np.errstate(all="ignore"):
                self._activity_loss = penalty / self.dtype.type(max(1, len(y)))
        return y

    def _run_backward(self, grad_output: Array) -> Array:
        if self._saved is None:
            raise RuntimeError(f"backward of layer {self.name} needs a call with training=True before it")
        y, saved = self._saved
        if grad_output.shape != y.shape:
            raise ValueError(
                f"grad_output must have the shape of the output of layer {self.name}, {y.shape}, got "
                f"{grad_output.shape}"
            )
        if self.activity_regularizer is not None:
            penalty = regularizers.gradient_of(self.activity_regularizer, y)
            with np.errstate(all="ignore"):
                grad_output = grad_output + penalty / self.dtype.type(max(1, len(y)))
        return self._backward(grad_output, saved)

    def _build(self, shape: Shape) -> None:
        """Make the weights for inputs of this shape."""

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        """The output, and what `_backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} does not define _forward")

    def _backward(self, grad_output: Array, saved: Any) -> Array:
        """The gradient for the input; sets those of the weights."""
        raise NotImplementedError(f"{type(self).__name__} does not define _backward")

    # ----------------------------------------------------------------------------------------------------------- config

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON can hold them;
        those that Keras does not know (seed) only if given.
        """
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype.name}
        if self._batch_input_shape is not None:
            config["batch_input_shape"] = self._batch_input_shape
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if self.seed is not None:
            config["seed"] = self.seed
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned, or from a layer's config that Keras wrote.

        Raises
        ------
        TypeError
            For an argument that the layer does not have.
        ValueError
            For a value that it does not take.
        """
        return cls(**config)

    def __copy__(self) -> Self:
        # Layers and weights are shared, the lists of them are not: what is added to one is not in the other.
        made = type(self).__new__(type(self))
        made.__dict__.update({k: copy.copy(v) if type(v) in (list, set) else v for k, v in self.__dict__.items()})
        return made

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{'' if self.built else ', not built'}>"
