"""Models in files that Keras 2 wrote: .keras, .h5, and the JSON of `to_json`.

Keras 3 reads these forms, and stumbles over what they say: `configs` repairs that.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py  # which Keras needs
import keras

from .configs import Config, compile_config_of_h5, upgraded, upgraded_compile_config

__all__ = ["load_model", "model_from_json"]

# What Keras does for everything else; `install` puts the functions below in their place.
_load_model_of_keras = keras.saving.load_model
_model_from_json_of_keras = keras.models.model_from_json

WEIGHTS = "model.weights.h5"
H5, WEIGHTS_H5 = (".h5", ".hdf5"), ".weights.h5"
# What Keras 2 wrote beside the weights.
H5_ATTRIBUTES = ("keras_version", "model_config", "training_config")


def load_model(filepath: Any, custom_objects: Any = None, compile: bool = True, safe_mode: bool = True) -> Any:
    """`keras.saving.load_model`, also for .keras and .h5 files of Keras 2; those of 2.15 are tested.

    Parameters
    ----------
    filepath : path
    custom_objects, compile, safe_mode
        As in `keras.saving.load_model`. The optimizer of a file of Keras 2 starts anew: its state has another form.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError, TypeError, OSError
        As `keras.saving.load_model`. ValueError for a layer that Keras 3 has no counterpart of.
    """
    path = str(filepath)
    config = _config_in_h5(path) if path.endswith(H5) else _config_in_archive(path)
    if config is None:
        return _load_model_of_keras(filepath, custom_objects=custom_objects, compile=compile, safe_mode=safe_mode)
    # Later, so that nobody looks for the optimizer's state.
    compiled = config.pop("compile_config", None)
    model = _model(config, custom_objects, safe_mode=safe_mode)
    _load_weights(model, path)
    if compile and compiled:
        if path.endswith(H5):
            # A sequential model has one output, whose name is nowhere.
            compiled = compile_config_of_h5(compiled, getattr(model, "output_names", [""]))
        with keras.saving.custom_object_scope(custom_objects or {}):
            model.compile_from_config(upgraded_compile_config(compiled))
    return model


def model_from_json(json_string: str, custom_objects: Any = None) -> Any:
    """`keras.models.model_from_json`, also for what `to_json` of Keras 2 returned.

    Parameters
    ----------
    json_string : str
    custom_objects
        As in `keras.models.model_from_json`.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError, TypeError
        As `keras.models.model_from_json`. ValueError for a layer that Keras 3 has no counterpart of.
    """
    config = json.loads(json_string)
    if not isinstance(config, dict) or not _is_of_keras_2(config.get("keras_version")):
        return _model_from_json_of_keras(json_string, custom_objects=custom_objects)
    return _model(config, custom_objects)


def _model(config: Config, custom_objects: Any, **options: Any) -> Any:
    with keras.saving.custom_object_scope(custom_objects or {}):
        return keras.saving.deserialize_keras_object(upgraded(config), **options)


def _is_of_keras_2(version: Any) -> bool:
    return str(version).startswith("2.")


def _config_in_archive(path: str) -> Config | None:
    """The config of a model that Keras 2 saved in a .keras file; None for every other file."""
    if not path.endswith(".keras") or not Path(path).is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if "metadata.json" not in archive.namelist():
            return None
        metadata = json.loads(archive.read("metadata.json"))
        if not _is_of_keras_2(metadata.get("keras_version")):
            return None
        return dict(json.loads(archive.read("config.json")))


def _config_in_h5(path: str) -> Config | None:
    """The same of a .h5 file; compile_config is what that form has for it."""
    # Keras reads weights in another form from files of the second name.
    if path.endswith(WEIGHTS_H5) or not Path(path).is_file() or not h5py.is_hdf5(path):
        return None
    with h5py.File(path, "r") as file:
        texts = {name: _text(file.attrs[name]) for name in H5_ATTRIBUTES if name in file.attrs}
    if "model_config" not in texts or not _is_of_keras_2(texts.get("keras_version")):
        return None
    training = json.loads(texts.get("training_config", "null"))
    return {**json.loads(texts["model_config"]), "compile_config": training}


def _text(attribute: Any) -> str:
    return attribute.decode() if isinstance(attribute, bytes) else str(attribute)


def _load_weights(model: Any, path: str) -> None:
    if path.endswith(H5):
        model.load_weights(path)
        return
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        model.load_weights(archive.extract(WEIGHTS, folder))
