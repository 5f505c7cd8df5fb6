"""Models in .keras files that Keras 2 wrote.

Keras 3 reads the form, and stumbles over three things in it: the input's shape that Keras 2 noted in the first layer,
the place where it had functional models, and settings of optimizers that are gone. Old .h5 files it reads by itself.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras

__all__ = ["load_model", "upgraded"]

# What Keras does for every other file; `install` puts the function below in its place.
_load_model_of_keras = keras.saving.load_model

FUNCTIONAL = "keras.src.engine.functional", "keras.engine.functional"
# Arguments of Keras 2's optimizers.
GONE = ("is_legacy_optimizer", "jit_compile")
WEIGHTS = "model.weights.h5"


def load_model(filepath: Any, custom_objects: Any = None, compile: bool = True, safe_mode: bool = True) -> Any:
    """`keras.saving.load_model`, also for .keras files of Keras 2; those of 2.15 are tested.

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
        As `keras.saving.load_model`.
    """
    if not _is_of_keras_2(filepath):
        return _load_model_of_keras(filepath, custom_objects=custom_objects, compile=compile, safe_mode=safe_mode)
    with zipfile.ZipFile(filepath) as archive, tempfile.TemporaryDirectory() as folder:
        config = upgraded(json.loads(archive.read("config.json")))
        # Later, so that nobody looks for the optimizer's state.
        compiled = config.pop("compile_config", None)
        model = keras.saving.deserialize_keras_object(config, custom_objects=custom_objects, safe_mode=safe_mode)
        model.load_weights(archive.extract(WEIGHTS, folder))
    if compile and compiled:
        with keras.saving.custom_object_scope(custom_objects or {}):
            model.compile_from_config(compiled)
    return model


def _is_of_keras_2(path: Any) -> bool:
    """Whether this is a .keras file, and of Keras 2."""
    if not str(path).endswith(".keras") or not Path(path).is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if "metadata.json" not in archive.namelist():
            return False
        metadata = json.loads(archive.read("metadata.json"))
    return str(metadata.get("keras_version", "")).startswith("2.")


def upgraded(value: Any) -> Any:
    """A config that Keras 2 wrote, of a model or a part of one, as Keras 3 reads it."""
    if isinstance(value, list):
        return [upgraded(part) for part in value]
    if not isinstance(value, dict):
        return value
    found = {key: upgraded(part) for key, part in value.items()}
    if found.get("module") in FUNCTIONAL:
        found |= _place_of_functional_models()
    if isinstance(found.get("compile_config"), dict):
        # What Keras 2 left open; Keras 3 has other defaults, and takes no None for them.
        found["compile_config"] = {key: part for key, part in found["compile_config"].items() if part is not None}
    inner = found.get("config")
    if isinstance(inner, dict) and found.get("class_name") != "InputLayer":
        inner.pop("batch_input_shape", None)
        if "optimizers" in str(found.get("module")):
            for name in GONE:
                inner.pop(name, None)
    return found


def _place_of_functional_models() -> dict[str, Any]:
    """Where the Keras at hand has the class of functional models: what it writes itself."""
    x = keras.Input((1,))
    config = keras.saving.serialize_keras_object(keras.Model(x, x))
    return {key: config[key] for key in ("module", "class_name", "registered_name")}
