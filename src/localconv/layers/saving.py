"""Weights in files: NumPy's .npz, and the layouts of Keras 2.

A file becomes a list of `StoredLayer`, whatever its layout; one function then finds out which belongs to which layer, everything is
checked, and only then is anything assigned.

Keras 2 has two layouts. The older, .h5: a group for each layer, whose attribute weight_names lists the datasets in it, and the
names of the groups in the attribute layer_names; a whole model has all that under ``model_weights``. The newer, .weights.h5 and
the archive .keras around it: ``layers/NAME/vars/0``, where the name is that of the layer's class, numbered, and not the layer's own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from .base import Layer, assign_all
from .naming import snake_case
from .variables import Variable

# What files say that wrote them: Keras decides by it how to read them, and the layout is that of this version.
KERAS_VERSION = "2.15.0"
BACKEND = "tensorflow"

# HDF5 keeps the attributes of a group in a header of 64 KiB; longer lists are cut into NAME0, NAME1, ...
ATTRIBUTE_LIMIT = 64512

# The member of a .npz that lists layers and their weights in order; it cannot be a weight's name.
NPZ_INDEX = "localconv layers"


@dataclass
class StoredLayer:
    """A layer's weights in a file: its name, where the file has one, and the arrays in order."""

    name: str | None
    weights: list[Array]


# ----------------------------------------------------------------------------------------------------------------------------- to files


def save_weights(model: Any, filepath: str | PathLike[str], overwrite: bool) -> None:
    """Write a model's weights, in the format of the file's suffix; see `Sequential.save_weights`."""
    path = Path(filepath)
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".h5", ".hdf5") or path.name.endswith(".weights.h5"):
        raise ValueError(f"filepath must end in .npz, .h5 or .hdf5 (and not in .weights.h5, another format), got {str(path)!r}")
    _check_built(model)
    if path.exists() and not overwrite:
        raise FileExistsError(f"filepath exists, and overwrite is False: {str(path)!r}")
    write = _write_npz if suffix == ".npz" else _write_h5
    # Written beside it first: what was there stays whole if this fails.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(model, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_npz(model: Any, path: Path) -> None:
    arrays: dict[str, Array] = {}
    index = []
    for layer in model.layers:
        names = [f"{layer.name}/{variable.name}" for variable in _stored_order(layer)]
        index.append([layer.name, names])
        arrays |= dict(zip(names, (variable.value for variable in _stored_order(layer)), strict=True))
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{NPZ_INDEX: np.array(json.dumps(index))}, **arrays)


def _write_h5(model: Any, path: Path) -> None:
    with _h5py().File(path, "w") as file:
        _write_names(file, "layer_names", [layer.name for layer in model.layers])
        file.attrs["backend"] = BACKEND.encode()
        file.attrs["keras_version"] = KERAS_VERSION.encode()
        for layer in model.layers:
            _write_group(file.create_group(layer.name), _stored_order(layer))
        _write_group(file.create_group("top_level_model_weights"), [])


def _write_group(group: Any, variables: Sequence[Variable]) -> None:
    _write_names(group, "weight_names", [variable.name for variable in variables])
    for variable in variables:
        group.create_dataset(variable.name, data=variable.value)


def _write_names(group: Any, attribute: str, names: Sequence[str]) -> None:
    array = np.array([name.encode() for name in names]) if names else np.array([], "S1")
    parts = 1
    while parts < len(array) and any(part.nbytes > ATTRIBUTE_LIMIT for part in np.array_split(array, parts)):
        parts += 1
    if parts == 1:
        group.attrs[attribute] = array
        return
    for number, part in enumerate(np.array_split(array, parts)):
        group.attrs[f"{attribute}{number}"] = part


# --------------------------------------------------------------------------------------------------------------------------- from files


def load_weights(model: Any, filepath: str | PathLike[str], by_name: bool, skip_mismatch: bool) -> None:
    """Read a model's weights; see `Sequential.load_weights`."""
    if skip_mismatch and not by_name:
        raise ValueError("When calling model.load_weights, skip_mismatch can only be set to True when by_name is True.")
    _check_built(model)
    path = Path(filepath)
    stored = _read_npz(path) if path.suffix.lower() == ".npz" else _read_h5(path, model, by_name)
    pairs = _by_name(model, stored, skip_mismatch, path) if by_name else _by_order(model, stored, path)
    assign_all(pairs)


def model_config(filepath: str | PathLike[str]) -> str:
    """The JSON text that describes the model in a whole-model file. ValueError if there is none."""
    path = Path(filepath)
    with _open_h5(path) as file:
        text = file.attrs.get("model_config")
        if text is None and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                text = archive.read("config.json")
    if text is None:
        raise ValueError(f"{path} holds no model but weights only: make the model, then load_weights")
    return text.decode() if isinstance(text, bytes) else str(text)


def _read_npz(path: Path) -> list[StoredLayer]:
    with path.open("rb") as source:
        if not zipfile.is_zipfile(source):
            raise ValueError(f"{path} is damaged, or was not written by save_weights")
        try:
            with np.load(source, allow_pickle=False) as file:
                if NPZ_INDEX not in file.files:
                    raise ValueError(f"{path} was not written by save_weights")
                index = json.loads(str(file[NPZ_INDEX]))
                return [StoredLayer(name, [file[key] for key in keys]) for name, keys in index]
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error


def _read_h5(path: Path, model: Any, by_name: bool) -> list[StoredLayer]:
    with _open_h5(path) as file:
        root = file.get("model_weights", file)
        if "layer_names" in root.attrs or "layer_names0" in root.attrs:
            return _read_groups(root, path)
        if "layers" in root:
            if by_name:
                raise ValueError(f"{path} does not hold the layers' names (files .weights.h5 and .keras do not): load it by order")
            return list(_read_numbered(root["layers"], model, path))
    raise ValueError(f"{path} is an HDF5 file, but does not hold weights as Keras 2 writes them")


def _read_groups(root: Any, path: Path) -> list[StoredLayer]:
    """The older layout."""
    version, backend = (_text(root.attrs.get(name, default)) for name, default in (("keras_version", KERAS_VERSION), ("backend", BACKEND)))
    if version.startswith("1.") or backend == "theano":
        raise ValueError(f"{path} was written by Keras {version} with {backend}, which stores kernels another way: only files of Keras 2 "
                         "with TensorFlow can be read")
    try:
        return [StoredLayer(name, [np.asarray(root[name][weight]) for weight in _read_names(root[name], "weight_names")])
                for name in _read_names(root, "layer_names")]
    except (KeyError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_numbered(group: Any, model: Any, path: Path) -> Iterator[StoredLayer]:
    """The newer layout, which names layers by their class and number among those of that class."""
    seen: Counter[str] = Counter()
    for layer in model.layers:
        base = snake_case(type(layer).__name__)
        key = f"{base}_{seen[base]}" if seen[base] else base
        seen[base] += 1
        if not layer.weights:
            continue
        if key not in group:
            raise ValueError(f"{path} has no layer {key!r} for the layer {layer.name}, it has {sorted(group)}")
        if hasattr(layer, "layers"):
            inner = [array for stored in _read_numbered(group[key]["layers"], layer, path) for array in stored.weights]
            yield StoredLayer(None, inner)
        else:
            variables = group[key]["vars"]
            yield StoredLayer(None, [np.asarray(variables[str(number)]) for number in range(len(variables))])
    expected = {f"{base}_{number}" if number else base for base, count in seen.items() for number in range(count)}
    more = [key for key in group if key not in expected and len(group[key].get("vars", ()))]
    if more:
        raise ValueError(f"{path} has layers with weights that the model has not: {more}")


def _read_names(group: Any, attribute: str) -> list[str]:
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    names: list[str] = []
    number = 0
    while f"{attribute}{number}" in group.attrs:
        names += [_text(name) for name in group.attrs[f"{attribute}{number}"]]
        number += 1
    return names


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# -------------------------------------------------------------------------------------------------------- what belongs to which layer


def _by_order(model: Any, stored: list[StoredLayer], path: Path) -> list[tuple[Variable, Array]]:
    layers, found = [layer for layer in model.layers if layer.weights], [layer for layer in stored if layer.weights]
    if len(layers) != len(found):
        raise ValueError(f"Layer count mismatch when loading weights from file. Model expected {len(layers)} layers, found {len(found)} "
                         f"saved layers in {path}.")
    pairs: list[tuple[Variable, Array]] = []
    for number, (layer, entry) in enumerate(zip(layers, found, strict=True)):
        mismatch = _mismatch(number, layer, entry)
        if mismatch:
            raise ValueError(mismatch)
        pairs += zip(_stored_order(layer), entry.weights, strict=True)
    return pairs


def _by_name(model: Any, stored: list[StoredLayer], skip_mismatch: bool, path: Path) -> list[tuple[Variable, Array]]:
    found = {entry.name: entry for entry in stored}
    pairs: list[tuple[Variable, Array]] = []
    known = False
    for number, layer in enumerate(model.layers):
        entry = found.get(layer.name)
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
        raise ValueError(f"No layer of the model has a name that {path} knows: it has {[entry.name for entry in stored if entry.weights]}, "
                         f"the model {[layer.name for layer in model.layers if layer.weights]}.")
    return pairs


def _mismatch(number: int, layer: Layer, entry: StoredLayer) -> str | None:
    """What is wrong between a layer and its weights in the file, in Keras's words; None if nothing is."""
    variables = _stored_order(layer)
    in_file = f", {entry.name} in the save file" if entry.name not in (None, layer.name) else ""
    where = f"layer #{number} (named {layer.name} in the current model{in_file})"
    if len(variables) != len(entry.weights):
        return (f"Weight count mismatch for {where}. Layer expects {len(variables)} weight(s). "
                f"Received {len(entry.weights)} saved weight(s)")
    for variable, array in zip(variables, entry.weights, strict=True):
        if variable.shape != array.shape:
            hint = ""
            if hasattr(layer, "implementation") and variable.ndim != array.ndim:
                hint = ". Another implementation stored it: convert_implementation converts between them"
            return (f"Shape mismatch in {where} for weight {variable.name}. Weight expects shape {variable.shape}. "
                    f"Received saved weight with shape {array.shape}{hint}")
    return None


def _stored_order(layer: Layer) -> list[Variable]:
    """A layer's weights in the order of files: those that train first."""
    return layer.trainable_weights + layer.non_trainable_weights


def _check_built(model: Any) -> None:
    if not model.built:
        raise ValueError(f"Weights for model {model.name!r} have not yet been created. Weights are created when the model is first called "
                         "on inputs or `build()` is called with an `input_shape`.")


# ------------------------------------------------------------------------------------------------------------------------------- h5py


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError("files .h5 and .keras need h5py: pip install 'localconv[h5]'") from None
    return h5py


@contextlib.contextmanager
def _open_h5(path: Path) -> Iterator[Any]:
    """The HDF5 file at this path, or inside the archive at this path, open for reading."""
    h5py = _h5py()
    source: Any = path
    if not path.exists():
        raise FileNotFoundError(f"filepath does not exist: {str(path)!r}")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "model.weights.h5" not in archive.namelist():
                raise ValueError(f"{path} is an archive without model.weights.h5: not a .keras file")
            source = io.BytesIO(archive.read("model.weights.h5"))
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file that can be read: {error}") from error
    with file:
        yield file
