"""Weights and models in files: which weight in a file belongs to which of the model.

`npz`, `hdf5` and `archive` know the formats, `stored` what they have in common, `atomic` how a file is written.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.arguments import shortened
from ...core.arrays import Array
from ..arguments import as_path, shown
from ..base import Layer, weights_from_file
from ..variables import QuantizedVariable, Variable, assign_all
from . import hdf5, npz
from .atomic import write_whole
from .hdf5_names import check_names
from .stored import (
    JSON_LIMIT,
    MOST_PARTS,
    NO_SHAPE,
    WEIGHTS_ONLY,
    Refused,
    StoredArray,
    StoredLayer,
    has_too_many_parts,
    reading,
)

# Zip archives and HDF5 hold names of a little less than 64 KiB, and one of a weight is behind that of its layer.
LONGEST_NAME = 30_000

# What files have for bfloat16, which neither format knows: its bits.
BITS = np.dtype(np.uint16)

# ------------------------------------------------------------------------------------------------------------- to files


def save_weights(model: Any, filepath: str | PathLike[str], overwrite: bool) -> None:
    """Write a model's weights, in the format of the file's suffix; see `Sequential.save_weights`."""
    path = checked_weights_path(filepath)
    _check_built(model)
    layers = [(layer.name, _weights_by_name(layer, _stored_order(layer))) for layer in model.layers]
    write_weights(layers, path, overwrite)


def checked_weights_path(filepath: str | PathLike[str]) -> Path:
    """The path of a file for weights alone. ValueError for another suffix."""
    path = as_path(filepath, "filepath")
    if path.suffix.lower() not in (".npz", ".h5", ".hdf5") or path.name.endswith(".weights.h5"):
        raise ValueError(
            f"filepath must end in .npz, .h5 or .hdf5 (and not in .weights.h5, another format), got {str(path)!r}"
        )
    return path


def write_weights(layers: list[tuple[str, dict[str, Array]]], path: Path, overwrite: bool) -> None:
    """Write layers, each a name and its weights by name, in the format of the file's suffix."""
    for layer, weights in layers:
        for name in (layer, *weights):
            _stored_name(name)
    is_npz = path.suffix.lower() == ".npz"
    if not is_npz:
        check_names(layers, False)

    def write(file: BinaryIO) -> None:
        if is_npz:
            npz.write(layers, file)
            return
        # In memory first: if the disk is full, it is Python that finds out, and HDF5 has nothing left to write.
        content = io.BytesIO()
        hdf5.write(layers, content)
        file.write(content.getbuffer())

    write_whole(path, write, overwrite)


def save_model(model: Any, filepath: str | PathLike[str], overwrite: bool) -> None:
    """Write a whole model, in the format of the file's suffix; see `Sequential.save`."""
    path = as_path(filepath, "filepath")
    suffix = path.suffix.lower()
    if suffix not in (".keras", ".h5", ".hdf5") or path.name.endswith(".weights.h5"):
        raise ValueError(
            "filepath must end in .keras, .h5 or .hdf5 for a whole model (and not in .weights.h5, which is for "
            f"weights), got {str(path)!r}"
        )
    _check_built(model)
    config = _model_config(model, suffix == ".keras")
    if suffix == ".keras":
        inside = _newer_layers(model)
        hdf5.check_newer(inside)
        write_whole(path, lambda file: hdf5.write_archive(inside, file, config), overwrite)
        return
    layers = [(_stored_name(layer.name), _weights_by_name(layer, _loaded_order(layer))) for layer in model.layers]
    check_names(layers, True)

    def write(file: BinaryIO) -> None:
        content = io.BytesIO()  # as in save_weights
        hdf5.write(layers, content, config)
        file.write(content.getbuffer())

    write_whole(path, write, overwrite)


def _model_config(model: Any, newer: bool) -> str:
    """The JSON text that describes a model, as Keras 2.15 writes it into .keras files or .h5 files."""
    described = _for_keras({"module": "keras", "class_name": "Sequential", "config": model.get_config()})
    if newer:
        described |= {"registered_name": None, "build_config": {"input_shape": model.input_shape}}
    else:
        # What says whose class it is, is left out where that is Keras's, as versions before 2.12 did for all.
        entries = [
            entry if entry["registered_name"] else {key: entry[key] for key in ("class_name", "config")}
            for entry in described["config"]["layers"]
        ]
        described = {"class_name": "Sequential", "config": described["config"] | {"layers": entries}}
    text = json.dumps(described)
    if len(text) > JSON_LIMIT or has_too_many_parts(text):
        raise ValueError(
            f"the config of a model must be at most {JSON_LIMIT} characters of JSON with {MOST_PARTS} lists and dicts "
            f"to be saved, that of {model.name} has {len(text)} characters"
        )
    return text


def _for_keras(entry: dict[str, Any]) -> dict[str, Any]:
    """What describes a layer, without the seeds that Keras's layers do not have: of use to initializers alone."""
    config = entry["config"]
    if entry["class_name"] == "Sequential" and entry.get("registered_name") is None:
        config = config | {"layers": [_for_keras(inner) for inner in config["layers"]]}
    elif entry.get("registered_name") is None and entry["class_name"] != "Dropout":
        config = {key: value for key, value in config.items() if key != "seed"}
    return entry | {"config": config}


def _newer_layers(model: Any) -> list[hdf5.NewerLayer]:
    return [
        hdf5.NewerLayer(layer.name, type(layer).__name__, [], _newer_layers(layer))
        if hasattr(layer, "layers")
        else hdf5.NewerLayer(
            layer.name, type(layer).__name__, [_to_file(variable) for variable in _loaded_order(layer)]
        )
        for layer in model.layers
    ]


def _weights_by_name(layer: Layer, variables: list[Variable]) -> dict[str, Array]:
    weights = {_stored_name(variable.name): _to_file(variable) for variable in variables}
    if len(weights) < len(layer.weights):
        names = [variable.name for variable in layer.weights]
        raise ValueError(
            f"the weights of a layer must have different names to be saved, those of {layer.name} are {names}"
        )
    return weights


def _to_file(variable: Variable) -> Array:
    """A weight's value as files hold it."""
    return variable.value.view(BITS) if _stored_dtype(variable) == BITS else variable.value


def _stored_dtype(variable: Variable) -> np.dtype[Any] | None:
    """The dtype that a weight of a quantized layer must have in a file; None for a weight that takes any numbers."""
    if not isinstance(variable, QuantizedVariable):
        return None
    return BITS if variable.dtype.name == "bfloat16" else variable.dtype


def _stored_name(name: str) -> str:
    """A name, or ValueError if files cannot hold it."""
    try:
        fits = "\0" not in name and len(name.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:  # of half a surrogate pair
        fits = False
    if not fits:
        raise ValueError(
            "names of layers and weights must have no NUL, no lone surrogates and at most "
            f"{LONGEST_NAME} bytes to be saved, got {shown(name)}"
        )
    return name


# ----------------------------------------------------------------------------------------------------------- from files


def load_weights(model: Any, filepath: str | PathLike[str], by_name: bool, skip_mismatch: bool) -> None:
    """Read a model's weights; see `Sequential.load_weights`."""
    if skip_mismatch and not by_name:
        raise ValueError("When calling model.load_weights, skip_mismatch can only be set to True when by_name is True.")
    _check_built(model)
    path = as_path(filepath, "filepath")
    with _stored_layers(path, model, by_name) as stored:
        _assign(_by_name(model, stored, skip_mismatch, path) if by_name else _by_order(model, stored, path))


def load_model(filepath: str | PathLike[str], make: Callable[[str], Any]) -> Any:
    """The model in a whole-model file, by a function that makes it of its JSON text; see `sequential.load_model`."""
    path = as_path(filepath, "filepath")
    if path.suffix.lower() == ".npz":
        with npz.stored_layers(path), reading(path):
            raise Refused(WEIGHTS_ONLY)
    with hdf5.opened_hdf5(path) as file:
        text = file.config()
        with (
            weights_from_file(file.elements),
            _of_keras_3(file),
            reading(path, "describes a model that cannot be made"),
        ):
            model = make(text)
            if not model.built:
                raise ValueError(f"no layer says the shape of its input. {NO_SHAPE}")
        _assign(_by_order(model, file.layers(model, False), path))
    return model


@contextlib.contextmanager
def _of_keras_3(file: hdf5.ModelFile) -> Iterator[None]:
    """Within this context, an error about a file of Keras 3 says what that is and who reads it."""
    try:
        yield
    except ValueError as error:
        version = file.keras_version()
        if not version.startswith("3."):
            raise
        reason = str(error).removeprefix(f"{file.path} ")
        raise ValueError(
            f"{file.path} was written by Keras {shown(version)}: load it in Keras 3, for which localconv.keras has the "
            f"locally connected layers. localconv.layers makes models of Keras 2's layers, and this file {reason}"
        ) from error


@contextlib.contextmanager
def _stored_layers(path: Path, model: Any, by_name: bool) -> Iterator[list[StoredLayer]]:
    if path.suffix.lower() == ".npz":
        with npz.stored_layers(path) as stored:
            yield stored
    else:
        with hdf5.opened_hdf5(path) as file:
            yield file.layers(model, by_name)


def _assign(pairs: list[tuple[Variable, StoredArray]]) -> None:
    """Read one array after the other, and assign all of them or none."""
    assign_all((variable, _from_file(variable, array.read())) for variable, array in pairs)


def _from_file(variable: Variable, array: Array) -> Array:
    """What a file holds as the value of a weight that it fits."""
    return array.astype(BITS, copy=False).view(variable.dtype) if _stored_dtype(variable) == BITS else array


# ------------------------------------------------------------------------------------------ what belongs to which layer


def _by_order(model: Any, stored: list[StoredLayer], path: Path) -> list[tuple[Variable, StoredArray]]:
    layers, saved = [layer for layer in model.layers if layer.weights], [layer for layer in stored if layer.weights]
    if any(entry.layer is not None for entry in stored):
        layers, saved = [entry.layer for entry in stored], stored
    if len(layers) != len(saved):
        raise ValueError(
            f"Layer count mismatch when loading weights from file. Model expected {len(layers)} layers, found "
            f"{len(saved)} saved layers in {path}."
        )
    pairs: list[tuple[Variable, StoredArray]] = []
    for number, (layer, entry) in enumerate(zip(layers, saved, strict=True)):
        mismatch = _mismatch(number, layer, entry)
        if mismatch:
            raise ValueError(mismatch)
        pairs += zip(_stored_order(layer), entry.weights, strict=True)
    return pairs


def _by_name(
    model: Any, stored: list[StoredLayer], skip_mismatch: bool, path: Path
) -> list[tuple[Variable, StoredArray]]:
    by_name = {entry.name: entry for entry in stored}
    pairs: list[tuple[Variable, StoredArray]] = []
    known = False
    for number, layer in enumerate(model.layers):
        entry = by_name.get(layer.name)
        if entry is None or not (entry.weights or layer.weights):
            continue
        known = True
        mismatch = _mismatch(number, layer, entry)
        if not mismatch:
            pairs += zip(_stored_order(layer), entry.weights, strict=True)
        elif skip_mismatch:
            warnings.warn(f"Skipping loading of weights: {mismatch}", UserWarning, stacklevel=4)
        else:
            raise ValueError(mismatch)
    if not known:
        raise ValueError(
            f"No layer of the model has a name that {path} knows: it has "
            f"{shown([entry.name for entry in stored if entry.weights])}, "
            f"the model {shown([layer.name for layer in model.layers if layer.weights])}."
        )
    return pairs


def _mismatch(number: int, layer: Layer, entry: StoredLayer) -> str | None:
    """What is wrong between a layer and its weights in the file, in Keras's words; None if nothing is."""
    variables = _stored_order(layer)
    other = entry.name is not None and entry.name != layer.name
    in_file = f", {shortened(str(entry.name))} in the save file" if other else ""
    quantized = f", quantized by {layer.quantization_mode!r}" if layer.quantization_mode else ""
    where = f"layer #{number} (named {layer.name} in the current model{quantized}{in_file})"
    if len(variables) != len(entry.weights):
        return (
            f"Weight count mismatch for {where}. Layer expects {len(variables)} weight(s). "
            f"Received {len(entry.weights)} saved weight(s)"
        )
    for variable, array in zip(variables, entry.weights, strict=True):
        if variable.shape != array.shape:
            hint = ""
            if hasattr(layer, "implementation") and variable.ndim != len(array.shape):
                hint = ". Another implementation stored it: convert_implementation converts between them"
            return (
                f"Shape mismatch in {where} for weight {variable.name}. Weight expects shape {variable.shape}. "
                f"Received saved weight with shape {array.shape}{hint}"
            )
        expected = _stored_dtype(variable)
        if expected is None and array.dtype.newbyteorder("=") == BITS:
            return (
                f"Dtype mismatch in {where} for weight {variable.name}. Received saved weight of {BITS}, which is how "
                "layers quantized by 'bfloat16' are stored: quantize the model, then load"
            )
        if expected is not None and array.dtype.newbyteorder("=") != expected:
            return (
                f"Dtype mismatch in {where} for weight {variable.name}. Weight expects {expected}. Received saved "
                f"weight of {array.dtype}"
            )
    return None


def _stored_order(layer: Layer) -> list[Variable]:
    """A layer's weights in the order of files: those that train first."""
    return layer.trainable_weights + layer.non_trainable_weights


def _loaded_order(layer: Any) -> list[Variable]:
    """A layer's weights in the order that `_stored_order` has them in once a model is made of the config: that knows
    which layers train, and not which variables have been frozen since.
    """
    leaves, stack = [], [layer]
    while stack:
        layer_or_model = stack.pop()
        if hasattr(layer_or_model, "layers"):
            stack += layer_or_model.layers[::-1]
        else:
            leaves.append(layer_or_model)
    trains = {
        variable: leaf.trainable and leaf.quantization_mode is None and variable._made_trainable
        for leaf in leaves
        for variable in leaf._variables
    }
    return sorted(trains, key=trains.__getitem__, reverse=True)


def _check_built(model: Any) -> None:
    if not model.built:
        raise ValueError(
            f"Weights for model {model.name!r} have not yet been created. Weights are created when the model is first "
            "called on inputs or `build()` is called with an `input_shape`."
        )
