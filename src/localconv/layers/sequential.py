"""A stack of layers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike

from ..core.arguments import shortened
from ..core.arrays import Array, as_array, bridge_for
from .arguments import Shape, positive_int, shape_tuple, shown
from .base import Layer
from .conv import Conv1D, Conv2D, Conv3D
from .core import Activation, Dense, Dropout, Flatten, InputLayer, MaxPooling1D, MaxPooling2D, MaxPooling3D
from .files import saving
from .files.hdf5 import BACKEND, KERAS_VERSION
from .files.stored import BY_KERAS_2, NO_SHAPE
from .keras_objects.registry import Registry, custom_object_scope, is_of_keras
from .local import LocallyConnected1D, LocallyConnected2D, LocallyConnected3D
from .low_rank import LowRankLocallyConnected1D, LowRankLocallyConnected2D
from .progress import ProgressBar
from .variables import Variable, converted

__all__ = ["Sequential", "load_model"]

# What Keras's models have for training and this one has not.
OF_KERAS = (
    *("compile", "evaluate", "fit", "fit_generator", "history", "loss", "metrics", "metrics_names", "minimize"),
    *("optimizer", "optimizers", "reset_metrics", "stop_training", "test_on_batch", "train_on_batch", "train_step"),
)


class Sequential(Layer):
    """Layers one after the other.

    Parameters
    ----------
    layers : sequence of Layer, optional
        Added in this order.
    name : str, optional
        Default: sequential, sequential_1, ...
    trainable : bool, optional

    Raises
    ------
    TypeError, ValueError
        As `add`.

    Notes
    -----
    If the first layer knows its `input_shape` (or is an `InputLayer`), every layer is built when it is added; otherwise
    by the first call or by `build`. A Sequential is a layer, and can be added to another. ``len(model)``, ``model[0]``
    and ``for layer in model`` are those of its layers.

    Training is a loop of the caller's, as below: no optimizers, no ``compile`` or ``fit``, no models but a stack. Who
    wants those takes `localconv.keras` or `localconv.torch`.

    Examples
    --------
    >>> import numpy as np
    >>> from localconv.layers import Dense, Flatten, LocallyConnected2D, Sequential
    >>> first = LocallyConnected2D(4, 3, activation='relu', input_shape=(8, 8, 1), seed=1)
    >>> model = Sequential([first, Flatten(), Dense(2, seed=2)])
    >>> model.output_shape
    (None, 2)
    >>> y = model(np.ones((5, 8, 8, 1), np.float32), training=True)
    >>> model.backward(y - 1).shape
    (5, 8, 8, 1)
    >>> for variable in model.trainable_weights:  # gradient descent
    ...     variable.assign_sub(0.01 * variable.grad)
    """

    def __init__(self, layers: Sequence[Layer] | None = None, name: str | None = None, **base: Any) -> None:
        self._layers: list[Layer] = []
        # Of the layers, so that `add` need not go through all of them: their names and, once they are built, the shapes
        # that they get.
        self._names: set[str] = set()
        self._shapes: list[Shape] = []
        self._built_here: list[
            Layer
        ] = []  # by the last `build`; those that were built before keep their weights whatever happens
        super().__init__(name=name, **base)
        if isinstance(layers, memoryview):
            raise TypeError("layers must be a sequence of layers, got a memoryview")
        for layer in () if layers is None else layers:
            self.add(layer)

    # ------------------------------------------------------------------------------------------------------------ stack

    @property
    def layers(self) -> list[Layer]:
        """The layers in their order; a new list."""
        return list(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __bool__(self) -> bool:
        """A model is one without layers too: ``model or default`` takes it."""
        return True

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @overload
    def __getitem__(self, key: SupportsIndex) -> Layer: ...

    @overload
    def __getitem__(self, key: slice) -> list[Layer]: ...

    def __getitem__(self, key: SupportsIndex | slice) -> Layer | list[Layer]:
        """The layer at a place, or a list of layers for a slice; `get_layer` has them by name."""
        return self._layers[key]

    def __getattr__(self, name: str) -> Any:
        if name in OF_KERAS:
            raise AttributeError(
                f"localconv.layers.Sequential has no {name!r}: it is trained by a loop of yours, as the page 'Writing "
                "a training loop' (docs/training-loop.md) shows; or take localconv.keras, whose layers are Keras 3's "
                "and are compiled and fitted by Keras",
                name=name,
                obj=self,
            )
        # Raises what has been raised just now: AttributeError, perhaps one of a property that is there.
        return object.__getattribute__(self, name)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return a layer by its name or its place.

        Parameters
        ----------
        name : str, optional
        index : int, optional
            Just one of the two.

        Returns
        -------
        Layer

        Raises
        ------
        ValueError
            If there is no such layer, or not just one of the two is given.
        """
        if (name is None) == (index is None):
            raise ValueError("Provide either a layer name or layer index at `get_layer`.")
        if index is not None:
            if not -len(self._layers) <= index < len(self._layers):
                raise ValueError(
                    f"Was asked to retrieve layer at index {index} but model only has {len(self._layers)} layers."
                )
            return self._layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"No such layer: {name}. Existing layers are: {[layer.name for layer in self._layers]}.")

    def add(self, layer: Layer) -> None:
        """Put a layer on top.

        Parameters
        ----------
        layer : Layer

        Raises
        ------
        TypeError
            If it is none.
        ValueError
            If a layer of its name is there, if it is this model or holds it, or if its input cannot be what the layer
            below gives. The model is then as before.
        """
        if not isinstance(layer, Layer):
            bridge = bridge_for(layer)
            other = "" if bridge is None else f" It is of another library, for whose models {bridge} has layers."
            raise TypeError(
                f"The added layer must be an instance of class Layer. Received: layer={layer!r} of type {type(layer)}."
                f"{other}"
            )
        if _holds(layer, self):
            raise ValueError(
                f'The layer "{shortened(layer.name)}" is the model itself or holds it: it cannot be added.'
            )
        if layer.name in self._names:
            raise ValueError(
                "All layers added to a Sequential model should have unique names. "
                f'Name "{shortened(layer.name)}" is already the name of a layer in this model. '
                "Update the `name` argument to pass a unique name."
            )
        if isinstance(layer, InputLayer):
            if self._layers or self._build_shape is not None:
                raise ValueError(f"an InputLayer must be the first layer of a model, {self.name} has an input already")
            self._build_shape = layer._batch_input_shape
            return
        shape = self._build_shape if self._layers or self._build_shape else _input_shape_of(layer)
        if shape is not None:
            below = self.output_shape if self._layers else shape
            layer.build(below)
            self._build_shape, self.built = shape, True
            self._shapes.append(below)
        self._layers.append(layer)
        self._names.add(layer.name)
        self._saved = None

    def pop(self) -> Layer:
        """Remove the topmost layer and return it. TypeError if there is none."""
        if not self._layers:
            raise TypeError("There are no layers in the model.")
        self._saved = None
        layer = self._layers.pop()
        self._names.discard(layer.name)
        del self._shapes[len(self._layers) :]
        if not self._layers:
            self._build_shape, self.built = None, False
        return layer

    @property
    def output_shape(self) -> Shape:
        """The shape that follows from `input_shape`. AttributeError before the model is built."""
        return self._layers[-1].compute_output_shape(self._shapes[-1]) if self._shapes else super().output_shape

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return the output's shape for an input's shape, through all layers."""
        shape = shape_tuple(input_shape, "input_shape")
        for layer in self._layers:
            shape = layer.compute_output_shape(shape)
        return shape

    def _check_shape(self, shape: Shape) -> None:
        if self._layers:
            self._layers[0]._check_shape(shape)

    def _build(self, shape: Shape) -> None:
        self._built_here.clear()
        for layer in self._layers:
            built_before = layer.built
            layer.build(shape)
            if not built_before:
                self._built_here.append(layer)
            self._shapes.append(shape)
            shape = layer.compute_output_shape(shape)

    def _unbuild(self) -> None:
        for layer in self._built_here:
            layer._unbuild()
        self._built_here.clear()
        self._shapes.clear()
        super()._unbuild()

    # ---------------------------------------------------------------------------------------------------------- weights

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; setting it sets that of every layer."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        Layer.trainable.fset(self, value)  # type: ignore[attr-defined]
        for layer in self._layers:
            layer.trainable = value

    @property
    def trainable_weights(self) -> list[Variable]:
        """Weights that training changes, layer by layer."""
        return [variable for layer in self._layers for variable in layer.trainable_weights] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """Weights that training leaves alone, layer by layer."""
        return [
            variable
            for layer in self._layers
            for variable in (layer.non_trainable_weights if self.trainable else layer.weights)
        ]

    @property
    def weights(self) -> list[Variable]:
        """All weights, layer by layer."""
        return [variable for layer in self._layers for variable in layer.weights]

    @property
    def losses(self) -> list[Any]:
        """The penalties of all layers."""
        return [loss for layer in self._layers for loss in layer.losses]

    def quantize(self, mode: str) -> None:
        """Quantize every layer that can be, also in models inside this one, or none if one of them raises.

        Parameters
        ----------
        mode : {'int8', 'float16', 'bfloat16'}
            As for `Layer.quantize`, which says what becomes of a layer.

        Warns
        -----
        UserWarning
            For every layer with weights that cannot be quantized, `Dense` for instance: it stays as it is.

        Raises
        ------
        ValueError
            For another mode, if the model is not built, and as `Layer.quantize` of one of the layers, as of one that is
            quantized already.

        Notes
        -----
        Until the last layer is quantized the model holds all kernels, old and new. Layer by layer
        (``layer.quantize(mode)``) it is one old kernel less each time.

        Follows keras.Model.quantize of Keras 3, which warns of layers without weights too.

        Examples
        --------
        >>> from localconv.layers import Flatten, LocallyConnected1D, Sequential
        >>> model = Sequential([LocallyConnected1D(64, 3, input_shape=(100, 32), name='local'), Flatten()])
        >>> sum(v.value.nbytes for v in model.weights)
        2433536
        >>> model.quantize('int8')
        >>> sum(v.value.nbytes for v in model.weights)
        652288
        """
        self._check_quantize(mode)
        models, leaves = self._tree()
        before = [(layer, dict(vars(layer))) for layer in leaves]
        try:
            for layer in leaves:
                try:
                    layer.quantize(mode)
                except NotImplementedError as error:
                    if layer.weights:
                        warnings.warn(str(error), UserWarning, stacklevel=2)
        except BaseException:
            for layer, state in before:
                vars(layer).update(state)
            raise
        for model in models:
            model._saved = None

    def _tree(self) -> tuple[list[Sequential], list[Layer]]:
        """This model and those inside it, and the layers of all of them, each once and in their order."""
        models, leaves, stack, seen = list[Sequential](), list[Layer](), list[Layer]([self]), set[int]()
        while stack:
            layer = stack.pop()
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, Sequential):
                models.append(layer)
                stack += reversed(layer._layers)
            else:
                leaves.append(layer)
        return models, leaves

    # ----------------------------------------------------------------------------------------------------------- passes

    def _forward(self, x: Array, training: bool) -> tuple[Array, Any]:
        for layer in self._layers:
            x = layer._run(converted(x, layer.dtype), training)
        return converted(x, self.dtype), None

    def _backward(self, grad_output: Array, saved: Any) -> Array:
        for layer in reversed(self._layers):
            grad_output = layer._run_backward(converted(grad_output, layer.dtype))
        return converted(grad_output, self.dtype)

    def predict(self, x: ArrayLike, batch_size: int | None = None, verbose: str | int = "auto") -> Array:
        """Run the model on any number of inputs, some at a time.

        Parameters
        ----------
        x : array_like of floats
        batch_size : int, optional
            Inputs at a time; 32 by default.
        verbose : {'auto', 0, 1, 2}, optional
            The progress bar, on stderr, as for `ProgressBar`. 'auto': in a terminal or a notebook, once the work has
            taken two seconds, and if tqdm is installed; 0: none; 1: always; 2: one line at the end.

        Returns
        -------
        ndarray

        Raises
        ------
        TypeError, ValueError
            As calling the model; also for another `batch_size` or `verbose`.
        ImportError
            With ``verbose=1``, if tqdm is missing.
        """
        size = 32 if batch_size is None else positive_int(batch_size, "batch_size")
        array = as_array(x, "x", "floats")
        if array.ndim == 0:
            raise ValueError(f"x must have a batch axis, got shape {array.shape}")
        self._check_shape(array.shape)
        with ProgressBar(-(-len(array) // size), verbose) as bar:
            result = first = self(array[:size])
            if len(array) > size:
                result = np.empty((len(array), *first.shape[1:]), first.dtype)
                result[:size] = first
            for step, start in enumerate(range(0, len(array), size), 1):
                if start:
                    result[start : start + size] = self(array[start : start + size])
                bar.update(step)
        return result

    # ----------------------------------------------------------------------------------------------------------- config

    def get_config(self) -> dict[str, Any]:
        """Return name and layers as JSON can hold them, as Keras 2.15 writes them."""
        entries = []
        if self._build_shape is not None:
            first = self._layers[0].name if self._layers else self.name
            config = {
                "batch_input_shape": self._build_shape,
                "dtype": self.dtype.name,
                "sparse": False,
                "ragged": False,
                "name": f"{first}_input",
            }
            entries.append(
                {"module": LAYERS.module, "class_name": "InputLayer", "config": config, "registered_name": None}
            )
        for layer in self._layers:
            entry = LAYERS.serialize(layer)
            if type(layer) is Sequential:
                entry["module"] = "keras"  # where Keras has it, and looks for it
            if layer._build_shape is not None:
                entry["build_config"] = {"input_shape": layer._build_shape}
            entries.append(entry)
        return {"name": self.name, "layers": entries} | (
            {"dtype": self.dtype.name} if self.dtype.name != "float32" else {}
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Make the model that `get_config` described; the weights are new.

        Parameters
        ----------
        config : mapping
            Also one that Keras 2 wrote, for a Sequential of layers that are here.
        custom_objects : mapping of str to callable, optional
            Users' own functions and classes by the names in the config.

        Raises
        ------
        ValueError
            For a layer that is not here, or a config that is none.
        """
        entries = config.get("layers") if isinstance(config, Mapping) else None
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise ValueError(f"config must be that of a Sequential, with a list of layers, got {shown(config)}")
        with custom_object_scope(custom_objects or {}):
            model = cls(name=config.get("name"), dtype=config.get("dtype"))
            for entry in entries:
                model.add(_layer_of(entry))
            # Where no layer says it: what the model was called with, or built for.
            shape = config.get("build_input_shape")
            if shape is not None and model.layers and not model.built:
                model.build(shape)
        return model

    def to_json(self, **options: Any) -> str:
        """Return the model's structure as JSON, without weights.

        Parameters
        ----------
        **options
            Of `json.dumps`, indent for instance.

        Returns
        -------
        str
        """
        content = {
            "class_name": "Sequential",
            "config": self.get_config(),
            "keras_version": KERAS_VERSION,
            "backend": BACKEND,
        }
        return json.dumps(content, **options)

    @classmethod
    def from_json(cls, text: str, custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Make a model from `to_json`'s text, or from Keras 2's.

        Raises
        ------
        ValueError
            As `from_config`; also if the text is not JSON or another kind of model.
        """
        try:
            return cls.from_config(_config_of(json.loads(text)), custom_objects)
        except RecursionError as error:
            raise ValueError("text must describe a Sequential model, it is nested too deeply") from error

    # ---------------------------------------------------------------------------------------------------------- storage

    def save(self, filepath: str | PathLike[str], overwrite: bool = True) -> None:
        """Write the whole model to a file, its layers and its weights: what `load_model` reads.

        Parameters
        ----------
        filepath : path
            ``.keras`` for the archive that Keras has had since 2.12; ``.h5`` or ``.hdf5`` for the file that every Keras
            2 reads. Both need h5py (``pip install 'localconv[h5]'``).
        overwrite : bool, optional
            Whether a file of that name may be replaced.

        Raises
        ------
        ValueError
            For another suffix, if `filepath` is there and is no regular file, if the model is not built, if a user's
            function or class in it has no name that a file can hold, if its names and config are more than `load_model`
            reads, or if names of layers cannot be in one file, as for `save_weights`.
        FileExistsError
            Without `overwrite`, if the name is taken.
        OSError
            If the file cannot be written.
        ImportError
            If h5py is missing.

        Notes
        -----
        The file is written whole or not at all, as by `save_weights`.

        Keras 2.15 reads the file too, and Keras 3 after `localconv.keras.install`, unless the model has what they have
        not: quantized layers, `LocallyConnected3D`, padding 'same' with implementation 1, ``fans='position'`` of an
        initializer; low-rank layers are read by Keras 3 alone. The seeds of layers, which are for their initializers,
        are left out, that of `Dropout` is not. Users' own functions and classes are in the file by their names, and
        `load_model` must be given them.

        Examples
        --------
        >>> import tempfile
        >>> from localconv.layers import Dense, Sequential, load_model
        >>> model = Sequential([Dense(2, input_shape=(3,))], name='tiny')
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.keras")
        ...     again = load_model(f"{folder}/model.keras")
        >>> again.name, bool((again.get_weights()[0] == model.get_weights()[0]).all())
        ('tiny', True)
        """
        saving.save_model(self, filepath, overwrite)

    def save_weights(self, filepath: str | PathLike[str], overwrite: bool = True) -> None:
        """Write all weights to a file, whole or not at all.

        Parameters
        ----------
        filepath : path
            ``.npz`` for NumPy's format; ``.h5`` or ``.hdf5`` for Keras's, which needs h5py
            (``pip install 'localconv[h5]'``).
        overwrite : bool, optional
            Whether a file of that name may be replaced.

        Raises
        ------
        ValueError
            For another suffix, if `filepath` is there and is no regular file, if the model is not built, or if its
            names cannot be stored. In HDF5 a name is a path: layer ``a/b`` is in the group of layer ``a``. Two that
            would be one place, ``a`` and ``a/a``, or a group that every file has, ``top_level_model_weights``, are
            refused before anything is written, as Keras 2 cannot write them either; ``.npz`` takes all names.
        FileExistsError
            Without `overwrite`, if the name is taken.
        OSError
            If the file cannot be written, because the disk is full for instance.
        ImportError
            If h5py is needed and missing.

        Notes
        -----
        All is written to a new file in the same directory, and to the disk, before that gets the name. Whoever opens
        `filepath` finds the old file or the new one, also when several threads or processes save to it. After an
        exception the old one is as it was, and nothing else is left, with two exceptions to that: if the directory
        cannot be written to the disk, or a signal handler raises, at the very end (KeyboardInterrupt for instance), the
        new file is in place already, whole; and if signal handlers raise twice, the second while what the first left is
        removed, a temporary file ``.*.partial`` may stay. (Without `overwrite`, where the file system has no hard
        links, a handler that raises just when the name is taken may leave an empty file.) The new file has the
        permissions of the old one, and a symbolic link is followed. Without `overwrite` one of several processes gets
        the name.

        Examples
        --------
        >>> import tempfile
        >>> from localconv.layers import Dense, Sequential
        >>> model, other = (Sequential([Dense(2, input_shape=(3,))]) for _ in range(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_weights(f"{folder}/weights.npz")
        ...     other.load_weights(f"{folder}/weights.npz")
        >>> bool((other.get_weights()[0] == model.get_weights()[0]).all())
        True
        """
        saving.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: str | PathLike[str], by_name: bool = False, skip_mismatch: bool = False) -> None:
        """Read weights from a file: all that are to be read, or none.

        Parameters
        ----------
        filepath : path
            What `save_weights` wrote, or Keras 2: weights or a whole model in .h5, .weights.h5 or .keras.
        by_name : bool, optional
            False: the file's layers that have weights belong to the model's in their order. True: to those of the same
            name; others, in the model and in the file, are left alone.
        skip_mismatch : bool, optional
            With `by_name`: leave layers alone, with a warning, whose weights have other shapes in the file.

        Raises
        ------
        ValueError
            If the number of layers, of weights or a shape differs, if no layer has a name that the file knows, if the
            file is damaged or none of those, if it refers to other files, or if the model is not built. The model then
            has the weights it had. Values that are too large for the model's dtype are none of these: they become
            infinite, as by `Variable.assign`.
        OSError
            If there is no such file, or it may not be read.
        ImportError
            If h5py is needed and missing.

        Notes
        -----
        The file may be anybody's. Nothing in it is executed, no other file is read, and no more than the model's
        weights: shapes are compared before. SECURITY.md has the limits. Whatever is raised on the way, an interrupt
        too, all weights are replaced or none.
        """
        saving.load_weights(self, filepath, by_name, skip_mismatch)

    def export(self, filepath: str | PathLike[str], overwrite: bool = True) -> None:
        """Write the forward pass as an ONNX file, which runs without this package.

        Parameters
        ----------
        filepath : path
            ``.onnx``. Needs onnx (``pip install 'localconv[onnx]'``).
        overwrite : bool, optional
            Whether a file of that name may be replaced.

        Raises
        ------
        ValueError
            For another suffix, if the model is not built, and for what ONNX has no word for, or runtimes do not
            compute: layers of float64, layers and activations of your own. Also for more than 2 GiB of weights, which
            is what a file can hold.
        FileExistsError
            Without `overwrite`, if the name is taken.
        OSError
            If the file cannot be written.
        ImportError
            If onnx is missing.
        TypeError
            If `filepath` is no path, or `overwrite` no bool.

        Notes
        -----
        The file is written whole or not at all, as by `save_weights`. It has standard operators alone (opset 17), one
        input, of float32, and one output; the batch may be of any size. Dropout is left out.

        Kernels are in it as they are in the model, those of quantized layers in 8 or 16 bits: it has the size of the
        weights, and a little more. Implementations 2 and 3 of locally connected layers are written as implementation 1.
        What runs it may make float32 of small kernels when it opens the file. ONNX Runtime's pooling leaves NaN out,
        and takes the largest negative number for minus infinity.

        Follows ``keras.Model.export(filepath, format='onnx')`` of Keras 3.

        Examples
        --------
        >>> from localconv.layers import Flatten, LocallyConnected1D, Sequential
        >>> model = Sequential([LocallyConnected1D(2, 3, input_shape=(10, 4)), Flatten()])
        >>> model.export('model.onnx')  # doctest: +SKIP
        """
        from .onnx import export

        export(self, filepath, overwrite)

    # ---------------------------------------------------------------------------------------------------------- summary

    def __repr__(self) -> str:
        from .summary import text_of

        return text_of(self)

    def _repr_html_(self) -> str:
        """The table that a notebook shows."""
        from .summary import html_of

        return html_of(self)

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], object] | None = None,
        show_trainable: bool = False,
    ) -> None:
        """Print the table of layers, output shapes and parameters that Keras 2.15 prints.

        Parameters
        ----------
        line_length : int, optional
            65 by default, at most 10000.
        positions : sequence of 3 floats, optional
            Where the columns end, as parts of the line or in characters; each has at least 4.
        print_fn : callable, optional
            Gets every line; `print` by default.
        show_trainable : bool, optional
            One more column.

        Raises
        ------
        ValueError
            If the model is not built, or a column has no room.
        """
        from .summary import print_summary

        if not self.built:
            raise ValueError(
                "This model has not yet been built. Build the model first by calling `build()` or by calling the model "
                "on a batch of data."
            )
        print_summary(self, line_length, positions, print_fn or print, show_trainable)


def load_model(filepath: str | PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> Sequential:
    """Make the model that a whole-model file of Keras 2 holds, with its weights.

    Parameters
    ----------
    filepath : path
        A .h5 or .keras file that Keras wrote for a Sequential of layers that are here.
    custom_objects : mapping of str to callable, optional
        Users' own functions and classes by the names in the file, as for `custom_object_scope`.

    Returns
    -------
    Sequential

    Raises
    ------
    ValueError
        If the file holds no such model: weights only, a functional model, a layer that is not here (those of Keras 3
        are for `localconv.keras`), a model of Keras 1, one that does not say the shape of its input, a SavedModel,
        somebody's own class that `custom_objects` lacks; the message says how it opens. Also if it is damaged, refers
        to other files, or declares far more than it holds.
    OSError
        If there is no such file, or it may not be read.
    ImportError
        If h5py is missing.

    Notes
    -----
    The file may be anybody's: nothing in it is executed or imported, and it makes no more memory than its weights take,
    at most 64 MiB or 20 times its size. SECURITY.md has all limits. What the model then computes, and how much that is,
    the file decides.

    See Also
    --------
    Sequential.load_weights : weights alone, also those of a functional model by the layers' names.
    """
    model: Sequential = saving.load_model(filepath, lambda text: Sequential.from_json(text, custom_objects))
    return model


# What configs call functional models; Keras before 2.3 by the second name.
FUNCTIONAL = ("Functional", "Model")
# Arguments that only the layers of Keras 1 had.
OF_KERAS_1 = ("nb_filter", "output_dim", "border_mode", "dim_ordering", "W_regularizer", "input_dtype")
# What becomes of a model that cannot be made here.
ELSEWHERE = (
    "Keras 3 opens such models after localconv.keras.install(): keras.models.load_model(FILE). Or make a Sequential of "
    "the layers that are here in code: load_weights(FILE, by_name=True) reads their weights from a .h5, and `python -m "
    "localconv inspect FILE` lists what there is"
)
LAYERS = Registry(
    "layer",
    "keras.layers",
    {
        LocallyConnected1D: (),
        LocallyConnected2D: (),
        LocallyConnected3D: (),
        LowRankLocallyConnected1D: (),
        LowRankLocallyConnected2D: (),
        Conv1D: ("Convolution1D",),
        Conv2D: ("Convolution2D",),
        Conv3D: ("Convolution3D",),
        Dense: (),
        Flatten: (),
        Activation: (),
        Dropout: (),
        MaxPooling1D: (),
        MaxPooling2D: (),
        MaxPooling3D: (),
        Sequential: (),
        InputLayer: (),
    },
    elsewhere=f". {ELSEWHERE}",
)


def _config_of(content: Any) -> Mapping[str, Any]:
    """The config in what describes a whole model."""
    if not isinstance(content, Mapping):
        raise ValueError(f"text must describe a Sequential model, it describes {type(content).__name__!r}")
    kind = content.get("class_name")
    if kind in FUNCTIONAL and content.get("registered_name") in (None, kind):
        raise ValueError(f"text must describe a Sequential, it describes a functional model ({kind!r}). {ELSEWHERE}")
    if kind != "Sequential" or not is_of_keras("Sequential", content):
        names = [content.get(key) for key in ("module", "class_name", "registered_name")]
        raise ValueError(
            "text must describe a Sequential of Keras's own class, it has module, class_name, registered_name "
            f"{shown(names)}. {ELSEWHERE}"
        )
    config = content.get("config")
    return (
        {"layers": config} if isinstance(config, list) else config or {}
    )  # a list in files of the first Keras 2 versions


def _layer_of(entry: Any) -> Layer:
    """The layer that an entry of a config describes."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
        raise ValueError(f"config: every layer must have class_name and config, got {shown(entry)}")
    if entry.get("class_name") == "InputLayer" and LAYERS.find("InputLayer", entry) is InputLayer:
        shape = entry["config"].get("batch_input_shape", entry["config"].get("batch_shape"))
        if shape is None:
            raise ValueError(f"config: an InputLayer must say its shape. {NO_SHAPE}")
        return InputLayer(batch_input_shape=shape)
    maker = LAYERS.find(entry["class_name"], entry) if isinstance(entry.get("class_name"), str) else None
    old = [name for name in OF_KERAS_1 if name in entry["config"]]
    if old and maker in LAYERS.values():
        raise ValueError(
            f"config: layer {shown(entry['config'].get('name'))} has arguments of Keras 1, {', '.join(old)}. "
            f"{BY_KERAS_2}"
        )
    layer = LAYERS.deserialize(entry)
    if not isinstance(layer, Layer):
        raise ValueError(f"config: {shown(entry.get('class_name'))} must name a layer, it names {shown(layer)}")
    return layer


def _holds(layer: Layer, model: Sequential) -> bool:
    """Whether a layer is this model, or has it among its layers and theirs."""
    stack, seen = [layer], {id(layer)}
    while stack:
        current = stack.pop()
        if current is model:
            return True
        inner = current._layers if isinstance(current, Sequential) else []
        stack += [one for one in inner if id(one) not in seen]
        seen.update(map(id, inner))
    return False


def _input_shape_of(layer: Layer) -> Shape | None:
    """The input shape that a first layer knows."""
    return layer._build_shape if layer.built else layer._batch_input_shape
