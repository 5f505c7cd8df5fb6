"""Files of models and weights in other formats."""

from __future__ import annotations

import json
from math import prod
from os import PathLike
from pathlib import Path

from ..core.arrays import Array
from .arguments import as_path
from .files import contents, hdf5, npz
from .files.saving import checked_weights_path, write_weights
from .files.saving import load_model as load
from .files.stored import Refused, StoredLayer, limit_of, reading
from .quantization import checked_mode
from .sequential import LAYERS, Sequential, load_model

ONNX = ".onnx"
SUFFIXES = (*contents.SUFFIXES, ONNX)
# Keras's backends from which it writes ONNX, of models that only Keras opens.
KERAS_BACKENDS = ("tensorflow", "torch", "jax")


class OfOtherLayers(ValueError):
    """A model that is to be exported cannot be made of the layers of this package; Keras perhaps can make it."""


def convert_file(
    old: str | PathLike[str], new: str | PathLike[str], mode: str | None = None, overwrite: bool = False
) -> None:
    """Write what a file holds as another file.

    Parameters
    ----------
    old : path
        A model (.keras, .h5) or weights (.h5, .npz).
    new : path
        .keras for a model, .npz for weights, .h5 for either, .onnx for a model's forward pass. Of a model, .npz takes
        the weights alone.
    mode : {'int8', 'float16', 'bfloat16'}, optional
        Quantize the model, as `Sequential.quantize` does, which warns of what cannot be.
    overwrite : bool, optional
        Whether a file of the name `new` may be replaced.

    Raises
    ------
    ValueError
        If `old` is damaged or holds no model where one is needed, for another suffix of `new`, and as `load_model` and
        `Sequential.quantize` and `Sequential.export`; `OfOtherLayers` for an .onnx of a model that has others.
    OSError
        If a file cannot be read or written; FileExistsError if `new` is there, without `overwrite`.
    ImportError
        If h5py or onnx is needed and missing.

    Notes
    -----
    `old` may be anybody's, with the limits of `load_model`.
    """
    source, target = as_path(old, "old"), as_path(new, "new")
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the new file must end in one of {', '.join(SUFFIXES)}, got {str(target)!r}")
    if mode is not None:
        checked_mode(mode, "mode")
    suffix = target.suffix.lower()
    if _holds_model(source):
        model = _model_to_export(source) if suffix == ONNX else load_model(source)
        if mode is not None:
            model.quantize(mode)
        write = {".npz": model.save_weights, ONNX: model.export}.get(suffix, model.save)
        write(target, overwrite)
        return
    if mode is not None or suffix in (".keras", ONNX):
        wanted = "be quantized" if mode is not None else f"become a {suffix}"
        raise ValueError(f"{source} holds weights only, and what is to {wanted} must hold a model")
    checked = checked_weights_path(target)
    write_weights(_weights_of(source), checked, overwrite)


def _model_to_export(path: Path) -> Sequential:
    """The model in a file. `OfOtherLayers` if what it describes has others, or is in the words of Keras 3."""
    refused: str | None = None

    def make(text: str) -> Sequential:
        nonlocal refused
        refused = text
        made = Sequential.from_json(text)
        refused = None
        return made

    try:
        model: Sequential = load(path, make)
    except ValueError as error:
        if refused is not None and (_has_other_layers(refused) or _is_of_keras_3(path)):
            raise OfOtherLayers(str(error)) from error
        raise
    return model


def _has_other_layers(text: str) -> bool:
    """Whether a description that is none of a `Sequential` here is one of a model with layers of other classes."""
    try:
        stack = [json.loads(text)]
    except (ValueError, RecursionError):
        return False
    while stack:
        entry = stack.pop()
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            return False
        if entry["class_name"] not in LAYERS.names():
            return True
        if entry["class_name"] == "Sequential":
            config = entry.get("config")
            inner = config if isinstance(config, list) else config.get("layers") if isinstance(config, dict) else None
            if not isinstance(inner, list):
                return False
            stack += inner
    return False


def _is_of_keras_3(path: Path) -> bool:
    with hdf5.opened_hdf5(path) as file:
        return file.keras_version().startswith("3.")


def _holds_model(path: Path) -> bool:
    if path.suffix.lower() == ".npz":
        return False
    with hdf5.opened_hdf5(path) as file:
        return file.has_config


def _weights_of(path: Path) -> list[tuple[str, dict[str, Array]]]:
    """All weights of a file, by the names of layers and their own."""
    if path.suffix.lower() == ".npz":
        with npz.stored_layers(path) as stored:
            return _read(path, stored)
    with hdf5.opened_hdf5(path) as file:
        if file.is_newer:
            with reading(path):
                raise Refused(
                    "does not hold the layers' names (.weights.h5 files do not): make the model, load_weights, and save"
                )
        return _read(path, file.layers(None, True))


def _read(path: Path, stored: list[StoredLayer]) -> list[tuple[str, dict[str, Array]]]:
    with reading(path):
        declared = sum(prod(array.shape) * array.dtype.itemsize for layer in stored for array in layer.weights)
        if declared > limit_of(path.stat().st_size):
            raise Refused(f"declares {declared} bytes of weights, far more than it has")
        names = [layer.name for layer in stored]
        if len(set(names)) < len(names):
            raise Refused("has layers of one name")
        layers = []
        for layer in stored:
            weights = {array.name.removeprefix(f"{layer.name}/"): array.read() for array in layer.weights}
            if len(weights) < len(layer.weights):
                raise Refused("has weights of one name in a layer")
            layers.append((str(layer.name), weights))
    return layers
